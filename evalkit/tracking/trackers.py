"""Logs a run to the trackers of `log=`: its configuration, its training curves, and finally its results.

A tracker is beside the record, never in its way: one that fails is left out from then on with a warning, and the run
goes on. Nothing of them is imported where `log=` is not given.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import logging
import math
import os
import shlex
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit import plugins
from evalkit.config.config import Config, typed
from evalkit.config.options import Options
from evalkit.errors import UserError, install, one_line
from evalkit.results import run_folder
from evalkit.runtime.filesystem import check_writable

if TYPE_CHECKING:
    from evalkit.tracking.tools import Tracker

logger = logging.getLogger("evalkit")

# What each imports; any one of them is enough. Their extras have the trackers' names.
MODULES = {
    "csv": (),
    "tensorboard": ("tensorboard", "tensorboardX"),
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
    "trackio": ("trackio",),
}
# Variables by which a tool itself is told where to send what it logs.
ADDRESSES = {
    "wandb": ("WANDB_MODE",),
    "mlflow": ("MLFLOW_TRACKING_URI",),
    "trackio": ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"),
}

# Those that write into `log.dir=`, and the variable by which a tool is told to write elsewhere.
FOLDERS = {"csv": "", "tensorboard": "", "wandb": "WANDB_DIR", "mlflow": "MLFLOW_TRACKING_URI"}

# Reports on the use of the tools, unless the user has said something about them.
SILENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # A server that does not answer is given up after seconds, not minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}


class Trackers:
    """Those that are open, of one run; none of them costs anything.

    Attributes:
        opened: in the order of `log=`; one that failed is no longer among them.
        seconds: that they took so far.
        step: the last one that was logged.
    """

    def __init__(self, opened: Sequence[Tracker] = ()) -> None:
        self.opened, self.seconds, self.step = list(opened), 0.0, 0

    def __bool__(self) -> bool:
        return bool(self.opened)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Hands numbers to each tracker; those that are not finite are left out."""
        finite = _finite(values)
        self.step = max(self.step, step)
        if finite:
            self._each(lambda tracker: tracker.log(finite, step))

    def end(self, values: Mapping[str, Any], files: Sequence[Path]) -> None:
        """Hands over what came of the run: its numbers, as of the last step, and files that are kept beside them.

        What is not a finite number is left out.
        """
        finite = _finite(values)
        self._each(lambda tracker: tracker.end(finite, files, self.step))

    def close(self, done: bool) -> None:
        """Closes each tracker and says where it wrote; a run that is not done is marked as failed."""
        places: list[str] = []

        def end(tracker: Tracker) -> None:
            tracker.close(done)
            places.append(f"{tracker.name} {tracker.place()}")

        self._each(end)
        for place in places:
            logger.info(f"logged: {place}")
        self.opened.clear()

    def _each(self, act: Callable[[Tracker], object]) -> None:
        began = time.monotonic()
        for tracker in list(self.opened):
            try:
                with apart():
                    act(tracker)
            except Exception as error:  # whatever a tracker's own code raises
                self.opened.remove(tracker)
                logger.warning(f"log={tracker.name} failed and is left out from here on: {one_line(error)}")
        self.seconds += time.monotonic() - began


def check(options: Options) -> None:
    """Raises UserError where a tracker is not installed, cannot write its log, or has no address to send it to.

    So it does where words are about trackers and none is asked for.
    """
    given = {"log.dir": options.log_dir, "log.group": options.log_group, "log.online": options.log_online}
    usual = {"log.dir": Options.log_dir, "log.group": "", "log.online": False}
    if idle := [f"{key}={typed(value)}" for key, value in given.items() if value != usual[key] and not options.log]:
        raise UserError(f"{idle[0]} has no effect without a tracker: give log=csv or another, or leave it out")
    for name in options.log:
        modules = MODULES[name]
        if modules and not any(_is_installed(module) for module in modules):
            raise UserError(f"log={name} needs the package {modules[0]}: {install(name)}")
    if any(name in FOLDERS and not os.environ.get(FOLDERS[name]) for name in options.log):
        check_writable(options.log_dir.expanduser(), f"log.dir={options.log_dir}")
    if not options.log_online:
        return
    able = [name for name in options.log if name in ADDRESSES]
    if not able:
        raise UserError(
            f"log.online=true has no effect with log={','.join(options.log)}: of the trackers wandb, mlflow and "
            "trackio can send what they log; leave it out"
        )
    for name in able:
        if name != "wandb" and not any(os.environ.get(variable) for variable in ADDRESSES[name]):
            raise UserError(f"log.online=true: {name} needs an address; set {' or '.join(ADDRESSES[name])}")


def _is_installed(module: str) -> bool:
    """Whether a module can be imported; a folder of its name, such as the wandb/ of former runs, is none."""
    spec = importlib.util.find_spec(module)
    return spec is not None and spec.origin is not None


@contextlib.contextmanager
def start(options: Options, name: str, run_id: str, settings: Mapping[str, Any], wanted: bool) -> Iterator[Trackers]:
    """The trackers of a run, closed at its end; of one that raises as failed.

    Args:
        options: of the run.
        name: of the run, in every tracker: encoder and task.
        run_id: that tells it from others of the name.
        settings: its configuration, by name.
        wanted: whether this process is the one that logs.
    """
    trackers = Trackers()
    if not (options.log and wanted):
        yield trackers
        return
    for variable, value in SILENT.items():
        os.environ.setdefault(variable, value)
    tools = importlib.import_module("evalkit.tracking.tools")
    start = tools.Start(name, run_id, options.log_group, options.log_dir, options.log_online, settings)
    for kind in dict.fromkeys(options.log):
        try:
            with apart():
                trackers.opened.append(tools.OPEN[kind](start))
        except Exception as error:  # no network, no disk, no login: the run needs none of them
            logger.warning(f"log={kind} could not be opened and is left out: {one_line(error)}")
    try:
        yield trackers
    except BaseException:
        trackers.close(done=False)
        raise
    trackers.close(done=True)


_lock = threading.Lock()


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """Keeps what a tracker prints or warns of off the streams that a run's table and notes are on."""
    with _lock, warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def settings_of(
    config: Config, names: Mapping[str, str], views: Mapping[str, Any], points: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The configuration of a run by name: what was asked for, and what adapter and views came to.

    Args:
        config: of the run.
        names: of task, encoder and adapter.
        views: as they are read; empty where no video is.
        points: the adapter's settings at each grid point; where they differ, all values are listed.
    """
    of_adapter = {
        f"adapter.{key}": values[0] if all(value == values[0] for value in values) else values
        for key, values in _columns(points).items()
    }
    settings = {
        **names,
        "ckpt": config.options.ckpt,
        "command": shlex.join(["evalkit", config.command, *config.words]),
        **{key: getattr(config.options, key) for key in ("seed", "lm", "precision", "batch")},
        **{f"clip.{key}": value for key, value in views.items()},
        **{f"data.{key}": value for key, value in config.data.items()},
        **{f"encoder.{key}": value for key, value in config.encoder.items()},
        **{f"trainer.{key}": value for key, value in asdict(config.trainer).items()},
        **of_adapter,
    }
    return {
        name: value if value is None or isinstance(value, int | float | str | list) else str(value)
        for name, value in settings.items()
    }


def point_names(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """What each grid point is called in a curve's name, `/lr=0.001`: by the settings that differ; nothing of one."""
    varied = [key for key, values in _columns(points).items() if any(value != values[0] for value in values)]
    return ["".join(f"/{key}={point.get(key)}" for key in varied) for point in points]


def _columns(points: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {
        key: [point.get(key) for point in points] for key in dict.fromkeys(key for point in points for key in point)
    }


def numbers_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a record has of numbers, by the names that trackers have them under; None and texts among them.

    `score/NAME` with the ends of its interval, `score/NAME_low` and `score/NAME_high`; `control/NAME`; `chance`;
    `data/n_failed` and the other counts; `cost/NAME`.
    """
    numbers: dict[str, Any] = {}
    for score in record["scores"]:
        low, high = score["ci95"]
        name = f"score/{score['metric']}"
        numbers |= {name: score["value"], f"{name}_low": low, f"{name}_high": high}
    numbers |= {f"control/{control['name']}": control["value"] for control in record["controls"]}
    numbers["chance"] = record["chance"]
    numbers |= {f"data/{key}": record["data"][key] for key in ("n_expected", "n_scored", "n_failed")}
    numbers |= {f"cost/{key}": value for key, value in record["cost"].items() if key != "training"}
    numbers |= {f"cost/training/{key}": value for key, value in record["cost"].get("training", {}).items()}
    return numbers


def _finite(values: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers among values."""
    numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
    return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}


def end_run(trackers: Trackers, folder: Path, task: str) -> None:
    """Hands a run's record over: its numbers, result.json and the page on which it can be looked at.

    Args:
        trackers: of the run.
        folder: of the run, written.
        task: as `task=` names it; where that is a file of the user's own, the run is validated by it for its page.
    """
    if not trackers:
        return
    with tempfile.TemporaryDirectory(prefix="evalkit-") as place:
        files = [folder / run_folder.RESULT]
        try:
            runs, _ = importlib.import_module("evalkit.leaderboard.runs").collect(folder, plugins.own_task_file(task))
            if runs:
                page = Path(place) / "page.html"
                render = importlib.import_module("evalkit.leaderboard.page.render").render_page
                page.write_text(render(runs), encoding="utf-8")
                files.append(page)
        except Exception as error:  # the result stands without its page
            logger.warning(f"log: no page of {folder}: {one_line(error)}")
        trackers.end(numbers_of(run_folder.load(folder)), files)
