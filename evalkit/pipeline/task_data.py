"""The task of a run, made from its words, and where its data lie."""

from __future__ import annotations

import inspect
import traceback
from pathlib import Path

from evalkit import plugins
from evalkit.api import Task
from evalkit.config.config import Config
from evalkit.errors import UserError, one_line
from evalkit.pipeline.task_contract import check_task
from evalkit.video import places


def load_task(config: Config) -> Task:
    """The task that the words ask for.

    Raises:
        UserError: its data are not there or not as they should be, or its own code fails.
    """
    options = config.options
    mini = {"mini": True} if options.mini else {}
    meant = meant_size(config)
    word, named = _videos(config)
    try:
        own = {"expect": meant, "videos": word}
        settings = {key: value for key, value in config.data.items() if own.get(key) is None}
        with places.searched(named):
            task = plugins.factory("task", options.task)(**settings, **mini)
    except FileNotFoundError as error:
        raise UserError(f"task {options.task}: no file {error.filename}; data.root= says where its data lie") from error
    except UserError:
        raise
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        raise UserError(f"task {options.task}: cannot read {what}{error.strerror or error}") from error
    except Exception as error:  # whatever a task's own code raises
        raise UserError(f"task {options.task} fails: {raised_at(error)}: {one_line(error)}") from error
    if not isinstance(task, Task):
        raise UserError(f"task {options.task} returned a {type(task).__name__}; wanted an evalkit.api.Task")
    check_task(task, options.task)
    places.check_urls(task, options.task, named)
    if word is not None:
        places.check_used(task, options.task, word, named)
    if meant not in (None, len(task.test)):
        raise UserError(f"data.expect={meant}: test of task {options.task} has {len(task.test):,} examples")
    return task


def meant_size(config: Config) -> int | None:
    """How many test examples the user says are meant: `data.expect`, unless the task has such a parameter itself."""
    parameters = inspect.signature(plugins.factory("task", config.options.task)).parameters
    return None if "expect" in parameters else config.data.get("expect")


def _videos(config: Config) -> tuple[str | None, tuple[Path, ...]]:
    """`data.videos`, unless the task has such a parameter itself, and the places that it names."""
    parameters = inspect.signature(plugins.factory("task", config.options.task)).parameters
    word = None if "videos" in parameters else config.data.get("videos")
    return word, () if word is None else places.read_places(word)


def video_places(config: Config) -> tuple[Path, ...]:
    """Where the task's videos lie: what `data.videos` names, else its root; none for a miniature."""
    _, named = _videos(config)
    root = data_root(config)
    return named or ((root,) if root else ())


def data_root(config: Config) -> Path | None:
    """The folder or file that the task's data are read from; None where it has none, or is a miniature."""
    parameters = inspect.signature(plugins.factory("task", config.options.task)).parameters
    root = config.data.get("root", parameters["root"].default if "root" in parameters else None)
    return root if isinstance(root, Path) and not config.options.mini else None


def raised_at(error: Exception) -> str:
    """The file and line that raised an error."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(place.filename).name}, line {place.lineno}"
