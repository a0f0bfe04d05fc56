"""Cells of a sweep as jobs of SLURM, through submitit (https://github.com/facebookincubator/submitit).

A cell is finished where its run's folder is there. Beside the runs, `OUT/.jobs` holds what submitit submits and the log
of each job, and for each cell (by its mark) two files of ours: MARK.job, the job that the cell was last given to, and
MARK.json, how that job ended.
"""

from __future__ import annotations

import json
import logging
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from evalkit.errors import UserError, install, one_line
from evalkit.launch import cells, local
from evalkit.launch.cells import Cell, Jobs
from evalkit.launch.local import Ended
from evalkit.runtime import atomic, ranks

logger = logging.getLogger("evalkit")

FOLDER = ".jobs"
LOOK_EVERY_S = 2.0  # seconds between two looks for what the jobs have left
TIMEOUTS = 20  # times that a job that ran out of time is queued again; it goes on from what it has stored
_GPU_KEYS = ("gpus_per_node", "gpus_per_task", "cpus_per_gpu", "gres")
# Parameters of submitit that a sweep sets itself, by its own option where it has one, or that are no text or number.
_OPTIONS = {"nodes": "nodes", "ntasks_per_node": "devices", "num_gpus": "devices", "array_parallelism": "jobs"}
_NOT_KEYS = (*_OPTIONS, "stderr_to_stdout", "teardown", "additional_parameters")


def run_all(planned: Sequence[Cell], jobs: Jobs) -> list[Ended]:
    """How each cell ended; waits for the jobs of those that are not finished yet.

    Cells that an earlier sweep has queued are waited for and not queued again. An interruption leaves the jobs.

    Raises:
        UserError: submitit or SLURM is not there, a `slurm.` key is wrong, or SLURM refuses the jobs.
    """
    parameters, on_cluster = _parameters(jobs)
    folder = planned[0].home.absolute() / FOLDER
    ended: dict[str, Ended] = {}
    running: dict[str, Any] = {}
    new: list[Cell] = []
    for cell in planned:
        if run := cells.finished(cell):
            ended[cell.mark] = Ended(run)
        elif job := _under_way(folder, cell, on_cluster):
            running[cell.mark] = job
            mend = f"; if it is not, remove {folder / cell.mark}.job" if job.state == "UNKNOWN" else ""
            logger.info(f"job {job.job_id} is under way ({job.state.lower()}{mend}): {shlex.join(cell.words)}")
        else:
            new.append(cell)

    def size(cell: Cell) -> tuple[int, int, str]:
        options = cell.config.options
        return options.nodes, options.devices, options.device

    for (nodes, devices, device), alike in groupby(sorted(new, key=size), size):
        running |= _submit(list(alike), folder, {**parameters, **_of_size(nodes, devices, device, jobs)}, on_cluster)
    try:
        ended |= _wait(folder, running, len(planned))
    except KeyboardInterrupt:
        logger.info("the jobs go on; the same command waits for them again")
        raise
    return [ended[cell.mark] for cell in planned]


class CellJob:
    """What a job calls: runs a cell, and leaves how it ended. Preempted or out of time, the job is queued again."""

    def __call__(self, words: Sequence[str], outcome: str, path: Sequence[str]) -> None:
        """Runs the one cell that these words make, with these folders to import from; how it ended goes to a file."""
        sys.path.extend(place for place in path if place not in sys.path)
        run, failure = local.run_words(words)
        if ranks.here().first:
            content = {"folder": str(run.absolute()) if run else "", "failure": failure}
            atomic.write(Path(outcome), json.dumps(content).encode())

    def checkpoint(self, *args: Any) -> Any:
        """The job to resubmit: the same, which resumes from stored features and predictions."""
        from submitit.core.utils import DelayedSubmission

        return DelayedSubmission(self, *args)


def minutes(text: str) -> int:
    """A time limit in sbatch's format, in minutes, rounded up: 90, 90:00, 1:30:00, 1-12, 1-12:30.

    Raises:
        UserError: it is none.
    """
    form = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if form is None:
        raise UserError(f"slurm.time={text}: expected minutes, hours:minutes:seconds or days-hours, such as 4:00:00")
    days, *rest = form.groups()
    first, second, third = (int(part or 0) for part in rest)
    if days is not None:
        seconds = int(days) * 86_400 + first * 3_600 + second * 60 + third
    elif rest[2] is not None:
        seconds = first * 3_600 + second * 60 + third
    else:
        seconds = first * 60 + second
    if not seconds:
        raise UserError(f"slurm.time={text}: expected a time above 0")
    return -(-seconds // 60)


def _parameters(jobs: Jobs) -> tuple[dict[str, Any], bool]:
    """What submitit is told, and whether the jobs are SLURM's and not, to try them, processes of this machine.

    Raises:
        UserError: a key or its value is wrong, or submitit is not installed.
    """
    try:
        from submitit.slurm.slurm import _get_default_parameters
    except ModuleNotFoundError:
        raise UserError(f"on=slurm needs submitit: {install('slurm')}") from None
    settings = dict(jobs.settings)
    cluster = settings.pop("cluster", "slurm")
    if cluster not in ("slurm", "local"):
        raise UserError(f"slurm.cluster={cluster}: expected slurm, or local to try the jobs on this machine")
    defaults = {key: value for key, value in _get_default_parameters().items() if key not in _NOT_KEYS}
    known = sorted({*defaults, "mem_gb"} - {"mem"})
    for key, value in settings.items():
        if key in _OPTIONS:
            raise UserError(f"slurm.{key}={value}: a sweep has an option for it: {_OPTIONS[key]}={value}")
        if key not in known:
            raise cells.unknown_key(jobs, key, known)
        if not value:
            raise UserError(f"slurm.{key}=: expected a value")
    if "time" not in settings:
        raise UserError("on=slurm needs slurm.time=, the time limit of each job, such as slurm.time=4:00:00")
    parameters: dict[str, Any] = {
        key: int(value) if value.isdecimal() else {"true": True, "false": False}.get(value, value)
        for key, value in settings.items()
    }
    parameters["time"] = minutes(settings["time"])
    for key in ("setup", "srun_args"):
        if key in settings:
            parameters[key] = [settings[key]] if key == "setup" else shlex.split(settings[key])
    if memory := settings.get("mem_gb"):
        if not memory.isdecimal():
            raise UserError(f"slurm.mem_gb={memory}: expected a whole number of GB")
        parameters["mem"] = f"{parameters.pop('mem_gb')}GB"
    if jobs.count:
        parameters["array_parallelism"] = jobs.count
    return {"job_name": "evalkit", **parameters}, cluster == "slurm"


def _of_size(nodes: int, devices: int, device: str, jobs: Jobs) -> dict[str, Any]:
    """Nodes, processes and GPUs of a cell. On one node, evalkit starts the processes; on several, srun does."""
    size: dict[str, Any] = {"nodes": nodes, "ntasks_per_node": devices if nodes > 1 else 1}
    if device in ("auto", "cuda") and not any(key in jobs.settings for key in _GPU_KEYS):
        size["gpus_per_node"] = devices
    return size


def _submit(alike: Sequence[Cell], folder: Path, parameters: Mapping[str, Any], on_cluster: bool) -> dict[str, Any]:
    """Queue cells of one size as one array, and return the job of each by the cell's mark.

    Raises:
        UserError: there is no SLURM here, or it refuses the jobs.
    """
    import submitit

    python = f"{shlex.quote(sys.executable)} -P"  # else a json.py in the current folder would be run
    executor: submitit.SlurmExecutor | submitit.LocalExecutor
    try:
        if on_cluster:
            executor = submitit.SlurmExecutor(folder, max_num_timeout=TIMEOUTS, python=python)
            executor.update_parameters(**parameters)
        else:
            executor = submitit.LocalExecutor(folder, max_num_timeout=TIMEOUTS, python=python)
            executor.update_parameters(timeout_min=parameters["time"])
        words = [cell.words for cell in alike]
        outcomes = [str(folder / f"{cell.mark}.json") for cell in alike]
        for outcome in outcomes:
            Path(outcome).unlink(missing_ok=True)
        queued = executor.map_array(CellJob(), words, outcomes, [sys.path] * len(words))
    except (RuntimeError, ValueError, OSError, subprocess.SubprocessError) as error:
        if str(error).startswith('Could not detect "srun"'):
            raise UserError(
                "on=slurm: there is no srun here; start the sweep on a node of the cluster, or try it with "
                "slurm.cluster=local"
            ) from error
        raise UserError(f"on=slurm: SLURM does not take the jobs: {one_line(error)}") from error
    for cell, job in zip(alike, queued, strict=True):
        atomic.write(folder / f"{cell.mark}.job", json.dumps({"job": job.job_id, "slurm": on_cluster}).encode())
    logger.info(f"{len(alike)} jobs are queued: {queued[0].job_id}{' ...' if len(queued) > 1 else ''}")
    return {cell.mark: job for cell, job in zip(alike, queued, strict=True)}


def _under_way(folder: Path, cell: Cell, on_cluster: bool) -> Any:
    """The unfinished job of a cell; None if there is none."""
    import submitit

    try:
        noted = json.loads((folder / f"{cell.mark}.job").read_bytes())
        number, of_slurm = str(noted["job"]), bool(noted["slurm"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if of_slurm != on_cluster or _outcome(folder, cell.mark):
        return None
    if on_cluster:
        job: submitit.SlurmJob[None] = submitit.SlurmJob(folder, number)
        return None if job.done(force_check=True) else job
    return _Local(number, folder) if _is_local_job(number, folder) else None


class _Local:
    """A job of this machine that another sweep has started: submitit knows only those of its own process."""

    def __init__(self, number: str, folder: Path) -> None:
        self.job_id, self.folder = number, folder
        self.state = "RUNNING"

    def done(self) -> bool:
        return not _is_local_job(self.job_id, self.folder)


def _is_local_job(number: str, folder: Path) -> bool:
    """Whether the process of this number is submitit's, which runs a job of this folder."""
    try:
        command = Path("/proc", number, "cmdline").read_bytes()
    except OSError:
        return False
    return b"submitit.local._local" in command and str(folder).encode() in command


def _wait(folder: Path, running: Mapping[str, Any], total: int) -> dict[str, Ended]:
    """How each of these jobs ended, by the cell's mark."""
    ended: dict[str, Ended] = {}
    while len(ended) < len(running):
        for mark, job in running.items():
            if mark not in ended and (outcome := _look(folder, mark, job)):
                ended[mark] = outcome
                of = total - len(running) + len(ended)
                logger.info(f"{of} of {total}: {outcome.folder or outcome.failure}")
        if len(ended) < len(running):
            time.sleep(LOOK_EVERY_S)
    return ended


def _look(folder: Path, mark: str, job: Any) -> Ended | None:
    """How a job ended; None while it has not."""
    if not job.done():
        return None
    log = folder / f"{job.job_id}_0_log.err"
    return _outcome(folder, mark) or Ended(None, f"job {job.job_id} ended without a result ({job.state}); see {log}")


def _outcome(folder: Path, mark: str) -> Ended | None:
    """What a job has left of how it ended."""
    try:
        content = json.loads((folder / f"{mark}.json").read_bytes())
    except (OSError, ValueError):
        return None
    return Ended(Path(content["folder"]) if content["folder"] else None, content["failure"])
