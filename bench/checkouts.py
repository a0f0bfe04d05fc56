"""Processor time of commands, or of the tests, in this checkout and in another one, in turn.

    git worktree add --detach /tmp/before COMMIT
    OMP_NUM_THREADS=1 PYTHONPATH=. python bench/checkouts.py /tmp/before [rounds]
    make -C /tmp/before install
    OMP_NUM_THREADS=1 PYTHONPATH=. python bench/checkouts.py /tmp/before tests

The seconds of all processes of a command count, in user code and in the system. Each checkout has its own cache, which
a first round fills with films; this round does not count. Both checkouts use the packages of this interpreter for
commands, and their own (.venv) for tests: those that both have by the names of function and parameters, in two
processes as `make test` runs them, and once in each checkout.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

RUN = ["run", "task=folder", "mini=true", "ckpt=demo", "adapter=knn", "cache=off"]
COMMANDS = {"--help": ["--help"], " ".join(RUN): RUN}
WANTED = {"--help": 1.0, " ".join(RUN): 0.6}


def children_s() -> float:
    """Processor seconds of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def processor_s(checkout: Path, words: list[str], place: Path) -> float:
    """Seconds of a command in a checkout, with a cache in a folder of its own."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "EVALKIT_CACHE": str(place / "cache")}
    before = children_s()
    out = [f"out={place / 'out'}"] if words[0] == "run" else []
    subprocess.run(
        [sys.executable, "-m", "evalkit", *words, *out], cwd=checkout, env=environment, check=True, capture_output=True
    )
    return children_s() - before


def spent_s(words: list[str], checkout: Path) -> tuple[float, int]:
    """Processor seconds of a program of the checkout's own interpreter, and its exit code."""
    before = children_s()
    code = subprocess.run([checkout / ".venv/bin/python", *words], cwd=checkout, capture_output=True).returncode
    return children_s() - before, code


def tests_of(checkout: Path) -> dict[str, str]:
    """Node ids of a checkout's tests by function and parameters, of those that no two files have."""
    words = ["-m", "pytest", "--collect-only", "-q", "-o", "addopts=", "-p", "no:cacheprovider"]
    listed = subprocess.run(
        [checkout / ".venv/bin/python", *words], cwd=checkout, check=True, capture_output=True, text=True
    )
    ids = [line for line in listed.stdout.splitlines() if line.startswith("tests/") and "::" in line]
    names = Counter(node.split("::", 1)[1] for node in ids)
    return {name: node for node in ids if names[name := node.split("::", 1)[1]] == 1}


def print_tests(other: Path) -> None:
    """Prints the processor time of the tests that both checkouts have."""
    checkouts = {"before": other.resolve(), "now": Path(__file__).resolve().parents[1]}
    tests = {label: tests_of(checkout) for label, checkout in checkouts.items()}
    shared = [name for name in tests["now"] if name in tests["before"]]
    print(f"{len(tests['before']):,} tests before, {len(tests['now']):,} now, {len(shared):,} in both\n")
    print("| tests of both | s | exit code | now / before | wanted |\n|---|---|---|---|---|")
    seconds: dict[str, float] = {}
    for label, checkout in checkouts.items():
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write("\n".join(tests[label][name] for name in shared))
            file.flush()
            words = ["-m", "pytest", "-n", "2", "--dist", "loadfile", "-p", "no:cacheprovider", f"@{file.name}"]
            seconds[label], code = spent_s(words, checkout)
        ratio = f"{seconds['now'] / seconds['before']:.2f} | <= 0.6" if label == "now" else "|"
        print(f"| {label} | {seconds[label]:.1f} | {code} | {ratio} |", flush=True)


def main(other: Path, rounds: int) -> None:
    """Prints the medians and their ratios."""
    checkouts = [other.resolve(), Path(__file__).resolve().parents[1]]
    print("| evalkit | before, s | now, s | now / before | wanted |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for label, words in COMMANDS.items():
            seconds: list[list[float]] = [[], []]
            for _ in range(1 + rounds):
                for i, checkout in enumerate(checkouts):
                    place = Path(name) / str(i)
                    place.mkdir(exist_ok=True)
                    seconds[i].append(processor_s(checkout, words, place))
            before, now = (statistics.median(taken[1:]) for taken in seconds)
            print(f"| {label} | {before:.2f} | {now:.2f} | {now / before:.2f} | <= {WANTED[label]:g} |", flush=True)


if __name__ == "__main__":
    if "tests" in sys.argv[2:]:
        print_tests(Path(sys.argv[1]))
    else:
        main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 5)
