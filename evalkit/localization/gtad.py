"""G-TAD (https://arxiv.org/abs/1911.11462): a graph over time steps, and a confidence for every start and duration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from evalkit.errors import UserError
from evalkit.localization.soft_nms import Candidates

_NEIGHBORS = 3  # in the graph, a step itself among them
_GROUPS = 4  # of the first convolution
_INNER_GROUPS = 32  # of a block's
_CONTEXT = 0.5  # by which a segment is extended on each side before it is sampled, as a share of its length
_MOST_STEPS = 400  # whose samples are weighted by 4.6 GB of numbers, which grow with the cube
_EPSILON = 1e-6  # added to probabilities of which the logarithm is taken


class Outputs(NamedTuple):
    """What G-TAD says about a batch: probabilities in float32.

    Attributes:
        starts: (B, T), that a segment starts near the step.
        ends: (B, T), that a segment ends near the step.
        confidence: (B, 2, T, T) by duration - 1 and start: the IoU with a true segment, as regressed and as classified.
    """

    starts: Tensor
    ends: Tensor
    confidence: Tensor


class GTAD(nn.Module):
    """Class-agnostic segments of a sequence that was rescaled to a fixed number of steps.

    The defaults are ActivityNet's; the parameter count printed with the authors' code, 9.5 M, is that of context=32,
    kernel=3.

    Args:
        dim: D, width of the features; 4 divides it.
        steps: T.
        samples: of a segment's own steps.
        context: samples of the same stretch in the means of neighbors.
        kernel: of the convolutions over starts and durations, odd.

    Raises:
        UserError: 4 does not divide dim, or there are fewer steps than neighbors in the graph, or too many for memory.
    """

    sampling: Tensor
    cells: Tensor
    inside: Tensor

    def __init__(self, dim: int, steps: int = 100, samples: int = 32, context: int = 4, kernel: int = 1) -> None:
        super().__init__()
        if dim % _GROUPS:
            raise UserError(f"head gtad takes features whose width is a multiple of {_GROUPS}, not {dim}")
        if not _NEIGHBORS <= steps <= _MOST_STEPS:
            raise UserError(f"head gtad takes sequences of {_NEIGHBORS} to {_MOST_STEPS} steps (length), not {steps}")
        width, wide, narrow = 256, 512, 128
        self.steps, self.samples = steps, samples
        self.embed = nn.Sequential(nn.Conv1d(dim, width, 3, padding=1, groups=_GROUPS), nn.ReLU(), _GCNeXt(width))
        self.start = nn.Sequential(_GCNeXt(width), nn.Conv1d(width, 1, 1))
        self.end = nn.Sequential(_GCNeXt(width), nn.Conv1d(width, 1, 1))
        self.graph = _GCNeXt(width)
        self.aligned = nn.Linear(width * (samples + context), wide)
        self.localize = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(wide, narrow, 1),
            nn.ReLU(),
            nn.Conv2d(narrow, narrow, kernel, padding=kernel // 2),
            nn.ReLU(),
            nn.Conv2d(narrow, narrow, kernel, padding=kernel // 2),
            nn.ReLU(),
            nn.Conv2d(narrow, 2, 1),
        )
        durations, starts = torch.meshgrid(torch.arange(steps), torch.arange(steps), indexing="ij")
        inside = starts + durations < steps
        first, last = starts[inside], (starts + durations)[inside]
        margin = _CONTEXT * (last - first + 1)
        none = first.new_zeros(1)  # what cells past the end of the sequence sample
        low, high = torch.cat([first - margin, none]), torch.cat([last + margin, none])
        weights = [sampling_weights(low, high, count, steps) for count in (samples, context)]
        cells = torch.full((steps, steps), len(first))
        cells[inside] = torch.arange(len(first))
        self.register_buffer("sampling", torch.cat(weights, 1), persistent=False)  # (cells + 1, samples + context, T)
        self.register_buffer("cells", cells, persistent=False)  # (T, T), the row of `sampling` of each
        self.register_buffer("inside", inside, persistent=False)  # (T, T)

    def forward(self, features: Tensor) -> Outputs:
        """Boundary probabilities and confidences of features (B, T, D).

        Raises:
            ValueError: the features have another number of steps.
        """
        if features.shape[1] != self.steps:
            raise ValueError(f"features have {features.shape[1]} steps, the head has {self.steps}: rescale them")
        embedded = self.embed(features.mT)
        starts, ends = self.start(embedded)[:, 0], self.end(embedded)[:, 0]
        confidence = self.localize(self._align(self.graph(embedded)))
        return Outputs(*(logits.float().sigmoid() for logits in (starts, ends, confidence)))

    def _align(self, nodes: Tensor) -> Tensor:
        """Features of every segment (B, 512, T, T) from those of steps (B, 256, T).

        Samples are weighted sums of steps and the layer is linear, so it is applied to the steps, which are fewer.
        """
        around = _gather(nodes, neighbors(nodes)).mean(-1)
        weight = self.aligned.weight.view(-1, nodes.shape[1], self.sampling.shape[1])  # (512, 256, samples)
        own = torch.einsum("ocs,bct->bsto", weight[..., : self.samples], nodes)
        context = torch.einsum("ocs,bct->bsto", weight[..., self.samples :], around)
        steps = torch.cat([own, context], 1).flatten(1, 2)  # (B, samples * T, 512)
        segments = self.sampling.flatten(1).to(steps) @ steps + self.aligned.bias
        return segments[:, self.cells].permute(0, 3, 1, 2)

    def loss(self, outputs: Outputs, segments: Sequence[Tensor]) -> Tensor:
        """Boundary loss + 10 x confidence regression + confidence classification, a scalar.

        Args:
            outputs: of a batch; in the regression, cells of lower IoU are drawn at random, as many as of IoU above 0.7.
            segments: (n, 2) of each example, start and end in steps, cut off at 0 and T.
        """
        truth = [self._targets(bounds.to(outputs.starts)) for bounds in segments]
        starts, ends, iou = (torch.stack(parts) for parts in zip(*truth, strict=True))
        regressed, classified = outputs.confidence.unbind(1)
        inside = self.inside.expand_as(iou)
        everywhere = torch.ones_like(starts, dtype=torch.bool)
        boundaries = _balanced(outputs.starts, starts, everywhere) + _balanced(outputs.ends, ends, everywhere)
        return boundaries + 10 * _regression(regressed, iou) + _balanced(classified, iou > 0.9, inside)

    def _targets(self, bounds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of segments (n, 2): steps where one starts and ends (T,), and the greatest IoU (T, T) with each cell."""
        if not len(bounds):
            nowhere = torch.zeros(self.steps, dtype=torch.bool, device=bounds.device)
            return nowhere, nowhere, bounds.new_zeros(self.steps, self.steps)
        bounds = bounds.clamp(0, self.steps)
        step = torch.arange(self.steps, device=bounds.device, dtype=bounds.dtype)
        # A boundary is positive where the 3 steps around it cover more than half of the 2 steps around a step's center.
        edges = bounds.T[:, :, None]
        covered = torch.minimum(edges + 1.5, step + 1.5) - torch.maximum(edges - 1.5, step - 0.5)
        starts, ends = (covered / 2 > 0.5).any(1)
        start, end = bounds.T[:, :, None, None]
        low, high = step[None, :], step[None, :] + step[:, None] + 1
        shared = (torch.minimum(end, high) - torch.maximum(start, low)).clamp_min(0)
        iou = shared / (high - low + end - start - shared)
        return starts, ends, iou.amax(0) * self.inside

    @torch.no_grad()
    def candidates(self, outputs: Outputs) -> list[Candidates]:
        """The segments between a likely start and a likely end, scored by the product of the two confidences.

        A step is likely whose probability is a local maximum or above half of the sequence's maximum; so are the first
        step as a start and the last one as an end.
        """
        starts, ends = _likely(outputs.starts), _likely(outputs.ends)
        starts[:, 0], ends[:, -1] = True, True
        scores = outputs.confidence.prod(1)
        found = []
        for start, end, score in zip(starts, ends, scores, strict=True):
            first, last = torch.meshgrid(start.nonzero()[:, 0], end.nonzero()[:, 0], indexing="ij")
            first, last = first[first < last], last[first < last]
            found.append(Candidates(torch.stack([first, last], 1).to(score), score[last - first - 1, first]))
        return found


class _GCNeXt(nn.Module):
    """A block over (B, C, T) that adds features of adjacent steps, features of similar steps, and the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        narrow = 128
        self.temporal = nn.Sequential(
            nn.Conv1d(width, narrow, 1),
            nn.ReLU(),
            nn.Conv1d(narrow, narrow, 3, padding=1, groups=_INNER_GROUPS),
            nn.ReLU(),
            nn.Conv1d(narrow, width, 1),
        )
        self.semantic = nn.Sequential(
            nn.Conv2d(2 * width, narrow, 1),
            nn.ReLU(),
            nn.Conv2d(narrow, narrow, 1, groups=_INNER_GROUPS),
            nn.ReLU(),
            nn.Conv2d(narrow, width, 1),
        )

    def forward(self, nodes: Tensor) -> Tensor:
        alike = _gather(nodes, neighbors(nodes))
        pairs = torch.cat([alike, nodes[..., None].expand_as(alike)], 1)
        return torch.relu(nodes + self.temporal(nodes) + self.semantic(pairs).amax(-1))


def neighbors(nodes: Tensor) -> Tensor:
    """The steps (B, T, 3) of nodes (B, C, T) that are nearest to each by Euclidean distance, itself among them."""
    squares = (nodes**2).sum(1)
    distances = squares[:, :, None] + squares[:, None] - 2 * nodes.mT @ nodes
    return distances.topk(_NEIGHBORS, largest=False).indices


def _gather(nodes: Tensor, index: Tensor) -> Tensor:
    """Of nodes (B, C, T), those (B, C, T, k) at the steps (B, T, k)."""
    picked = nodes.gather(2, index.flatten(1)[:, None].expand(-1, nodes.shape[1], -1))
    return picked.view(*nodes.shape[:2], *index.shape[1:])


def sampling_weights(low: Tensor, high: Tensor, count: int, steps: int) -> Tensor:
    """Weights (N, count, steps) that sample a sequence evenly between the bounds (N,) of each of N stretches.

    A stretch, at least one step long, is cut into `count` bins; a bin is the mean of ceil(length / count) points in it,
    each interpolated linearly between two steps. Step i lies at i; within one step of the ends it is the outermost
    one, and zero farther out.
    """
    length = (high - low).clamp_min(1).float()
    width = length / count
    points = (length / count).ceil()
    weights = torch.zeros(len(low), count, steps)
    for point in range(int(points.max())):
        at = low[:, None] + torch.arange(count) * width[:, None] + ((point + 0.5) * width / points)[:, None]
        share = ((at >= -1) & (at <= steps) & (points[:, None] > point)) / points[:, None]
        at = at.clamp(0, steps - 1)
        below = at.long()
        above = (below + 1).clamp_max(steps - 1)
        weights.scatter_add_(2, below[..., None], (share * (1 - (at - below)))[..., None])
        weights.scatter_add_(2, above[..., None], (share * (at - below))[..., None])
    return weights


def _balanced(probabilities: Tensor, positive: Tensor, valid: Tensor) -> Tensor:
    """Binary cross-entropy over the valid entries of a batch, where both classes weigh the same in sum."""
    positive, negative = positive & valid, ~positive & valid
    likelihood = (probabilities + _EPSILON).log()[positive].sum() / positive.sum().clamp_min(1)
    return -0.5 * (likelihood + (1 - probabilities + _EPSILON).log()[negative].sum() / negative.sum().clamp_min(1))


def _regression(predicted: Tensor, iou: Tensor) -> Tensor:
    """Half the mean squared error over cells of IoU above 0.7, and about as many of 0.3..0.7 and of 0..0.3."""
    chosen = high = iou > 0.7
    for cells in ((iou > 0.3) & (iou <= 0.7), (iou > 0) & (iou <= 0.3)):
        chosen = chosen | cells & (torch.rand_like(iou) > 1 - high.sum() / cells.sum())
    return 0.5 * ((predicted - iou)[chosen] ** 2).sum() / chosen.sum().clamp_min(1)


def _likely(probabilities: Tensor) -> Tensor:
    """True (B, T) at inner steps that are local maxima or above half of their sequence's maximum."""
    before, inner, after = probabilities[:, :-2], probabilities[:, 1:-1], probabilities[:, 2:]
    peaks = (inner > before) & (inner > after) | (inner > probabilities.amax(1, keepdim=True) / 2)
    return nn.functional.pad(peaks, (1, 1))
