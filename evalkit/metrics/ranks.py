"""Retrieval ranks of texts and videos in both directions: exact at any size, without the whole similarity matrix.

The similarities come block by block from one float32 matrix product, which is compared with what each query should
find while it is still in the cache, for both directions. A product of two vectors differs in its last bits with the
block's shape and the library, and ties would be broken by that. So float32 decides only what its error cannot change:
the few similarities that lie within the error bound of the one they are compared with are computed again in float64,
and what is equal there is a tie. The ranks are therefore those of the float64 similarities, whatever the blocks are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evalkit.runtime.arithmetic import map_on_cores

BLOCK_ROWS, BLOCK_COLUMNS = 512, 2048  # float32 similarities: 4 MB, small enough to stay in the cache
MAX_WORKERS = 32  # threads, each with some 16 MB of buffers
WORD_BYTES = 8  # of an int64, whose bytes are eight truth values, added at once
WORDS_PER_SUM = 128  # int64 words added up; at most 255, so that no byte overflows
PAIRS_PER_CHUNK = 1024  # pairs of vectors whose float64 products are computed at a time
DENSE_SHARE = 1 / 64  # of a block in doubt: above it, the whole block in float64 costs less than pair by pair


class Ranks(NamedTuple):
    """Ranks from 1, float64; nan for a query without a target.

    Attributes:
        t2v: (n,) of each text's video among all videos.
        v2t: (m,) of each video's best text among the texts of other videos.
    """

    t2v: Tensor
    v2t: Tensor


@torch.no_grad()
def ranks(text: Tensor, video: Tensor, of: Tensor) -> Ranks:
    """Rank each query's target by the dot product, in both directions.

    A tie counts half: a rank is the mean over all orders of equals. A video's rank is that of its best text; its other
    texts are no rivals of it. A vector that is not finite has no rank and is no rival to any other.

    Args:
        text: (n, d) float, one row per caption.
        video: (m, d) float.
        of: (n,) int64, the row of each caption's video; a video may have none, and is then a rival only.
    """
    text, video, of = _finite(text.detach().cpu()), _finite(video.detach().cpu()), of.cpu()
    to_video = _Dots(text, video)(torch.arange(len(text)), of)
    to_best = torch.full((len(video),), -math.inf, dtype=torch.float64)
    to_best.scatter_reduce_(0, of, to_video.nan_to_num(nan=-math.inf), "amax")
    # A sum of d products, in any order, errs by d units of roundoff of the vectors' lengths; a few more for the bounds.
    error = (text.shape[1] + 16) * _longest(text) * _longest(video)
    columns, parts = video.float(), list(_parts(len(text), BLOCK_ROWS))
    free: SimpleQueue[_Worker] = SimpleQueue()
    workers = [
        _Worker(text, video, columns, of, to_video, to_best, error)
        for _ in range(min(torch.get_num_threads(), MAX_WORKERS, len(parts)))
    ]
    for worker in workers:
        free.put(worker)

    def count(rows: slice) -> None:
        worker = free.get()
        try:
            worker.count(rows)
        finally:
            free.put(worker)

    for _ in map_on_cores(count, parts, MAX_WORKERS):
        continue
    return Ranks(
        _ranks(to_video, [worker.t2v for worker in workers]), _ranks(to_best, [worker.v2t for worker in workers])
    )


class _Worker:
    """Buffers and counts of one thread; arguments as of `ranks`, with each query's similarity to its target.

    Args:
        columns: the videos in float32.
        to_video: (n,) float64, similarity of each text to its video.
        to_best: (m,) float64, similarity of each video to its best text.
        error: of a similarity, in units of roundoff.
    """

    def __init__(
        self, text: Tensor, video: Tensor, columns: Tensor, of: Tensor, to_video: Tensor, to_best: Tensor, error: float
    ) -> None:
        self.text, self.video, self.columns, self.of = text, video, columns, of
        self.dots, self.tie = _Dots(text, video), error * 2.0**-53
        self.t2v, self.v2t = _Side(to_video, error * 2.0**-24, 1), _Side(to_best, error * 2.0**-24, 0)
        self.block = torch.empty(BLOCK_ROWS * BLOCK_COLUMNS)

    @torch.inference_mode()  # which a thread does not have from the one that started it
    def count(self, rows: slice) -> None:
        """Compare the texts of some rows with all videos, and all videos with them."""
        some, of = self.text[rows].float(), self.of[rows]
        for part in _parts(len(self.video), BLOCK_COLUMNS):
            r, c = len(some), part.stop - part.start
            block = torch.mm(some, self.columns[part].T, out=self.block[: r * c].view(r, c))
            for side, queries in ((self.t2v, rows), (self.v2t, part)):
                i, j = side.count(block.numpy(), queries)
                rivals = of[i] != j + part.start
                i, j = i[rivals], j[rivals]
                if len(i) > DENSE_SHARE * block.numel():
                    similarities = (self.text[rows].double() @ self.video[part].double().T)[i, j]
                else:
                    similarities = self.dots(i + rows.start, j + part.start)
                side.count_exactly((i if side is self.t2v else j) + queries.start, similarities, self.tie)


class _Dots:
    """Dot products of texts and videos in float64, in buffers, since new memory pages cost more than sums."""

    def __init__(self, text: Tensor, video: Tensor) -> None:
        self.text, self.video = text, video
        self.left, self.right = (
            torch.empty(PAIRS_PER_CHUNK, text.shape[1], dtype=each.dtype) for each in (text, video)
        )
        self.product = torch.empty(PAIRS_PER_CHUNK, text.shape[1], dtype=torch.float64)

    def __call__(self, i: Tensor, j: Tensor) -> Tensor:
        """Products (p,) of p pairs, given by the rows of their texts and videos."""
        products = torch.empty(len(i), dtype=torch.float64)
        for part in _parts(len(i), PAIRS_PER_CHUNK):
            left, right, product = (
                buffer[: part.stop - part.start] for buffer in (self.left, self.right, self.product)
            )
            torch.index_select(self.text, 0, i[part], out=left)
            torch.index_select(self.video, 0, j[part], out=right)
            torch.sum(product.copy_(left).mul_(right), 1, out=products[part])
        return products


class _Side:
    """One direction: each query's similarity (k,) to its target, and how many rivals are above it and equal to it."""

    def __init__(self, target: Tensor, slack: float, along: int) -> None:
        self.target, self.along = target, along
        self.low, self.high = ((target + off).float().numpy() for off in (-slack, slack))
        self.above = torch.zeros(len(target), dtype=torch.float64)
        self.equal = torch.zeros(len(target), dtype=torch.float64)
        # Masks of a block, padded to WORDS_PER_SUM whole words: what is surely above, and what may be.
        rows, columns = (
            math.ceil(BLOCK_ROWS / WORDS_PER_SUM) * WORDS_PER_SUM,
            math.ceil(BLOCK_COLUMNS / WORDS_PER_SUM / WORD_BYTES) * WORDS_PER_SUM * WORD_BYTES,
        )
        self.sure, self.perhaps = (np.zeros((rows, columns), bool) for _ in range(2))

    def count(self, block: NDArray[np.float32], queries: slice) -> tuple[Tensor, Tensor]:
        """Count what is surely above in a block (r, c); returns rows and columns of what float32 cannot decide.

        numpy compares faster, torch adds faster.
        """
        low, high = (np.expand_dims(bound[queries], self.along) for bound in (self.low, self.high))
        r, c = block.shape
        for mask in (self.sure, self.perhaps):
            mask[r:], mask[:, c:] = False, False
        np.greater(block, high, out=self.sure[:r, :c])
        np.greater_equal(block, low, out=self.perhaps[:r, :c])
        sure, perhaps = (torch.from_numpy(mask).view(torch.int64) for mask in (self.sure, self.perhaps))
        if self.along:
            counts = sure.reshape(len(sure), -1, WORDS_PER_SUM).sum(2).view(torch.uint8).sum(1)[:r]
        else:
            counts = sure.reshape(-1, WORDS_PER_SUM, sure.shape[1]).sum(1).view(torch.uint8).sum(0)[:c]
        self.above[queries] += counts
        i, j = perhaps.bitwise_xor_(sure).nonzero().unbind(1)
        word, byte = perhaps[i, j, None].view(torch.bool).nonzero().unbind(1)
        return i[word], j[word] * WORD_BYTES + byte

    def count_exactly(self, queries: Tensor, similarities: Tensor, tie: float) -> None:
        """Count float64 similarities (p,) of rivals, each to the query at its place in `queries`."""
        beyond = similarities - self.target[queries]
        self.above.index_add_(0, queries, (beyond > tie).double())
        self.equal.index_add_(0, queries, (beyond.abs() <= tie).double())


def _ranks(target: Tensor, sides: Sequence[_Side]) -> Tensor:
    """Ranks of one direction from all workers' counts."""
    rank = torch.ones_like(target).where(target.isfinite(), math.nan)
    for side in sides:
        rank += side.above + side.equal / 2
    return rank


@torch.no_grad()
def nearest(text: Tensor, video: Tensor, count: int) -> Tensor:
    """Rows of the videos most similar to each text, best first: (n, min(count, m)) int64.

    Args:
        text: (n, d) float.
        video: (m, d) float.
        count: videos per text.
    """
    text, video = text.cpu().float(), video.cpu().float().nan_to_num(nan=0.0)
    k = min(count, len(video))
    step = max(1, BLOCK_ROWS * BLOCK_COLUMNS // max(1, len(video)))
    rows = [(text[part] @ video.T).topk(k).indices for part in _parts(len(text), step)]
    return torch.cat(rows) if rows else torch.empty(0, k, dtype=torch.int64)


def _parts(n: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, n)) for start in range(0, n, step))


def _finite(vectors: Tensor) -> Tensor:
    """Set vectors that are not finite to nan throughout: a comparison with nan is never true."""
    finite = vectors.isfinite().all(1)
    return vectors if finite.all() else vectors.where(finite[:, None], math.nan)


def _longest(vectors: Tensor) -> float:
    """Largest norm of the finite vectors."""
    lengths = torch.cat([vectors[part].double().norm(dim=1) for part in _parts(len(vectors), 4096)])
    return float(lengths.nan_to_num(nan=0.0).max())
