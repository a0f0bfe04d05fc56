"""G-TAD: its size, its parts against plain loops, its loss against the formulas, and that it learns."""

import math

import pytest
import torch
from torch import Tensor

from evalkit.errors import UserError
from evalkit.localization.gtad import GTAD, Outputs, neighbors, sampling_weights
from evalkit.localization.soft_nms import Candidates, soft_nms


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("dim", "samples", "context", "kernel", "printed"),
    [(400, 32, 32, 3, 9_495_428), (400, 32, 4, 1, 5_563_268), (2048, 16, 16, 3, None)],
    ids=["printed with the authors' code", "ActivityNet", "THUMOS14"],
)
def test_the_size_is_the_published_one(dim: int, samples: int, context: int, kernel: int, printed: int | None) -> None:
    def conv(inputs: int, outputs: int, area: int = 1, groups: int = 1) -> int:
        return inputs // groups * outputs * area + outputs

    grouped = conv(256, 128) + conv(128, 128, 3, groups=32) + conv(128, 256)
    block = grouped + conv(512, 128) + conv(128, 128, groups=32) + conv(128, 256)
    aligned = conv(256 * (samples + context), 512) + conv(512, 128)
    expected = conv(dim, 256, 3, groups=4) + 4 * block + 2 * conv(256, 1)
    expected += aligned + 2 * conv(128, 128, kernel**2) + conv(128, 2)
    head = GTAD(dim, steps=8, samples=samples, context=context, kernel=kernel)
    assert sum(p.numel() for p in head.parameters()) == expected
    assert printed in (None, expected)


def sampled(sequence: list[float], low: float, high: float, count: int) -> list[float]:
    """The samples of one channel, by a loop over bins and points."""
    length, last = max(high - low, 1.0), len(sequence) - 1
    points, values = math.ceil(length / count), []
    for k in range(count):
        total = 0.0
        for point in range(points):
            at = low + (k + (point + 0.5) / points) * length / count
            if -1 <= at <= last + 1:
                at = min(max(at, 0.0), last)
                below = min(math.floor(at), last - 1)
                total += sequence[below] + (at - below) * (sequence[below + 1] - sequence[below])
        values.append(total / points)
    return values


def test_stretches_are_sampled_as_by_a_loop() -> None:
    sequence = random(20)
    draw = torch.Generator().manual_seed(1)
    low = torch.rand(50, generator=draw) * 40 - 15
    high = low + torch.rand(50, generator=draw) * 30 - 1
    weights = sampling_weights(low, high, 6, 20)
    pairs = zip(low.tolist(), high.tolist(), strict=True)
    expected = torch.tensor([sampled(sequence.tolist(), *pair, 6) for pair in pairs])
    torch.testing.assert_close(weights @ sequence, expected, rtol=1e-4, atol=1e-5)
    assert weights.sum(2).min() == 0  # some lie outside


def test_neighbors_are_the_nearest_steps() -> None:
    nodes = random(2, 5, 12)
    index = neighbors(nodes)
    for example, of in zip(nodes, index, strict=True):
        for step in range(12):
            order = sorted(range(12), key=lambda other: float((example[:, step] - example[:, other]).norm()))
            assert set(of[step].tolist()) == set(order[:3])
            assert step in of[step]


def test_a_segment_is_sampled_with_half_its_length_on_both_sides() -> None:
    head = GTAD(4, steps=10, samples=8, context=2)
    nodes = random(1, 256, 10)
    around = torch.stack([nodes[0][:, of].mean(1) for of in neighbors(nodes)[0]], 1)
    segments = head._align(nodes)[0]
    for start, duration in ((0, 1), (3, 4), (2, 8)):
        low, high = start - duration / 2, start + duration - 1 + duration / 2
        rows = [
            sampled(own.tolist(), low, high, 8) + sampled(mean.tolist(), low, high, 2)
            for own, mean in zip(nodes[0], around, strict=True)
        ]
        expected = head.aligned(torch.tensor(rows).flatten())
        torch.testing.assert_close(segments[:, duration - 1, start], expected, rtol=1e-4, atol=1e-5)


def outputs(steps: int, seed: int, examples: int = 2) -> Outputs:
    shapes = ((examples, steps), (examples, steps), (examples, 2, steps, steps))
    return Outputs(*(random(*shape, seed=seed + i).sigmoid() for i, shape in enumerate(shapes)))


def balanced(entries: list[tuple[float, bool]]) -> float:
    total = 0.0
    positive = sum(right for _, right in entries)
    for probability, right in entries:
        weight = len(entries) / (2 * (positive if right else len(entries) - positive))
        total -= weight * math.log((probability if right else 1 - probability) + 1e-6)
    return total / len(entries)


def test_the_loss_is_that_of_the_formulas() -> None:
    steps, segments = 12, [torch.tensor([[0.9, 5.2], [7.0, 13.0]]), torch.tensor([[2.0, 4.1]])]
    out, head = outputs(steps, 3), GTAD(4, steps)
    starts: list[tuple[float, bool]] = []
    ends: list[tuple[float, bool]] = []
    iou = torch.zeros(2, steps, steps)
    for i, bounds in enumerate(segments):
        cut = bounds.clamp(0, steps).tolist()
        for step in range(steps):
            for side, entries, probabilities in ((0, starts, out.starts), (1, ends, out.ends)):
                near = any(min(b[side] + 1.5, step + 1.5) - max(b[side] - 1.5, step - 0.5) > 1 for b in cut)
                entries.append((float(probabilities[i, step]), near))
            for duration in range(1, steps - step + 1):
                for low, high in cut:
                    shared = max(0.0, min(high, step + duration) - max(low, step))
                    union = duration + high - low - shared
                    iou[i, duration - 1, step] = max(float(iou[i, duration - 1, step]), shared / union)
    cells = [(i, d, s) for i in range(2) for d in range(steps) for s in range(steps - d)]
    classified = [(float(out.confidence[i, 1, d, s]), bool(iou[i, d, s] > 0.9)) for i, d, s in cells]
    high, middle = iou > 0.7, (iou > 0.3) & (iou <= 0.7)
    low = (iou > 0) & (iou <= 0.3)
    torch.manual_seed(7)
    chosen = high.clone()
    for group in (middle, low):
        chosen |= group & (torch.rand(iou.shape) > 1 - high.sum() / group.sum())
    assert high.sum() < chosen.sum() < (iou > 0).sum()
    squares = [(float(out.confidence[i, 0, d, s]) - float(iou[i, d, s])) ** 2 for i, d, s in cells if chosen[i, d, s]]
    expected = balanced(starts) + balanced(ends) + balanced(classified) + 5 * sum(squares) / len(squares)
    torch.manual_seed(7)
    assert head.loss(out, segments).item() == pytest.approx(expected, rel=1e-5)


def test_a_batch_without_segments_has_a_finite_loss() -> None:
    out = outputs(8, 0)
    assert GTAD(4, 8).loss(out, [torch.zeros(0, 2)] * 2).isfinite()
    assert GTAD(4, 8).loss(out, [torch.zeros(0, 2), torch.tensor([[0.0, 8.0]])]).isfinite()


def test_candidates_join_likely_starts_and_ends() -> None:
    starts = torch.tensor([[0.1, 0.2, 0.8, 0.3, 0.5, 0.1, 0.9, 0.2]])
    ends = torch.tensor([[0.9, 0.2, 0.1, 0.6, 0.1, 0.7, 0.4, 0.3]])
    confidence = random(1, 2, 8, 8).sigmoid()
    (found,) = GTAD(4, 8).candidates(Outputs(starts, ends, confidence))
    pairs = [(start, end) for start in (0, 2, 4, 6) for end in (3, 5, 7) if start < end]
    assert found.bounds.tolist() == [list(pair) for pair in pairs]
    expected = [
        confidence[0, 0, end - start - 1, start] * confidence[0, 1, end - start - 1, start] for start, end in pairs
    ]
    torch.testing.assert_close(found.scores, torch.stack(expected))


def films(count: int, steps: int, seed: int) -> tuple[Tensor, list[Tensor]]:
    """Noise with one stretch in another direction."""
    draw = torch.Generator().manual_seed(seed)
    features = torch.randn(count, steps, 8, generator=draw) * 0.3
    start = torch.randint(1, steps // 2, (count,), generator=draw)
    length = torch.randint(3, steps // 2 - 1, (count,), generator=draw)
    for film, first, size in zip(features, start, length, strict=True):
        film[first : first + size, :4] += 1
    return features, [torch.tensor([[float(a), float(a + b)]]) for a, b in zip(start, length, strict=True)]


def overlap(head: GTAD, features: Tensor, segments: list[Tensor]) -> float:
    """Mean IoU of the best candidate with the truth."""
    with torch.no_grad():
        found = head.eval().candidates(head(features))
    total = 0.0
    for candidates, truth in zip(found, segments, strict=True):
        index, _ = soft_nms(*candidates, 0.8, 1)
        low, high = candidates.bounds[index[0]].tolist()
        shared = max(0.0, min(high, float(truth[0, 1])) - max(low, float(truth[0, 0])))
        total += shared / (high - low + float(truth[0, 1] - truth[0, 0]) - shared)
    return total / len(segments)


def test_it_learns_where_a_stretch_lies() -> None:
    torch.manual_seed(0)
    head, steps = GTAD(8, 12, samples=4, context=2), 12
    untrained = overlap(head, *films(24, steps, 1))
    optimizer = torch.optim.Adam(head.parameters(), lr=2e-3, weight_decay=1e-4)
    for step in range(20):
        features, segments = films(4, steps, 100 + step)
        loss = head.train().loss(head(features), segments)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
        optimizer.step()
    assert overlap(head, *films(24, steps, 1)) > 0.8 > untrained + 0.2


def test_half_precision_gives_float_outputs() -> None:
    head, features = GTAD(8, 12, samples=4, context=2), random(2, 12, 8)
    with torch.autocast("cpu", torch.bfloat16):
        half = head(features)
        loss = head.loss(half, [torch.tensor([[1.0, 5.0]]), torch.zeros(0, 2)])
    assert {part.dtype for part in half} == {torch.float32}
    torch.testing.assert_close(half.starts, head(features).starts, atol=0.02, rtol=0)
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


def test_weights_on_disk_are_those_that_are_trained() -> None:
    head = GTAD(8, 12)
    assert set(head.state_dict()) == {name for name, _ in head.named_parameters()}


def test_what_the_head_cannot_take_is_said() -> None:
    with pytest.raises(UserError, match="multiple of 4, not 10"):
        GTAD(10)
    for steps in (1, 2, 5000):
        with pytest.raises(UserError, match=rf"sequences of 3 to 400 steps \(length\), not {steps}"):
            GTAD(8, steps)
    assert GTAD(8, 3)(torch.zeros(1, 3, 8)).starts.shape == (1, 3)
    with pytest.raises(ValueError, match="features have 20 steps, the head has 16"):
        GTAD(8, 16)(torch.zeros(1, 20, 8))
    assert isinstance(GTAD(8, 4).candidates(outputs(4, 0))[0], Candidates)
