"""evalkit from Python: what `evalkit run` does on the command line, of a checkpoint or of a module in memory."""

from __future__ import annotations

import copy
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from evalkit.api import Encoder
from evalkit.config import config, parse
from evalkit.errors import UserError
from evalkit.launch import processes
from evalkit.results import run_folder
from evalkit.runtime import notes


@dataclass(frozen=True)
class Result:
    """A run that is done.

    Attributes:
        folder: of its files, which `evalkit compare`, `score`, `validate` and `leaderboard` take.
        record: what result.json holds.
    """

    folder: Path
    record: dict[str, Any]

    @property
    def scores(self) -> dict[str, float | None]:
        """The value of each metric, the headline first; rates are in percent."""
        return {entry["metric"]: entry["value"] for entry in self.record["scores"]}


def run(task: str, ckpt: str | Path | nn.Module, *, quiet: bool = False, **words: Any) -> Result:
    """Scores an encoder on a task, as `evalkit run task=... ckpt=...` does, and returns the result.

        evalkit.run("egoschema", "demo", mini=True).scores
        evalkit.run("kinetics400", encoder, data={"root": "k400"}, adapter={"lr": 1e-3})
        evalkit.run("kinetics400 data.root=k400 adapter.lr=1e-3", encoder)

    Args:
        task: a benchmark, as `task=`; other words of the command line may follow, as in a line of the callback.
        ckpt: as `ckpt=`; or an encoder as `evalkit.api.Encoder` describes it, of which a copy is scored: it stays as
            it is, in training or not. Its result is known by the hash of its weights, and called
            `encoder={"name": ...}`.
        quiet: print nothing: no table, no progress, no notes. Handlers of the user's own, such as logging.basicConfig
            sets up, get the notes of the logger `evalkit` all the same.
        words: the other keys; those of a section as a dictionary.

    Raises:
        UserError: as on the command line.
    """
    settled = plan(task, ckpt, **words)
    if isinstance(ckpt, nn.Module):
        settled = replace(settled, module=copy.deepcopy(ckpt).eval().requires_grad_(False))
    with notes.on_stderr(not quiet and not notes.have_handlers()):
        folder = processes.run(settled, quiet)
    return Result(folder, run_folder.load(folder))


def plan(task: str, ckpt: str | Path | nn.Module, **words: Any) -> config.Config:
    """The checked configuration that `run` would use.

    Raises:
        UserError: a key or a value is wrong, or the module is not an encoder.
    """
    if isinstance(ckpt, nn.Module) and not isinstance(ckpt, Encoder):
        raise UserError(f"ckpt is a {type(ckpt).__name__}; wanted a torch module with .clip and .dim")
    task, *line = shlex.split(task) if "=" in task else [task]
    given = {"task": task, "ckpt": f"{type(ckpt).__name__} in memory" if isinstance(ckpt, nn.Module) else ckpt}
    given |= {word.partition("=")[0]: word.partition("=")[2] for word in line}
    for key, value in words.items():
        given |= (
            {f"{key}.{name}": setting for name, setting in value.items()}
            if isinstance(value, Mapping)
            else {key: value}
        )
    idle = [key for key in given if key.startswith("encoder.") and key != "encoder.name"]
    if idle and isinstance(ckpt, nn.Module):
        raise UserError(f"{idle[0]} has no effect on a module that is there already: leave it out")
    return parse.resolve("run", [f"{key}={config.typed(value)}" for key, value in given.items()])
