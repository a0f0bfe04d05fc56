"""Trackers of `log=`: what each holds of a run, and that none is ever in its way."""

import csv
import json
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from evalkit.cli import main
from evalkit.launch import cells
from evalkit.results import run_folder, validate
from evalkit.tracking import tools, trackers

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("decoding_here")]

Sweep = Callable[..., Path]


@pytest.fixture
def sweep(tmp_path: Path, tiny: Path, films: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """Fits two learning rates for two epochs with these words, and returns the run's folder."""
    rows = ["path,label,split"]
    rows += [f"{film},{i % 2},{'test' if i < 4 else 'train'}" for i, film in enumerate(sorted(films.glob("*.mp4")))]
    (tmp_path / "videos.csv").write_text("\n".join(rows) + "\n")
    monkeypatch.chdir(tmp_path)
    for variables in trackers.ADDRESSES.values():
        for variable in variables:
            monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))

    def do(*words: str) -> Path:
        fixed = ["task=folder", "data.root=videos.csv", f"ckpt={tiny}", "canary=false", "workers=1", "adapter.epochs=2"]
        assert main(["sweep", *fixed, "adapter.lr=1e-3,1e-2", *words]) == 0
        (run,) = Path("results/tiny/folder").iterdir()
        assert validate.validate(run) == []
        return run

    return do


def expected(run: Path) -> dict[str, float]:
    """A few of the numbers that a tracker must have of a run."""
    record = run_folder.load(run)
    (low, high), cost = record["scores"][0]["ci95"], record["cost"]
    scores = {"score/top1": record["scores"][0]["value"], "score/top1_low": low, "score/top1_high": high}
    return {**scores, "data/n_failed": 0.0, "cost/encode_s": cost["encode_s"], "chance": record["chance"]}


CURVES = {f"fit/{what}/lr={lr}" for what in ("loss", "val") for lr in ("0.001", "0.01")}


def test_csv_and_tensorboard_hold_curves_scores_and_the_record(
    sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs video-evalkit[tensorboard]"
    )
    run = sweep("log=csv,tensorboard")
    record = run_folder.load(run)
    (metrics,) = tmp_path.glob("logs/csv/sweep-*/tiny-folder/*/metrics.csv")
    assert metrics.parent.name[:16] == run.name[:16] and f"logged: csv {metrics.parent}" in capsys.readouterr().err
    rows = list(csv.DictReader(metrics.read_text().splitlines()))
    assert rows[0].keys() >= CURVES | expected(run).keys()
    for k, lr in enumerate(("0.001", "0.01")):
        curve = [float(row[f"fit/val/lr={lr}"]) for row in rows if row[f"fit/val/lr={lr}"]]
        assert len(curve) == 2 and record["selection"]["grid_val_scores"][k] in curve
        assert len([row for row in rows if row[f"fit/loss/lr={lr}"]]) == 2  # a step in each epoch
    assert {name: float(rows[-1][name]) for name in expected(run)} == pytest.approx(expected(run))
    assert "adapter.lr:\n- 0.001\n- 0.01\n" in (metrics.parent / "hparams.yaml").read_text()

    (events,) = tmp_path.glob("logs/tensorboard/sweep-*/tiny-folder/*/events.*")
    board = event_accumulator.EventAccumulator(str(events.parent)).Reload()
    assert len(board.Scalars("fit/loss/lr=0.001")) == 2
    assert board.Scalars("score/top1")[0].value == pytest.approx(expected(run)["score/top1"])
    text = board.Tensors("result.json/text_summary")[0].tensor_proto.string_val[0].decode()
    assert json.loads(text.removeprefix("```\n").removesuffix("\n```")) == record


def test_wandb_holds_it_without_a_network(sweep: Sweep, tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="needs video-evalkit[wandb], which make test does not install")
    run = sweep("log=wandb")
    (log,) = tmp_path.glob("logs/wandb/offline-run-*/run-*.wandb")
    content = log.read_bytes()
    files = (f"result-{run.name}"[:23], "result.json", "page.html")
    for name in (*CURVES, *expected(run), *files, "sweep-", "tiny-folder"):
        assert name.encode() in content, name


def test_mlflow_holds_it_in_a_local_file(sweep: Sweep, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs video-evalkit[mlflow], which make test does not install")
    run = sweep("log=mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/logs/mlflow/mlflow.db")
    (logged,) = client.search_runs([client.get_experiment_by_name("evalkit").experiment_id])
    assert logged.info.status == "FINISHED" and logged.info.run_name == "tiny-folder"
    assert {name: logged.data.metrics[name] for name in expected(run)} == pytest.approx(expected(run))
    assert len(client.get_metric_history(logged.info.run_id, "fit/val.lr_0.001")) == 2
    assert logged.data.params["adapter.lr"] == "[0.001, 0.01]" and logged.data.tags["evalkit.group"][:6] == "sweep-"
    kept = client.download_artifacts(logged.info.run_id, "result.json")
    assert Path(kept).read_bytes() == (run / "result.json").read_bytes()
    assert {file.path for file in client.list_artifacts(logged.info.run_id)} == {"page.html", "result.json"}


def test_trackio_holds_it_in_its_own_file(sweep: Sweep, tmp_path: Path) -> None:
    pytest.importorskip("trackio", reason="needs video-evalkit[trackio], which make test does not install")
    run = sweep("log=trackio")
    look = "import json; from trackio.sqlite_storage import SQLiteStorage as s; (r,) = s.get_runs('evalkit'); "
    look += "print(json.dumps(s.get_logs('evalkit', r)))"  # its folder is that of its import
    logs = json.loads(subprocess.run([sys.executable, "-c", look], capture_output=True, check=True).stdout)
    assert {name: logs[-1][name] for name in expected(run)} == pytest.approx(expected(run))
    assert {name for log in logs for name in log} >= CURVES


def test_an_adaptation_is_logged_too(tmp_path: Path, tiny: Path, films: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [f"{film},{i % 2},{'test' if i < 4 else 'train'}" for i, film in enumerate(sorted(films.glob("*.mp4")))]
    Path("videos.csv").write_text("\n".join(["path,label,split", *rows]) + "\n")
    words = ["task=folder", "data.root=videos.csv", f"ckpt={tiny}", "canary=false", "workers=1", "adapter.epochs=2"]
    assert main(["adapt", *words, "out=trained", "log=csv", "log.dir=elsewhere", "log.group=mine"]) == 0
    (metrics,) = Path("elsewhere/csv/mine/tiny-folder").glob("*/metrics.csv")
    *curve, last = csv.DictReader(metrics.read_text().splitlines())
    (record,) = Path("trained").rglob("adapter.json")
    selection = json.loads(record.read_text())["selection"]
    assert [float(row["fit/val"]) for row in curve if row["fit/val"]] == selection["val_scores"]
    assert float(last["fit/val_kept"]) == selection["val_score"] and float(last["cost/training/flops"]) > 0


class Broken:
    """A tracker that fails at its third call, and counts them."""

    def __init__(self) -> None:
        self.calls = 0

    def fail(self, *_: Any) -> None:
        self.calls += 1
        if self.calls == 3:
            raise OSError(28, "No space left on device")


def test_the_record_and_the_page_are_handed_over_at_the_end(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []

    def end(values: object, files: Sequence[Path], step: int) -> None:
        given.extend(file.name for file in files if file.suffix == ".json" or "<html" in file.read_text())

    def nothing(*_: object) -> None:
        pass

    monkeypatch.setitem(tools.OPEN, "wandb", lambda start: tools.Tracker("wandb", nothing, end, nothing, lambda: ""))
    monkeypatch.setattr(trackers, "_is_installed", lambda module: True)
    sweep("log=wandb")
    assert given == ["result.json", "page.html"]


@pytest.mark.filterwarnings("error")
def test_a_tracker_that_fails_is_left_out_and_the_run_goes_on(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Broken()
    tracker = tools.Tracker("wandb", broken.fail, broken.fail, broken.fail, lambda: "nowhere")
    monkeypatch.setitem(tools.OPEN, "wandb", lambda start: tracker)
    monkeypatch.setitem(tools.OPEN, "mlflow", lambda start: broken.no_such_server)  # type: ignore[attr-defined]
    monkeypatch.setattr(trackers, "_is_installed", lambda module: True)
    run = sweep("log=wandb,mlflow")
    err = capsys.readouterr().err
    line = "log=wandb failed and is left out from here on: OSError: [Errno 28] No space left on device\n"
    assert err.count(line) == 1 and broken.calls == 3 and "nowhere" not in err
    assert err.count("log=mlflow could not be opened and is left out: AttributeError") == 1
    assert run_folder.load(run)["status"] == "complete"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["log=wandb"], "log=wandb needs the package wandb: pip install 'video-evalkit[wandb]'"),
        (
            ["log=csv,tensorboard"],
            "log=tensorboard needs the package tensorboard: pip install 'video-evalkit[tensorboard]'",
        ),
        (["log=csv", "log.online=true"], "log.online=true has no effect with log=csv: of the trackers wandb, mlflow"),
        (["log=csv", "log.dir=videos.csv/logs"], "log.dir=videos.csv/logs: cannot write there: Not a directory"),
        (["log.dir=elsewhere"], "log.dir=elsewhere has no effect without a tracker: give log=csv or another"),
        (["log.group=mine"], "log.group=mine has no effect without a tracker"),
        (["log.online=true"], "log.online=true has no effect without a tracker"),
        (["log=wandbb"], "log=wandbb: expected a list [a,b], each one of csv, tensorboard, wandb, mlflow, trackio"),
    ],
)
@pytest.mark.parametrize("command", ["run", "sweep", "adapt"])
def test_what_cannot_be_logged_is_one_line_before_anything_is_done(
    words: list[str],
    message: str,
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(trackers, "_is_installed", lambda module: False)
    monkeypatch.chdir(tmp_path)
    Path("videos.csv").touch()
    assert main([command, "task=kinetics400", "mini=true", "ckpt=demo", f"out={tmp_path}/out", *words]) == 2
    err = capsys.readouterr().err
    assert err.splitlines()[-1].startswith(f"evalkit: {message}") and "encode" not in err
    assert not (tmp_path / "out").exists()


def test_a_folder_of_former_runs_is_no_installed_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wandb_of_before").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not trackers._is_installed("wandb_of_before") and trackers._is_installed("lightning")


def test_what_may_be_sent_needs_an_address(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(trackers, "_is_installed", lambda module: True)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main(["run", "task=kinetics400", "mini=true", "ckpt=demo", "log=mlflow", "log.online=true"]) == 2
    assert capsys.readouterr().err == ("evalkit: log.online=true: mlflow needs an address; set MLFLOW_TRACKING_URI\n")


def test_a_group_changes_no_cell_and_reaches_other_processes() -> None:
    words = ["task=kinetics400", "mini=true", "ckpt=demo", "seed=0,1", "log=csv,wandb"]
    _, planned = cells.plan(words)
    assert [cell.config.options.log for cell in planned] == [("csv", "wandb")] * 2
    grouped = cells.grouped(planned, "sweep")
    (group,) = {cell.config.options.log_group for cell in grouped}
    assert group.startswith("sweep-") and [cell.mark for cell in grouped] == [cell.mark for cell in planned]
    for cell in grouped:
        (again,) = cells.plan(cell.words)[1]
        assert again.config.options.log_group == group and again.mark == cell.mark
    _, own = cells.plan([*words, "log.group=mine"])
    assert {cell.config.options.log_group for cell in cells.grouped(own, "sweep")} == {"mine"}
    _, silent = cells.plan(words[:-1])
    assert cells.grouped(silent, "sweep") == silent


def test_nothing_of_a_tracker_is_imported_where_none_is_asked_for() -> None:
    look = "import sys, evalkit.launch.processes; print([m for m in (%r) if m in sys.modules])"
    modules = ["evalkit.tracking.tools", "tensorboard", "torch.utils.tensorboard", "wandb", "mlflow", "trackio"]
    ended = subprocess.run([sys.executable, "-c", look % modules], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"


def test_the_extras_are_called_as_the_trackers_are() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert trackers.MODULES.keys() == tools.OPEN.keys() == {"csv", *(extras.keys() & tools.OPEN.keys())}


@pytest.mark.parametrize(
    ("group", "path"), [("", "demo-task@mini"), ("..", "-/demo-task@mini"), ("../../x", "--..-x/demo-task@mini")]
)
def test_a_group_does_not_lead_out_of_the_folder_of_logs(group: str, path: str, tmp_path: Path) -> None:
    start = tools.Start("demo-task@mini", "run", group, tmp_path, False, {"seed": 0})
    tools.open_csv(start).close(True)
    assert (tmp_path / "csv" / path / "run" / "hparams.yaml").is_file()
