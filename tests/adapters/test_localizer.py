"""Segments of sequences of windows: seconds and steps, classes, and learning."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from evalkit.api import Batch, Example, Task, Views
from evalkit.encoders.longvivit import encoder
from evalkit.errors import UserError
from evalkit.metrics import activitynet_map
from evalkit.pipeline.setup import frozen_parts
from evalkit.weights import trained_adapter
from tests.given import CLIP, make_adapter

CLASSES = ("dance", "jump")
WINDOWED = Views("uniform", window=4.0, window_stride=2.0)
ENCODER = encoder(CLIP, None, dim=24, depth=4, heads=3, hidden=48)


def film(name: str, *segments: Any, seconds: float = 34.0, scores: Any = None) -> Example:
    return Example(name, Path(name), [list(segment) for segment in segments], (0.0, seconds), class_scores=scores or {})


def task(examples: Sequence[Example] = (), **facts: Any) -> Task:
    films = list(examples) or [film("a", (4.0, 10.0, "jump"))]
    return Task(films, activitynet_map, films, classes=CLASSES, views=WINDOWED, **facts)


def sequence(example: Example, width: int = 24) -> Tensor:
    """Windows (T, 1, D) that show in a channel of its class what is going on in their middle, and noise."""
    starts = torch.arange(0, 34.0 - 3.9, 2.0)
    noise = torch.Generator().manual_seed(sum(example.id.encode()))
    features = 0.1 * torch.randn(len(starts), 1, width, generator=noise)
    for start, end, label in example.target:
        middles = starts + 2
        features[(middles >= start) & (middles <= end), 0, CLASSES.index(label)] += 3
    return features


def test_a_step_is_the_stride_around_the_middle_of_its_window() -> None:
    adapter = make_adapter("localizer", ENCODER, task(), head="actionformer", length=0)
    example = film("a", (1.0, 3.0, "jump"), (0.0, 34.0, "dance"), (5.0, 7.0, "dance"))
    bounds, labels = adapter._steps(example, windows=16, length=16)  # middles of the windows are 2, 4, .., 32 s
    assert bounds.tolist() == [[0, 1], [0, 16], [2, 3]] and labels.tolist() == [1, 0, 0]
    assert adapter._seconds(example, bounds, 16, 16).tolist() == [[1, 3], [1, 33], [5, 7]]
    # Rescaled, the same seconds are at other steps.
    bounds, _ = adapter._steps(example, windows=16, length=100)
    assert bounds[2].tolist() == pytest.approx([12.5, 18.75])
    assert adapter._seconds(example, bounds[2:], 16, 100).tolist() == [pytest.approx([5, 7])]


def test_a_segment_without_a_length_teaches_nothing() -> None:
    adapter = make_adapter("localizer", ENCODER, task())
    bounds, labels = adapter._steps(film("a", (0.0, 0.5, "jump"), (40.0, 50.0, "jump")), windows=16, length=100)
    assert bounds.shape == (0, 2) and labels.shape == (0,)
    batch = Batch([film("a"), film("b", (4.0, 10.0, "jump"))], torch.randn(2, 16, 1, 24), [16, 12])
    loss = adapter.training_step(batch, 0)
    loss.backward()
    assert torch.isfinite(loss) and all(
        torch.isfinite(p.grad).all() for p in adapter.parameters() if p.grad is not None
    )


# At the bounds of steps, so that some candidates of G-TAD are nearly right, which its second confidence asks for.
FILMS = [
    film(f"{i}", (3.0 + 2 * (i % 5), 15.0 + 2 * (i % 3), CLASSES[i % 2]), (23.0, 29.0, CLASSES[i // 2 % 2]))
    for i in range(16)
]


@pytest.mark.parametrize(
    ("settings", "steps", "wanted"),
    [({"head": "gtad", "length": 16, "lr": 2e-3}, 25, 40.0), ({"head": "actionformer", "length": 16}, 15, 50.0)],
)
def test_a_head_learns_when_what_happens(settings: dict[str, Any], steps: int, wanted: float) -> None:
    torch.manual_seed(0)
    train, test = FILMS[:8], FILMS[8:]
    adapter = make_adapter("localizer", ENCODER, task(train), **settings)

    def average_precision() -> float:
        adapter.eval()
        with torch.inference_mode():
            found = [adapter.predict([one], sequence(one)[None])[0].value for one in test]
        for segments in found:
            scores = [score for *_, score in segments]
            assert scores == sorted(scores, reverse=True)
            assert all(0 <= start < end <= 34 and label in CLASSES for start, end, label, _ in segments)
        return activitynet_map(found, [one.target for one in test])["mAP"]

    assert average_precision() < wanted / 2
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=adapter.lr)
    features = torch.stack([sequence(one) for one in train])
    for _ in range(steps):
        adapter.train()
        optimizer.zero_grad()
        adapter.training_step(Batch(train, features, [16] * len(train)), 0).backward()
        torch.nn.utils.clip_grad_norm_(adapter.parameters(), 1.0)
        optimizer.step()
    assert average_precision() > wanted


@pytest.mark.parametrize("head", ["gtad", "actionformer"])
def test_a_task_of_one_class_has_segments_of_it(head: str) -> None:
    one = film("a", (4.0, 10.0, "jump"))
    alone = Task([one], activitynet_map, [one], classes=("jump",), views=WINDOWED)
    adapter = make_adapter("localizer", ENCODER, alone, head=head, length=16)
    adapter.training_step(Batch([one], sequence(one)[None], [16]), 0)
    with torch.inference_mode():
        (prediction,) = adapter.eval().predict([one], sequence(one)[None])
    assert prediction.value and {label for _, _, label, _ in prediction.value} == {"jump"}


@pytest.mark.parametrize("head", ["gtad", "actionformer"])
def test_classes_of_a_file_are_those_of_the_video(head: str) -> None:
    one = film("a", (4.0, 10.0, "jump"), scores={"jump": 0.64, "dance": 0.25})
    adapter = make_adapter("localizer", ENCODER, task([one]), head=head, segments=7).eval()
    assert adapter.classify is None and getattr(adapter.head, "classes", 1) == 1
    with torch.inference_mode():
        (prediction,) = adapter.predict([one], sequence(one)[None])
    by_class = {label: [row for row in prediction.value if row[2] == label] for label in CLASSES}
    assert len(by_class["jump"]) == len(by_class["dance"]) <= 7
    share = 0.25 / 0.64 if head == "gtad" else (0.25 / 0.64) ** 0.5  # ActionFormer takes the root of the product
    for jump, dance in zip(by_class["jump"], by_class["dance"], strict=True):
        assert jump[:2] == dance[:2] and dance[3] == pytest.approx(jump[3] * share, rel=1e-4)


def test_a_query_pools_the_tokens_of_several_layers() -> None:
    adapter = make_adapter("localizer", ENCODER, task(), layers=4, length=16)
    spec = adapter.feature_spec
    assert (spec.what, spec.layers, spec.steps, spec.grid) == ("tokens", 4, 0, 0)
    features = torch.randn(2, 9, 1, 4, 1, 6, 24)  # windows, views, layers, time, tokens
    sequences, lengths = adapter(features, [9, 5])
    assert sequences.shape == (2, 16, 24) and lengths.tolist() == [16, 16]
    padded = features.clone()
    padded[1, 5:] = 7.0
    assert torch.equal(adapter(padded, [9, 5])[0], sequences)
    example = film("a", (4.0, 10.0, "jump"))
    adapter.training_step(Batch([example, example], features, [9, 5]), 0).backward()
    assert adapter.pool.query.grad is not None and adapter.pool.query.grad.abs().sum() > 0


@pytest.mark.parametrize("head", ["actionformer", "gtad"])
def test_what_is_chosen_and_tested_is_the_running_mean_of_the_weights(head: str) -> None:
    adapter = make_adapter("localizer", ENCODER, task(), head=head, length=16).train()
    weight = next(adapter.parameters())
    adapter.on_train_start()
    values = [weight.detach().clone()]
    expected = values[0].clone()
    for k in range(1, 4):
        with torch.no_grad():
            weight += k
        values.append(weight.detach().clone())
        adapter.on_train_batch_end(None, None, k)
        expected = torch.lerp(expected, values[-1], 1 - min(0.999, (1 + k) / (10 + k)))
    shown = expected if head == "actionformer" else values[-1]
    adapter.eval()
    assert torch.allclose(weight, shown)
    adapter.train()
    assert torch.equal(weight, values[-1])
    adapter.on_train_end()
    adapter.eval()
    assert torch.equal(weight, values[-1])


@pytest.mark.parametrize(("window", "stride", "changed"), [(4.0, None, "4 s, one every 4 s"), (2.0, 2.0, "2 s, one")])
def test_a_trained_localizer_is_refused_on_other_windows(
    window: float, stride: float | None, changed: str, tmp_path: Path
) -> None:
    def parts(views: Views) -> dict[str, str]:
        return frozen_parts(adapter, replace(task(), views=views), "0" * 64)

    adapter = make_adapter("localizer", ENCODER, task(), head="actionformer", length=16)
    trained_adapter.save_adapter(adapter, tmp_path / "trained", {"settings": {}, "frozen": parts(WINDOWED)})
    trained_adapter.restore_adapter(adapter, tmp_path / "trained", parts(WINDOWED))
    with pytest.raises(UserError, match=f"was trained with windows of 4 s, one every 2 s, not with {changed}"):
        trained_adapter.restore_adapter(
            adapter, tmp_path / "trained", parts(replace(WINDOWED, window=window, window_stride=stride))
        )


def test_the_papers_sizes_are_those_of_the_heads() -> None:
    for settings, lr, epochs, batch in (
        ({"head": "gtad"}, 4e-3, 10, 16),
        ({"head": "actionformer"}, 1e-3, 15, 16),
        ({"head": "actionformer", "length": 0}, 1e-4, 35, 2),
        ({"head": "actionformer", "length": 0, "lr": 0.5, "epochs": 1}, 0.5, 1, 2),
    ):
        adapter = make_adapter("localizer", ENCODER, task(), **settings)
        assert (adapter.lr, adapter.epochs, adapter.batch_size) == (lr, epochs, batch)


@pytest.mark.parametrize(
    ("changed", "settings", "told"),
    [
        ({"views": Views()}, {}, "reads a sequence of windows"),
        ({"classes": ()}, {}, "needs a task with classes"),
        ({}, {"length": 0}, "gtad reads sequences of one length; use adapter.length=100"),
        ({}, {"token_grid": 2}, "adapter.token_grid=2 has no effect with adapter.layers=1"),
    ],
)
def test_what_does_not_fit_is_refused(changed: dict[str, Any], settings: dict[str, Any], told: str) -> None:
    facts = {"classes": CLASSES, "views": WINDOWED, **changed}
    films = [film("a", (4.0, 10.0, "jump"))]
    with pytest.raises(UserError, match=told):
        make_adapter("localizer", ENCODER, Task(films, activitynet_map, films, **facts), **settings)
