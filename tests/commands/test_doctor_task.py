"""`evalkit doctor task=NAME`: what a run of these words lacks on this machine, by its exit code and a line each."""

import csv
import json
import shutil
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from evalkit.cli import main
from evalkit.commands.workspace import _needs, doctor
from evalkit.demo import LANGUAGE_MODEL
from evalkit.errors import UserError, install
from evalkit.weights import huggingface


def rows(*words: str) -> dict[str, tuple[str, bool]]:
    return {what: (told, wrong) for what, told, wrong in _needs.examine(words)}


def none(name: str) -> str:
    raise PackageNotFoundError(name)


def test_a_miniature_with_the_embedded_encoder_lacks_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "task=egoschema", "ckpt=demo", "mini=true"]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[0].split()[:2] == ["data", "here"]
    assert printed.endswith("nothing is missing\n")


def test_what_meteor_needs_is_missing_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "version", none)
    told, wrong = rows("task=youcook2", "mini=true", "data.meteor=true")["captions"]
    assert wrong and told == f"none: {install('captions')}"
    told, wrong = rows("task=youcook2", "mini=true")["captions (with data.meteor=true)"]
    assert not wrong and told == f"none: {install('captions')}"


def test_java_that_does_not_run_is_missing_for_meteor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "version", lambda name: "1")
    monkeypatch.setattr(doctor, "java", lambda: "none: METEOR needs one")
    assert rows("task=youcook2", "mini=true", "data.meteor=true")["captions"] == ("none: METEOR needs one", True)


def test_wups_needs_a_tagger_and_wordnet_and_its_miniature_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "version", none)
    monkeypatch.setattr(doctor, "wordnet", lambda: "none: WUPS needs it")
    found = rows("task=nextqa_open")
    assert found["WordNet"] == ("none: WUPS needs it", True)
    assert found["wups"] == (f"none: {install('wups')}", True)
    assert not rows("task=nextqa_open", "data.tagger=false")["wups (with mini=false data.tagger=true)"][1]
    assert not any(wrong for _, wrong in rows("task=nextqa_open", "mini=true").values())


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (["decoder=torchcodec"], "torchcodec"),
        (["ckpt=timm:vit_tiny_patch16_224"], "timm"),
        (["ckpt=pe_core_base"], "open_clip"),
        (["data.videos=s3://bucket/k400"], "s3"),
        (["data.videos=https://host/k400"], "url"),
        (["data.videos=clips/*.parquet"], "parquet"),
    ],
)
def test_words_that_need_an_extra_ask_for_it(words: list[str], extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "version", none)
    assert rows("task=kinetics400", *words)[extra] == (f"none: {install(extra)}", True)


def test_data_are_read_as_far_as_their_lists_go_and_what_lacks_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (tmp_path / "videos.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("path", "label", "split"), *((f"{n}.mp4", "ab"[n % 2], ("train", "test")[n // 4]) for n in range(6))]
        )
    words = ["doctor", "task=folder", f"data.root={tmp_path / 'videos.csv'}"]
    for n in range(5):
        (tmp_path / f"{n}.mp4").touch()
    assert main(words) == 1
    assert f"train 4, test 2; 1 of 6 videos missing, e.g. {tmp_path / '5.mp4'}" in capsys.readouterr().out
    (tmp_path / "5.mp4").touch()
    assert main(words) == 0


def test_no_data_name_the_files_that_are_wanted_and_where_they_are_from(tmp_path: Path) -> None:
    told, wrong = rows("task=youcook2", f"data.root={tmp_path}")["data"]
    assert wrong and f"{tmp_path} has no youcookii_annotations_trainval.json" in told
    assert "VIDEO.mp4" in told and "http://youcook2.eecs.umich.edu" in told


def encoder(ckpt: str, *words: str) -> tuple[str, bool]:
    return rows("task=kinetics400", "mini=true", f"ckpt={ckpt}", *words)["encoder"]


def test_weights_on_this_machine_are_loaded_as_a_run_loads_them(tiny: Path, tmp_path: Path) -> None:
    told, wrong = encoder(str(tiny))
    assert not wrong and "KiB; its weights fit: " in told and told.endswith(" parameters")
    weights = load_file(tiny / "model.safetensors")
    shutil.copy(tiny / "config.json", tmp_path)
    name = min(weights)
    moved = weights.pop(name)
    save_file({**weights, "head.weight": moved}, tmp_path / "model.safetensors")
    told, wrong = encoder(str(tmp_path))
    assert wrong and f"missing {name}" in told and "unexpected head.weight" in told
    state = {f"net.{name}": value for name, value in load_file(tiny / "model.safetensors").items()}
    torch.save({"state_dict": state}, tmp_path / "run.ckpt")
    assert not encoder(str(tmp_path / "run.ckpt"), f"encoder.model={tiny}", "encoder.prefix=net.")[1]
    assert "prefix=encoder.: no weight" in encoder(str(tmp_path / "run.ckpt"), "encoder.prefix=encoder.")[0]


def test_a_language_model_on_this_machine_is_loaded_too(tmp_path: Path) -> None:
    def language_model(folder: Path) -> tuple[str, bool]:
        return rows("task=egoschema", "mini=true", f"lm={folder}")["language model"]

    told, wrong = language_model(LANGUAGE_MODEL)
    assert not wrong and told.endswith("; its weights fit: 0.5 M parameters")
    shutil.copytree(LANGUAGE_MODEL, tmp_path / "lm", ignore=shutil.ignore_patterns("token*"))
    told, wrong = language_model(tmp_path / "lm")
    assert wrong and "a model is there, and no tokenizer" in told


def test_what_does_not_fit_into_memory_is_not_loaded(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_needs, "free_memory", lambda: 3 << 10)
    for told, wrong in (
        encoder(str(tiny)),
        rows("task=egoschema", "mini=true", f"lm={LANGUAGE_MODEL}")["language model"],
    ):
        assert not wrong and told.endswith("; not loaded: 3.0 KiB of memory are free")


def test_a_model_of_the_hub_is_cached_once_all_of_its_weights_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    model = tmp_path / "models--some--model"
    folder = model / "snapshots" / ("0" * 40)
    folder.mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("0" * 40)
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = {"weight_map": {"a": names[0], "b": names[1]}}
    cached = []
    for name, content in [("config.json", {}), ("model.safetensors.index.json", index), (names[0], {}), (names[1], {})]:
        (folder / name).write_text(json.dumps(content))
        cached.append(huggingface.is_cached("some/model"))
    assert cached == [False, False, False, True]
    assert huggingface.is_cached(f"some/model@{'0' * 40}") and not huggingface.is_cached(f"some/model@{'1' * 40}")


def test_checkpoints_that_are_elsewhere_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert encoder("vjepa_large")[1] and "fetch https://" in encoder("vjepa_large")[0]
    assert encoder("videoprizm_base") == (
        "videoprizm_base: no such file, folder or name. Did you mean 'videoprism_base'?",
        True,
    )
    monkeypatch.setattr(huggingface, "is_cached", lambda name: False)
    told, wrong = encoder("videoprism_base")
    assert not wrong and told == "google/videoprism-base-f16r288: will be fetched from the hub, 0.5 GB in float32"


def test_words_that_no_run_takes_are_errors() -> None:
    with pytest.raises(UserError, match="doctor takes nothing, or task=NAME"):
        doctor.main(["ckpt=demo"])
    with pytest.raises(UserError, match="unknown key 'metteor'"):
        doctor.main(["task=youcook2", "metteor=true"])


def test_what_other_words_would_ask_for_is_not_said_to_be_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_needs, "_extra", lambda name: "none: pip install it")
    assert doctor.main(["task=youcook2", "mini=true", "ckpt=none"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("captions"))
    assert line.split("  ")[1].strip() == "not needed" and "none: pip install it" in line
