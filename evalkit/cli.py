"""The command `evalkit`: reads words, calls the module that does the work, shows errors as one line."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

import evalkit
from evalkit.commands.cache import _cache
from evalkit.commands.list import _list
from evalkit.errors import UserError

if TYPE_CHECKING:
    from evalkit.config.options import Command

# Everything else is imported inside functions: `evalkit --help` must not wait for torch.

USAGE = """\
evalkit scores pretrained video encoders.

  evalkit run task=NAME ckpt=ENCODER [key=value ...]      score an encoder on a task; writes a result
  evalkit run suite=NAME ckpt=ENCODER [...]               the same on every task of a paper, in one table
  evalkit adapt task=NAME ckpt=ENCODER out=FOLDER [...]   train an adapter; adapter.from=FOLDER or ckpt= takes it
  evalkit sweep task=NAME ckpt=ENCODER adapter.lr=A,B ... a product of values; what differs in the adapter in one pass
  evalkit canary ckpt=ENCODER [task=NAME ...]             is the encoder fed what it was trained on?
  evalkit check task=NAME data.root=FOLDER [...]          is all of a benchmark's data there, and does it decode?
  evalkit list tasks|encoders|adapters|suites             what can be named
  evalkit score RUN                                       score a result's predictions again
  evalkit validate PATH ...                               check results against the schema and their predictions
  evalkit compare A B ... [all=true]                      is run B better than run A on the same samples, and how sure
  evalkit power difference=2 [task=NAME ...]              how many samples it takes to see a difference
  evalkit leaderboard [results=results out=FILE]          results side by side, and beside what papers print
  evalkit export to=FORMAT [results=results out=FOLDER]   results as lm_eval, mteb, hf, eee, csv, ... have them
  evalkit cache [prune=GB]                                what is stored; prune= evicts what was used longest ago
  evalkit doctor                                          what this machine has, and what it lacks

  task=./my_task.py beside score, validate, compare, leaderboard, export: by this file of your own, which is run

  evalkit run --help, evalkit run task=NAME --help        the keys that apply
  evalkit --version

Try: evalkit run task=egoschema ckpt=demo mini=true
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code after doing what the words say.

    0 done, 1 invalid result, 2 something to mend, 130 interrupted, 141 nobody reads what is printed.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _main(words)
        sys.stdout.flush()
        return code
    except UserError as error:
        print(f"evalkit: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("evalkit: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader has seen enough, as `evalkit list tasks | head -1` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else the interpreter fails again when it flushes at its end
        return 141
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" for {error.filename}" if error.filename else ""
        print(f"evalkit: no space left{where}: free some, or point out= or EVALKIT_CACHE elsewhere", file=sys.stderr)
        return 2


def _main(words: list[str]) -> int:
    commands: dict[str, Callable[[list[str]], int]] = {
        "run": partial(_work, "run"),
        "adapt": partial(_work, "adapt"),
        "canary": partial(_work, "canary"),
        "check": partial(_work, "check"),
        "sweep": _sweep,
        "list": _list,
        "score": _score,
        "validate": _validate,
        "compare": _compare,
        "power": _power,
        "leaderboard": _leaderboard,
        "export": _export,
        "cache": _cache,
        "doctor": _doctor,
    }
    if not words or words[0] in ("--help", "-h", "help"):
        print(USAGE, end="")
        return 0
    if words[0] == "--version":
        print(f"evalkit {evalkit.__version__}")
        return 0
    command, *rest = words
    if command not in commands:
        from evalkit.errors import suggest

        raise UserError(f"unknown command {command!r}.{suggest(command, commands)} Known: {', '.join(commands)}")
    if command not in ("run", "adapt", "canary", "check") and {"--help", "-h"} & set(rest):
        print("".join(line + "\n" for line in USAGE.splitlines() if line.startswith(f"  evalkit {command} ")), end="")
        return 0
    return commands[command](rest)


def _work(command: Command, words: list[str]) -> int:
    if {"--help", "-h"} & set(words):
        from evalkit.commands.help import _keys

        return _keys(command, words)
    if command == "run" and any(word.startswith("suite=") for word in words):
        from evalkit.commands import suite

        return suite.run(words)
    from evalkit.config import parse

    settled = parse.resolve(command, words)  # before torch loads: a mistyped key is told at once
    if command == "run":
        from evalkit.pipeline.runner import run

        run(settled)
    elif command == "canary":
        from evalkit.commands import canary

        return 0 if canary.report(settled) else 1
    elif command == "check":
        from evalkit.commands.check import check

        return check(settled)
    else:
        from evalkit.commands.adapt import adapt

        adapt(settled)
    return 0


def _sweep(words: list[str]) -> int:
    from evalkit.commands.sweep import sweep

    return sweep(words)


def _score(words: list[str]) -> int:
    from pathlib import Path

    from evalkit.results.scores import task_files

    words, files = task_files(words)
    if len(words) != 1:
        raise UserError(f"score takes the folder of one run, got {' '.join(words) or 'nothing'}")
    from evalkit.results.table import table
    from evalkit.results.validate import rescore

    rescored = rescore(Path(words[0]), files)
    print(table(rescored))
    return 1 if rescored["differences"] else 0


def _validate(words: list[str]) -> int:
    from pathlib import Path

    from evalkit.results.scores import task_files

    words, files = task_files(words)
    if not words:
        raise UserError("validate takes one or more paths of results, got nothing")
    from evalkit.results.validate import validate

    code = 0
    for word in words:
        problems = validate(Path(word), files)
        for line in problems or [f"{word}: ok"]:
            print(line)
        code = 1 if problems else code
    return code


def _compare(words: list[str]) -> int:
    from evalkit.commands.compare import report

    print(report(words))
    return 0


def _power(words: list[str]) -> int:
    from evalkit.commands.power import report

    print(report(words))
    return 0


def _leaderboard(words: list[str]) -> int:
    import importlib

    return cast(int, importlib.import_module("evalkit.leaderboard.board").board(words))


def _export(words: list[str]) -> int:
    import importlib

    return cast(int, importlib.import_module("evalkit.leaderboard.exports").export(words))


def _doctor(words: list[str]) -> int:
    if words:
        raise UserError(f"doctor takes nothing, got {' '.join(words)}")
    from evalkit.commands import doctor

    print(doctor.report())
    return 0
