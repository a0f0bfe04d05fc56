"""Processes that have imported what evalkit's commands import: forked from a server that did so once, in 8 seconds."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import runpy
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["lightning", "evalkit.cli", "evalkit.callback", "evalkit.pipeline.runner"])


class Forked:
    """A process that runs a command or a script, as subprocess.Popen does.

    Args:
        words: those of `evalkit`, or a script's file (.py) and its own words, or -P, -c, evalkit's own program for a
            process that ends with this one, and its words.
        cwd: the current folder.
        env: variables beside those of this process.
        group: the process leads a group of its own.

    Attributes:
        stderr: the lines that it prints there, as they come.
    """

    def __init__(
        self, *words: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None, group: bool = False
    ) -> None:
        ours, theirs = CONTEXT.Pipe(duplex=False)
        self._out = tempfile.NamedTemporaryFile("r", encoding="utf-8")  # noqa: SIM115 - read when it ends
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}
        arguments = [str(word) for word in words], str(cwd or Path.cwd()), environment, group, self._out.name, theirs
        self.process = CONTEXT.Process(target=_main, args=arguments)
        self.process.start()
        theirs.close()
        self.stderr = os.fdopen(os.dup(ours.fileno()), encoding="utf-8")
        ours.close()
        assert self.process.pid
        self.pid = self.process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status; negative is a signal, None while it runs."""
        return self.process.exitcode

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.join()

    def communicate(self) -> tuple[str, str]:
        """What it prints on stdout and on stderr until it ends."""
        with self._out, self.stderr:
            err = self.stderr.read()
            self.process.join()
            return self._out.read(), err

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def terminate(self) -> None:
        self.process.terminate()

    def wait(self) -> int | None:
        self.process.join()
        self._out.close()
        self.stderr.close()
        return self.returncode


@contextlib.contextmanager
def ranks(count: int, *words: str | Path, cwd: Path) -> Iterator[list[Forked]]:
    """So many processes of one script, as torchrun starts them."""
    env = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(count)}
    env |= {"LOCAL_WORLD_SIZE": str(count), "NODE_RANK": "0"}
    started = [
        Forked(*words, cwd=cwd, env={**env, "LOCAL_RANK": str(rank), "RANK": str(rank)}, group=True)
        for rank in range(count)
    ]
    try:
        yield started
    finally:
        for process in started:
            process.process.kill()
            process.process.join()


def launch_forked(config: Any, executable: str) -> Callable[..., Any]:
    """What torch's `elastic_launch` gives, whose processes are forked in place of started by themselves."""
    from torch.distributed.launcher import elastic_launch  # type: ignore[attr-defined] # `api` has this in its place

    config.start_method = "forkserver"
    return lambda *words: elastic_launch(config, _rank)(str(Path.cwd()), dict(os.environ), *words)


def _rank(cwd: str, env: dict[str, str], *words: str) -> None:
    os.environ.update(env)  # beside what torch's agent has set
    os.chdir(cwd)
    _run_program(words)


def _run_program(words: Sequence[str]) -> None:
    """Runs -P, -c, a program of evalkit's, a path, the process to end with and what else it is given."""
    _, _, code, path, _, *rest = words
    sys.argv = ["-c", path, str(os.getppid()), *rest]  # the server that it was forked from, which ends with the tests
    exec(code, {"__name__": "__main__"})


def _free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _main(
    words: Sequence[str], cwd: str, env: dict[str, str], group: bool, out: str, err: Connection[Any, Any]
) -> None:
    if group:
        os.setsid()
    with open(out, "w") as file, err:
        os.dup2(file.fileno(), 1)
        os.dup2(err.fileno(), 2)
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115 - for good
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    if words[0] == "-P":
        return _run_program(words)
    if words[0].endswith(".py"):
        sys.argv = list(words)
        sys.path.insert(0, str(Path(words[0]).resolve().parent))
        runpy.run_path(words[0], run_name="__main__")
        return
    from evalkit.cli import main

    sys.exit(main(words))
