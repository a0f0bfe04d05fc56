"""ActionFormer: its size, its parts against plain loops, its independence of padding, and that it learns."""

import math

import pytest
import torch
from torch import Tensor, nn

from evalkit.localization.actionformer import (
    ActionFormer,
    Outputs,
    crop,
    crop_batch,
    diou_loss,
    focal_loss,
    local_attention,
)
from evalkit.localization.soft_nms import soft_nms_by_class


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tiny(**kwargs: object) -> ActionFormer:
    """Small, and with weights as different from their first values as training makes them."""
    settings: dict[str, object] = {"width": 16, "windows": (5, 5, 3), **kwargs}
    torch.manual_seed(0)
    head = ActionFormer(6, 2, **settings)  # type: ignore[arg-type]
    with torch.no_grad():
        for p in head.parameters():
            p.add_(torch.randn_like(p) * 0.3)
        nn.init.zeros_(head.classify.last.conv.bias)  # type: ignore[arg-type]  # so that classes of all points are candidates
    return head.eval()


@pytest.mark.parametrize(
    ("dim", "classes", "width", "printed"),
    [(2048, 20, 512, 29.3), (512, 1, 256, None)],
    ids=["THUMOS14", "ActivityNet"],
)
def test_the_size_is_the_published_one(dim: int, classes: int, width: int, printed: float | None) -> None:
    norm = 2 * width
    block = 2 * norm + 3 * (3 * width + norm) + 4 * (width + 1) * width + (8 * width + 5) * width + 2 * width
    embed = 3 * (dim + width) * width + 2 * norm
    heads = 2 * 2 * (3 * width**2 + norm) + (3 * width + 1) * (classes + 2)
    expected = embed + 7 * block + 6 * norm + heads + 6
    head = ActionFormer(dim, classes, width)
    assert sum(p.numel() for p in head.parameters()) == expected
    assert printed in (None, round(expected / 1e6, 1))


def test_attention_in_windows_is_that_of_a_loop() -> None:
    lengths = (23, 9, 1)
    query, key, value = (random(3, 23, 8, seed=i) for i in range(3))
    valid = torch.arange(23) < torch.tensor(lengths)[:, None]
    for window in (3, 7, 19, 0):
        attended = local_attention(query, key, value, valid, window)
        for b, length in enumerate(lengths):
            for step in range(length):
                reach = window // 2 or 23
                seen = slice(max(0, step - reach), min(length, step + reach + 1))
                for part in (slice(i, i + 2) for i in range(0, 8, 2)):  # 4 heads
                    weights = (key[b, seen, part] @ query[b, step, part] / math.sqrt(2)).softmax(0)
                    torch.testing.assert_close(attended[b, step, part], weights @ value[b, seen, part])


@pytest.mark.parametrize("length", [0, 64], ids=["any length", "one length"])
def test_the_padding_of_a_batch_changes_nothing(length: int) -> None:
    head = tiny(length=length, windows=(5, 5, 0))
    sequences = [random(n, 6, seed=n) for n in (1, 3, 16, 17, 40, 64)]  # from shorter than the coarsest stride on
    batch = torch.full((6, 71, 6), math.nan)
    for row, sequence in zip(batch, sequences, strict=True):
        row[: len(sequence)] = sequence
    together = head(batch, torch.tensor([len(sequence) for sequence in sequences]))
    for i, sequence in enumerate(sequences):
        alone = head(sequence[None], torch.tensor([len(sequence)]))
        valid = together.valid[i]
        assert alone.points[alone.valid[0]].equal(together.points[valid])
        assert int(valid.sum()) == sum(math.ceil(len(sequence) / stride) for stride in (1, 2, 4))
        for name in ("logits", "offsets"):
            expected, actual = getattr(alone, name)[0, alone.valid[0]], getattr(together, name)[i, valid]
            torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
        segments, labels = [torch.tensor([[0.0, len(sequence)]])], [torch.tensor([1])]
        row = slice(i, i + 1)
        padded = Outputs(together.logits[row], together.offsets[row], together.valid[row], together.points)
        losses = [head.loss(out, segments, labels) for out in (alone, padded)]
        torch.testing.assert_close(*losses)
        (mine,), (same,) = head.candidates(alone), head.candidates(padded)
        torch.testing.assert_close(mine.bounds, same.bounds, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(mine.scores, same.scores, rtol=1e-4, atol=1e-5)


def outputs(head: ActionFormer, lengths: tuple[int, ...]) -> Outputs:
    return head(random(len(lengths), max(lengths), 6, seed=9), torch.tensor(lengths))  # type: ignore[no-any-return]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_points_learn_the_shortest_segment_whose_center_is_near(smoothing: float) -> None:
    head = tiny(smoothing=smoothing, regression=2.0, normalizer=10.0).train()
    torch.manual_seed(0)
    out = outputs(head, (32, 20))
    segments = [torch.tensor([[2.0, 6.0], [1.5, 9.0], [2.0, 6.0], [4.0, 30.0]]), torch.tensor([[1.0, 19.5]])]
    labels = [torch.tensor([0, 1, 1, 0]), torch.tensor([1])]
    total, positive = 0.0, 0
    for i in range(2):
        for p, (position, stride) in enumerate(out.points.tolist()):
            if not out.valid[i, p]:
                continue
            least, most = {1: (0.0, 4.0), 2: (4.0, 8.0), 4: (8.0, math.inf)}[int(stride)]
            fitting = []
            for (start, end), label in zip(segments[i].tolist(), labels[i].tolist(), strict=True):
                near = abs(position - (start + end) / 2) < 1.5 * stride and start < position < end
                if near and least <= max(position - start, end - position) <= most:
                    fitting.append((end - start, label, (position - start) / stride, (end - position) / stride))
            fitting = [segment for segment in fitting if segment[0] <= min(fitting)[0] + 1e-3]
            target = torch.zeros(2)
            for _, label, *_ in fitting:
                target[label] = 1
            smoothed = target * (1 - smoothing) + smoothing / 3
            for logit, of in zip(out.logits[i, p].tolist(), smoothed.tolist(), strict=True):
                probability = 1 / (1 + math.exp(-logit))
                entropy = -of * math.log(probability) - (1 - of) * math.log(1 - probability)
                right_one = probability * of + (1 - probability) * (1 - of)
                total += (0.25 * of + 0.75 * (1 - of)) * (1 - right_one) ** 2 * entropy
            if fitting:
                _, _, left, right = fitting[0]
                a, b = out.offsets[i, p].tolist()
                shared, hull = min(a, left) + min(b, right), max(a, left) + max(b, right)
                shift = ((b - a) - (right - left)) / 2
                total += 2 * (1 - shared / (a + b + left + right - shared) + (shift / hull) ** 2)
                positive += 1
    assert positive > 8
    assert head.loss(out, segments, labels).item() == pytest.approx(total / (9 + 0.1 * positive), rel=1e-4)
    assert head.normalizer.item() == pytest.approx(9 + 0.1 * positive)
    head.eval().loss(out, segments, labels)
    assert head.normalizer.item() == pytest.approx(9 + 0.1 * positive)  # of training alone


def test_no_segment_is_a_finite_loss_with_gradients() -> None:
    head = tiny().train()
    head.loss(outputs(head, (8, 5)), [torch.zeros(0, 2)] * 2, [torch.zeros(0, dtype=torch.int64)] * 2).backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
    assert diou_loss(torch.zeros(2, 2, requires_grad=True), torch.ones(2, 2)).isfinite()
    assert focal_loss(torch.tensor([100.0, -100.0]), torch.tensor([0.0, 1.0])).isfinite()


def test_candidates_are_the_points_bounds() -> None:
    head = tiny(shortest=0.2)
    out = outputs(head, (9, 4))
    for i, candidates in enumerate(head.candidates(out)):
        expected = []
        for p, (position, stride) in enumerate(out.points.tolist()):
            left, right = (out.offsets[i, p] * stride).tolist()
            scores = [score * (score > 0.001) for score in out.logits[i, p].sigmoid().tolist()]
            if out.valid[i, p] and left + right > 0.2 and any(scores):
                expected.append([position - left, position + right, *scores])
        actual = torch.cat([candidates.bounds, candidates.scores], 1)
        torch.testing.assert_close(actual, torch.tensor(expected))
        assert 0 < len(expected) < out.valid[i].sum() + 1


def test_a_level_has_no_more_than_its_best_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    head = tiny(shortest=-1.0)
    out = outputs(head, (9,))
    monkeypatch.setattr("evalkit.localization.actionformer._CANDIDATES", 3)
    (few,) = head.candidates(out)
    assert int((few.scores > 0).sum()) == 9
    best = [
        out.logits[0, out.points[:, 1].eq(stride) & out.valid[0]].sigmoid().flatten().topk(3)[0] for stride in (1, 2, 4)
    ]
    torch.testing.assert_close(few.scores[few.scores > 0].sort()[0], torch.cat(best).sort()[0])


Films = tuple[Tensor, Tensor, list[Tensor], list[Tensor]]  # features, lengths, segments, labels


def films(count: int, steps: int, seed: int) -> Films:
    """Noise with two stretches, each in the direction of its class; sequences of several lengths."""
    draw = torch.Generator().manual_seed(seed)
    features = torch.randn(count, steps, 6, generator=draw) * 0.3
    lengths = torch.randint(steps * 3 // 4, steps + 1, (count,), generator=draw)
    segments, labels = [], []
    for film, length in zip(features, lengths, strict=True):
        film[length:] = 0
        size = torch.randint(3, 12, (2,), generator=draw)
        start = torch.tensor([1, 16]) + torch.randint(0, 4, (2,), generator=draw)
        label = torch.randint(0, 2, (2,), generator=draw)
        for first, of, row in zip(start, size, label, strict=True):
            film[first : first + of, 3 * row : 3 * row + 3] += 1
        segments.append(torch.stack([start, torch.minimum(start + size, length)], 1).float())
        labels.append(label)
    return features, lengths, segments, labels


def overlap(head: ActionFormer, films: Films) -> float:
    """Mean IoU of true segments with the best two predictions, 0 with those of another class."""
    features, lengths, segments, labels = films
    with torch.no_grad():
        found = head.eval().candidates(head(features, lengths))
    total = 0.0
    for candidates, truth, of in zip(found, segments, labels, strict=True):
        bounds, _, classes = soft_nms_by_class(candidates, 0.5, 2)
        for (low, high), label in zip(truth.tolist(), of.tolist(), strict=True):
            ious = [0.0]
            for (start, end), predicted in zip(bounds.tolist(), classes.tolist(), strict=True):
                shared = max(0.0, min(high, end) - max(low, start))
                ious.append((predicted == label) * shared / (high - low + end - start - shared))
            total += max(ious) / 2
    return total / len(found)


def test_it_learns_where_stretches_lie_and_what_they_are() -> None:
    torch.manual_seed(0)
    head = ActionFormer(6, 2, width=32, windows=(7, 7, 7), normalizer=20)
    untrained = overlap(head, films(16, 32, 1))
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3)
    for step in range(30):
        features, lengths, segments, labels = films(8, 32, 100 + step)
        loss = head.train().loss(head(features, lengths), segments, labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
        optimizer.step()
    assert overlap(head, films(16, 32, 1)) > 0.7 > untrained + 0.5


def test_half_precision_gives_float_outputs() -> None:
    head = tiny()
    with torch.autocast("cpu", torch.bfloat16):
        half = outputs(head, (12, 7))
        head.loss(half, [torch.tensor([[1.0, 5.0]])] * 2, [torch.tensor([0])] * 2).backward()  # type: ignore[no-untyped-call]
    assert half.logits.dtype == half.offsets.dtype == torch.float32
    torch.testing.assert_close(half.logits[half.valid], outputs(head, (12, 7)).logits[half.valid], atol=0.2, rtol=0.1)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


def test_a_sequence_longer_than_the_one_length_is_an_error() -> None:
    with pytest.raises(ValueError, match="a sequence has 40 steps, the head has 32"):
        tiny(length=32)(torch.zeros(1, 40, 6), torch.tensor([40]))


@pytest.mark.parametrize(("length", "least", "most"), [(3000, 2304, 2304), (2304, 2074, 2304), (10, 9, 10), (1, 1, 1)])
def test_training_sequences_are_cut_to_what_the_published_code_takes(length: int, least: int, most: int) -> None:
    segments, labels = torch.tensor([[0.0, 0.5], [0.2 * length, 0.3 * length]]), torch.tensor([4, 7])
    torch.manual_seed(0)
    seen = set()
    for _ in range(50):
        place, kept, of_kept = crop(length, segments, labels)
        steps = place.stop - place.start
        seen.add(steps)
        assert place.start >= 0 and place.stop <= length and least <= steps <= most and len(of_kept)
        for (start, end), label in zip(kept.tolist(), of_kept.tolist(), strict=True):
            ((first, last),) = segments[labels == label].tolist()
            assert 0 <= start < end <= steps and end - start >= 0.5 * (last - first) - 1e-3
            assert start + place.start == pytest.approx(max(first, place.start), abs=1e-3)
    assert len(seen) > 1 or least == most


def test_a_sequence_without_segments_is_cut_once() -> None:
    place, kept, labels = crop(40, torch.empty(0, 2), torch.empty(0, dtype=torch.long))
    assert 36 <= place.stop - place.start <= 40 and kept.shape == (0, 2) and labels.shape == (0,)


def test_a_batch_of_cut_sequences_ends_where_they_do() -> None:
    torch.manual_seed(1)
    sequences = torch.arange(1.0, 41).repeat(2, 1)[..., None]
    segments, labels = [torch.tensor([[3.0, 6.0]])] * 2, [torch.tensor([2])] * 2
    cut, lengths, *_ = crop_batch(sequences, torch.tensor([40, 20]), segments, labels)
    for sequence, length in zip(cut[..., 0], lengths.tolist(), strict=True):
        assert sequence[:length].diff().eq(1).all() and sequence[length:].eq(0).all()
    assert cut.shape[1] == lengths.max() and 18 <= lengths[1] <= 20
