"""A run or an adaptation in this process, or in several that share it.

torchrun or srun starts them; or, with `devices=` above 1, evalkit does on its own machine, by torch's agent, which is
torchrun's: where one process ends, it ends the others.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import torch

from evalkit.config.config import GROUP, Config
from evalkit.config.options import Command, Options
from evalkit.config.parse import resolve
from evalkit.errors import UserError, counted, reason_of
from evalkit.launch import cells
from evalkit.pipeline import adapt as adaptation
from evalkit.pipeline import runner, text_only
from evalkit.results import run_folder
from evalkit.results.table import table
from evalkit.runtime import notes, parent, ranks
from evalkit.tracking import trackers

_PROGRAM = (
    # An interrupt while this imports, which takes seconds, ends it without a traceback.
    "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); from evalkit.launch import processes; "
    "signal.signal(signal.SIGINT, signal.default_int_handler); processes.run_rank(sys.argv[1:])"
)
# Signals for which torch's agent sets a handler, and leaves it.
_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def run(config: Config, quiet: bool = False) -> Path:
    """Evaluates an encoder on a task, prints the table unless quiet, and returns the run's folder.

    Raises:
        UserError: something in the configuration, the data or the checkpoint that the user can mend.
    """
    trackers.check(config.options)
    place = _place(config)
    with (place or ranks.ALONE).notes():
        if config.options.ckpt == text_only.CKPT and config.module is None:
            folder = text_only.run(config, place.size if place else 1)
        else:
            folder = runner.run(config, place) if place else _launch(config)
    if not quiet and (place is None or place.first):
        print(table(run_folder.load(folder)))
        print(folder / run_folder.RESULT)
    return folder


def adapt(config: Config) -> Path:
    """Trains an adapter, and returns the folder that it is written into.

    Raises:
        UserError: as `run`; or the folder is taken, or the task has no train split.
    """
    trackers.check(config.options)
    place = _place(config)
    with (place or ranks.ALONE).notes():
        return adaptation.adapt(config, place) if place else _launch(config)


def _place(config: Config) -> ranks.Ranks | None:
    """This process's place among those that share the run; None where they are to be started.

    Raises:
        UserError: as many are here as were not asked for.
    """
    devices, nodes = config.options.devices, config.options.nodes
    place = ranks.ALONE if config.module is not None else ranks.here()
    if place.size == 1:
        return place if devices == nodes == 1 else None
    if devices * nodes not in (1, place.size):
        raise UserError(
            f"devices={devices} nodes={nodes}: srun or torchrun has started {place.size} processes; leave both out, or "
            "start as many"
        )
    return place


def _launch(config: Config) -> Path:
    """Runs or adapts in `devices` processes, and returns the folder that the first one wrote.

    Raises:
        UserError: nodes are asked for, which torchrun or srun must start; the encoder is a module in memory; or a
            process ended early, with its reason.
    """
    options = config.options
    if options.nodes > 1:
        raise UserError(
            f"nodes={options.nodes}: evalkit starts processes on its own machine only; start it on each with srun or "
            "torchrun (docs/scale.md)"
        )
    if config.module is not None:
        raise UserError(
            f"devices={options.devices}: other processes cannot load a module in memory; give its checkpoint"
        )
    _refuse_devices(options, torch.cuda.device_count())
    # Not before: torch's agent takes a second to import.
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # The agent has a level of its own.
    for name in (
        "torch.distributed.elastic",
        "torch.distributed.elastic.agent.server.api",
        "torch.distributed.launcher",
    ):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    agent = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=options.devices,
        run_id=f"evalkit-{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        max_restarts=0,
        local_addr="127.0.0.1",
    )
    shown = "1" if notes.are_shown() else ""
    with tempfile.TemporaryDirectory(prefix="evalkit-") as place:
        path = json.dumps([str(folder) for folder in sys.path])
        command = "sweep" if config.points else config.command
        # -P: else a json.py in the current folder would be run.
        group = [f"{GROUP}={options.log_group}"] if options.log_group else []
        words = ["-P", "-c", _PROGRAM, path, str(os.getpid()), place, shown, command, *config.words, *group]
        handlers = {number: signal.getsignal(number) for number in _HANDLED}
        try:
            elastic_launch(agent, sys.executable)(*words)
        except SignalException as error:  # the agent has ended the processes
            if error.sigval == signal.SIGINT:
                raise KeyboardInterrupt from None
            sys.exit(128 + error.sigval)
        except ChildFailedError as error:
            codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
            raise UserError(_reason(Path(place), codes, options)) from None
        finally:
            if threading.current_thread() is threading.main_thread():  # else the agent has set none
                for number, handler in handlers.items():
                    signal.signal(number, handler)
        return Path((Path(place) / "folder").read_text(encoding="utf-8"))


def _refuse_devices(options: Options, gpus: int) -> None:
    """Raises UserError where so many processes cannot share the run: now, rather than after each has started.

    Args:
        options: of the run.
        gpus: how many torch sees.
    """
    count, cpus = options.devices, os.cpu_count() or 1
    on_gpus = options.device == "cuda" or (options.device == "auto" and gpus > 0)
    if on_gpus and count > gpus:
        raise UserError(f"devices={count}: torch sees {counted(gpus, 'GPU')} here; give at most as many, or device=cpu")
    if not on_gpus and count > cpus:
        raise UserError(
            f"devices={count}: this machine has {counted(cpus, 'core')} and no GPU that is used; give at most as many"
        )


def _reason(place: Path, codes: Mapping[int, int], options: Options) -> str:
    """Why a process ended: in its own words if it left any; else by the exit codes.

    Those that the agent ended, because another had, have SIGTERM.
    """
    for told in sorted(place.glob("reason-*")):
        return told.read_text(encoding="utf-8")
    count = options.devices
    rank, code = min(codes.items(), key=lambda ended: (ended[1] == -signal.SIGTERM, ended[1] >= 0, ended))
    process = f"process {rank} of {count} {how_it_ended(code)}"
    if code >= 0:
        return process
    again = "the same command, with any devices=, "
    again += "goes on from what is stored" if options.cache == "on" else "begins anew, since cache=off stores nothing"
    return f"{process}; {again}"


def how_it_ended(code: int) -> str:
    """How a process ended, by its exit code, which is negative for a signal."""
    if code >= 0:
        return f"ended with exit code {code}"
    memory = " (out of memory?)" if code == -signal.SIGKILL else ""
    return f"was killed by signal {-code}, {signal.Signals(-code).name}{memory}"


def run_rank(words: Sequence[str]) -> None:
    """One of the processes: does its part of the run, and leaves the folder, or its reason to stop, for the parent.

    Args:
        words: the parent's process number, a folder for what is left, whether notes are shown, the command, its words.
    """
    number, place, shown, command, *rest = words
    parent.end_with(int(number))
    try:
        with notes.on_stderr(bool(shown) and os.environ["RANK"] == "0"):
            folder = _run(command, rest)
    except ranks.OtherEndedError:
        sys.exit(2)
    except (UserError, OSError, MemoryError) as error:
        (Path(place) / f"reason-{os.environ['RANK']}").write_text(reason_of(error), encoding="utf-8")
        sys.exit(2)
    if ranks.here().first:
        (Path(place) / "folder").write_text(str(folder), encoding="utf-8")


def _run(command: str, words: Sequence[str]) -> Path:
    if command == "sweep":
        _, (cell,) = cells.plan(words)
        return run(cell.config, quiet=True)
    config = resolve(cast(Command, command), words)
    return adapt(config) if command == "adapt" else run(config, quiet=True)
