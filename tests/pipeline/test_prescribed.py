"""What `--help` shows of a task: the values that its protocol has, not those of the adapter's signature."""

from pathlib import Path

import pytest

from evalkit.cli import main
from evalkit.config.parse import resolve
from evalkit.pipeline.settings import prescribed_values, used
from evalkit.results import consistency


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, str]:
    """The default of each key."""
    assert main(["run", *words, "--help"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    rows = [words for words in lines if words and words[0].startswith(("adapter.", "clip."))]
    return {key: " ".join(rest) for key, *rest in rows}


def test_a_protocol_is_known_without_data(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    keys = shown(capsys, "task=kinetics400", "data.protocol=videoprism", "data.root=/no/where")
    assert keys["adapter.epochs"].startswith("a whole number 150 ") and keys["adapter.lr"].startswith(
        "a number 0.0001 "
    )
    assert keys["clip.frames"].startswith("a whole number or none 16 ") and " 288 " in keys["clip.size"]
    assert keys["adapter.dropout"].startswith("a number 0.5 ") and keys["adapter.token_grid"].startswith(
        "a whole number 0 "
    )


def test_a_miniature_has_values_of_its_own(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    assert shown(capsys, "task=kinetics400", "mini=true")["adapter.epochs"].startswith("a whole number 60 ")
    assert " 30 " in shown(capsys, "task=kinetics400", "adapter=finetune")["adapter.epochs"]


def test_what_only_the_data_tell_is_left_open() -> None:
    assert prescribed_values(["task=egoschema", "data.root=/no/where"]) == ("", {})
    protocol, values = prescribed_values(["task=kinetics400", "data.protocol=vjepa2", "adapter=attentive_classifier"])
    assert protocol == "vjepa2" and values["adapter.blocks"] == 4 and values["clip.clips"] == 8


def test_a_configuration_ends_in_what_was_used_and_is_the_same_without(tmp_path: Path) -> None:
    config = resolve("run", ["task=folder", "ckpt=demo", "adapter.lr=0.5", "clip.frames=8"])
    settings = {"head": "linear", "lr": 0.5, "epochs": 150, "from": "x"}
    tail = used(config, settings, {"frames": 8, "size": 288, "fps": None})
    assert tail == "# Of these, this run used:\n# adapter.head: linear\n# adapter.epochs: 150\n# clip.size: 288\n"
    assert used(config, {}, {}) == ""
    whole = config.to_yaml() + tail
    assert consistency._stamp_of(whole.encode()) == consistency._stamp_of(config.to_yaml().encode())
    (tmp_path / "config.yaml").write_text(whole)
    assert resolve("run", [f"config={tmp_path / 'config.yaml'}"]) == config
