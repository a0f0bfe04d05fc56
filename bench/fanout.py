"""A sweep of three by three cells as jobs of SLURM's launcher and on a Ray cluster of two nodes, all on this machine.

    PYTHONPATH=. python bench/fanout.py

One cell fails, and one is killed each time it starts. The sweep is started twice; the second time, only the two cells
without a record remain. Ray is measured if it is installed (pip install 'video-evalkit[ray]').
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ENCODER = '''
"""An encoder that cannot be made for one cell, and whose process is killed in another."""

import os
import signal

import torch

import evalkit
from evalkit.api import Encoder


def encoder(number: int = 0) -> Encoder:
    cell = number, torch.initial_seed()
    if cell == (1, 1):
        raise ValueError("no such size")
    if cell == (2, 2):
        os.kill(os.getpid(), signal.SIGKILL)
    return evalkit.load_encoder("random:vivit_demo", seed=number)
'''


def sweep(folder: Path, place: list[str]) -> tuple[float, str]:
    """Seconds that the sweep took, and what it printed on stdout."""
    words = ["task=folder", "mini=true", "ckpt=my_encoder:encoder", "adapter=knn", "adapter.k=1"]
    words += ["encoder.number=0,1,2", "seed=0,1,2", "canary=false", "controls=false", "workers=1", "threads=1"]
    words += ["device=cpu", f"out={folder / 'out'}", *place]
    environment = os.environ | {"EVALKIT_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", "evalkit", "sweep", *words]
    started = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=folder)
    if done.returncode != 1:
        sys.exit(f"the sweep ended with {done.returncode}, and 1 was expected: {done.stderr[-2000:]}")
    return time.monotonic() - started, done.stdout


def measure(name: str, place: list[str]) -> None:
    """Prints a row for each of two sweeps."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "my_encoder.py").write_text(ENCODER)
        for time_ in ("first", "second"):
            seconds, printed = sweep(folder, place)
            records = Counter(file.parent.name.split("-")[1] for file in (folder / "out").rglob("result.json"))
            reasons = [line.split("failed: ", 1)[1].strip() for line in printed.splitlines() if "failed: " in line]
            twice = sum(count - 1 for count in records.values())
            print(
                f"| {name} | {time_} | {len(records)} | {'; '.join(sorted(reasons))[:300]} | {twice} | {seconds:.1f} |"
            )


def main() -> None:
    """Prints the table."""
    print("| on | sweep | records | reasons of the others | cells with two records | s |\n|---|---|---|---|---|---|")
    measure("local, jobs=2", ["jobs=2"])
    measure("slurm, slurm.cluster=local", ["on=slurm", "slurm.cluster=local", "slurm.time=30"])
    if importlib.util.find_spec("ray") is None:
        print("\nRay is not installed, and was not measured.")
        return
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    try:
        measure("ray, two nodes of one core", ["on=ray", f"ray.address={cluster.address}"])
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
