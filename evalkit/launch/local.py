"""Cells on this machine: one after the other in this process, or several in processes of their own."""

from __future__ import annotations

import contextvars
import json
import logging
import os
import subprocess
import sys
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from evalkit.errors import UserError, one_line, reason_of
from evalkit.launch import cells, processes
from evalkit.launch.cells import Cell
from evalkit.runtime import notes, ranks

logger = logging.getLogger("evalkit")


class Ended(NamedTuple):
    """How a cell ended.

    Attributes:
        folder: of its run; None where there is none.
        failure: why there is none.
    """

    folder: Path | None
    failure: str = ""


def run_all(planned: Sequence[Cell], count: int) -> list[Ended]:
    """How each cell ended: so many are run side by side, and those that are finished already are not run again.

    Raises:
        UserError: several are asked for, and other processes share each run already.
    """
    if count == 1 or len(planned) == 1:
        return [run(cell) for cell in planned]
    if ranks.here().size > 1:
        raise UserError(f"jobs={count}: srun or torchrun has started processes that share each pass: leave out jobs=")
    running: set[subprocess.Popen[str]] = set()
    pool = ThreadPoolExecutor(count)
    try:
        shown = contextvars.copy_context().copy  # whether notes are
        return list(pool.map(lambda cell: shown().run(_run_apart, cell, running), planned))
    finally:  # interrupted: no further cell begins, and those that run end
        pool.shutdown(wait=False, cancel_futures=True)
        for process in list(running):
            process.terminate()
        pool.shutdown()


def run(cell: Cell) -> Ended:
    """Runs a cell in this process unless it is finished already; an error ends only this cell."""
    try:
        if folder := cells.finished(cell):
            return Ended(folder)
        if cell.config.command == "adapt":
            return Ended(processes.adapt(cell.config))
        return Ended(processes.run(cell.config, quiet=not notes.are_shown()))
    except (UserError, OSError, MemoryError) as error:
        if cell.config.command == "adapt" and (folder := cells.finished(cell)):
            logger.info(f"trained by another process meanwhile: {folder}")
            return Ended(folder)
        logger.error(f"evalkit: {reason_of(error)}")
        return Ended(None, reason_of(error))
    except Exception as error:  # a cell must not end the others
        logger.error(traceback.format_exc().rstrip())
        return Ended(None, one_line(error))


def run_words(words: Sequence[str]) -> Ended:
    """Runs the one cell that these words make as the only work of this process, with its notes on stderr."""
    cell = cells.adaptation(words[1:]) if words[0] == "adapt" else cells.plan(words)[1][0]
    with notes.on_stderr():
        return run(cell)


def _run_apart(cell: Cell, running: set[subprocess.Popen[str]]) -> Ended:
    """The same in a process of its own, which is among those running while it does, and ends with this one."""
    if folder := cells.finished(cell):
        return Ended(folder)
    program = (
        "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); from evalkit.runtime import parent; "
        "parent.end_with(int(sys.argv.pop(1))); from evalkit.launch import local; local.run_alone(sys.argv[1:])"
    )
    path = json.dumps([str(place) for place in sys.path])
    # -P: else a json.py in the current folder would be run.
    command = [sys.executable, "-P", "-c", program, path, str(os.getpid()), *cell.words]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True) as process:
        running.add(process)
        output, messages = process.communicate()
        running.discard(process)
    if messages:
        logger.info(messages.removesuffix("\n"))
    try:
        place, failure = json.loads(output.splitlines()[-1])
    except (IndexError, ValueError):  # it was killed
        return Ended(None, f"its process {processes.how_it_ended(process.returncode)}")
    return Ended(Path(place) if place else None, failure)


def run_alone(words: Sequence[str]) -> None:
    """Runs the one cell that these words make, and prints last, as JSON, its run's folder and why there is none."""
    folder, failure = run_words(words)
    print(json.dumps([str(folder or ""), failure]))
