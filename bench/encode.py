"""The encode phase compared with a bare loop, and a second run compared with the first.

    python bench/encode.py [rounds]

Ratios within one run: decoding and encoding as a run does it, without and with the store, against a plain loop of
`read_clip` and one forward pass per batch; the same command again; another task on the same films.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from evalkit.config.parse import resolve
from evalkit.features import extract
from evalkit.features.sources import sources
from evalkit.pipeline.setup import Experiment, prepare
from evalkit.video.clips import Decoded, read_clip

BATCH = 16


def bare(experiment: Experiment) -> None:
    """What everybody's loop does: a clip at a time in this process, a forward pass per batch."""
    views = experiment.extractor.views
    assert views.frames and views.size
    waiting: list[torch.Tensor] = []
    for one in sources(experiment.task.train):
        clip = read_clip(one.video, one.span, views, views.frames, views.size, clip=experiment.extractor.clip)
        assert isinstance(clip, Decoded)
        waiting.append(clip.pixels)
        if len(waiting) == BATCH:
            experiment.reader.keep(torch.cat(waiting))
            waiting = []
    if waiting:
        experiment.reader.keep(torch.cat(waiting))


def ours(experiment: Experiment) -> None:
    """The encode phase of a run."""
    wanted = sources(experiment.task.train)
    for _ in experiment.extractor.encode(
        wanted, experiment.reader.keep, "encode", {"": extract.unchanged}, experiment.reader.cache
    ):
        continue


def seconds(work: Any, experiment: Experiment) -> float:
    """How long it takes."""
    started = time.perf_counter()
    work(experiment)
    return time.perf_counter() - started


def run(task: str, out: Path) -> tuple[float, dict[str, Any]]:
    """A whole run in a process of its own: seconds, and its cost."""
    from evalkit.results.run_folder import load

    command = [sys.executable, "-m", "evalkit", "run", f"task={task}", "mini=true", "ckpt=demo", f"out={out}"]
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    taken = time.perf_counter() - started
    (folder,) = (out / "demo" / f"{task}@mini").iterdir()
    return taken, load(folder)["cost"]


def main(rounds: int) -> None:
    """Prints the tables."""
    words = ["task=kinetics400", "mini=true", "ckpt=demo", f"batch={BATCH}"]
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        os.environ["EVALKIT_CACHE"] = place
        with prepare(resolve("run", [*words, "cache=off"])) as experiment:
            assert experiment.task.prepare_videos
            experiment.task.prepare_videos([*experiment.task.train, *experiment.task.test])
            found: dict[str, list[float]] = {"bare loop": [], "encode phase, cache=off": [], "encode phase, stored": []}
            for _ in range(rounds):
                found["bare loop"].append(seconds(bare, experiment))
                found["encode phase, cache=off"].append(seconds(ours, experiment))
                os.environ["EVALKIT_CACHE"] = str(home / f"store{len(found['bare loop'])}")
                with prepare(resolve("run", words)) as storing:
                    for example in storing.task.train:  # where the films lie is not what is measured
                        example.video.parent.mkdir(parents=True, exist_ok=True)
                        (example.video).symlink_to(home / example.video.relative_to(os.environ["EVALKIT_CACHE"]))
                    found["encode phase, stored"].append(seconds(ours, storing))
                os.environ["EVALKIT_CACHE"] = place
        least = {name: min(values) for name, values in found.items()}
        print(
            f"{len(experiment.task.train)} films of ten seconds, ckpt=demo, {os.cpu_count()} cores, least of {rounds}\n"
        )
        print("| what | s | / bare loop | wanted |\n|---|---|---|---|")
        for name, value in least.items():
            print(
                f"| {name} | {value:.2f} | {value / least['bare loop']:.2f} | {'' if 'bare' in name else '<= 1.05'} |"
            )
        print("\n| run | s | encode and decode, s | forward passes | found stored |\n|---|---|---|---|---|")
        for number, task in enumerate(("kinetics400", "kinetics400", "moments_in_time")):
            taken, cost = run(task, home / f"out{number}")
            told = f"{taken:.1f} | {cost['decode_s'] + cost['encode_s']:.2f}"
            print(f"| {task}@mini | {told} | {cost['encoder_forwards']} | {cost['cache_hits']} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
