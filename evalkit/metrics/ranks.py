"""At which place each text finds its video, and each video its text: exact for any size, and never all at once.

The similarities come block by block from one float32 matrix product, which is compared with what each query should
find while it is still in the cache, for both directions. A product of two vectors differs in its last bits with the
block's shape and the library, and ties would be broken by that. So float32 decides only what its error cannot change:
the few similarities that lie within the error bound of the one they are compared with are computed again in float64,
and what is equal there is a tie. The ranks are therefore those of the float64 similarities, whatever the blocks are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ROWS, COLUMNS = 512, 2048  # of a block: 4 MB, small enough to stay in the cache
WORKERS = 32  # at most, each with some 16 MB
WORD = 8  # truth values that are added at once, each a byte of a number
FEW = 128  # of them under each other, at most 255, so that no byte runs over
PAIRS = 1024  # vectors multiplied one by one in float64 at a time
DENSE = 64  # above one in so many, the whole block again costs less than each similarity by itself


class Ranks(NamedTuple):
    """Ranks from 1, float64; nan for a query that has no answer.

    Attributes:
        t2v: (n,) of each text's video among all videos.
        v2t: (m,) of each video's best text among the texts of other videos.
    """

    t2v: Tensor
    v2t: Tensor


@torch.no_grad()
def ranks(text: Tensor, video: Tensor, of: Tensor) -> Ranks:
    """The rank of what each query should find, by the dot product, in both directions.

    What ties counts half: a rank is the mean over all orders of equals. A video's rank is that of its best text; its
    other texts are no rivals of it. A vector that is not finite has no rank and is no rival to any other.

    Args:
        text: (n, d) float, one row per caption.
        video: (m, d) float.
        of: (n,) int64, the row of each caption's video; a video may have none, and is then a rival only.
    """
    text, video, of = _finite(text.detach().cpu()), _finite(video.detach().cpu()), of.cpu()
    own = _Dots(text, video)(torch.arange(len(text)), of)
    best = torch.full((len(video),), -math.inf, dtype=torch.float64)
    best.scatter_reduce_(0, of, own.nan_to_num(nan=-math.inf), "amax")
    # A sum of d products, in any order, errs by d units of roundoff of the vectors' lengths; a few more for the bounds.
    error = (text.shape[1] + 16) * _longest(text) * _longest(video)
    columns, parts = video.float(), list(_parts(len(text), ROWS))
    threads = torch.get_num_threads()
    free: SimpleQueue[_Worker] = SimpleQueue()
    workers = [_Worker(text, video, columns, of, own, best, error) for _ in range(min(threads, WORKERS, len(parts)))]
    for worker in workers:
        free.put(worker)

    def count(rows: slice) -> None:
        worker = free.get()
        try:
            worker.count(rows)
        finally:
            free.put(worker)

    torch.set_num_threads(1)  # each core its own rows: threads that share every step wait for each other at its end
    try:
        with ThreadPoolExecutor(max(1, len(workers))) as pool:
            for _ in pool.map(count, parts):
                continue
    finally:
        torch.set_num_threads(threads)
    return Ranks(_ranks(own, [worker.t2v for worker in workers]), _ranks(best, [worker.v2t for worker in workers]))


class _Worker:
    """One thread's buffers, and what it counted: arguments as of `ranks`, with what each query should find.

    Args:
        columns: the videos in float32.
        own: (n,) float64, of each text its video's similarity.
        best: (m,) float64, of each video its best text's.
        error: of a similarity, in units of roundoff.
    """

    def __init__(
        self, text: Tensor, video: Tensor, columns: Tensor, of: Tensor, own: Tensor, best: Tensor, error: float
    ) -> None:
        self.text, self.video, self.columns, self.of = text, video, columns, of
        self.dots, self.tie = _Dots(text, video), error * 2.0**-53
        self.t2v, self.v2t = _Side(own, error * 2.0**-24, 1), _Side(best, error * 2.0**-24, 0)
        self.block = torch.empty(ROWS * COLUMNS)

    @torch.inference_mode()  # which a thread does not have from the one that started it
    def count(self, rows: slice) -> None:
        """Compares some texts with all videos, and all videos with them."""
        some, of = self.text[rows].float(), self.of[rows]
        for part in _parts(len(self.video), COLUMNS):
            r, c = len(some), part.stop - part.start
            block = torch.mm(some, self.columns[part].T, out=self.block[: r * c].view(r, c))
            for side, queries in ((self.t2v, rows), (self.v2t, part)):
                i, j = side.count(block.numpy(), queries)
                rivals = of[i] != j + part.start
                i, j = i[rivals], j[rivals]
                if len(i) * DENSE > block.numel():
                    similarities = (self.text[rows].double() @ self.video[part].double().T)[i, j]
                else:
                    similarities = self.dots(i + rows.start, j + part.start)
                side.settle((i if side is self.t2v else j) + queries.start, similarities, self.tie)


class _Dots:
    """Dot products of rows of texts and of videos in float64, in buffers, since new pages cost more than sums."""

    def __init__(self, text: Tensor, video: Tensor) -> None:
        self.text, self.video = text, video
        self.left, self.right = (torch.empty(PAIRS, text.shape[1], dtype=each.dtype) for each in (text, video))
        self.product = torch.empty(PAIRS, text.shape[1], dtype=torch.float64)

    def __call__(self, i: Tensor, j: Tensor) -> Tensor:
        """(p,) from the places of p texts and p videos."""
        found = torch.empty(len(i), dtype=torch.float64)
        for part in _parts(len(i), PAIRS):
            left, right, product = (
                buffer[: part.stop - part.start] for buffer in (self.left, self.right, self.product)
            )
            torch.index_select(self.text, 0, i[part], out=left)
            torch.index_select(self.video, 0, j[part], out=right)
            torch.sum(product.copy_(left).mul_(right), 1, out=found[part])
        return found


class _Side:
    """One direction: the similarity (k,) that each query should find, and what was counted above it and equal to it."""

    def __init__(self, wanted: Tensor, slack: float, along: int) -> None:
        self.wanted, self.along = wanted, along
        self.low, self.high = ((wanted + off).float().numpy() for off in (-slack, slack))
        self.above = torch.zeros(len(wanted), dtype=torch.float64)
        self.equal = torch.zeros(len(wanted), dtype=torch.float64)
        # Of a block, in whole words and FEW of them: what is surely above, and what may be.
        rows, columns = math.ceil(ROWS / FEW) * FEW, math.ceil(COLUMNS / FEW / WORD) * FEW * WORD
        self.sure, self.perhaps = (np.zeros((rows, columns), bool) for _ in range(2))

    def count(self, block: NDArray[np.float32], queries: slice) -> tuple[Tensor, Tensor]:
        """Counts what is surely above in a block (r, c); gives the rows and columns of what float32 cannot decide.

        numpy compares faster, and torch adds.
        """
        low, high = (np.expand_dims(bound[queries], self.along) for bound in (self.low, self.high))
        r, c = block.shape
        for mask in (self.sure, self.perhaps):
            mask[r:], mask[:, c:] = False, False
        np.greater(block, high, out=self.sure[:r, :c])
        np.greater_equal(block, low, out=self.perhaps[:r, :c])
        sure, perhaps = (torch.from_numpy(mask).view(torch.int64) for mask in (self.sure, self.perhaps))
        if self.along:
            counts = sure.reshape(len(sure), -1, FEW).sum(2).view(torch.uint8).sum(1)[:r]
        else:
            counts = sure.reshape(-1, FEW, sure.shape[1]).sum(1).view(torch.uint8).sum(0)[:c]
        self.above[queries] += counts
        i, j = perhaps.bitwise_xor_(sure).nonzero().unbind(1)
        found, byte = perhaps[i, j, None].view(torch.bool).nonzero().unbind(1)
        return i[found], j[found] * WORD + byte

    def settle(self, queries: Tensor, similarities: Tensor, tie: float) -> None:
        """Counts float64 similarities (p,), each of one query."""
        beyond = similarities - self.wanted[queries]
        self.above.index_add_(0, queries, (beyond > tie).double())
        self.equal.index_add_(0, queries, (beyond.abs() <= tie).double())


def _ranks(wanted: Tensor, sides: Sequence[_Side]) -> Tensor:
    """What some workers counted of one direction, all in one."""
    rank = torch.ones_like(wanted).where(wanted.isfinite(), math.nan)
    for side in sides:
        rank += side.above + side.equal / 2
    return rank


@torch.no_grad()
def nearest(text: Tensor, video: Tensor, count: int) -> Tensor:
    """The rows of the videos that are most similar to each text, best first, (n, count) int64, or as many as there are.

    Args:
        text: (n, d) float.
        video: (m, d) float.
        count: wanted.
    """
    text, video = text.cpu().float(), video.cpu().float().nan_to_num(nan=0.0)
    k = min(count, len(video))
    step = max(1, ROWS * COLUMNS // max(1, len(video)))
    found = [(text[part] @ video.T).topk(k).indices for part in _parts(len(text), step)]
    return torch.cat(found) if found else torch.empty(0, k, dtype=torch.int64)


def _parts(n: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, n)) for start in range(0, n, step))


def _finite(vectors: Tensor) -> Tensor:
    """The vectors, those that are not finite all nan: a comparison with nan is never true."""
    finite = vectors.isfinite().all(1)
    return vectors if finite.all() else vectors.where(finite[:, None], math.nan)


def _longest(vectors: Tensor) -> float:
    """The largest length of a finite vector."""
    lengths = torch.cat([vectors[part].double().norm(dim=1) for part in _parts(len(vectors), 4096)])
    return float(lengths.nan_to_num(nan=0.0).max())
