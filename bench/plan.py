"""The time that `evalkit plan` estimates for a run, and the time that the run then takes.

    PYTHONPATH=. python bench/plan.py [FOLDER_OF_CLASSES]

Each run has its own cache folder, whose films are made before. A folder of real videos, CLASS/video, is measured, too,
if it is given.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time

RUNS = {
    "kinetics400@mini, attentive probe": ["task=kinetics400", "mini=true", "ckpt=demo"],
    "ssv2@mini, knn": ["task=ssv2", "mini=true", "ckpt=demo", "adapter=knn"],
    "egoschema@mini": ["task=egoschema", "mini=true", "ckpt=demo"],
    "msrvtt@mini": ["task=msrvtt", "mini=true", "ckpt=demo"],
}


def command(words: list[str], cache: str) -> tuple[float, str]:
    """Seconds that a command took, and what it printed."""
    environment = os.environ | {"EVALKIT_CACHE": cache}
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "evalkit", *words], env=environment, capture_output=True, text=True, check=True
    )
    return time.monotonic() - started, done.stdout


def seconds(printed: str) -> float:
    """The time in the plan's line `all`."""
    number, unit = next(line for line in printed.splitlines() if line.startswith("all ")).split()[1:]
    return float(number) * {"s": 1, "min": 60, "h": 3600}[unit]


def main() -> None:
    """Prints the table."""
    runs = dict(RUNS)
    if len(sys.argv) > 1:
        root = f"data.root={sys.argv[1]}"
        runs["real videos, attentive probe"] = ["task=folder", root, "ckpt=random:vivit_demo", "canary=false"]
        runs["real videos, knn"] = [*runs["real videos, attentive probe"], "adapter=knn", "adapter.k=1"]
    print("| run | planned, s | took, s | planned / took | plan itself, s |\n|---|---|---|---|---|")
    for name, words in runs.items():
        with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory() as out:
            if "mini=true" in words:
                command(["check", *words[:2]], cache)  # makes the films
            itself, printed = command(["plan", *words, f"out={out}"], cache)
            took, _ = command(["run", *words, f"out={out}"], cache)
            planned = seconds(printed)
            print(f"| {name} | {planned:.1f} | {took:.1f} | {planned / took:.2f} | {itself:.1f} |", flush=True)


if __name__ == "__main__":
    main()
