"""Runs hostile inputs one after another in this process, and says what each did that it must not."""

import contextlib
import io
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

from evalkit.errors import UserError

LIMIT_S = 20  # for one input
LIMIT_BYTES = 10**9
SCREEN = 24 * 80


@dataclass(frozen=True)
class Input:
    """One input: how a report names it, and what is done with it, which may raise UserError alone."""

    shown: str
    act: Callable[[], object]


Fuzzer = Callable[[Random], Input]


class Hang(BaseException):
    """An input took too long."""


def findings(fuzzer: Fuzzer, n: int, seed: int) -> Iterator[str]:
    """What goes wrong with so many inputs, each made from its own seed: a line that names the input, and a problem."""
    memory, before = _memory(), _children()
    for number in range(n):
        chosen = fuzzer(Random(f"{seed} {number}"))
        problem = _problem(chosen)
        if _memory() - memory > LIMIT_BYTES:
            problem = problem or f"{(_memory() - memory) / 1e9:.1f} GB"
        memory = max(memory, _memory())
        if problem:
            yield f"seed {seed}, input {number}: {chosen.shown[:300]}\n    {problem}"
    if left := _children().keys() - before.keys():
        yield f"processes left behind: {', '.join(_children()[pid] for pid in left)}"


def _problem(chosen: Input) -> str:
    started = time.monotonic()
    before = signal.signal(signal.SIGALRM, _hang)
    signal.alarm(LIMIT_S)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            chosen.act()
    except UserError as error:
        return _message(str(error))
    except Hang:
        return f"a hang: more than {LIMIT_S} s"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        places = traceback.extract_tb(error.__traceback__)[-4:]
        where = " < ".join(f"{Path(place.filename).name}:{place.lineno}" for place in reversed(places))
        return f"a traceback: {type(error).__name__}: {str(error)[:300]!r} at {where}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return f"slow: {time.monotonic() - started:.0f} s" if time.monotonic() - started > LIMIT_S / 2 else ""


def _message(text: str) -> str:
    """Whether a message is none that helps: the last resort for a fault in a plug-in's code."""
    return f"told as a fault of the code: {text[:300]}" if " fails: " in text and ", line " in text else ""


def command(words: list[str]) -> None:
    """Calls the command as it is typed; whatever it says must be few lines, and its code one that the docs list."""
    from evalkit.cli import main

    code = main(words)
    assert code in (0, 1, 2), f"exit code {code}"
    if code == 2:
        assert isinstance(sys.stderr, io.StringIO)
        line = sys.stderr.getvalue().splitlines()[-1]
        assert line.startswith("evalkit: ") and len(line) < SCREEN and line.isprintable(), f"the message {line[:300]!r}"


def _hang(number: int, frame: FrameType | None) -> Any:
    raise Hang


def _memory() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _children() -> dict[str, str]:
    """The commands of this process' children by their ids, without Python's own of multiprocessing."""
    left = {}
    for file in Path("/proc/self/task").glob("*/children"):
        for child in file.read_text().split():
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if line and "resource_tracker" not in line:
                    left[child] = line[:200]
    return left
