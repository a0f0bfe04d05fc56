"""The cost of a run apart from decoding and encoding, by number of examples; and a warm run against a cold one.

    OMP_NUM_THREADS=1 PYTHONPATH=. python bench/overhead.py [examples] [profile]

All features are stored before. Everything from examples to result.json in this process is measured, without its start:
keys, look-ups, fitting on a hundred clips, predictions, journal, intervals, the result's files. If no number of
examples is given, kinetics400@mini also runs twice, each time in a process of its own.
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


def warm_and_cold(place: Path) -> list[tuple[float, dict[str, float]]]:
    """Seconds and cost of kinetics400@mini, its films already made, with nothing stored and again."""
    command = [sys.executable, "-m", "evalkit", "run", "task=kinetics400", "mini=true", "ckpt=demo"]
    found = []
    for name in ("films", "cold", "warm"):
        if name == "films":
            with prepare(resolve("run", [*command[4:], "cache=off"])) as experiment:
                assert experiment.task.prepare_videos
                experiment.task.prepare_videos([*experiment.task.train, *experiment.task.val, *experiment.task.test])
            continue
        started = time.perf_counter()
        subprocess.run([*command, f"out={place / name}"], check=True, capture_output=True)
        taken = time.perf_counter() - started
        (result,) = (place / name).rglob("result.json")
        found.append((taken, json.loads(result.read_text())["cost"]))
    return found


def main(counts: tuple[int, ...], profile: bool) -> None:
    """Prints the tables."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        os.environ["EVALKIT_CACHE"] = str(place / "cache")
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
            print(f"\nSlope from {low:,} to {high:,}: {rise:.2f} (wanted 1.0 +- 0.1)")
        if counts == COUNTS:
            (cold, of_cold), (warm, of_warm) = warm_and_cold(place)
            print("\n| kinetics400@mini | s | decode and encode, s | fit, s |\n|---|---|---|---|")
            for label, taken, cost in (("cold", cold, of_cold), ("warm", warm, of_warm)):
                print(f"| {label} | {taken:.1f} | {cost['decode_s'] + cost['encode_s']:.1f} | {cost['fit_s']:.1f} |")
            print(f"\nwarm / cold: {warm / cold:.2f} (wanted <= 0.25)")


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:] if word.isdecimal()]
    main(tuple(given) or COUNTS, "profile" in sys.argv)
