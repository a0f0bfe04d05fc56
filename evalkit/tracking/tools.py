"""The trackers, each opened through Lightning's own logger for it; Trackio, for which Lightning has none, by its own.

Nothing leaves the machine unless `log.online=true` or the tool's own environment variable says so, and no tool reports
on its use.
"""

from __future__ import annotations

import contextlib
import contextvars
import json
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger

PROJECT = "evalkit"
LONGEST_TEXT = 1_000_000  # characters of a file that TensorBoard shows as text


@dataclass(frozen=True)
class Start:
    """The data that a tracker gets at the start of a run.

    Attributes:
        name: encoder and task.
        run_id: that tells the run from others of the name.
        group: of runs that belong together; empty for none.
        folder: that local logs go to, each tracker's in a folder of its own.
        online: whether what is logged may be sent where the tool is told to.
        settings: by name; numbers, texts, booleans, None, and lists of them.
    """

    name: str
    run_id: str
    group: str
    folder: Path
    online: bool
    settings: Mapping[str, Any]

    def make_folder(self, kind: str) -> Path:
        """The absolute folder of a tracker's local logs, made."""
        folder = self.folder.expanduser().absolute() / kind
        folder.mkdir(parents=True, exist_ok=True)
        return folder


@dataclass(frozen=True)
class Tracker:
    """An open tracker.

    Attributes:
        name: as in `log=`.
        log: takes numbers by name, and the step that they are of.
        end: takes the run's last numbers, files to be kept beside them, and the step.
        close: takes whether the run is done, and not failed.
        place: where the log is, for people.
    """

    name: str
    log: Callable[[Mapping[str, float], int], object]
    end: Callable[[Mapping[str, float], Sequence[Path], int], object]
    close: Callable[[bool], object]
    place: Callable[[], str]


def open_csv(start: Start) -> Tracker:
    """Lightning's metrics.csv and hparams.yaml, in csv/[GROUP/]NAME/RUN."""
    csv = CSVLogger(start.make_folder("csv"), name=_path(start), version=start.run_id)
    csv.log_hyperparams(dict(start.settings))

    def log(values: Mapping[str, float], step: int) -> None:
        csv.log_metrics(dict(values), step)
        csv.save()

    csv.save()
    return Tracker("csv", log, lambda values, _, step: log(values, step), lambda _: None, lambda: csv.log_dir)


def open_tensorboard(start: Start) -> Tracker:
    """Event files in tensorboard/[GROUP/]NAME/RUN; the record as text, the scores with the settings as hparams."""
    board = TensorBoardLogger(
        start.make_folder("tensorboard"), name=_path(start), version=start.run_id, default_hp_metric=False
    )
    settings = {name: _text(value) for name, value in start.settings.items()}
    board.experiment.add_text("settings", _block(json.dumps(settings, indent=2)))

    def log(values: Mapping[str, float], step: int) -> None:
        board.log_metrics(values, step)
        board.experiment.flush()

    def end(values: Mapping[str, float], files: Sequence[Path], step: int) -> None:
        scores = {name: value for name, value in values.items() if name.startswith("score/")}
        log({name: value for name, value in values.items() if name not in scores}, step)
        board.log_hyperparams(settings, scores, step)
        for file in files:
            if file.suffix == ".json":  # it shows no html
                board.experiment.add_text(file.name, _block(file.read_text(encoding="utf-8")[:LONGEST_TEXT]))
        board.save()

    return Tracker("tensorboard", log, end, lambda _: board.finalize("success"), lambda: board.log_dir)


def open_wandb(start: Start) -> Tracker:
    """A run of Weights & Biases, in wandb/ until `wandb sync` sends it; WANDB_MODE and its other variables count."""
    import wandb

    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        name=start.name,
        group=start.group or os.environ.get("WANDB_RUN_GROUP"),
        dir=os.environ.get("WANDB_DIR") or start.make_folder("wandb").parent,
        mode=os.environ.get("WANDB_MODE", "online" if start.online else "offline"),
        config={"run": start.run_id, **start.settings},
        reinit="create_new",  # beside a run of the user's own, not in it
        settings=wandb.Settings(silent=True, console="off", init_timeout=30),
    )
    run.define_metric("trainer/global_step")  # as WandbLogger does where it makes the run
    run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    board = WandbLogger(experiment=run)

    def end(values: Mapping[str, float], files: Sequence[Path], step: int) -> None:
        board.log_metrics(values, step)
        artifact = wandb.Artifact(f"result-{start.run_id}", type="result")
        for file in files:
            artifact.add_file(str(file), file.name)
        run.log_artifact(artifact)

    return Tracker(
        "wandb",
        board.log_metrics,
        end,
        lambda done: run.finish(0 if done else 1),
        lambda: str(Path(run.dir).parent if run.offline else run.url),
    )


def open_mlflow(start: Start) -> Tracker:
    """A run of MLflow: at MLFLOW_TRACKING_URI, or in mlflow/mlflow.db with artifacts beside it."""
    import filelock
    import mlflow

    for name in ("mlflow", "alembic", "lightning.pytorch.loggers.mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
    address = os.environ.get("MLFLOW_TRACKING_URI", "")
    folder = None if address else start.make_folder("mlflow")
    before = mlflow.get_tracking_uri()
    # Of several processes that begin at once, one makes the file of the database.
    with contextlib.nullcontext() if folder is None else filelock.FileLock(folder / "mlflow.lock"):
        board = MLFlowLogger(
            os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT),
            run_name=start.name,
            tracking_uri=address or f"sqlite:///{folder}/mlflow.db",
            tags={"evalkit.run": start.run_id, **({"evalkit.group": start.group} if start.group else {})},
            artifact_location=None if folder is None else (folder / "artifacts").as_uri(),
        )
        run_id = board.run_id
    assert run_id
    mlflow.set_tracking_uri(before)  # the logger sets it for the whole process
    board.log_hyperparams({name: _text(value) for name, value in start.settings.items()})

    def log(values: Mapping[str, float], step: int) -> None:
        board.log_metrics({_mlflow_name(name): value for name, value in values.items()}, step)

    def end(values: Mapping[str, float], files: Sequence[Path], step: int) -> None:
        log(values, step)
        for file in files:
            board.experiment.log_artifact(run_id, str(file))

    return Tracker(
        "mlflow",
        log,
        end,
        lambda done: board.finalize("success" if done else "failed"),
        lambda: f"{address or f'sqlite:///{folder}/mlflow.db'} run {run_id}",
    )


def open_trackio(start: Start) -> Tracker:
    """A run of Trackio in TRACKIO_DIR or its own folder, where `trackio show` looks; sent where its variables say."""
    import trackio

    # In a context of its own: a run of the user's, which Trackio keeps in the context, would be ended.
    run = contextvars.Context().run(
        trackio.init,
        os.environ.get("TRACKIO_PROJECT", PROJECT),
        name=start.name,
        group=start.group or None,
        config={"run": start.run_id, **{name: _text(value) for name, value in start.settings.items()}},
        embed=False,
        auto_log_gpu=False,
        auto_log_cpu=False,
    )

    def log(values: Mapping[str, float], step: int) -> None:
        run.log(dict(values), step=step)

    def end(values: Mapping[str, float], files: Sequence[Path], step: int) -> None:
        log(values, step)
        artifact = trackio.Artifact(f"result-{start.run_id}", type="result")
        for file in files:
            artifact.add_file(file, name=file.name)
        run.log_artifact(artifact)

    def close(done: bool) -> None:
        if not done:
            run.log({"failed": 1})
        run.finish()

    return Tracker("trackio", log, end, close, lambda: f"project {run.project}, run {run.name}")


OPEN: dict[str, Callable[[Start], Tracker]] = {
    "csv": open_csv,
    "tensorboard": open_tensorboard,
    "wandb": open_wandb,
    "mlflow": open_mlflow,
    "trackio": open_trackio,
}


def _path(start: Start) -> str:
    """The name as a path, the group before it; neither leads out of its folder, or is hidden there."""
    return "/".join(re.sub(r"[^\w.@+-]|^\.+", "-", part) for part in (start.group, start.name) if part)


def _text(value: Any) -> Any:
    """A setting as a number, a text or a boolean; TensorBoard and MLflow take no others."""
    return value if isinstance(value, bool | int | float | str) else json.dumps(value, default=str)


def _block(text: str) -> str:
    """Text as a block of code in markdown."""
    return f"```\n{text}\n```"


def _mlflow_name(name: str) -> str:
    """A name that MLflow takes; one slash, since it keeps a file per metric on some servers: mAP/a would lie in mAP."""
    section, slash, rest = re.sub(r"[^\w/. -]", "_", name).partition("/")
    return section + slash + rest.replace("/", ".")
