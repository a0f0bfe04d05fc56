"""The command `evalkit`: calls the module in commands/ that the first word names, shows errors as one line."""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import evalkit
from evalkit.errors import UserError, among, check_word, on_screen, reason_of
from evalkit.runtime import cache, notes
from evalkit.runtime.interrupt import EXIT_CODE, Interrupt

# Everything else is imported with its command: `evalkit --help` must not wait for torch.

# Commands that take a configuration, each with the one whose keys it has: `--help` lists those that apply.
WITH_KEYS = {
    "run": "run",
    "adapt": "adapt",
    "plan": "run",
    "canary": "canary",
    "check": "check",
    "features": "features",
}

# Commands of which `COMMAND NAME --help` describes the file of that name.
NAMED = ("study", "verify")
# Commands that print a list of what they support below their usage.
LISTING = ("export",)

# What other programs call a command.
CALLED = {
    **dict.fromkeys(("eval", "evaluate", "test", "start", "probe", "finetune"), "run"),
    **dict.fromkeys(("train", "fit"), "adapt"),
    **dict.fromkeys(("version", "-v", "-V"), "--version"),
    **dict.fromkeys(("tasks", "datasets", "benchmarks"), "list tasks"),
    **dict.fromkeys(("models", "encoders", "checkpoints"), "list encoders"),
    "adapters": "list adapters",
    **dict.fromkeys(("grid", "grid-search"), "sweep"),
    **dict.fromkeys(("board", "table"), "leaderboard"),
    **dict.fromkeys(("diff", "significance"), "compare"),
    **dict.fromkeys(("estimate", "dry-run"), "plan"),
    **dict.fromkeys(("download", "data"), "check"),
    **dict.fromkeys(("env", "info"), "doctor"),
}

# Commands that keep what they have encoded and answered, so that they go on where they were interrupted.
GOES_ON = ("run", "adapt", "sweep", "study", "verify")

USAGE = """\
evalkit evaluates pretrained video encoders.

  evalkit run task=NAME ckpt=ENCODER [key=value ...]      evaluate an encoder on a task and save the result
  evalkit run suite=NAME ckpt=ENCODER [...]               evaluate it on all tasks of a paper, in one table
  evalkit plan task=NAME ckpt=ENCODER [key=value ...]     estimate the time, memory and disk space of a run
  evalkit adapt task=NAME ckpt=ENCODER out=FOLDER [...]   train an adapter and save it, for adapter.from= or ckpt=
  evalkit sweep task=NAME ckpt=ENCODER adapter.lr=A,B ... run all combinations of values; adapter settings in one pass
  evalkit study NAME|FILE.yaml [key=value ...]            run a paper's experiments and test its claims; NAME --help
                                                          shows its runs
  evalkit verify NAME [data.root=FOLDER ...]              reproduce a published score of a public checkpoint
  evalkit verify list                                     list all reference cards
  evalkit features task=NAME ckpt=ENCODER out=FOLDER ...  export features to files; ckpt=features:FOLDER evaluates them
  evalkit canary ckpt=ENCODER [task=NAME ...]             check that an encoder gets the input it was trained on
  evalkit check task=NAME data.root=FOLDER [...]          check that a benchmark's videos are there and decode
  evalkit init encoder|task|adapter NAME                  write a template, NAME.py, and its test
  evalkit list tasks|encoders|adapters|suites|studies     list available names
  evalkit score RUN                                       recompute a result's scores from its predictions
       or score task=NAME predictions=FILE [...]          score predictions of another program
  evalkit show RUN [sample=ID out=FILE.html]              show a run's errors, or single samples with answers, controls
                                                          and the frames that the encoder saw
  evalkit validate PATH ... [signers=FILE]                check results by recomputing everything possible
  evalkit sign RUN key=FILE                               sign a result with an SSH key
  evalkit compare A B ... [all=true]                      test whether run B is better than run A on the same samples
  evalkit power difference=2 [task=NAME | samples=N]      compute how many samples detect a difference
  evalkit leaderboard [results=results out=FILE]          compare all results, with published scores; out= defaults to
                                                          README.md in the folder of the results
  evalkit export to=FORMAT [results=results out=FOLDER]   convert results to lm_eval, mteb, hf, eee, csv, ...
  evalkit push repo=OWNER/NAME [results=results ...]      open a pull request with results on the Hugging Face hub;
                                                          prints it only, unless confirm=true
  evalkit submit RUN to=FOLDER|OWNER/NAME [key=FILE]      prepare a pull request with a result for a leaderboard
  evalkit cache [prune=GB]                                show the cache; prune= removes the least recently used
  evalkit doctor [task=NAME ...]                          show what this machine has, and what a run still needs

  With score, show, validate, sign, compare, leaderboard, export, push and submit, task=./my_task.py names a task file
  of your own, which is then run.

  evalkit run --help, evalkit run task=NAME --help        list the options that apply
  evalkit --version
  quiet=true, with any command: print only the result and errors; of a run, the path of the result

Try: evalkit run task=egoschema ckpt=demo mini=true
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code.

    0 success, 1 finished with a problem, 2 an error to fix, 130 interrupted, 141 output closed early.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    started = time.time()
    interrupt = Interrupt(lambda: f"evalkit: {_interrupted(words, started)}")
    if argv is None:
        gc.disable()  # until everything is imported: a million objects, all of which stay
        interrupt.handle()
    _open_standard_streams()
    try:
        words, quiet = _quiet(words)
        with notes.on_stderr(not quiet):
            code = _main(words)
        sys.stdout.flush()
        return code
    except UserError as error:
        return _failed(str(error), 2)
    except KeyboardInterrupt:
        interrupt.say()
        return EXIT_CODE
    except BrokenPipeError:  # the reader has seen enough, as `evalkit list tasks | head -1` has
        _discard_output()
        return 141
    except MemoryError as error:
        return _failed(reason_of(error), 2)
    except OSError as error:
        _discard_output()
        return _failed(reason_of(error), 2)


def _interrupted(words: Sequence[str], started: float) -> str:
    """What is said of Ctrl-C, and of what the command has stored since this time, in seconds since the epoch."""
    if not words or words[0] not in GOES_ON or "cache=off" in words:
        return "interrupted"
    if not cache.has_stored(started):
        return "interrupted before anything new was stored"
    return "interrupted; the same command goes on from what is stored"


def _quiet(words: list[str]) -> tuple[list[str], bool]:
    """The words without `quiet=`, which every command takes, and whether it is true.

    Raises:
        UserError: it is neither true nor false.
    """
    given = [word for word in words if word.startswith("quiet=")]
    if wrong := [word for word in given if word not in ("quiet=true", "quiet=false")]:
        raise UserError(f"{wrong[0]}: expected true or false. Did you mean quiet=true?")
    return [word for word in words if word not in given], "quiet=true" in given[-1:]


def _open_standard_streams() -> None:
    """Opens the null device for each standard stream that is closed, as `evalkit list >&-` has it.

    Else the first file that is opened takes its number, and is written into by whatever prints.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may hold what no encoding has


def _failed(message: str, code: int) -> int:
    with contextlib.suppress(OSError):  # nobody reads it
        print(f"evalkit: {on_screen(message)}", file=sys.stderr, flush=True)
    return code


def _discard_output() -> None:
    """Gives up what could not be written to stdout: else the interpreter fails again when it flushes at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _main(words: list[str]) -> int:
    for word in words:
        check_word(word)
    if not words or words[0] in ("--help", "-h", "help"):
        print(USAGE, end="")
        return 0
    if words[0] == "--version":
        print(f"evalkit {evalkit.__version__}")
        return 0
    command, *rest = words
    rooms = {file.stem: file.parent.name for file in (Path(__file__).parent / "commands").glob("*/[!_]*.py")}
    if command not in rooms:
        raise UserError(f"unknown command {command!r}.{_meant(words, sorted(rooms))}")
    module = f"evalkit.commands.{rooms[command]}.{command}"
    if (command in WITH_KEYS or command == "sweep") and {"--help", "-h"} & set(rest):
        return _print_keys(command, rest)
    if command not in WITH_KEYS and {"--help", "-h"} & set(rest) and (command not in NAMED or len(rest) == 1):
        print(_usage(command), end="")
        return cast(int, _imported(module).main(["--help"])) if command in LISTING else 0
    if rooms[command] == "results":
        _check_given(rest)
    if command not in WITH_KEYS:
        return cast(int, _imported(module).main(rest))
    if command == "run" and any(word.startswith("suite=") for word in rest):
        return cast(int, _imported("evalkit.launch.suite").run(rest))
    from evalkit.config.parse import resolve

    config = resolve(
        cast(Any, WITH_KEYS[command]), rest, called=command
    )  # before torch loads: a mistyped key is reported at once
    return cast(int, _imported(module).main(config))


def _print_keys(command: str, words: list[str]) -> int:
    """Prints the keys that a command takes with these words."""
    from evalkit.config.help import print_keys

    protocol, prescribed, of_jobs = "", dict[str, Any](), list[tuple[str, ...]]()
    keys_of = WITH_KEYS.get(command, "run")
    if command == "sweep":
        from evalkit.launch import cells

        print(f"{_usage(command)}\n{cells.ABOUT}\n")
        words, of_jobs = cells.first_values(words), [*cells.KEYS]
    if keys_of in ("run", "adapt") and any(word.startswith("task=") for word in words):
        from evalkit.pipeline.settings import prescribed_values

        with contextlib.suppress(UserError):  # a key that is wrong is no reason to show none
            protocol, prescribed = prescribed_values(words)
    return print_keys(cast(Any, keys_of), words, command, protocol, prescribed, of_jobs)


def _imported(name: str) -> Any:
    """Imports a module. Garbage collections then pass over everything it defined, also the one at exit."""
    module = importlib.import_module(name)
    if not gc.isenabled():  # `main` has a process of its own
        gc.freeze()
        gc.enable()
    return module


def _check_given(words: Sequence[str]) -> None:
    """Raises UserError where a key has no value, or two of which one alone would count.

    Files of several tasks may be given, and the name of a run's folder may have a =.
    """
    given: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or Path(word).exists():
            continue
        if not value:
            raise UserError(f"{word}: wanted a value")
        if key in given and key != "task":
            raise UserError(f"{key} is given twice: {given[key]} and {word}")
        given[key] = word


def _meant(words: list[str], commands: Sequence[str]) -> str:
    """What to append where the first word is no command: the one that was probably meant."""
    command, *rest = words
    if command in CALLED:
        return f" Did you mean 'evalkit {CALLED[command]}'?"
    from evalkit import plugins

    key, equals, _ = command.lstrip("-").partition("=")
    if equals and key in ("task", "ckpt", "suite"):
        return f" Did you mean 'evalkit run {command.lstrip('-')} ...'?"
    if command.lstrip("-") == "task" and rest:
        return f" Did you mean 'evalkit run task={rest[0]} ...'?"
    if command in plugins.names("task"):
        return f" Did you mean 'evalkit run task={command} ...'?"
    return among(command, commands, "`evalkit --help` shows all")


def _usage(command: str) -> str:
    """The lines of the usage that are about a command."""
    lines, shown = [], False
    for line in USAGE.splitlines(keepends=True):
        shown = line.startswith(f"  evalkit {command} ") or (shown and line.startswith(" " * 20))
        lines += [line] if shown else []
    return "".join(lines)
