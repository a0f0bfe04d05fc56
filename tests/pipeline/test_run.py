"""`evalkit run` from the words to the record, on a tiny world of its own: real films, a random encoder and LM."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from evalkit.api import Example, Prediction, Task
from evalkit.cli import main
from evalkit.features.extract import Source
from evalkit.metrics import accuracy
from evalkit.pipeline import fit, trainer
from evalkit.pipeline.controls import cyclic, measure_control
from evalkit.results import run_folder, validate
from evalkit.video.workers import DecodePool
from tests.given import DATA, real
from tests.patience import patience, wait_until

pytestmark = pytest.mark.slow

TASK = '''
"""Which way a shape moves, asked about the films of one folder."""

from pathlib import Path

from evalkit.api import Example, Task
from evalkit.metrics import accuracy

ADAPTER = "multiple_choice"
OPTIONS = ("a red circle moves left", "a red circle moves right", "a blue ring grows", "a white cross blinks")


def task(root: Path, train: bool = False) -> Task:
    """Asks which way a shape moves.

    Args:
        root: folder of the films.
        train: keep half of the films for training.
    """
    films = sorted(root.glob("*.mp4"))
    questions = [
        Example(film.stem, film, number % 2, text="What happens?", choices=OPTIONS[: 3 + number % 2], kind="direction")
        for number, film in enumerate(films)
    ]
    questions.append(Example("again", films[0], 1, text="What now?", choices=OPTIONS, kind="again"))
    questions.append(Example("secret", films[0], None, text="What then?", choices=OPTIONS))
    questions.append(Example("gone", root / "gone.mp4", 0, text="What?", choices=OPTIONS))
    return Task(
        test=questions[6:] if train else questions,
        train=questions[:6] if train else (),
        score=accuracy,
        chance=100 / 3,
        controls=("blind", "shuffled", "single_frame", "option_order"),
    )
'''


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, films: Path) -> Path:
    """A folder with my_task.py, eight films of which the last is broken, and a csv of them with splits."""
    root = tmp_path_factory.mktemp("world")
    (root / "my_task.py").write_text(TASK)
    (root / "films").mkdir()
    for number, film in enumerate(sorted(films.glob("*.mp4"))[:8]):
        (root / "films" / film.name).write_bytes(film.read_bytes() if number < 7 else b"no film at all")
    rows = ["path,label,split"]
    rows += [f"{film},{('left', 'right')[i % 2]},{'test' if i < 4 else 'train'}" for i, film in enumerated(films)]
    (root / "videos.csv").write_text("\n".join([*rows, f"{root / 'films' / '07.mp4'},left,train"]) + "\n")
    return root


def enumerated(films: Path) -> list[tuple[int, Path]]:
    return list(enumerate(sorted(films.glob("*.mp4"))))


def run(out: Path, *words: str) -> Path:
    """The folder of the run that the command line made."""
    printed = io.StringIO()
    canary = [] if "canary=true" in words else ["canary=false"]
    with contextlib.redirect_stdout(printed):
        assert main(["run", f"out={out}", *canary, *words]) == 0
    return Path(printed.getvalue().splitlines()[-1]).parent


def choice_words(world: Path, tiny: Path, lm: Path) -> list[str]:
    """A run of my_task.py with an adapter that is left as random as it is born."""
    task = [f"task={world / 'my_task.py'}", f"data.root={world / 'films'}"]
    return [*task, f"ckpt={tiny}", f"lm={lm}", "adapter.epochs=0", "adapter.latents=4", "workers=1"]


def probe_words(world: Path, tiny: Path) -> list[str]:
    return ["task=folder", f"data.root={world / 'videos.csv'}", f"ckpt={tiny}", "adapter.epochs=3", "workers=1"]


def scored(folder: Path) -> dict[str, Any]:
    """What must not depend on when, where and how fast a run was made."""
    record = run_folder.load(folder)
    return {key: record[key] for key in ("status", "scores", "controls", "chance", "data", "selection")}


@pytest.fixture(scope="module")
def asked() -> list[Source]:
    """What the `chosen` run decoded, filled by it."""
    return []


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory, world: Path, tiny: Path, lm: Path, asked: list[Source]) -> Path:
    """A run of my_task.py with one broken and one missing film."""

    def spy(pool: DecodePool, requests: Sequence[Any]) -> Any:
        asked.extend(Source(request.video, request.span) for request in requests)
        return read(pool, requests)

    read = DecodePool.read
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DecodePool, "read", spy)
        return run(tmp_path_factory.mktemp("chosen"), *choice_words(world, tiny, lm), "canary=true")


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory, world: Path, tiny: Path) -> Path:
    """A run of a probe on the csv of films."""
    return run(tmp_path_factory.mktemp("probed"), *probe_words(world, tiny))


# --- the record ------------------------------------------------------------------------------------------------------


def test_a_run_is_a_valid_record_that_scores_the_same_again(
    chosen: Path, probed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in (chosen, probed):
        assert validate.validate(folder) == []
        assert main(["score", str(folder)]) == 0
        assert main(["validate", str(folder)]) == 0
    assert sorted(path.name for path in chosen.iterdir()) == ["config.yaml", "predictions.jsonl", "result.json"]


def test_what_cannot_be_decoded_counts_as_wrong_with_its_reason_and_shows_in_the_bounds(chosen: Path) -> None:
    record = run_folder.load(chosen)
    assert record["status"] == "partial"
    data = record["data"]
    assert (data["n_expected"], data["n_scored"], data["n_failed"]) == (11, 9, 2)
    assert [failure["id"] for failure in data["failures"]] == ["07", "gone"]
    assert all(failure["reason"] and "\n" not in failure["reason"] for failure in data["failures"])
    headline = record["scores"][0]
    assert headline["n"] == 10 and headline["n_clusters"] == 9  # "secret" has no answer, "again" is about film 00
    low, high = headline["bounds"]
    assert low == headline["value"] and high - low == pytest.approx(100 * 2 / 10)
    assert [entry["metric"] for entry in record["scores"]] == ["accuracy", "accuracy/again", "accuracy/direction"]


def test_an_example_without_an_answer_gets_a_prediction_and_no_score(chosen: Path) -> None:
    rows = {row.id: row for row in run_folder.load_rows(chosen)}
    assert rows["secret"].target is None and rows["secret"].prediction in range(4) and rows["secret"].failure is None
    assert rows["gone"].prediction is None and rows["gone"].failure


def test_rows_name_their_video_without_the_place_where_it_lies(chosen: Path) -> None:
    rows = {row.id: row for row in run_folder.load_rows(chosen)}
    assert rows["00"].video == rows["again"].video == "00.mp4"
    assert {row.video for row in rows.values()} == {*(f"{i:02d}.mp4" for i in range(8)), "gone.mp4"}


def test_every_video_is_decoded_once_and_encoded_once_per_variant(chosen: Path, asked: list[Source]) -> None:
    seen_by_canary, asked = asked[:2], asked[2:]
    assert len(asked) == len(set(asked)) == 9 and set(seen_by_canary) < set(asked)  # of eleven questions
    cost = run_folder.load(chosen)["cost"]
    assert cost["encoder_forwards"] == 7 * 3  # as it is, shuffled, single frame; blind and option order need none
    assert cost["fit_s"] == 0 and cost["decode_s"] > 0 and cost["encode_s"] > 0
    assert cost["wall_s"] > cost["decode_s"] + cost["encode_s"]


def test_every_control_of_the_task_is_recorded(chosen: Path) -> None:
    controls = {control["name"]: control for control in run_folder.load(chosen)["controls"]}
    assert set(controls) == {"blind", "shuffled", "single_frame", "option_order"}
    assert all(control["metric"] == "accuracy" and 0 <= control["value"] <= 80 for control in controls.values())


def test_the_record_names_what_made_it(chosen: Path, tiny: Path, lm: Path) -> None:
    record = run_folder.load(chosen)
    assert record["task"]["name"] == "my_task" and record["task"]["score"] == "evalkit.metrics:accuracy"
    assert record["encoder"]["name"] == "tiny" and record["encoder"]["architecture"] == "ViViT"
    assert record["encoder"]["clip"]["frames"] == record["task"]["protocol"]["views"]["frames"] == 4
    assert record["adapter"]["settings"]["latents"] == 4 and len(record["adapter"]["settings"]["lm"]) == 64
    assert record["selection"] is None  # nothing was fitted
    assert record["provenance"]["command"][:2] == ["evalkit", "run"] or "run" in record["provenance"]["command"]


def test_the_chosen_epoch_and_what_it_was_chosen_by_are_recorded(probed: Path, world: Path) -> None:
    record = run_folder.load(probed)
    assert record["status"] == "complete"  # the broken film is one of train
    selection = record["selection"]
    assert len(selection["val_scores"]) == selection["chosen"]["epochs"] == 3
    assert selection["val_score"] == max(selection["val_scores"])
    best = [i for i, score in enumerate(selection["val_scores"], 1) if score == selection["val_score"]]
    assert selection["chosen"]["epoch"] == best[-1]
    assert selection["n_train"] + selection["n_val"] == 9
    assert [one["video"] for one in selection["undecodable"]] == [str(world / "films" / "07.mp4")]
    assert [score["metric"] for score in record["scores"]] == ["top1", "top5"]


# --- the same again --------------------------------------------------------------------------------------------------


def test_one_seed_gives_one_result_whatever_the_number_of_workers(
    chosen: Path, probed: Path, world: Path, tiny: Path, lm: Path
) -> None:
    again = run(chosen.parents[2], *choice_words(world, tiny, lm)[:-1], "workers=2")
    assert again != chosen and again.parent == chosen.parent  # beside the first, which is as it was
    assert scored(again) == scored(chosen)
    assert (again / "predictions.jsonl").read_bytes() == (chosen / "predictions.jsonl").read_bytes()
    again = run(probed.parents[2], *probe_words(world, tiny)[:-1], "workers=2")
    assert scored(again) == scored(probed)
    assert (again / "predictions.jsonl").read_bytes() == (probed / "predictions.jsonl").read_bytes()
    assert validate.validate(chosen.parents[2]) == validate.validate(probed.parents[2]) == []


def test_another_seed_gives_other_predictions(
    probed: Path, world: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = run(tmp_path, *probe_words(world, tiny), "seed=1")
    assert (other / "predictions.jsonl").read_bytes() != (probed / "predictions.jsonl").read_bytes()


def test_the_written_configuration_runs_again(chosen: Path, tmp_path: Path) -> None:
    again = run(tmp_path, f"config={chosen / 'config.yaml'}", "controls=false")
    assert (again / "predictions.jsonl").read_bytes() == (chosen / "predictions.jsonl").read_bytes()
    assert run_folder.load(again)["controls"] == []


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
        "adapter multiple_choice is untrained and task my_task has no train split: train it with `evalkit adapt "
        f"task=... adapter=multiple_choice ckpt={tiny} out=FOLDER`, then give adapter.from=FOLDER"
    )


def test_a_task_whose_videos_are_all_missing_is_recorded_as_failed(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "videos.csv").write_text(
        "path,label,split\n" + "".join(f"{i}.mp4,{'ab'[i % 2]},test\n" for i in range(4))
    )
    words = ["task=folder", f"data.root={tmp_path / 'videos.csv'}", f"ckpt={tiny}", "adapter.epochs=0", "workers=1"]
    record = run_folder.load(run(tmp_path / "out", *words))
    assert record["status"] == "failed" and record["data"]["n_failed"] == 4
    assert record["scores"][0]["value"] == 0 and record["scores"][0]["bounds"] == [0, 100]


def test_a_task_whose_data_are_missing_says_so_in_one_line(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = tmp_path / "lost.py"
    task.write_text("from pathlib import Path\n\n\ndef task(root: Path = Path('none.csv')):\n    root.open()\n")
    assert main(["run", f"task={task}", f"ckpt={tiny}", f"data.root={tmp_path / 'x.csv'}"]) == 2
    told = f"evalkit: task {task}: no file {tmp_path / 'x.csv'}; data.root= says where its data lie\n"
    assert capsys.readouterr().err == told


# --- controls --------------------------------------------------------------------------------------------------------


def question(name: str, options: str, target: int) -> Example:
    return Example(name, Path(name), target, choices=tuple(options))


class Likes:
    """Answers with the option that stands first in its favourite order, and the first of all others' where none is."""

    def __init__(self, favourites: str) -> None:
        self.favourites = favourites

    def predict(self, examples: Sequence[Example], features: object) -> list[Prediction]:
        ranks = [[self.favourites.find(option) % 99 for option in e.choices] for e in examples]
        return [Prediction(row.index(min(row))) for row in ranks]


def test_cyclic_orders_are_told_as_indices_of_the_options_as_they_stand() -> None:
    examples = [question("long", "abcde", 2), question("short", "xyz", 1)]
    straight = {e.id: p for e, p in zip(examples, Likes("cy").predict(examples, None), strict=True)}
    turned = cyclic(Likes("cy"), examples, torch.zeros(2, 1), straight)  # type: ignore[arg-type]
    assert turned["long"].value == [2] * 5 and turned["short"].value == [1] * 5
    # one that always takes what stands first is right in one order of each question
    straight = {e.id: p for e, p in zip(examples, Likes("").predict(examples, None), strict=True)}
    turned = cyclic(Likes(""), examples, torch.zeros(2, 1), straight)  # type: ignore[arg-type]
    assert turned["long"].value == [0, 1, 2, 3, 4] and turned["short"].value == [0, 1, 2, 0, 1]


def test_option_order_is_the_mean_over_the_orders_and_a_failed_example_is_wrong_in_all() -> None:
    examples = [question("a", "abc", 2), question("b", "abc", 0), question("c", "abc", 1), question("d", "ab", 0)]
    task = Task(test=examples, score=accuracy)
    predicted = {"a": Prediction([2, 2, 1]), "b": Prediction([0, 0, 0]), "d": Prediction([0, 1])}
    control = measure_control("option_order", task, predicted)
    assert control["metric"] == "accuracy"
    assert control["value"] == pytest.approx((75 + 50 + 50) / 3)
    plain = {"a": Prediction(2), "b": Prediction(1), "d": Prediction(0)}
    assert measure_control("blind", task, plain)["value"] == 50


def test_a_task_that_fails_is_told_with_its_file_and_line(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = 'from evalkit.api import Task\n\n\ndef task() -> Task:\n    """Fails."""\n    return {}[\'label\']\n'
    (tmp_path / "my_task.py").write_text(code)
    assert main(["run", f"task={tmp_path / 'my_task.py'}", f"ckpt={tiny}", f"out={tmp_path}"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert told == [f"evalkit: task {tmp_path / 'my_task.py'} fails: my_task.py, line 6: KeyError: 'label'"]


def test_an_adapter_without_an_answer_to_no_video_leaves_the_blind_control_out(
    world: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = [f"task={world / 'my_task.py'}", f"data.root={world / 'films'}", f"ckpt={tiny}", "workers=1"]
    record = run_folder.load(run(tmp_path, *task, "adapter=contrastive"))
    assert {control["name"] for control in record["controls"]} == {"shuffled", "single_frame", "option_order"}
    assert "control blind left out: " in capsys.readouterr().err


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
        ({"task": "foldr"}, "no task named 'foldr'. Did you mean 'folder'? Known: "),
        ({"adapter": "prob"}, "no adapter named 'prob'. Did you mean 'probe'? Known: "),
        ({"ckptt": "demo"}, "unknown key 'ckptt'. Did you mean 'ckpt'?"),
        ({"adapter.lrr": "1"}, "unknown key 'adapter.lrr'. Did you mean 'adapter.lr'?"),
        ({"adapter.lr": "fast"}, "adapter.lr=fast: expected a number"),
        ({"clip.sampling": "unifrom"}, "clip.sampling=unifrom is not one of uniform, segments, fps, dense. Did you"),
        ({"data.root": "/no/where"}, "data.root=/no/where does not exist: wanted a csv path,label[,split] or a folder"),
        ({"ckpt": "dmo"}, "ckpt=dmo: no such file or folder, and no such name. Did you mean 'demo'?"),
        ({"ckpt": "/no/where.pt"}, "ckpt=/no/where.pt: no such file or folder, and no such name."),
        ({"adapter.heads": "5"}, "adapter.heads=5 does not divide the encoder's width 24; use one of [1, 2, 3, 4, 6, "),
        ({"adapter": "multiple_choice"}, "adapter=multiple_choice needs questions with options; this task has none"),
        ({"adapter.from": "/no/where"}, "adapter.from=/no/where: no trained adapter probe there ("),
        ({"out": __file__}, f"out={__file__}: cannot write there: "),
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
    assert lines[1].startswith("evalkit: the encoder cannot take these clips: video of shape ")
    assert not list(tmp_path.iterdir())


def test_an_encoder_that_gives_nan_is_told_and_not_scored(
    world: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in tiny.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    state = load_file(tiny / "model.safetensors")
    save_file(state | {"norm.bias": state["norm.bias"] * torch.nan}, tmp_path / "model.safetensors")
    assert main(["run", *probe_words(world, tmp_path), f"out={tmp_path / 'out'}"]) == 2
    assert "the canary stops this run: finite: 100.0% of the output is NaN or infinity" in capsys.readouterr().err
    assert main(["run", *probe_words(world, tmp_path), f"out={tmp_path / 'out'}", "canary=false"]) == 2
    assert "evalkit: the encoder gives NaN or infinity: its weights are damaged" in capsys.readouterr().err


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
        return str(folder), f"{folder} is no checkpoint that evalkit can read: it has no config.json"
    if how == "no weights":
        weights.unlink()
        return str(folder), f"no weights at {weights}"
    if how == "no json":
        config.write_text("{")
        return str(folder), f"cannot read {config}: "
    if how == "other json":
        config.write_text('{"model_type": "vit"}')
        return str(folder), f"weights of {folder} do not fit the model ("
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
    told = f"evalkit: refused {tmp_path / 'model.pt'}: it is damaged, or a pickle that can run code when loaded."
    ended = command(*(f"{key}={value}" for key, value in words.items()), f"out={tmp_path / 'out'}")
    _, err = ended.communicate(timeout=patience(120))
    assert ended.returncode == 2
    assert err.startswith(told) and err.count("\n") == 1
    assert not (tmp_path / "boom").exists() and not (tmp_path / "out").exists()


# --- killed ----------------------------------------------------------------------------------------------------------


def command(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "evalkit", "run", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def children(pid: int) -> list[int]:
    return [
        int(line) for line in subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout.split()
    ]


def alive(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")


def test_a_killed_run_leaves_nothing_and_runs_again_to_the_same_scores(
    probed: Path, world: Path, tiny: Path, tmp_path: Path
) -> None:
    words = [*probe_words(world, tiny), f"out={tmp_path}"]
    killed = command(*words)
    assert wait_until(lambda: children(killed.pid), 60)  # its decoding processes have started
    workers = children(killed.pid)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert wait_until(lambda: not any(alive(pid) for pid in workers), 30)
    assert not [path for path in tmp_path.rglob("*") if not path.name.startswith(".")]
    assert scored(run(tmp_path, *probe_words(world, tiny))) == scored(probed)


def test_a_run_killed_while_it_writes_shows_no_result(
    probed: Path, world: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_folder, "_flush", die)
    assert main(["run", *probe_words(world, tiny), f"out={tmp_path}"]) == 130
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


# --- real input ------------------------------------------------------------------------------------------------------


@real
def test_real_questions_with_five_real_videos_are_partial_and_give_no_submission(
    tiny: Path, lm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, annotations = tmp_path / "egoschema", DATA / "annotations" / "egoschema"
    (root / "videos").mkdir(parents=True)
    (root / "questions.json").write_bytes((annotations / "questions_500.rebuilt.json").read_bytes())
    (root / "subset_answers.json").write_bytes((annotations / "subset_answers.json").read_bytes())
    videos = [
        "intel-sample-videos/asl_gestures__bird.mkv",
        "torchcodec/h265_video.mp4",
        "decord/tests__test_data__video_90.mov",
        "derived/broken_random_bytes.mp4",
        "moviepy/chaplin.mp4",
    ]
    uids = list(json.loads((root / "subset_answers.json").read_text()))
    for uid, name in zip(uids[10:], videos, strict=False):
        (root / "videos" / f"{uid}.mp4").symlink_to(DATA / "videos" / name)
    words = ["task=egoschema", f"data.root={root}", f"ckpt={tiny}", f"lm={lm}", "adapter.epochs=0", "workers=1"]
    folder = run(tmp_path / "out", *words)
    record = run_folder.load(folder)
    data = record["data"]
    assert record["status"] == "partial" and record["task"]["split"] == "subset"
    assert (data["n_expected"], data["n_scored"], data["n_failed"]) == (500, 4, 496)
    reasons = {failure["id"]: failure["reason"] for failure in data["failures"]}
    assert len(reasons) == 496 and all(reasons.values())
    assert uids[13] in reasons and reasons[uids[13]] != reasons[uids[0]]
    low, high = record["scores"][0]["bounds"]
    assert record["scores"][0]["n"] == 500 and high - low == pytest.approx(99.2)
    assert not list(folder.glob("submission*"))
    assert "no submission written: 496 of 500 questions have no answer" in capsys.readouterr().err
    assert validate.validate(folder) == []


@real
def test_real_videos_are_probed_and_the_broken_ones_are_failures(tiny: Path, tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "real_videos_csv.py"
    subprocess.run([sys.executable, script, DATA / "videos", tmp_path / "videos.csv"], check=True, capture_output=True)
    lines = (tmp_path / "videos.csv").read_text().splitlines()
    kept = [
        line
        for line in lines
        if line.rpartition(",")[0].rpartition(",")[2] in ("label", "derived", "moviepy", "decord")
    ]
    assert len(kept) > 60
    (tmp_path / "videos.csv").write_text("\n".join(kept) + "\n")
    words = ["task=folder", f"data.root={tmp_path / 'videos.csv'}", f"ckpt={tiny}", "adapter.epochs=2", "workers=2"]
    folder = run(tmp_path / "out", *words)
    record = run_folder.load(folder)
    assert record["status"] == "partial" and validate.validate(folder) == []
    failed = {Path(failure["id"]).name: failure["reason"] for failure in record["data"]["failures"]}
    left_out = {Path(one["video"]).name: one["reason"] for one in record["selection"]["undecodable"]}
    assert {name for name in failed if name.startswith("broken_")}
    assert {"broken_empty.mp4", "broken_text.mp4", "audio_only.mp4"} <= {**failed, **left_out}.keys()
    assert all(reason and "\n" not in reason for reason in {**failed, **left_out}.values())
    assert record["data"]["n_expected"] == sum(line.endswith(",test") for line in kept)
