"""Sweeps: passes that fail, are killed, are there already or run side by side, and what is told of them."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evalkit.cli import main
from evalkit.launch import cells, local, sweep
from evalkit.results import plot, run_folder, validate
from tests.cli import raising
from tests.forked import Forked
from tests.patience import wait_until

pytestmark = pytest.mark.usefixtures("decoding_here")


def test_a_score_that_is_no_number_is_left_blank() -> None:
    _, (cell,) = cells.plan(["task=kinetics400", "mini=true", "ckpt=demo"])
    record = {"scores": [{"value": None, "ci95": [None, None]}], "task": {"name": "k"}, "encoder": {"name": "e"}}
    line = sweep.report([sweep.Done(cell, record, values=[50.0])]).splitlines()[1]
    assert line.split() == ["k", "e", "50.0", "chosen"]


@pytest.fixture
def words(tiny: Path, films: Path, tmp_path: Path) -> list[str]:
    rows = [f"{path},{i % 2},{'train' if i < 9 else 'test'}" for i, path in enumerate(sorted(films.glob("*.mp4")))]
    (tmp_path / "labels.csv").write_text("path,label,split\n" + "\n".join(rows) + "\n")
    common = ["task=folder", f"data.root={tmp_path / 'labels.csv'}", f"out={tmp_path / 'out'}", "adapter.head=linear"]
    return [*common, f"ckpt={tiny}", "adapter.epochs=3", "canary=false"]


def test_a_grid_is_one_run_whose_record_holds_every_point(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", *words, "adapter.lr=1e-4,1e-2,1e-1"]) == 0
    told = capsys.readouterr().out
    (run,) = [path.parent for path in (tmp_path / "out").rglob(run_folder.RESULT)]
    assert validate.validate(run) == []
    record = run_folder.load(run)
    selection = record["selection"]
    assert [point["lr"] for point in selection["grid"]] == [1e-4, 1e-2, 1e-1]
    values = selection["grid_val_scores"]
    assert len(values) == 3 and selection["val_score"] == max(values) == values[selection["chosen"]["point"]]
    assert record["adapter"]["settings"]["lr"] == selection["grid"][selection["chosen"]["point"]]["lr"]
    assert told.count("chosen") == 1 and told.count("█") + told.count("val over adapter.lr") > 0
    assert list((tmp_path / "out").glob("sweep-*.png"))[0].read_bytes().startswith(b"\x89PNG")
    assert record["provenance"]["command"].startswith("evalkit sweep ")

    line = next(line for line in told.splitlines() if line.startswith("evalkit run "))
    assert "adapter.lr=" in line and "," not in line

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob(run_folder.RESULT)}
    assert main(["sweep", *words, "adapter.lr=1e-4,1e-2,1e-1"]) == 0  # finished: nothing is run again
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob(run_folder.RESULT)} == before
    assert told.endswith(capsys.readouterr().out)
    assert main(["sweep", "adapter.lr=1e-4,1e-2,1e-1", *reversed(words)]) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob(run_folder.RESULT)} == before
    assert len(list((tmp_path / "out").glob("sweep-*.png"))) == 1


def test_a_failed_pass_does_not_end_the_others(
    words: list[str], tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for word in words if not word.startswith("ckpt=")]
    assert main(["sweep", *words, f"ckpt=nothing_at_all,{tiny}"]) == 1
    told = capsys.readouterr()
    assert "failed: ckpt=nothing_at_all: no such file or folder" in told.out
    assert len(list((tmp_path / "out").rglob(run_folder.RESULT))) == 1


def test_a_setting_of_some_encoders_only_is_told_to_need_two_sweeps_into_one_folder(
    words: list[str], tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common, weights = [word for word in words if not word.startswith("ckpt=")], tiny / "model.safetensors"
    assert main(["sweep", *common, f"ckpt={weights},{tiny}", f"encoder.model={tiny}"]) == 1
    told = capsys.readouterr()
    assert told.err.count("with 2 classes, top5 counts every prediction as right") == 1
    failed = next(line for line in told.out.splitlines() if " failed: " in line)
    assert failed.endswith(
        f"{tiny}: leave it out. encoder.model fits ckpt={weights}: make two sweeps with the same "
        f"out={tmp_path / 'out'}, one of ckpt={weights} with encoder.model=, and one of ckpt={tiny} with what fits it"
    )
    assert main(["sweep", *common, f"ckpt={weights}", f"encoder.model={tiny}"]) == 0
    assert "already there" in (repeated := capsys.readouterr().err) and "top5" not in repeated
    assert main(["sweep", *common, f"ckpt={tiny}"]) == 0
    assert len(list((tmp_path / "out").rglob(run_folder.RESULT))) == 2


def test_a_failed_pass_is_told_from_others_by_its_options() -> None:
    common = ["task=egoschema", "mini=true", "adapter.epochs=0,1"]
    _, planned = cells.plan([*common, "ckpt=demo", "seed=0,1"])
    lines = sweep.report([sweep.Done(cell, failure="killed") for cell in planned]).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["egoschema", "demo", f"seed={seed}", "failed:", "killed"] for seed in (0, 1)
    ]


@pytest.mark.parametrize(
    ("end", "told"),
    [
        ("os.kill(os.getpid(), 9)", "its process was killed by signal 9, SIGKILL (out of memory?)"),
        ("os.kill(os.getpid(), 11)", "its process was killed by signal 11, SIGSEGV"),
        ("os._exit(3)", "its process ended with exit code 3"),
    ],
)
def test_how_a_process_of_its_own_ended_is_told(end: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: list[str], **settings: Any) -> Any:
        return subprocess.Popen([sys.executable, "-S", "-c", f"import os; {end}"], **settings)

    started = SimpleNamespace(Popen=start, PIPE=subprocess.PIPE, DEVNULL=subprocess.DEVNULL)
    monkeypatch.setattr(local, "subprocess", started)
    _, (cell,) = cells.plan(["task=egoschema", "mini=true", "ckpt=demo"])
    assert local._run_apart(cell, set()) == local.Ended(None, told)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(28, "No space left on device", "/full/x"), "no space left for /full/x: free some, or point out="),
        (MemoryError(), "not enough memory: fewer workers="),
    ],
)
def test_a_pass_for_which_the_machine_is_too_small_is_one_line(
    error: Exception, told: str, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("evalkit.launch.processes.run", raising(error))
    assert main(["sweep", *words]) == 1
    printed = capsys.readouterr()
    assert f"failed: {told}" in printed.out and "Traceback" not in printed.err


@pytest.mark.parametrize("quiet", [True, False])
def test_a_quiet_sweep_prints_its_own_table_alone(
    quiet: bool, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", *words, f"quiet={quiet}".lower()]) == 0
    assert ("status " not in capsys.readouterr().out) == quiet


def test_a_chosen_point_run_alone_gives_the_same_score(words: list[str], tmp_path: Path) -> None:
    assert main(["sweep", *words, "adapter.lr=1e-3,1e-2"]) == 0
    (run,) = [path.parent for path in (tmp_path / "out").rglob(run_folder.RESULT)]
    record = run_folder.load(run)
    assert main(["run", f"config={run / 'config.yaml'}", f"out={tmp_path / 'again'}"]) == 0
    (alone,) = [path.parent for path in (tmp_path / "again").rglob(run_folder.RESULT)]
    assert run_folder.load(alone)["scores"] == record["scores"]
    predicted = [
        [json.loads(line)["prediction"] for line in (folder / run_folder.PREDICTIONS).read_text().splitlines()]
        for folder in (alone, run)
    ]
    assert predicted[0] == predicted[1]


def test_curves_are_drawn_in_order_and_within_the_bounds(tmp_path: Path) -> None:
    curves: list[plot.Curve] = [("a", [1e-2, 1e-4], [50.0, 100.0]), ("b", [1e-4], [0.0])]
    lines = plot.terminal(curves, "adapter.lr", width=10).splitlines()
    assert lines[0] == "a: val over adapter.lr" and lines[1].split() == ["0.0001", "█" * 10, "100.0"]
    assert lines[2].split() == ["0.01", "█" * 5, "50.0"] and lines[4].split() == ["0.0001", "0.0"]
    assert plot.png(curves, "adapter.lr", tmp_path / "x.png") == str(tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 5000


def test_without_matplotlib_one_line_says_how_to_get_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    message = plot.png([("a", [1e-2, 1e-4], [50.0, 100.0])], "adapter.lr", tmp_path / "x.png")
    assert "pip install 'video-evalkit[plot]'" in message and "\n" not in message
    assert not list(tmp_path.iterdir())


def test_what_changed_since_is_run_again_and_what_failed_in_part_too(words: list[str], tmp_path: Path) -> None:
    rows = (tmp_path / "labels.csv").read_text()
    assert main(["sweep", *words, "adapter.lr=1e-3,1e-2"]) == 0
    (tmp_path / "labels.csv").write_text(rows + "missing.mp4,1,test\n")
    assert main(["sweep", *words, "adapter.lr=1e-3,1e-2"]) == 0
    runs = sorted(path.parent for path in (tmp_path / "out").rglob(run_folder.RESULT))
    assert [run_folder.load(run)["status"] for run in runs].count("partial") == 1 and len(runs) == 2
    assert main(["sweep", *words, "adapter.lr=1e-3,1e-2"]) == 0
    assert len(list((tmp_path / "out").rglob(run_folder.RESULT))) == 3


def test_a_finished_pass_depends_on_the_files_that_its_words_name(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not on what is newer in the working folder, nor on a folder there that has the name of a task or adapter."""
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", *words, "adapter.lr=1e-3,1e-2"]) == 0
    (run,) = [path.parent for path in (tmp_path / "out").rglob(run_folder.RESULT)]
    _, (cell,) = cells.plan([*words, "adapter.lr=1e-3,1e-2"])
    later = (run / run_folder.RESULT).stat().st_mtime + 100
    for file in ("notes.txt", "folder/a.txt", "probe/a.txt"):
        Path(file).parent.mkdir(exist_ok=True)
        Path(file).touch()
        os.utime(file, (later, later))
    assert cells.finished(cell) == run
    os.utime(tmp_path / "labels.csv", (later, later))
    assert cells.finished(cell) is None


def test_a_record_that_was_damaged_or_changed_by_hand_is_told_and_run_again(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*words, "adapter.lr=1e-3,1e-2"]
    assert main(["sweep", *words]) == 0
    (file,) = (tmp_path / "out").rglob(run_folder.RESULT)
    whole = file.read_text()
    capsys.readouterr()
    gone = whole.replace('"grid_val_scores"', '"gone"')
    file.write_text(gone)
    _, (cell,) = cells.plan(words)
    assert "result.json is not of these 2 grid points" in sweep._done(cell, local.Ended(file.parent)).failure
    for changed in (gone, whole.replace('"point": ', '"point": 7'), whole[:-200]):
        file.write_text(changed)
        assert main(["sweep", *words]) == 0
        assert "not taken: " in capsys.readouterr().err
        (again,) = set((tmp_path / "out").rglob(run_folder.RESULT)) - {file}
        shutil.rmtree(again.parent)


def test_a_point_whose_last_step_ends_in_nan_is_not_chosen(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for word in words if not word.startswith("adapter.epochs")]
    assert main(["sweep", *words, "adapter.lr=1e30,1e-3", "adapter.epochs=1"]) == 0
    (run,) = [path.parent for path in (tmp_path / "out").rglob(run_folder.RESULT)]
    selection = run_folder.load(run)["selection"]
    assert selection["chosen"]["point"] == 1 and selection["grid_val_scores"][0] is None
    assert [one["point"] for one in selection["failures"]] == [0]
    assert main(["run", *words, "adapter.lr=1e30", "adapter.epochs=1"]) == 2
    assert "became" in capsys.readouterr().err


def test_two_passes_side_by_side_end_as_one_after_another(
    words: list[str], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Any] = []

    def start(command: list[str], **settings: Any) -> Any:
        """The first in an interpreter of its own, the other forked: each would import for eight seconds."""
        begun.append(command)
        return Forked(*command[1:]) if len(begun) > 1 else subprocess.Popen(command, **settings)

    started = SimpleNamespace(Popen=start, PIPE=subprocess.PIPE, DEVNULL=subprocess.DEVNULL)
    monkeypatch.setattr(local, "subprocess", started)
    assert main(["sweep", *words, "seed=0,1", "adapter.lr=1e-3,1e-2", "jobs=2", "workers=1"]) == 0
    runs = [path.parent for path in (tmp_path / "out").rglob(run_folder.RESULT)]
    assert sorted(run_folder.load(run)["provenance"]["seed"] for run in runs) == [0, 1]
    assert main(["sweep", *words, "seed=0,1", "adapter.lr=1e-3,1e-2", "workers=1"]) == 0
    assert len(list((tmp_path / "out").rglob(run_folder.RESULT))) == 2
    assert len(list((tmp_path / "out").glob("sweep-*.png"))) == 1  # of the whole, not of each pass
    assert len(begun) == 2


def test_an_interrupted_sweep_begins_no_further_pass_and_ends_those_that_run(monkeypatch: pytest.MonkeyPatch) -> None:
    _, planned = cells.plan(["task=egoschema", "mini=true", "ckpt=demo", "seed=0,1,2,3,4,5"])
    begun: list[cells.Cell] = []
    passes: list[subprocess.Popen[str]] = []

    def run_apart(cell: cells.Cell, running: set[subprocess.Popen[str]]) -> local.Ended:
        begun.append(cell)
        if len(begun) > 1:
            wait_until(lambda: passes, 10)
            os.kill(os.getpid(), signal.SIGINT)  # Ctrl-C, which the main thread gets
            passes[0].wait(10)
            return local.Ended(None)
        with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], text=True) as process:
            passes.append(process)
            running.add(process)
            process.wait()
        return local.Ended(None)

    monkeypatch.setattr(local, "_run_apart", run_apart)
    with pytest.raises(KeyboardInterrupt):
        local.run_all(planned, 2)
    assert passes[0].returncode == -signal.SIGTERM and len(begun) < len(planned)


def test_a_pass_of_its_own_says_last_where_its_run_is_or_why_there_is_none(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    local.run_alone([*words, "adapter.lr=1e-3,1e-2"])
    (run,) = [path.parent for path in (tmp_path / "out").rglob(run_folder.RESULT)]
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == [str(run), ""]
    local.run_alone([word for word in words if not word.startswith("ckpt=")] + ["ckpt=nothing_at_all"])
    folder, failure = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert folder == "" and failure.startswith("ckpt=nothing_at_all: no such file or folder")


@pytest.mark.parametrize(("values", "passes", "points"), [("1e-3", 1, 1), ("1e-3,1e-2", 1, 2)])
def test_a_sweep_without_several_values_says_how_they_are_given(
    values: str, passes: int, points: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sweep, "run_all", lambda jobs, planned: [sweep.Done(cell, failure="none") for cell in planned])
    with caplog.at_level(logging.INFO, logger="evalkit"):
        assert main(["sweep", "task=kinetics400", "mini=true", "ckpt=demo", f"adapter.lr={values}"]) == 1
    advice = "no key has several values: a sweep takes them with commas between, adapter.lr=1e-4,1e-3"
    assert caplog.messages == [f"passes: {passes}, grid points: {points}", *[advice] * (points == 1)]
