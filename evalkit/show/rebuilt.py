"""A run's configuration and task made again: of config.yaml nothing is run or fetched that it alone names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from evalkit import plugins
from evalkit.api import Task
from evalkit.config.config import Config
from evalkit.config.keys import known_keys
from evalkit.config.parse import resolve
from evalkit.errors import UserError, in_line
from evalkit.pipeline.task_data import load_task
from evalkit.results.consistency import read_config
from evalkit.results.run_folder import CONFIG, fingerprint
from evalkit.results.scores import named_file
from evalkit.runtime import bounded

MOST_BYTES = 2_000_000  # of config.yaml
# Keys that a run's file does not decide here: where others write, how many work, and what only the user may allow.
_LEFT_OUT = {"cache.also", "canary", "config", "controls", "devices", "nodes", "out", "trained_on", "trust"}
# Keys whose words mean a model or code; as paths they are read, and these words are evalkit's own.
_MODELS = {"ckpt", "lm", "adapter.text", "encoder.model"}
_OWN = {"", "demo", "none", "scratch"}


def config_of(run: Path, words: Sequence[str], files: Sequence[Path], task_alone: bool = False) -> Config:
    """The configuration of a run, with the user's own words in place of its.

    Code, models of the hub and URLs are taken from the user's words alone: the file may come from anywhere.

    Args:
        run: its folder.
        words: key=value of the user's.
        files: of tasks of the user's own, of which the run's is one if its task is a file.
        task_alone: only what makes the task, so that the adapter and the encoder are not looked at.

    Raises:
        UserError: there is no config.yaml, it is of another version of evalkit, or names what the user has to name.
    """
    try:
        text = bounded.read_bytes(run / CONFIG, MOST_BYTES).decode()
        _, values = read_config(text)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else in_line(error)
        raise UserError(f"{run}: {CONFIG} cannot be read: {(why or str(error)).lower()}") from error
    given = {word.partition("=")[0] for word in words}
    kept: dict[str, str] = {}
    for key, value in values.items():
        text = f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)
        if value is None or text in ("", "null") or key in _LEFT_OUT or key in given:
            continue
        kept[key] = str(named_file(text, files)) if key == "task" and text.endswith(".py") else text
    if task_alone:
        task = next((word.partition("=")[2] for word in words if word.startswith("task=")), kept.get("task", ""))
        known = known_keys("check", task)
        kept = {key: text for key, text in kept.items() if key in known}
        words = [word for word in words if word.partition("=")[0] in known or word.startswith("data.")]
    for key, text in kept.items():
        if wanted := _only_by_word(key, text):
            raise UserError(
                f"the run names {key}={text[:200]}, {wanted} only where you name it: add {key}={text[:200]}"
            )
    return resolve("check" if task_alone else "run", [*(f"{key}={text}" for key, text in kept.items()), *words])


def _only_by_word(key: str, text: str) -> str:
    """What would be done with a value that a run's file must not decide; empty where it may."""
    if key == "adapter" and text.endswith(".py"):
        return "which is run"
    if "://" in text:
        return "which is asked"
    if key not in _MODELS or text in _OWN or text.startswith("random:"):
        return ""
    if key == "ckpt" and (text in plugins.names("encoder") and not plugins.names_function(text)):
        return ""
    if Path(text).expanduser().exists():
        return ""
    return "which is run" if plugins.names_function(text) and ":" in text else "which is fetched"


def task_of(config: Config, record: Mapping[str, Any]) -> Task:
    """The task that a run was scored on.

    Raises:
        UserError: its data are not here, or are not those of the run.
    """
    task, found = _made(tuple(word for word in config.words if word.startswith(("task=", "mini=", "data.", "config="))))
    if found != record["data"]["fingerprint"]:
        versions = (task.version, record["task"]["version"])
        of = "{} here and {} in the run".format(*versions) if len(set(versions)) > 1 else "the same version"
        raise UserError(
            f"the test examples of task {plugins.display_name(config.options.task)} here are not those of the run: "
            f"other annotations, videos or options ({of}); data.root= and data.* say which are meant"
        )
    return task


@cache
def _made(words: tuple[str, ...]) -> tuple[Task, str]:
    """The task of these words, once for all runs that have them, and the fingerprint of its test examples."""
    task = load_task(resolve("check", words))
    return task, fingerprint(task.test)
