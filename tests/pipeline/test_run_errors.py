"""Mistakes that the user of `evalkit run` can mend are each told in one line."""

import contextlib
import io
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from evalkit.cli import main
from evalkit.pipeline.training import fit, trainer
from evalkit.results import run_folder
from evalkit.video.workers import DecodePool
from tests.pipeline import tiny_world
from tests.pipeline.tiny_world import TASK, choice_words, command, probe_words, run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("decoding_here")]

world = tiny_world.world


# --- fitting ---------------------------------------------------------------------------------------------------------


def test_a_probe_is_fitted_before_any_test_video_is_opened(
    world: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    read = DecodePool.read
    seen: dict[str, Any] = {}

    def read_spy(pool: DecodePool, requests: Sequence[Any]) -> Any:
        opened.extend(request.video for request in requests)
        return read(pool, requests)

    def fit_spy(adapter: Any, train: Any, val: Any, *settings: Any) -> Any:
        seen.update(train=train.examples, val=val.examples, opened=list(opened))
        return trainer.fit(adapter, train, val, *settings)

    monkeypatch.setattr(DecodePool, "read", read_spy)
    monkeypatch.setattr(fit, "fit", fit_spy)
    folder = run(tmp_path, *probe_words(world, tiny))
    test = {Path(row.id) for row in run_folder.load_rows(folder)}
    train, val = ({example.video for example in seen[split]} for split in ("train", "val"))
    assert len(train) == 7 and len(val) == 1 and not train & val
    assert len(test) == 4 and not test & (train | val | set(seen["opened"]))


def test_an_untrained_adapter_without_a_train_split_says_what_to_do(
    world: Path, tiny: Path, lm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for word in choice_words(world, tiny, lm) if word != "adapter.epochs=0"]
    assert mistake(capsys, *words, f"out={tmp_path / 'out'}") == (
        "adapter multiple_choice is untrained and task my_task has no train split: mark some of its data as train, or "
        "train it on a task that has one, with `evalkit adapt task=... adapter=multiple_choice "
        f"ckpt={tiny} out=FOLDER`, "
        "and give adapter.from=FOLDER"
    )


def test_a_run_that_can_read_nothing_is_an_error_and_no_score_of_zero(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "videos.csv").write_text(
        "path,label,split\n" + "".join(f"{i}.mp4,{'ab'[i % 2]},test\n" for i in range(4))
    )
    words = ["task=folder", f"data.root={tmp_path / 'videos.csv'}", f"ckpt={tiny}", "adapter.epochs=0", "workers=1"]
    out = tmp_path / "out"
    told = mistake(capsys, *words, f"out={out}")
    first = f"none of the videos of 4 test examples is there, the first would be {tmp_path / '0.mp4'}; "
    assert told == f"{first}data.videos=FOLDER says where they lie"
    for i in range(4):
        (tmp_path / f"{i}.mp4").write_bytes(b"no film at all")
    assert main(["run", *words, "canary=false", f"out={out}"]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith(f"evalkit: none of 4 test examples could be read; {tmp_path / '0.mp4'}: ")
    assert not list(out.iterdir())


def test_a_task_whose_data_are_missing_says_so_in_one_line(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = tmp_path / "lost.py"
    task.write_text("from pathlib import Path\n\n\ndef task(root: Path = Path('none.csv')):\n    root.open()\n")
    assert main(["run", f"task={task}", f"ckpt={tiny}", f"data.root={tmp_path / 'x.csv'}"]) == 2
    told = f"evalkit: task {task}: no file {tmp_path / 'x.csv'}; set data.root= to its folder\n"
    assert capsys.readouterr().err == told


# --- what the user can mend ------------------------------------------------------------------------------------------


def mistake(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line that the command says."""
    capsys.readouterr()
    assert main(["run", *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("evalkit: ") and err.count("\n") == 1 and "Traceback" not in err
    return err.removeprefix("evalkit: ").removesuffix("\n")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"task": "foldr"}, "no task named 'foldr'. Did you mean 'folder'? `evalkit list tasks` shows all"),
        ({"adapter": "prob"}, "no adapter named 'prob'. Did you mean 'probe'? `evalkit list adapters` shows all"),
        ({"ckptt": "demo"}, "unknown key 'ckptt'. Did you mean 'ckpt'?"),
        ({"adapter.lrr": "1"}, "unknown key 'adapter.lrr'. Did you mean 'adapter.lr'?"),
        ({"adapter.lr": "fast"}, "adapter.lr=fast: expected a number"),
        (
            {"clip.sampling": "unifrom"},
            "clip.sampling=unifrom is not one of uniform, segments, linspace, middle",
        ),
        ({"data.root": "/no/where"}, "data.root=/no/where does not exist: wanted a csv path,label[,split] or a folder"),
        ({"ckpt": "dmo"}, "ckpt=dmo: no such file or folder, and no such name. Did you mean 'demo'?"),
        ({"ckpt": "/no/where.pt"}, "ckpt=/no/where.pt: no such file or folder, and no such name."),
        ({"adapter.heads": "5"}, "adapter.heads=5 does not divide the encoder's width 24; use one of [1, 2, 3, 4, 6, "),
        ({"adapter": "multiple_choice"}, "adapter=multiple_choice needs questions with options; this task has none"),
        ({"adapter.from": "/no/where"}, "adapter.from=/no/where: no trained adapter probe there ("),
        ({"out": __file__}, f"out={__file__} is a file; name a folder for the results, such as out="),
        ({"device": "mps"} if not torch.backends.mps.is_available() else {"device": "x"}, "device="),
    ],
)
def test_a_wrong_word_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], world: Path, tiny: Path, changed: dict[str, str], told: str
) -> None:
    words = dict(word.split("=", 1) for word in probe_words(world, tiny))
    assert mistake(capsys, *(f"{key}={value}" for key, value in {**words, **changed}.items())).startswith(told)


def test_clips_that_the_encoder_cannot_take_are_told_in_one_line(world: Path, tiny: Path, tmp_path: Path) -> None:
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        assert main(["run", *probe_words(world, tiny), "clip.size=50", f"out={tmp_path}"]) == 2
        assert main(["run", *probe_words(world, tiny), "clip.size=50", f"out={tmp_path}", "canary=false"]) == 2
    lines = [line for line in err.getvalue().splitlines() if line.startswith("evalkit: ")]
    assert lines[0].startswith("evalkit: the canary stops this run: layout: the encoder fails on (2, 4, 3, 50, 50)")
    assert lines[0].endswith("clips have 4 frames of 50 pixels; clip.frames=4 clip.size=32 is the encoder's own")
    assert "canary=false" not in lines[0]  # which would not help, as the next one shows
    assert lines[1].startswith("evalkit: the encoder failed on clips of shape (7, 4, 3, 50, 50)")
    assert not list(tmp_path.iterdir())


def test_an_encoder_that_gives_nan_is_told_and_not_scored(
    world: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in tiny.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    state, words = load_file(tiny / "model.safetensors"), [*probe_words(world, tmp_path), f"out={tmp_path / 'out'}"]
    for value, told in (
        (math.nan, "norm.weight holds 24 of 24 values that are NaN or infinite"),
        (3e38, "the canary stops this run: finite: "),  # whose sums are infinite
    ):
        changed = {name: torch.full((24,), value) for name in ("norm.bias", "norm.weight")}
        save_file(state | changed, tmp_path / "model.safetensors")
        assert main(["run", *words]) == 2
        assert told in capsys.readouterr().err
    assert main(["run", *words, "canary=false"]) == 2
    err = capsys.readouterr().err
    assert "evalkit: none of 9 training videos could be read" in err
    assert "the encoder gives NaN or infinity of it: its weights are damaged" in err


def test_settings_that_a_protocol_prescribes_are_for_its_own_adapter(
    world: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = TASK.replace('ADAPTER = "multiple_choice"', 'ADAPTER = "probe"')
    for name in ("label_smoothing", "smoothing"):
        prescribed = f"classes=OPTIONS, settings={{'{name}': 0.1}}, chance="
        (tmp_path / f"{name}.py").write_text(source.replace("chance=", prescribed))
    words = [f"data.root={world / 'films'}", f"ckpt={tiny}", "controls=false", "workers=1"]
    other = run(tmp_path / "out", f"task={tmp_path / 'label_smoothing.py'}", *words, "adapter=contrastive")
    assert "label_smoothing" not in run_folder.load(other)["adapter"]["settings"]
    file = tmp_path / "smoothing.py"
    assert mistake(capsys, f"task={file}", *words) == f"task {file}: adapter probe has no setting 'smoothing'"


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.place),)


def break_ckpt(how: str, folder: Path) -> tuple[str, str]:
    """Damages a copy of a good checkpoint; the ckpt= that names it and the line that it should give."""
    weights, config = folder / "model.safetensors", folder / "config.json"
    if how == "truncated":
        weights.write_bytes(weights.read_bytes()[:5000])
        return str(folder), f"cannot read weights {weights}: "
    if how == "text":
        (folder / "notes.pt").write_text("not weights\n")
        return str(folder / "notes.pt"), f"refused {folder / 'notes.pt'}: it is damaged, or a pickle that can run code"
    if how == "ending":
        (folder / "notes.txt").write_text("not weights\n")
        told = f"cannot read weights {folder / 'notes.txt'}: .txt ending, wanted .safetensors, .pt or .pth"
        return str(folder / "notes.txt"), told
    if how == "empty":
        for file in folder.iterdir():
            file.unlink()
        return str(folder), f"{folder} is not a checkpoint that evalkit can read: it has no config.json"
    if how == "no weights":
        weights.unlink()
        return str(folder), f"no weights at {weights}"
    if how == "no json":
        config.write_text("{")
        return str(folder), f"cannot read {config}: "
    if how == "other json":
        config.write_text('{"model_type": "vit"}')
        return str(folder), f"{config} describes a model of 85,798,656 values, and its weights have "
    if how == "other settings":
        config.write_text(json.dumps(json.loads(config.read_text()) | {"settings": {"width": 3}}))
        return str(folder), "encoder longvivit cannot be built as its settings say: "
    if how == "missing":
        state = load_file(weights)
        save_file({name: value for name, value in state.items() if not name.startswith("blocks.1.")}, weights)
        lines = [name for name in state if name.startswith("blocks.1.")]
        assert len(lines) == 12
        return str(folder), f"weights of {weights} do not fit the model (12): missing blocks.1."
    if how == "unexpected":
        save_file(load_file(weights) | {"head.weight": torch.zeros(2)}, weights)
        return str(folder), f"weights of {weights} do not fit the model (1): unexpected head.weight"
    assert how == "shape"
    save_file(load_file(weights) | {"norm.bias": torch.zeros(7)}, weights)
    return str(folder), f"weights of {weights} do not fit the model (1): norm.bias is (7,), wanted (24,)"


@pytest.mark.parametrize(
    "how",
    [
        "truncated",
        "text",
        "ending",
        "empty",
        "no weights",
        "no json",
        "other json",
        "other settings",
        "missing",
        "unexpected",
        "shape",
    ],
)
def test_a_checkpoint_that_cannot_be_read_strictly_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], world: Path, tiny: Path, tmp_path: Path, how: str
) -> None:
    for file in tiny.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    ckpt, told = break_ckpt(how, tmp_path)
    line = mistake(capsys, *probe_words(world, tiny)[:2], f"ckpt={ckpt}", f"out={tmp_path / 'out'}")
    assert line.startswith(told)
    if how == "missing":
        assert line.count("missing ") == 10 and line.endswith(" and 2 more")


def test_the_real_command_says_one_line_and_ends_with_2(world: Path, tiny: Path, tmp_path: Path) -> None:
    words = dict(word.split("=", 1) for word in probe_words(world, tiny))
    (tmp_path / "config.json").write_bytes((tiny / "config.json").read_bytes())
    torch.save({"state_dict": Bomb(tmp_path / "boom")}, tmp_path / "model.pt")
    words["ckpt"] = str(tmp_path / "model.pt")
    told = f"evalkit: refused {tmp_path / 'model.pt'}: it holds posix.mkdir, which can run code when loaded."
    ended = command(*(f"{key}={value}" for key, value in words.items()), f"out={tmp_path / 'out'}")
    _, err = ended.communicate()
    assert ended.returncode == 2
    assert err.startswith(told) and err.count("\n") == 1
    assert not (tmp_path / "boom").exists() and not (tmp_path / "out").exists()
