"""Runs the cells of a sweep as tasks of a Ray cluster (https://docs.ray.io)."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evalkit.errors import UserError, install, one_line
from evalkit.launch import cells, local
from evalkit.launch.cells import Cell, Jobs
from evalkit.launch.local import Ended

logger = logging.getLogger("evalkit")

KEYS = ("address", "num_cpus", "num_gpus", "memory_gb")
RETRIES = 2  # times that a task whose node or process was lost is tried again; it goes on from what is stored


def run_all(planned: Sequence[Cell], jobs: Jobs) -> list[Ended]:
    """How each cell ended; those that are finished already are not run again.

    Raises:
        UserError: Ray is not installed, a `ray.` key is wrong, or no cluster answers.
    """
    address, resources = _settings(jobs)
    ended = {cell.mark: Ended(run) for cell in planned if (run := cells.finished(cell))}
    waiting = [cell for cell in planned if cell.mark not in ended]
    if not waiting:
        return [ended[cell.mark] for cell in planned]
    try:
        import ray
    except ModuleNotFoundError:
        raise UserError(f"on=ray needs Ray: {install('ray')}") from None
    try:
        ray.init(address=address, logging_level=logging.WARNING)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise UserError(
            f"ray.address={address}: no Ray cluster answers ({one_line(error)}); start one with `ray start --head`, or "
            "give ray.address=local"
        ) from error
    try:
        ended |= _run(ray, waiting, jobs.count or len(waiting), resources, len(planned))
    finally:  # interrupted: the tasks of a driver that leaves end
        ray.shutdown()
    return [ended[cell.mark] for cell in planned]


def _settings(jobs: Jobs) -> tuple[str, dict[str, float]]:
    """The cluster's address, and the resources of each task.

    Raises:
        UserError: a key or its value is wrong.
    """
    address, resources = "auto", {}
    for key, value in jobs.settings.items():
        if key not in KEYS:
            raise cells.unknown_key(jobs, key, KEYS)
        if not value:
            raise UserError(f"ray.{key}=: expected a value")
        if key == "address":
            address = value
            continue
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not 0 <= number < float("inf"):
            raise UserError(f"ray.{key}={value}: expected a number of at least 0")
        resources[key] = number
    if "memory_gb" in resources:
        resources["memory"] = resources.pop("memory_gb") * 1e9
    return address, resources


def _run(ray: Any, waiting: Sequence[Cell], at_once: int, resources: dict[str, float], total: int) -> dict[str, Ended]:
    """How each cell ended, by its mark; so many are given to Ray at once."""
    # A process per task: the next one begins with free GPU memory.
    task = ray.remote(max_calls=1, max_retries=RETRIES, **resources)(_run_words)
    ended: dict[str, Ended] = {}
    given: dict[Any, Cell] = {}
    queue = list(waiting)
    while queue or given:
        while queue and len(given) < at_once:
            cell = queue.pop(0)
            given[task.remote(list(cell.words), str(Path.cwd()), sys.path)] = cell
        (reference,), _ = ray.wait(list(given))
        cell = given.pop(reference)
        try:
            place, failure = ray.get(reference)
            ended[cell.mark] = Ended(Path(place) if place else None, failure)
        except ray.exceptions.RayError as error:
            ended[cell.mark] = Ended(None, f"its task was lost: {one_line(error)}")
        of = total - len(waiting) + len(ended)
        logger.info(f"{of} of {total}: {ended[cell.mark].folder or ended[cell.mark].failure}")
    return ended


def _run_words(words: Sequence[str], folder: str, path: Sequence[str]) -> tuple[str, str]:
    """Runs, on whichever node, the one cell that these words make: its run's folder, and why there is none."""
    try:
        os.chdir(folder)
    except OSError as error:
        return "", f"{folder}, where the sweep was started, is not on this node: {one_line(error)}"
    sys.path.extend(place for place in path if place not in sys.path)
    run, failure = local.run_words(words)
    return str(run.absolute()) if run else "", failure
