"""`make fuzz`: hostile inputs by the thousand, in this process; prints what went wrong, and exits with 1 if any did.

python -m tests.fuzz [N [SEED [NAME ...]]]    N inputs in all (10,000), from a seed (0), of these fuzzers (all)
"""

import os
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.fuzzers import FUZZERS
from tests.fuzz.harness import findings


def main(words: Sequence[str]) -> int:
    """1 where anything went wrong, else 0."""
    n = int(words[0]) if words else 10_000
    seed = int(words[1]) if words[1:] else 0
    chosen = words[2:] or tuple(FUZZERS)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (24 * 2**30, hard))  # an input that asks for more fails at once
    warnings.simplefilter("ignore")
    wrong = 0
    for name in chosen:
        with tempfile.TemporaryDirectory() as place:
            os.chdir(place)
            started = time.monotonic()
            fuzzer = FUZZERS[name](Path(place) / name)
            for problem in findings(fuzzer, n // len(chosen), seed):
                print(f"{name}, {problem}", flush=True)
                wrong += 1
            print(f"{name}: {n // len(chosen)} inputs in {time.monotonic() - started:.0f} s", flush=True)
            os.chdir("/")
    print(f"{wrong} findings")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
