"""The effect of threads and bf16 on one encoder on this machine: ratios, measured side by side.

PYTHONPATH=. python bench/encoder.py [ckpt] [repeats]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from statistics import median

import torch

from evalkit.api import FeatureSpec
from evalkit.encoders import load_encoder
from evalkit.features.forward import EncoderRunner
from evalkit.runtime.machine import cores


def main(ckpt: str = "random:videomae_base", repeats: str = "5") -> None:
    """Prints a markdown table; each row beside float32 on all cores, taken in turn."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder = load_encoder(ckpt).to(device)  # type: ignore[attr-defined]
    clip = encoder.clip
    pixels = torch.randint(0, 256, (2, clip.frames, 3, clip.size, clip.size), dtype=torch.uint8)
    kept = FeatureSpec("pooled")
    plain = EncoderRunner(encoder, "", device, 2, False)
    ways: dict[str, tuple[Callable[[], torch.Tensor], int]] = {
        f"float32, {cores()} threads": (lambda: plain(pixels, kept), cores()),
        "float32, 1 thread": (lambda: plain(pixels, kept), 1),
        "float32, twice the threads": (lambda: plain(pixels, kept), 2 * cores()),
        "bf16": (lambda: EncoderRunner(encoder, "", device, 2, False, "bf16")(pixels, kept), cores()),
    }
    outputs = {name: way() for name, (way, _) in ways.items()}  # the first call fills caches
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(int(repeats)):
        for name, (way, threads) in ways.items():
            torch.set_num_threads(threads)
            started = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - started)
    first = next(iter(ways))
    print(f"{ckpt}, {clip.frames} x {clip.size}, batch 2, on {device}\n")
    print("| way | s per clip | time x float32 | largest difference of pooled / its norm |")
    print("|---|---|---|---|")
    for name in ways:
        off = (outputs[name] - outputs[first]).norm(dim=-1).div(outputs[first].norm(dim=-1)).max()
        one = median(times[name])
        print(f"| {name} | {one / 2:.2f} | {one / median(times[first]):.2f} | {off:.1e} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
