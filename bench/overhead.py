"""The cost of a run apart from decoding and encoding, by number of examples; and a warm run against a cold one.

    OMP_NUM_THREADS=1 PYTHONPATH=. python bench/overhead.py [examples] [profile] [warm]

All features are stored before. Everything from examples to result.json in this process is measured, without its start:
keys, look-ups, fitting on a hundred clips, predictions, journal, intervals, the result's files. If no number of
examples is given, or with `warm`, kinetics400@mini also runs twice with the probe of its protocol, and twice with k-NN,
which has no fit, each time in a process of its own.
"""

from __future__ import annotations

import cProfile
import json
import math
import os
import pstats
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from bench.memory import FILMS, SECONDS
from bench.memory import __file__ as task_file
from evalkit.config.parse import resolve
from evalkit.features.feature_cache import SourceFeatures
from evalkit.features.sources import sources
from evalkit.features.writer import StoreWriter
from evalkit.mini import film, world
from evalkit.pipeline.runner import run
from evalkit.pipeline.setup import prepare

COUNTS = (1_000, 10_000, 100_000)
ADAPTERS = ("probe", "knn")


def fill_store(words: list[str]) -> None:
    """Stores features of all clips: random ones, of the shape that the adapter reads."""
    with prepare(resolve("run", words)) as experiment:
        reader, task = experiment.reader, experiment.task
        assert reader.cache
        wanted = sources([*task.train, *task.test])
        (first,) = reader.extractor.encode(wanted[:1], reader.keep, "", {"": lambda pixels, seed: pixels})
        shape = first.features[""].shape
        with StoreWriter(reader.cache.store) as writer:
            for source, keys in zip(wanted, reader.cache.keys(wanted, [""]), strict=True):
                reader.cache.put(SourceFeatures(source, {"": torch.randn(shape)}), keys, writer)


def overhead(words: list[str], profile: bool) -> float:
    """Seconds of a whole run that finds everything."""
    config = resolve("run", words)
    profiler = cProfile.Profile()
    started = time.perf_counter()
    if profile:
        profiler.runcall(run, config)
        pstats.Stats(profiler).sort_stats("tottime").print_stats(30)
    else:
        run(config)
    return time.perf_counter() - started


def cold_and_warm(place: Path, adapter: str) -> list[tuple[float, dict[str, float]]]:
    """Seconds and cost of kinetics400@mini, its films already made, with nothing stored and again."""
    words = ["task=kinetics400", "mini=true", "ckpt=demo", f"adapter={adapter}"]
    with prepare(resolve("run", [*words, "cache=off"])) as experiment:
        assert experiment.task.prepare_videos
        experiment.task.prepare_videos([*experiment.task.train, *experiment.task.val, *experiment.task.test])
    runs = []
    for name in ("cold", "warm"):
        out = place / f"{name} {adapter}"
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "evalkit", "run", *words, f"out={out}"], check=True, capture_output=True)
        seconds = time.perf_counter() - started
        (result,) = out.rglob("result.json")
        runs.append((seconds, json.loads(result.read_text())["cost"]))
    return runs


def print_cold_and_warm(place: Path) -> None:
    """Prints what a second run takes."""
    print("| kinetics400@mini | s | decode and encode, s | fit, s | warm / cold | wanted |\n|---|---|---|---|---|---|")
    for adapter in ADAPTERS:
        (cold, of_cold), (warm, of_warm) = cold_and_warm(place, adapter)
        for label, seconds, cost in (("cold", cold, of_cold), ("warm", warm, of_warm)):
            ratio = f"{warm / cold:.2f} | <= 0.25" if label == "warm" else "|"
            encode_s = cost["decode_s"] + cost["encode_s"]
            print(
                f"| {adapter}, {label} | {seconds:.1f} | {encode_s:.1f} | {cost['fit_s']:.1f} | {ratio} |", flush=True
            )


def print_slope(place: Path, counts: tuple[int, ...], profile: bool) -> None:
    """Prints what a run takes that finds all its features, by the number of examples."""
    films = place / "films"
    films.mkdir()
    for i in range(FILMS):
        thing = world.Thing(list(world.COLORS)[i % 6], world.SHAPES[i % 5])
        step = world.Step(thing, "moves left", thing, SECONDS, 6, 0.5)
        film.write(world.Story((step,), (40, 40, 40)), films / f"{i:02d}.mp4", fps=4)
    seconds = {}
    for count in (100, *counts):
        words = [f"task={Path(task_file).resolve()}", f"data.root={films}", f"data.samples={count}", "ckpt=demo"]
        words += [f"out={place}/out{count}", "controls=false", "adapter.heads=0", "adapter.epochs=1"]
        words += ["batch=64", "canary=false"]
        fill_store(words)
        seconds[count] = overhead(words, profile and count == counts[-1])
    fixed = seconds.pop(100)
    print(f"| examples | s | beyond a run of 100 ({fixed:.1f} s) | ms an example |\n|---|---|---|---|")
    for count, taken in seconds.items():
        print(f"| {count:,} | {taken:.1f} | {taken - fixed:.1f} | {1e3 * (taken - fixed) / (count - 100):.2f} |")
    low, high = counts[0], counts[-1]
    if low < high:
        rise = math.log((seconds[high] - fixed) / (seconds[low] - fixed)) / math.log((high - 100) / (low - 100))
        print(f"\nSlope from {low:,} to {high:,}: {rise:.2f} (wanted 1.0 +- 0.1)\n")


def main(words: list[str]) -> None:
    """Prints the tables that the words ask for; all without words."""
    counts = tuple(int(word) for word in words if word.isdecimal())
    with tempfile.TemporaryDirectory() as name:
        os.environ["EVALKIT_CACHE"] = str(Path(name) / "cache")
        if counts or "warm" not in words:
            print_slope(Path(name), counts or COUNTS, "profile" in words)
        if "warm" in words or not counts:
            print_cold_and_warm(Path(name))


if __name__ == "__main__":
    main(sys.argv[1:])
