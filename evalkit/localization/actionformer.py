"""ActionFormer (https://arxiv.org/abs/2202.07925): every step of a pyramid in time names an action and its bounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from evalkit.localization.soft_nms import Candidates

_ATTENTION_HEADS = 4
_DROP_PATH = 0.1  # share of examples for which a branch is left out in training
_BRANCH_SCALE = 1e-4  # of a branch, before training
_PRIOR = 0.01  # probability of each class, before training
_RADIUS = 1.5  # points of a level around the center of a segment that learn it
_RANGE = (
    4  # upper bound of distances from the first level's points to the bounds, in steps; doubled from level to level
)
_MOMENTUM = 0.9  # of the loss normalizer
_MIN_SCORE = 0.001  # of a candidate
_CANDIDATES = 2000  # pairs of point and class at most, of a level
_EPSILON = 1e-8
_LONGEST = 2304  # steps of a sequence that is learned from, at most
_LEAST_KEPT = 0.9  # of a sequence that is not longer
_LEAST_INSIDE = 0.5  # of a segment that a part of its sequence keeps
_TRIALS = 200  # of a random part, until it keeps a segment


class Outputs(NamedTuple):
    """What ActionFormer says about a batch at the P points of all levels.

    Attributes:
        logits: (B, P, C) float32.
        offsets: (B, P, 2) float32, distances to the start and to the end, in strides of the level, at least 0.
        valid: (B, P) bool, false where a sequence has ended.
        points: (P, 2), position in steps, and stride of the level.
    """

    logits: Tensor
    offsets: Tensor
    valid: Tensor
    points: Tensor


class ActionFormer(nn.Module):
    """Segments of each class in sequences of any length; the defaults are THUMOS14's.

    Args:
        dim: D, width of the features.
        classes: C; 1 proposes segments without a class.
        width: of the transformer and of the heads, a multiple of 4; ActivityNet: 256.
        windows: steps of local attention, odd, of each level; 0 for all steps. ActivityNet: (7, 7, 7, 7, 7, 0).
        length: of all sequences, which then get sinusoidal positions; 0 for any, without positions. ActivityNet: 192.
        normalizer: first value of the running mean of positive points, which divides the losses; ActivityNet: 200.
        smoothing: of the labels; ActivityNet: 0.1.
        regression: weight of the regression loss; ActivityNet: 2.
        shortest: length of a candidate above which it is kept, in steps; ActivityNet: 0.001.
    """

    normalizer: Tensor
    positions: Tensor

    def __init__(
        self,
        dim: int,
        classes: int,
        width: int = 512,
        windows: Sequence[int] = (19,) * 6,
        length: int = 0,
        normalizer: float = 100.0,
        smoothing: float = 0.0,
        regression: float = 1.0,
        shortest: float = 0.05,
    ) -> None:
        super().__init__()
        self.classes, self.length = classes, length
        self.smoothing, self.regression, self.shortest = smoothing, regression, shortest
        self.strides = [2**level for level in range(len(windows))]
        self.embed = nn.ModuleList(_NormedConv(inputs, width) for inputs in (dim, width))
        self.stem = nn.ModuleList(_Block(width, windows[0], 1) for _ in range(2))
        self.branch = nn.ModuleList(_Block(width, window, 2) for window in windows[1:])
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in windows)
        self.classify, self.regress = _Shared(width, classes), _Shared(width, 2)
        self.scales = nn.Parameter(torch.ones(len(windows)))  # of each level's offsets
        nn.init.constant_(self.classify.last.conv.bias, -math.log((1 - _PRIOR) / _PRIOR))  # type: ignore[arg-type]
        self.register_buffer("normalizer", torch.tensor(normalizer))
        self.register_buffer("positions", _sinusoids(length, width) / math.sqrt(width), persistent=False)

    def forward(self, features: Tensor, lengths: Tensor) -> Outputs:
        """Logits and offsets of zero-padded features (B, T, D); they do not depend on the padding.

        Args:
            features: whose steps past the lengths are not read.
            lengths: (B,), at least 1.

        Raises:
            ValueError: a sequence is longer than the head's `length`.
        """
        longest, coarsest = int(lengths.max()), self.strides[-1]
        if self.length and longest > self.length:
            raise ValueError(f"a sequence has {longest} steps, the head has {self.length}: rescale it")
        # Convolutions see LayerNorm's bias past the end: every level has a step there, however long the batch is.
        padded = -(-(self.length or longest + coarsest) // coarsest) * coarsest
        x = F.pad(features[:, :longest], (0, 0, 0, padded - longest))
        valid = (torch.arange(padded, device=x.device) < lengths.to(x.device)[:, None])[..., None]  # (B, T, 1)
        x = x.masked_fill(~valid, 0)
        for conv in self.embed:
            x = conv(x, valid)
        if self.length:
            x = x + F.pad(self.positions, (0, 0, 0, padded - self.length)) * valid
        for block in self.stem:
            x = block(x, valid)
        levels, masks = [x], [valid]
        for block in self.branch:
            levels.append(block(levels[-1], masks[-1]))
            masks.append(masks[-1][:, ::2])
        logits, offsets = [], []
        for level, mask, norm, scale in zip(levels, masks, self.norms, self.scales, strict=True):
            normed = norm(level)
            logits.append(self.classify(normed, mask).float())
            offsets.append((self.regress(normed, mask).float() * scale).relu())
        points = [
            torch.stack([positions, torch.full_like(positions, stride)], 1)
            for stride in self.strides
            for positions in (torch.arange(0, padded, stride, device=x.device, dtype=torch.float32) + 0.5,)
        ]
        return Outputs(torch.cat(logits, 1), torch.cat(offsets, 1), torch.cat(masks, 1)[..., 0], torch.cat(points))

    def loss(self, outputs: Outputs, segments: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
        """Focal loss of all points + `regression` x DIoU loss of positive ones, over the running number of these.

        In training, each call updates the running mean.

        Args:
            outputs: of a batch.
            segments: (n, 2) of each example, start and end in steps.
            labels: (n,) of each example, in 0..C-1.
        """
        pairs = zip(segments, labels, strict=True)
        truth = [self._targets(outputs.points, bounds.to(outputs.points), of) for bounds, of in pairs]
        classes, distances = (torch.stack(parts) for parts in zip(*truth, strict=True))
        positive = (classes.sum(-1) > 0) & outputs.valid
        if self.training:
            self.normalizer = _MOMENTUM * self.normalizer + (1 - _MOMENTUM) * positive.sum().clamp_min(1)
        smoothed = classes * (1 - self.smoothing) + self.smoothing / (self.classes + 1)
        classification = focal_loss(outputs.logits[outputs.valid], smoothed[outputs.valid])
        regression = diou_loss(outputs.offsets[positive], distances[positive])
        return (classification + self.regression * regression) / self.normalizer

    def _targets(self, points: Tensor, bounds: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Of segments (n, 2) and labels (n,): classes (P, C) of points in 0..1, and distances to both bounds (P, 2).

        A point learns the shortest of the segments whose center is near and whose farther bound lies in the range of
        the point's level.
        """
        if not len(bounds):
            return points.new_zeros(len(points), self.classes), torch.zeros_like(points)
        position, stride = points[:, :1], points[:, 1:]
        start, end = bounds.T
        distances = torch.stack([position - start, end - position], -1)  # (P, n, 2)
        reach, center = _RADIUS * stride, (start + end) / 2
        near = (position > start.maximum(center - reach)) & (position < end.minimum(center + reach))
        farthest = distances.amax(-1)
        least = torch.where(stride == 1, 0, _RANGE / 2 * stride)
        most = torch.where(stride == self.strides[-1], math.inf, _RANGE * stride)
        lengths = (end - start).expand_as(farthest)
        lengths = lengths.masked_fill(~(near & (least <= farthest) & (farthest <= most)), math.inf)
        shortest, index = lengths.min(1)
        same = (lengths <= shortest[:, None] + 1e-3) & lengths.isfinite()
        classes = same.float() @ F.one_hot(labels.to(points.device), self.classes).float()
        return classes.clamp_max(1), distances.take_along_dim(index[:, None, None], 1)[:, 0] / stride

    @torch.no_grad()
    def candidates(self, outputs: Outputs) -> list[Candidates]:
        """Segments (P, 2) of each example with the scores (P, C) of classes, 0 where a class is no candidate.

        Candidates are the at most 2,000 best pairs of point and class of each level, with a score above 0.001.
        """
        position, stride = outputs.points[:, :1], outputs.points[:, 1:]
        bounds = position + outputs.offsets * stride * position.new_tensor([-1, 1])
        scores = outputs.logits.sigmoid() * outputs.valid[..., None]
        scores = torch.where(scores > _MIN_SCORE, scores, 0)
        levels = torch.split(scores, [int((stride == level).sum()) for level in self.strides], 1)
        scores = torch.cat([_best(level, _CANDIDATES) for level in levels], 1)
        kept = (bounds[..., 1] - bounds[..., 0] > self.shortest) & (scores > 0).any(-1)
        return [Candidates(bounds[i, of], scores[i, of]) for i, of in enumerate(kept)]


def crop(length: int, segments: Tensor, labels: Tensor) -> tuple[slice, Tensor, Tensor]:
    """A random part of a sequence to learn from, which keeps a segment where there are any.

    It has 2,304 steps of a longer sequence, and nine tenths to all of another one, as ActionFormer's code has it.

    Args:
        length: steps of the sequence.
        segments: (n, 2), start and end in steps.
        labels: (n,).

    Returns:
        Its place, and its segments, cut at its ends, of which at least half is in it, with their labels.
    """
    kept = _LONGEST if length > _LONGEST else _random(max(1, round(_LEAST_KEPT * length)), length)
    for _ in range(_TRIALS):
        start = _random(0, length - kept)
        inside = segments.clamp(start, start + kept)
        long = inside[:, 1] - inside[:, 0] >= _LEAST_INSIDE * (segments[:, 1] - segments[:, 0])
        if long.any() or not len(segments):
            break
    return slice(start, start + kept), inside[long] - start, labels[long]


def crop_batch(
    sequences: Tensor, lengths: Tensor, segments: Sequence[Tensor], labels: Sequence[Tensor]
) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
    """`crop` of each sequence of a batch (B, T, D) with zeros after its end, whose results are such a batch again."""
    parts = [crop(*of_video) for of_video in zip(lengths.tolist(), segments, labels, strict=True)]
    kept = [sequence[place] for sequence, (place, *_) in zip(sequences, parts, strict=True)]
    lengths = torch.tensor([len(sequence) for sequence in kept], device=lengths.device)
    return pad_sequence(kept, batch_first=True), lengths, [part[1] for part in parts], [part[2] for part in parts]


def _random(least: int, most: int) -> int:
    return int(torch.randint(least, most + 1, ()))


class _Conv(nn.Module):
    """A convolution of size 3 over (B, T, C), whose result (B, T / stride, C') is zero where a sequence has ended."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, groups: int = 1, bias: bool = False) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv1d(inputs, outputs, 3, stride, padding=1, groups=groups, bias=bias)
        if bias:
            nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        return self.conv(x.mT).mT * valid[:, :: self.stride]  # type: ignore[no-any-return]


class _NormedConv(nn.Module):
    """Convolution, LayerNorm and ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv, self.norm = _Conv(inputs, outputs), nn.LayerNorm(outputs)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(x, valid)))


class _Shared(nn.Module):
    """The head of three convolutions that all levels share."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_NormedConv(width, width) for _ in range(2))
        self.last = _Conv(width, outputs, bias=True)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        for conv in self.convs:
            x = conv(x, valid)
        return self.last(x, valid)  # type: ignore[no-any-return]


class _Block(nn.Module):
    """A transformer's block with attention in windows, on every step or on every second one."""

    def __init__(self, width: int, window: int, stride: int) -> None:
        super().__init__()
        self.window, self.stride = window, stride
        self.norm = nn.LayerNorm(width)
        self.convs = nn.ModuleList(_Conv(width, width, stride, groups=width) for _ in range(3))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.projections = nn.ModuleList(nn.Linear(width, width) for _ in range(3))  # query, key, value
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.scales = nn.ParameterList(torch.full((width,), _BRANCH_SCALE) for _ in range(2))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """From x (B, T, C) and valid (B, T, 1), both zero where a sequence has ended: (B, T / stride, C)."""
        normed = self.norm(x)
        paths = zip(self.convs, self.norms, self.projections, strict=True)
        query, key, value = (project(norm(conv(normed, valid))) for conv, norm, project in paths)
        if self.stride > 1:
            x, valid = F.max_pool1d(x.mT, 3, self.stride, padding=1).mT, valid[:, :: self.stride]
        attended = local_attention(query, key, value, valid[..., 0], self.window)
        x = (x + self._drop(self.out(attended) * self.scales[0])) * valid
        return x + self._drop(self.mlp(x) * self.scales[1]) * valid

    def _drop(self, branch: Tensor) -> Tensor:
        """The branch, which in training is left out for some of the examples."""
        return F.dropout1d(branch.flatten(1)[:, None], _DROP_PATH, self.training).view_as(branch)


def local_attention(query: Tensor, key: Tensor, value: Tensor, valid: Tensor, window: int) -> Tensor:
    """Attention (B, T, C) of each step to the valid steps (B, T) of an odd window around it; window 0 is all steps.

    The steps are cut into blocks of half a window, which attend to the block before, their own and the next.
    """
    steps, block = query.shape[1], window // 2
    query, key, value = (x.view(*x.shape[:2], _ATTENTION_HEADS, -1).transpose(1, 2) for x in (query, key, value))
    if block:
        end, place = -steps % block, torch.arange(3 * block, device=valid.device)
        query = F.pad(query, (0, 0, 0, end)).unfold(2, block, block).mT  # (B, heads, blocks, block, C / heads)
        key, value = (F.pad(x, (0, 0, block, block + end)).unfold(2, 3 * block, block).mT for x in (key, value))
        seen = F.pad(valid, (block, block + end)).unfold(1, 3 * block, block)[:, None, :, None]
        distance = place - place[block : 2 * block, None]
        # A step past the end attends to itself, as it must to something; nothing attends to it.
        mask = (distance.abs() <= block) & seen | (distance == 0)
    else:
        mask = valid[:, None, None]
    attended = F.scaled_dot_product_attention(query, key, value, mask)
    return attended.flatten(2, -2)[:, :, :steps].transpose(1, 2).flatten(2)


def focal_loss(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Sum of the focal losses (https://arxiv.org/abs/1708.02002) of logits against targets in 0..1."""
    right = logits.sigmoid() * targets + (1 - logits.sigmoid()) * (1 - targets)
    weights = (alpha * targets + (1 - alpha) * (1 - targets)) * (1 - right) ** gamma
    return (weights * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")).sum()


def diou_loss(predicted: Tensor, true: Tensor) -> Tensor:
    """Sum of the DIoU losses (https://arxiv.org/abs/1911.08287) of distances (N, 2) from points to their bounds."""
    shared, hull = torch.minimum(predicted, true).sum(1), torch.maximum(predicted, true).sum(1)
    union = predicted.sum(1) + true.sum(1) - shared
    shift = ((predicted - true)[:, 1] - (predicted - true)[:, 0]) / 2  # between the centers
    losses = 1 - shared / union.clamp_min(_EPSILON) + (shift / hull.clamp_min(_EPSILON)) ** 2
    return losses.sum()


def _best(scores: Tensor, count: int) -> Tensor:
    """Scores (B, N, C) where all but the `count` highest of each example are 0."""
    flat = scores.flatten(1)
    best, index = flat.topk(min(count, flat.shape[1]))
    return torch.zeros_like(flat).scatter(1, index, best).view_as(scores)


def _sinusoids(length: int, width: int) -> Tensor:
    """Sines and cosines (length, width) of positions, by turns, at wavelengths from 2 pi to 20,000 pi."""
    rates = 10000.0 ** -(torch.arange(width, dtype=torch.float64) // 2 * 2 / width)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * rates
    return torch.where(torch.arange(width) % 2 == 0, angles.sin(), angles.cos()).float()
