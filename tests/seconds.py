"""How long tests take: `make quick` leaves out those of the table, and the files that take longest are begun first.

.venv/bin/python -m pytest -n 2 --dist loadfile -vv --durations=0 > build/durations.txt
.venv/bin/python -m tests.seconds build/durations.txt   # writes the table, tests/seconds.txt, again
"""

import re
import sys
from collections import defaultdict
from pathlib import Path

TESTS = Path(__file__).parent
TABLE = TESTS / "seconds.txt"
SLOW = 0.15  # what takes longer is slow, so that all others take less than two minutes on two cores
LONG = 3.0


def read() -> dict[str, float]:
    """Seconds by file, of those that take long, and by `file::function`, of those that are slow."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    return {name: float(seconds) for seconds, name in (line.split() for line in lines)}


def table(durations: str) -> str:
    """The table of what pytest has printed of a run: of a file all its tests, of a function its slowest case."""
    cases: defaultdict[str, float] = defaultdict(float)
    for seconds, name in re.findall(r"^([\d.]+)s (?:call|setup|teardown) +tests/(.*)$", durations, re.MULTILINE):
        cases[name.strip()] += float(seconds)
    files: defaultdict[str, float] = defaultdict(float)
    functions: defaultdict[str, float] = defaultdict(float)
    for name, took in cases.items():
        files[name.partition("::")[0]] += took
        function = name.partition("[")[0]
        functions[function] = max(functions[function], took)
    kept = {name: took for name, took in files.items() if took > LONG}
    kept |= {name: took for name, took in functions.items() if took > SLOW}
    return "".join(f"{took:.1f} {name}\n" for name, took in sorted(kept.items()))


if __name__ == "__main__":
    TABLE.write_text(table(Path(sys.argv[1]).read_text(encoding="utf-8")), encoding="utf-8")
