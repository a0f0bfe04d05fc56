"""Builds the task of a run from its options, checks it, and locates its data."""

from __future__ import annotations

import inspect
import logging
import math
import traceback
from collections.abc import Mapping
from pathlib import Path

from evalkit import plugins
from evalkit.api import Task
from evalkit.config.config import Config
from evalkit.errors import UserError, counted, names_file, one_line
from evalkit.runtime.progress import phase
from evalkit.video import places

logger = logging.getLogger("evalkit")


def load_task(config: Config) -> Task:
    """Builds the task that the options name.

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
        with places.searched(named), phase(f"read the data of {plugins.display_name(options.task)}"):
            task = plugins.factory("task", options.task)(**settings, **mini)
    except FileNotFoundError as error:
        raise UserError(f"task {options.task}: no file {error.filename}; set data.root= to its folder") from error
    except UserError as error:
        if "root" not in config.data and str(error).startswith("data.root="):  # which nobody has said
            tried = " (or mini=true, which generates its own data)" if "mini" in parameters(options.task) else ""
            what = "FILE" if Path(parameters(options.task)["root"].default).suffix else "FOLDER"
            raise UserError(f"{error}; say where it is, data.root={what}{tried}") from error
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
        raise UserError(f"data.expect={meant}: test of task {options.task} has {counted(len(task.test), 'example')}")
    return task


def parameters(task: str) -> Mapping[str, inspect.Parameter]:
    """The parameters of a task's function."""
    return inspect.signature(plugins.factory("task", task)).parameters


def meant_size(config: Config) -> int | None:
    """How many test examples the user says are meant: `data.expect`, unless the task has such a parameter itself."""
    return None if "expect" in parameters(config.options.task) else config.data.get("expect")


def _videos(config: Config) -> tuple[str | None, tuple[Path, ...]]:
    """`data.videos`, unless the task has such a parameter itself, and the places that it names."""
    word = None if "videos" in parameters(config.options.task) else config.data.get("videos")
    return word, () if word is None else places.read_places(word)


def video_places(config: Config) -> tuple[Path, ...]:
    """Where the task's videos are: `data.videos`, or else its root; nowhere for a miniature."""
    _, named = _videos(config)
    root = data_root(config)
    return named or ((root,) if root else ())


def data_root(config: Config) -> Path | None:
    """The folder or file that the task's data are read from; None where it has none, or is a miniature."""
    taken = parameters(config.options.task)
    root = config.data.get("root", taken["root"].default if "root" in taken else None)
    return root if isinstance(root, Path) and not config.options.mini else None


def raised_at(error: Exception) -> str:
    """The file and line that raised an error."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(place.filename).name}, line {place.lineno}"


def check_task(task: Task, name: str) -> None:
    """Raises UserError where a task breaks a rule that every task keeps, now rather than after hours."""
    for split in ("train", "val", "test"):
        examples = getattr(task, split)
        for example in examples:
            for value in (example.id, example.text, example.kind, *example.choices):
                if not isinstance(value, str):
                    raise UserError(f"task {name}: {value!r:.60} of example {example.id!r:.60} in {split} is not text")
                if not _is_unicode(value):
                    raise UserError(
                        f"task {name}: {value!a:.60} of example {example.id!a:.60} in {split} holds half of a "
                        "character (a surrogate), which no text has: write the whole one"
                    )
        if blank := [e for e in examples if any(not choice.strip() for choice in e.choices)]:
            logger.warning(
                f"task {name}: {len(blank)} of {len(examples):,} examples in {split} have an option without text, as "
                f"{blank[0].id!r:.60}; language models mostly find such an option likely"
            )
        ids = {example.id for example in examples}
        if len(ids) != len(examples):
            seen: set[str] = set()
            twice = next(e.id for e in examples if e.id in seen or seen.add(e.id))  # type: ignore[func-returns-value]
            raise UserError(f"task {name}: example id {twice!r} appears more than once in {split}")
        for example in examples:
            if not names_file(str(example.video)):
                file = f"{str(example.video)!a:.200}"
                raise UserError(
                    f"task {name}: the video of {example.id!a:.100} in {split}: no file can be called {file}"
                )
        if split != "test" and any(example.target is None for example in examples):
            raise UserError(f"task {name}: an example of {split} has no target to learn from")
        if wrong_span := next((e for e in examples if e.span and not 0 <= e.span[0] <= e.span[1] < math.inf), None):
            start, end = wrong_span.span or (0.0, 0.0)
            raise UserError(
                f"task {name}: span of example {wrong_span.id!r} of {split} is {start:g} to {end:g} s; wanted "
                "0 <= start <= end"
            )
    targets = [example.target for example in task.test if example.target is not None]
    if task.classes:
        known = [e.target for e in (*task.train, *task.val, *task.test) if e.target is not None]
        numbers = [n for t in known for n in (t if isinstance(t, tuple | list) else (t,))]
        if wrong := [n for n in numbers if isinstance(n, int | float) and not _is_index(n, len(task.classes))]:
            raise UserError(f"task {name}: target {wrong[0]} is not an index of its {len(task.classes)} classes")
    for example in (*task.train, *task.val, *task.test):
        if example.choices and isinstance(example.target, int) and not _is_index(example.target, len(example.choices)):
            raise UserError(
                f"task {name}: target {example.target} of example {example.id!r} is not an index of its "
                f"{len(example.choices)} choices"
            )
    if targets:
        try:
            (task.quick_score or task.score)(targets[:100], targets[:100])  # whether it works, not its value
        except UserError:
            raise
        except Exception as error:  # whatever a task's own code raises
            raise UserError(f"task {name}: its score function fails: {one_line(error)}") from error


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_index(number: float, count: int) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 0 <= number < count
