"""The cost of exact ranks compared with the bare matrix product in blocks, as one Markdown table.

    OMP_NUM_THREADS=2 python bench/ranks.py 100000

n texts and n videos of width 512: as from a trained encoder, with each text much closer to its video than to most
others, and at random, where float32 leaves the most cases undecided. The bare product is measured before the ranks in
their blocks and after them in larger ones, into one buffer; the faster one counts. Memory is the peak of the process so
far, including the vectors. With 100,000 it takes about seven minutes on two idle cores.
"""

from __future__ import annotations

import resource
import sys
import time

import torch
import torch.nn.functional as F
from torch import Tensor

from evalkit.metrics import ranks

D = 512


def vectors(n: int, noise: float) -> tuple[Tensor, Tensor]:
    """Unit float32 vectors (n, D) of videos, and of texts, which are their video's with so much noise on top."""
    generator = torch.Generator().manual_seed(0)
    video = F.normalize(torch.randn(n, D, generator=generator), dim=1)
    text = torch.randn(n, D, generator=generator).mul_(noise / D**0.5)
    if noise < float("inf"):
        text.add_(video)
    else:
        text.normal_(generator=generator)
    return F.normalize(text, dim=1), video


def product(text: Tensor, video: Tensor, rows: int, columns: int) -> float:
    """Seconds of the bare product, block by block into one buffer."""
    out = torch.empty(rows * columns)
    started = time.perf_counter()
    for i in range(0, len(text), rows):
        for j in range(0, len(video), columns):
            a, b = text[i : i + rows], video[j : j + columns]
            torch.mm(a, b.T, out=out[: len(a) * len(b)].view(len(a), len(b)))
    return time.perf_counter() - started


def main(n: int) -> None:
    """Runs and prints."""
    print(f"| {n:,} texts x {n:,} videos, width {D} | product, s | ranks, s | ratio | peak memory, GB |")
    print("|---|---|---|---|---|")
    for name, noise in (("as trained", 2.0), ("at random", float("inf"))):
        text, video = vectors(n, noise)
        before = product(text, video, ranks.BLOCK_ROWS, ranks.BLOCK_COLUMNS)
        started = time.perf_counter()
        ranks.ranks(text, video, torch.arange(n))
        ours = time.perf_counter() - started
        bare = min(before, product(text, video, 2048, 4096))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        print(f"| {name} | {bare:.1f} | {ours:.1f} | {ours / bare:.2f} | {peak:.2f} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
