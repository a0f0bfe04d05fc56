"""`evalkit adapt` writes a folder that `ckpt=` and `adapter.from=` take, and nothing else changes."""

import hashlib
import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from evalkit import encoders, plugins
from evalkit.cli import main
from evalkit.errors import UserError
from evalkit.results import run_folder
from evalkit.runtime.atomic import rename
from evalkit.weights import checkpoint
from tests.given import evalkit, mistake

adaptation = importlib.import_module("evalkit.leaderboard.columns").adaptation

pytestmark = pytest.mark.usefixtures("decoding_here")

TASK = '''
"""Which way a shape moves."""

from pathlib import Path

from evalkit.api import Example, Task
from evalkit.metrics import accuracy

ADAPTER = "multiple_choice"
OPTIONS = ("a red circle moves left", "a red circle moves right", "a blue ring grows")


def task(root: Path, train: bool = True) -> Task:
    """Asks which way a shape moves.

    Args:
        root: folder of the films.
        train: whether there is a train split.
    """
    films = sorted(root.glob("*.mp4"))
    questions = [Example(f.stem, f, i % 2, text="What?", choices=OPTIONS) for i, f in enumerate(films)]
    return Task(test=questions[:4], train=questions[4:] if train else (), score=accuracy, chance=100 / 3)
'''


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory, films: Path) -> list[str]:
    """The task, in words."""
    file = tmp_path_factory.mktemp("task") / "my_task.py"
    file.write_text(TASK)
    return [f"task={file}", f"data.root={films}", "workers=1", "canary=false"]


def files(folder: Path) -> dict[str, str]:
    """Hash of every file."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


@pytest.fixture(scope="module")
def resampled(tmp_path_factory: pytest.TempPathFactory, words: list[str], tiny: Path, lm: Path) -> Path:
    """A folder that multiple_choice was adapted into; encoder and LM are frozen and must stay as they are."""
    before = files(tiny), files(lm)
    out = tmp_path_factory.mktemp("adapted") / "deep" / "resampled"
    settings = ["adapter.epochs=2", "adapter.latents=4", "adapter.depth=1", "adapter.batch_size=3"]
    assert evalkit("adapt", *words, f"ckpt={tiny}", f"lm={lm}", f"out={out}", *settings) == out
    assert (files(tiny), files(lm)) == before
    return out


def test_a_frozen_encoder_is_pointed_to_and_not_copied(resampled: Path, tiny: Path) -> None:
    assert sorted(files(resampled)) == [
        "adapters/multiple_choice/adapter.json",
        "adapters/multiple_choice/adapter.safetensors",
        "encoder.json",
    ]
    pointer = json.loads((resampled / "encoder.json").read_text())
    encoder: Any = encoders.load_encoder(str(tiny))
    assert pointer == {"ckpt": str(tiny), "seed": 0, "settings": {}, "sha256": checkpoint.sha256(encoder)}
    assert not [path for path in resampled.parent.iterdir() if path != resampled]


def test_the_record_beside_the_weights_says_how_they_came_to_be(resampled: Path, lm: Path) -> None:
    record = json.loads((resampled / "adapters" / "multiple_choice" / "adapter.json").read_text())
    assert record["adapter"] == "multiple_choice" and record["task"] == "my_task"
    assert record["settings"]["latents"] == 4 and record["settings"]["lm"] == str(lm)
    assert len(record["selection"]["val_scores"]) == 2 and record["selection"]["n_val"] == 1
    assert "adapter.latents: 4" in record["config"]
    assert sorted(record["frozen"]) == ["encoder", "lm"]


def test_ckpt_and_adapter_from_take_the_folder_and_give_one_score(
    resampled: Path, words: list[str], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_ckpt = run_folder.load(evalkit("run", *words, f"ckpt={resampled}", f"out={tmp_path}"))
    by_from = run_folder.load(evalkit("run", *words, f"ckpt={tiny}", f"adapter.from={resampled}", f"out={tmp_path}"))
    assert by_ckpt["scores"] == by_from["scores"] and by_ckpt["data"] == by_from["data"]
    assert by_ckpt["encoder"]["sha256"] == by_from["encoder"]["sha256"]
    assert by_ckpt["adapter"]["settings"]["latents"] == 4  # as it was trained, without being told again
    assert by_ckpt["adapter"]["settings"]["from"] == str(resampled / "adapters" / "multiple_choice")
    assert by_ckpt["selection"] is None and by_ckpt["cost"]["fit_s"] == 0
    assert by_ckpt["adapter"]["trained_on"] == ["my_task"] and adaptation(by_ckpt) == adaptation(by_from) == "frozen"


def test_the_folder_works_from_anywhere_though_the_encoder_was_named_relatively(
    words: list[str], tiny: Path, lm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny.parent)
    out = evalkit("adapt", *words, "ckpt=tiny", f"lm={lm}", f"out={tmp_path / 'out'}", "adapter.epochs=1")
    monkeypatch.chdir(tmp_path)
    assert encoders.load_encoder(str(out)).dim == 24


def test_another_encoder_than_the_trained_one_is_refused(
    resampled: Path, words: list[str], tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = other_weights(tiny, tmp_path / "other")
    told = mistake(capsys, "run", *words, f"ckpt={other}", f"adapter.from={resampled}", f"out={tmp_path / 'out'}")
    assert told.startswith(f"{resampled / 'adapters' / 'multiple_choice'} was trained with encoder ")
    assert told.endswith(": train it again, or adapter.from=none fits a new one")


def test_a_pointer_whose_encoder_has_changed_is_refused(resampled: Path, tiny: Path, tmp_path: Path) -> None:
    changed = other_weights(tiny, tmp_path / "changed")
    pointer = json.loads((resampled / "encoder.json").read_text())
    (tmp_path / "encoder.json").write_text(json.dumps(pointer | {"ckpt": str(changed)}))
    with pytest.raises(UserError) as caught:
        encoders.load_encoder(str(tmp_path))
    told = str(caught.value)
    assert told.startswith(f"{tmp_path} was trained on encoder {changed} with weights {pointer['sha256'][:12]}, which ")
    assert "train the adapter again" in told
    (tmp_path / "encoder.json").write_text("{}")
    with pytest.raises(UserError, match="does not name an encoder: wanted ckpt and sha256"):
        encoders.load_encoder(str(tmp_path))


def test_a_probe_is_not_taken_for_other_classes(
    films: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, labels in (("ways", ("left", "right")), ("beasts", ("yak", "zebra")), ("more", ("gnu", "yak", "zebra"))):
        rows = [
            f"{film},{labels[i % len(labels)]},{'train' if i > 3 else 'test'}"
            for i, film in enumerate(sorted(films.iterdir()))
        ]
        (tmp_path / f"{name}.csv").write_text("\n".join(["path,label,split", *rows]))
    words = ["task=folder", f"data.root={tmp_path / 'ways.csv'}", "workers=1"]
    out = evalkit("adapt", *words, f"ckpt={tiny}", f"out={tmp_path / 'probed'}", "adapter.epochs=1")
    told = mistake(capsys, "run", words[0], f"data.root={tmp_path / 'beasts.csv'}", f"ckpt={out}", f"out={tmp_path}")
    assert told.startswith(
        f"{out / 'adapters' / 'probe'} was trained for 2 classes (task folder), and task folder has 2 others: "
    )
    told = mistake(capsys, "run", words[0], f"data.root={tmp_path / 'more.csv'}", f"ckpt={out}", f"out={tmp_path}")
    assert "for 2 classes (task folder), and task folder has 3: train one on it" in told
    # its folder only points to the encoder; one that is tuned starts from there
    settings = ["adapter=contrastive", "adapter.epochs=1", f"out={tmp_path / 'tuned'}"]
    assert (evalkit("adapt", *words, f"ckpt={out}", *settings) / "model.safetensors").is_file()


def other_weights(tiny: Path, folder: Path) -> Path:
    """A copy of the checkpoint with one weight changed."""
    folder.mkdir()
    for file in tiny.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    module: Any = encoders.load_encoder(str(folder))
    with torch.no_grad():
        module.norm.bias[3] += 1
    checkpoint.save(module, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def tuned_folder(tmp_path_factory: pytest.TempPathFactory, words: list[str], tiny: Path) -> Path:
    """A folder of an encoder that contrastive has tuned; the one it came from must stay as it is."""
    before = files(tiny)
    settings = ["adapter=contrastive", "adapter.epochs=2", "adapter.mask_ratio=0.5", "adapter.batch_size=4"]
    out = tmp_path_factory.mktemp("adapted") / "tuned"
    assert evalkit("adapt", *words, f"ckpt={tiny}", f"out={out}", *settings) == out
    assert files(tiny) == before
    return out


def test_a_tuned_encoder_is_written_whole(tuned_folder: Path, words: list[str], tiny: Path, tmp_path: Path) -> None:
    out = tuned_folder
    assert sorted(files(out)) == [
        "adapters/contrastive/adapter.json",
        "adapters/contrastive/adapter.safetensors",
        "config.json",
        "model.safetensors",
        "tokenizer.model",
    ]
    tuned, old = (encoders.load_encoder(str(folder)) for folder in (out, tiny))
    assert isinstance(tuned, torch.nn.Module) and isinstance(old, torch.nn.Module)
    assert checkpoint.sha256(tuned) != checkpoint.sha256(old)
    record = run_folder.load(
        evalkit("run", *words, f"ckpt={out}", "adapter=contrastive", f"out={tmp_path / 'results'}")
    )
    assert record["status"] == "complete" and record["encoder"]["name"] == "tuned"
    assert record["adapter"]["settings"]["mask_ratio"] == 0.5
    assert record["encoder"]["trained_on"] == {record["task"]["name"]: "captions"}


@pytest.mark.parametrize("content", ["a file", "a folder"])
def test_a_taken_out_is_refused_and_untouched(
    words: list[str], tiny: Path, lm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    out = tmp_path / "out"
    if content == "a folder":
        out.mkdir()
        (out / "notes.txt").write_text("mine")
    else:
        out.write_text("mine")
    told = mistake(capsys, "adapt", *words, f"ckpt={tiny}", f"lm={lm}", f"out={out}")
    assert told == f"out={out} exists and is not empty; nothing is overwritten: name another folder"
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["mine"]


def test_an_out_that_is_written_meanwhile_is_refused_and_untouched(
    words: list[str], tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def other_first(hidden: Path, place: Path) -> Path:
        place.mkdir()
        (place / "notes.txt").write_text("another's")
        return rename(hidden, place)

    monkeypatch.setattr("evalkit.pipeline.adapt.rename", other_first)
    told = mistake(capsys, "adapt", *words, f"ckpt={tiny}", "adapter=contrastive", "adapter.epochs=1", f"out={out}")
    assert told == f"out={out} was written while this training ran; nothing is overwritten"
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "notes.txt"]


@pytest.mark.parametrize("adapter", ["contrastive", "masked_distillation", "multiple_choice"])
def test_no_epochs_are_refused(
    words: list[str], tiny: Path, lm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], adapter: str
) -> None:
    given = [f"adapter={adapter}", "adapter.epochs=0", *([f"lm={lm}"] if adapter == "multiple_choice" else [])]
    told = mistake(capsys, "adapt", *words, f"ckpt={tiny}", *given, f"out={tmp_path / 'out'}")
    assert told == "adapter.epochs=0: nothing would be learned that could be written; give 1 or more"


def test_an_out_that_cannot_be_written_is_refused_before_anything_is_trained(
    words: list[str], tiny: Path, lm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "out"
    told = mistake(capsys, "adapt", *words, f"ckpt={tiny}", f"lm={lm}", f"out={out}")
    assert told == f"out={out}: cannot write there: Not a directory"


def test_a_task_without_train_split_is_refused(
    words: list[str], tiny: Path, lm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    told = mistake(capsys, "adapt", *words, "data.train=false", f"ckpt={tiny}", f"lm={lm}", f"out={out}")
    assert told == "task my_task has no train split to adapt on; adapt on another task"
    assert not out.exists()


def test_an_encoder_of_ones_own_cannot_be_tuned_into_a_checkpoint(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_tower.py").write_text(
        f"from evalkit.encoders import load_encoder\n\ndef make():\n    return load_encoder({str(tiny)!r})\n"
    )
    told = mistake(capsys, "adapt", *words, "ckpt=my_tower:make", "adapter=contrastive", "out=out")
    assert told.startswith("ckpt=my_tower:make is not a checkpoint that evalkit wrote, so a trained copy cannot be")
    assert not (tmp_path / "out").exists()


def test_a_failed_adaptation_leaves_nothing(
    words: list[str], tiny: Path, lm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("evalkit.weights.trained_adapter.save_file", full)
    monkeypatch.setattr("evalkit.pipeline.adapt.fit_adapter", lambda experiment, trainer, seed: ({}, 0.0))
    assert main(["adapt", *words, f"ckpt={tiny}", f"lm={lm}", f"out={tmp_path / 'out'}"]) == 2
    assert not list(tmp_path.iterdir())


def test_an_adapter_in_a_file_of_its_own_is_kept_under_its_name(
    words: list[str], tiny: Path, lm: Path, tmp_path: Path
) -> None:
    file = tmp_path / "my_adapter.py"
    file.write_text("from evalkit.adapters.multiple_choice import adapter  # noqa: F401\n")
    assert plugins.factory("adapter", str(file)) is plugins.factory("adapter", "multiple_choice")
    mine = [*words, f"adapter={file}", f"lm={lm}"]
    out = evalkit("adapt", *mine, f"ckpt={tiny}", f"out={tmp_path / 'out'}", "adapter.epochs=1")
    assert (out / "adapters" / "my_adapter" / "adapter.json").is_file()
    assert run_folder.load(evalkit("run", *mine, f"ckpt={out}", f"out={tmp_path / 'results'}"))["selection"] is None


def test_a_setting_of_fitting_is_refused_where_the_adapter_comes_trained(
    resampled: Path, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = mistake(capsys, "run", *words, f"ckpt={resampled}", "adapter.lr=1e-4", f"out={tmp_path}")
    home = resampled / "adapters" / "multiple_choice"
    assert told == (
        f"adapter.lr has no effect: the adapter comes trained from {home}. adapter.from=none fits a new one"
    )


def test_a_setting_of_fitting_is_refused_where_a_run_does_not_fit(
    words: list[str], tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = mistake(capsys, "run", *words, f"ckpt={tiny}", "adapter=contrastive", "adapter.lr=5", f"out={tmp_path}")
    assert told == "adapter.lr has no effect: the adapter trains the encoder too, which evalkit adapt does"


def test_adapter_from_none_fits_a_new_one(resampled: Path, words: list[str], tmp_path: Path) -> None:
    settings = ["adapter.epochs=1", "adapter.latents=2", "adapter.depth=1", "controls=false"]
    record = evalkit("run", *words, f"ckpt={resampled}", "adapter.from=none", *settings, f"out={tmp_path}")
    found = run_folder.load(record.parent)
    assert found["selection"]["chosen"]["epochs"] == 1 and found["adapter"]["settings"]["latents"] == 2
    assert found["adapter"]["settings"]["from"] == ""


def test_adapter_from_of_a_tuned_encoder_says_to_give_the_whole_as_ckpt(
    tuned_folder: Path, words: list[str], tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = mistake(capsys, "run", *words, f"ckpt={tiny}", "adapter=contrastive", f"adapter.from={tuned_folder}")
    assert told == f"adapter contrastive trains the encoder too: give the whole as ckpt={tuned_folder}"


def test_masked_distillation_writes_an_encoder_without_its_decoders(
    words: list[str], tiny: Path, tmp_path: Path
) -> None:
    settings = [
        "adapter=masked_distillation",
        "adapter.epochs=2",
        "adapter.decoder_width=16",
        "adapter.decoder_depth=1",
    ]
    out = evalkit("adapt", *words, f"ckpt={tiny}", f"out={tmp_path / 'out'}", *settings)
    assert {"config.json", "model.safetensors", "tokenizer.model"} < files(out).keys()
    folder = out / "adapters" / "masked_distillation"
    assert checkpoint.read_weights(folder / "adapter.safetensors").keys() == {"log_scale"}
    record = json.loads((folder / "adapter.json").read_text())
    scores = record["selection"]["val_scores"]
    assert len(scores) == 2 and record["selection"]["val_score"] == max(scores) and max(scores) < 100
    before, after = (encoders.load_encoder(str(place)) for place in (tiny, out))
    assert isinstance(before, torch.nn.Module) and isinstance(after, torch.nn.Module)
    changed = {name for name, value in before.named_parameters() if not torch.equal(value, after.get_parameter(name))}
    assert any(name.startswith("blocks.") for name in changed) and not any(name.startswith("text.") for name in changed)
    again = evalkit("adapt", *words, f"ckpt={out}", f"out={tmp_path / 'again'}", *settings)
    assert "model.safetensors" in files(again)
