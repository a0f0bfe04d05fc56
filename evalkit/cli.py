"""The command `evalkit`: reads words, calls the module that does the work, shows errors as one line."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

import evalkit
from evalkit.api import UserError

if TYPE_CHECKING:
    from evalkit.config.config import Command

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
        from evalkit.plugins import suggest

        raise UserError(f"unknown command {command!r}.{suggest(command, commands)} Known: {', '.join(commands)}")
    if command not in ("run", "adapt", "canary", "check") and {"--help", "-h"} & set(rest):
        print("".join(line + "\n" for line in USAGE.splitlines() if line.startswith(f"  evalkit {command} ")), end="")
        return 0
    return commands[command](rest)


def _work(command: Command, words: list[str]) -> int:
    if {"--help", "-h"} & set(words):
        return _keys(command, words)
    if command == "run" and any(word.startswith("suite=") for word in words):
        from evalkit.commands import suite
        from evalkit.commands.adapt import adapt
        from evalkit.commands.check import check
        from evalkit.config import config
        from evalkit.pipeline import preflight
        from evalkit.pipeline.runner import run

        return suite.run(words)
    pass

    settled = config.resolve(command, words)  # before torch loads: a mistyped key is told at once
    if command == "run":
        pass

        run(settled)
    elif command == "canary":
        pass

        return 0 if preflight.report(settled) else 1
    elif command == "check":
        pass

        return check(settled)
    else:
        pass

        adapt(settled)
    return 0


def _sweep(words: list[str]) -> int:
    from evalkit.commands.sweep import sweep

    return sweep(words)


def _list(words: list[str]) -> int:
    from evalkit import plugins
    from evalkit.commands import suite

    kinds = ("tasks", "encoders", "adapters", "suites")
    if len(words) != 1:
        raise UserError(f"list takes one of {', '.join(kinds)}, got {' '.join(words) or 'nothing'}")
    if words[0] not in kinds:
        raise UserError(f"list {words[0]}: not one of {', '.join(kinds)}.{plugins.suggest(words[0], kinds)}")
    if words[0] == "suites":
        pass

        _print_columns([(name, suite.summary(file)) for name, file in suite.suites().items()])
        return 0
    kind = cast(plugins.Kind, words[0].removesuffix("s"))
    if kind == "encoder":
        _print_columns(_encoders())
        print("\nckpt=NAME takes the published weights from the Hugging Face hub; ckpt=random:NAME makes random ones.")
        return 0
    known = plugins.names(kind)
    _print_columns([(name, plugins.summary(kind, name)) for name in known])
    return 0


def _encoders() -> list[tuple[str, ...]]:
    """A row per encoder that `ckpt=` knows by name; read from configs/, so that nothing heavy is imported."""
    from evalkit import plugins
    from evalkit.weights import presets

    rows: list[tuple[str, ...]] = [("name", "family", "parameters", "clip", "text", "weights", "source")]
    for name, card in presets.cards().items():
        licence = card.licence if card.hub else "none"
        count = f"{card.parameters / 1e6:.1f} M"
        rows.append((name, card.family, count, card.clip, "text" if card.text else "-", licence, card.source))
    for name, origin in plugins.names("encoder").items():
        if origin.startswith("entry point "):
            rows.append((name, "your own", "-", "-", "-", "-", origin))
    return rows


def _score(words: list[str]) -> int:
    from pathlib import Path

    from evalkit.results.scores import task_files

    words, files = task_files(words)
    if len(words) != 1:
        raise UserError(f"score takes the folder of one run, got {' '.join(words) or 'nothing'}")
    from evalkit.results.run_folder import rescore
    from evalkit.results.table import table

    rescored = rescore(Path(words[0]), files)
    print(table(rescored))
    return 1 if rescored["differences"] else 0


def _validate(words: list[str]) -> int:
    from pathlib import Path

    from evalkit.results.scores import task_files

    words, files = task_files(words)
    if not words:
        raise UserError("validate takes one or more paths of results, got nothing")
    from evalkit.results.run_folder import validate

    code = 0
    for word in words:
        problems = validate(Path(word), files)
        for line in problems or [f"{word}: ok"]:
            print(line)
        code = 1 if problems else code
    return code


def _compare(words: list[str]) -> int:
    from evalkit.results.compare import report

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


def _cache(words: list[str]) -> int:
    from evalkit.config.values import convert
    from evalkit.runtime import cache

    pass

    store = cache.features()
    if words:
        key, _, value = words[0].partition("=")
        try:
            limit = convert(value, float) * 1e9
        except ValueError:
            limit = -1.0
        if len(words) != 1 or key != "prune" or limit < 0:
            raise UserError(f"cache takes nothing or prune=GIGABYTES, got {' '.join(words)}")
        print(f"freed {store.prune(int(limit)) / 1e9:.2f} GB")
    usage = store.usage()
    print(f"{store.folder}: {usage.bytes / 1e9:.2f} GB of {(store.limit or 0) / 1e9:g}, {usage.entries} features")
    print(f"{cache.folder()}: {cache.size() / 1e9:.2f} GB with generated films")
    return 0


def _doctor(words: list[str]) -> int:
    if words:
        raise UserError(f"doctor takes nothing, got {' '.join(words)}")
    from evalkit.commands import doctor

    print(doctor.report())
    return 0


def _keys(command: Command, words: list[str]) -> int:
    """Prints the keys that apply: the general ones, and with `task=` those of the task and its adapter."""
    from evalkit import plugins
    from evalkit.config import config
    from evalkit.config.values import type_name

    pass

    chosen = dict(word.split("=", 1) for word in words if "=" in word)
    task, adapter = chosen.get("task", ""), chosen.get("adapter", "")
    known = config.keys(command, task, adapter, chosen.get("ckpt", ""))
    needed = " ".join(f"{name}=..." for name, key in known.items() if key.default is config.REQUIRED)
    print(f"evalkit {command} {needed} [key=value ...] [config=file.yaml]")
    if task:
        print()
        print(f"task {plugins.display_name(task)}: {plugins.summary('task', task)}")
        if command in ("run", "adapt"):
            adapter = adapter or config.own_adapter(task)
            print(f"adapter {plugins.display_name(adapter)}: {plugins.summary('adapter', adapter)}")
    else:
        print()
        print(f"With task=NAME, `evalkit {command} task=NAME --help` also shows the keys of data.* and adapter.*")
    rows = [("key", "type", "default", "meaning")]
    for name, key in known.items():
        default = "as the task" if key.section == "clip" else _default(key.default)
        rows.append((name, type_name(key.type).removeprefix("one of "), default, key.meaning))
    print()
    _print_columns(rows)
    if task and command in ("run", "adapt"):
        print("\nAn adapter.* key that is not given is as the task prescribes, else its default.")
    return 0


def _default(value: object) -> str:
    """A default as it would be typed."""
    from evalkit.config.config import REQUIRED

    if value is REQUIRED:
        return "required"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_default, value))}]"
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _print_columns(rows: Sequence[tuple[str, ...]]) -> None:
    """Prints aligned columns; long cells wrap, the last column at the terminal's width."""
    import shutil
    import textwrap
    from itertools import zip_longest

    widths = [min(30, max(map(len, column))) for column in zip(*rows, strict=True)]
    widths[-1:] = [max(30, shutil.get_terminal_size((120, 24)).columns - sum(widths[:-1]) - 2 * len(widths) + 2)]
    for row in rows:
        cells = [textwrap.wrap(cell, width, break_long_words=False) for cell, width in zip(row, widths, strict=True)]
        for line in zip_longest(*cells, fillvalue=""):
            print("  ".join(f"{text:<{width}}" for text, width in zip(line, widths, strict=True)).rstrip())
