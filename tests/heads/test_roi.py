"""RoIAlign and the box head of VideoGLUE's code, against loops and torch's own modules; the boxes of key frames."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from evalkit.api import Batch, Example, Task
from evalkit.errors import UserError
from evalkit.heads import boxes, roi
from evalkit.heads.head import Head, HeadShape
from evalkit.heads.optim import StackedAdamW
from evalkit.metrics import ava_map
from tests.given import make_adapter, make_grid
from tests.heads.test_boxes import BOX, CLASSES, DIM, SQUASH, halves, perturbed, tiny_encoder

HEADS = 2
SHAPE = HeadShape(DIM, CLASSES, HEADS, boxed=True, roi=True)
CORNERS = [BOX, boxes.WHOLE, (0.0, 0.0, 0.05, 0.05), (0.9, 0.95, 1.0, 1.0), (0.5, 0.5, 0.5, 0.5), (0.3, 0.1, 0.31, 0.9)]


def at(image: list[list[float]], y: float, x: float) -> float:
    """Bilinear interpolation as torchvision's roi_align has it, of a point in pixels, the first centered at 0."""
    high, wide = len(image), len(image[0])
    if y < -1 or y > high or x < -1 or x > wide:
        return 0.0
    y, x = (min(max(place, 0.0), size - 1.0) for place, size in ((y, high), (x, wide)))
    top, left = int(y), int(x)
    bottom, right = min(top + 1, high - 1), min(left + 1, wide - 1)
    dy, dx = y - top, x - left
    above = image[top][left] * (1 - dx) + image[top][right] * dx
    below = image[bottom][left] * (1 - dx) + image[bottom][right] * dx
    return above * (1 - dy) + below * dy


@pytest.mark.parametrize("box", CORNERS)
@pytest.mark.parametrize("side", [1, 2, 5])
def test_roi_align_is_that_of_plain_loops(box: tuple[float, float, float, float], side: int) -> None:
    """With aligned=True: a pixel's center is half a pixel from its edge, and one sample in the middle of each bin."""
    image = torch.randn(side, side, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    left, top, right, bottom = (edge * side - 0.5 for edge in box)
    expected = [
        at(image.tolist(), top + (bottom - top) / 7 * (i + 0.5), left + (right - left) / 7 * (j + 0.5))
        for i in range(7)
        for j in range(7)
    ]
    weights = boxes.roi_align(torch.tensor([box], dtype=torch.float64), side**2)
    assert (weights[0] @ image.flatten()).tolist() == pytest.approx(expected, abs=1e-12)
    assert weights.sum(-1).flatten().tolist() == pytest.approx([1.0] * 49)


def test_roi_align_of_a_plane_is_the_plane_where_its_points_are() -> None:
    """What is linear is interpolated without error: the place of a point, in tokens, is that of the box's fields."""
    x = (torch.arange(8.0)[None] + 0.5).expand(8, 8).flatten() / 8
    found = boxes.roi_align(torch.tensor([[0.25, 0.25, 0.75, 0.75]]), 64) @ x
    assert found[0, :7].tolist() == pytest.approx([0.25 + 0.5 * (k + 0.5) / 7 for k in range(7)])


@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_outputs_and_gradients_are_those_of_torchs_own_modules(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evalkit.heads.kernels.CHUNK", chunk)
    draw = torch.Generator().manual_seed(1)
    tokens = torch.randn(len(CORNERS), 3, 16, DIM, generator=draw, dtype=torch.float64)
    corners = torch.tensor(CORNERS, dtype=torch.float64)
    target = torch.randint(2, (len(CORNERS), CLASSES), generator=draw)
    bank = perturbed(3, shape=SHAPE)
    logits = bank(tokens, corners)
    torch.autograd.backward(bank.loss(logits, target).sum())
    for k in range(3):
        plain = Head(SHAPE).double()
        plain.load_state_dict(bank.state(k))
        expected = plain(tokens, corners)
        torch.autograd.backward(F.binary_cross_entropy_with_logits(expected, target.double()))
        assert torch.allclose(logits[k], expected, rtol=0, atol=1e-10)
        for name, value in plain.named_parameters():
            grad = bank.stacked[next(own for own, called in bank.names.items() if called == name)].grad
            if name == "pool.key.bias":  # cancels in the softmax
                assert grad is None
            else:
                assert grad is not None and value.grad is not None
                assert torch.allclose(grad[k], value.grad, rtol=0, atol=1e-9), name


def test_the_plain_head_is_written_out_head_by_head() -> None:
    """As VideoGLUE's code has it: places beside the tokens, and each head with parts of its own."""
    torch.manual_seed(0)
    plain = roi.RoiAttention(DIM, HEADS).double()
    for value in plain.parameters():
        value.data += 0.2 * torch.randn_like(value)
    tokens = torch.randn(1, 2, 4, DIM, dtype=torch.float64)
    placed = torch.empty(2, 4, DIM + 16, dtype=torch.float64)
    for t in range(2):
        for s in range(4):
            place = torch.tensor([s // 2 - 0.5, s % 2 - 0.5], dtype=torch.float64)
            placed[t, s] = torch.cat(
                [tokens[0, t, s], plain.time(torch.tensor([t - 0.5], dtype=torch.float64)), plain.space(place)]
            )
    box = torch.tensor([BOX], dtype=torch.float64)
    query = (boxes.roi_align(box, 4)[0] @ placed.mean(0)).max(0).values
    said = []
    for h in range(HEADS):
        own = slice(h * DIM, (h + 1) * DIM)
        q, k, v = (
            F.linear(x, part.weight[own], part.bias[own])
            for x, part in (
                (query, plain.query),
                (placed.flatten(0, 1), plain.key),
                (placed.flatten(0, 1), plain.value),
            )
        )
        hidden = (k @ q / math.sqrt(DIM)).softmax(0) @ v + q
        hidden = F.layer_norm(hidden, (DIM,), plain.norm.weight[own], plain.norm.bias[own], 1e-6)
        for part in (plain.up, plain.down):
            hidden = F.linear(hidden, part.weight[own, :, 0], part.bias[own])  # type: ignore[index]
            hidden = F.gelu(hidden) if part is plain.up else hidden
        said.append(hidden)
    assert torch.allclose(plain(tokens, box)[0], torch.cat(said), rtol=0, atol=1e-10)


def test_a_vit_bs_head_has_the_widths_of_the_code() -> None:
    with torch.device("meta"):
        head = Head(HeadShape(768, 80, roi.HEADS, boxed=True, roi=True))
    wide = 6 * 768
    places = (1 * 4 + 4) + (4 * 8 + 8) + (2 * 4 + 4) + (4 * 8 + 8)
    heads = 3 * (784 + 1) * wide + 2 * wide + 2 * (768 + 1) * wide
    assert wide == 4_608 and sum(p.numel() for p in head.parameters()) == places + heads + (wide + 1) * 80


def test_settings_of_other_heads_are_refused() -> None:
    task = halves()[0]
    for key, value in (("temporal_positions", True), ("layers", 2)):
        with pytest.raises(UserError, match=f"adapter.{key}=.* has no effect with adapter.head=roi"):
            make_adapter("probe", tiny_encoder(), task, head="roi", **{key: value})
    for steps, layers, boxed in ((2, 0, True), (0, 2, True), (0, 0, False)):
        with pytest.raises(ValueError, match="roi"):
            HeadShape(DIM, CLASSES, HEADS, steps, layers, boxed=boxed, roi=True)
    assert make_adapter("probe", tiny_encoder(), task, head="roi").bank.shape.heads == 6
    assert make_adapter("probe", tiny_encoder(), task, head="roi", heads=2).bank.shape.heads == 2


# --- the boxes of a key frame -----------------------------------------------------------------------------------------


def framed(task: Task, batch: Batch) -> tuple[Task, list[Example], torch.Tensor]:
    """The videos of `halves` as key frames, whose boxes have scores; and their features."""
    examples = []
    for left, right in zip(task.train[::2], task.train[1::2], strict=True):
        target = [[*(e.box or ()), task.classes[e.target[0]]] for e in (left, right)]
        given = ((*(left.box or BOX), 0.9), (*(right.box or BOX), 0.8), (0.4, 0.4, 0.6, 0.6, 0.1))
        examples.append(Example(left.id, left.video, target, boxes=given))
    return replace(task, test=examples, score=ava_map), examples, batch.features[::2]


@pytest.mark.parametrize(("head", "layers"), [("box", 0), ("roi", 0), ("box", 2)])
def test_the_boxes_of_a_key_frame_share_its_features(head: str, layers: int) -> None:
    task, examples, features = framed(*halves())
    if layers:
        features = features[:, :, None].expand(-1, -1, layers, -1, -1, -1)
    points = [{"head": head, "layers": layers, "lr": lr} for lr in (5e-3, 1e-3)]
    adapter = make_grid("probe", tiny_encoder(), task, points)
    batch = Batch(task.train, features.repeat_interleave(2, 0))
    optimizer = StackedAdamW(adapter.bank, 40)
    for _ in range(40):
        optimizer.zero_grad()
        adapter.training_step(batch, 0)["loss"].backward()
        optimizer.step()
    adapter.eval()
    predicted = adapter.predict_all(examples, features)
    assert len(predicted) == 2 and len(predicted[0]) == len(examples)
    values = [prediction.value for prediction in predicted[0]]
    assert ava_map(values, [e.target for e in examples])["mAP"] == 100
    for example, value in list(zip(examples, values, strict=True))[:3]:
        assert len(value) == 9 and [box[5] for box in value] == sorted((box[5] for box in value), reverse=True)
        for k, box in enumerate(example.boxes or ()):
            alone = replace(example, box=box[:4], boxes=None)
            place = examples.index(example)
            (asked,), _ = adapter.predict_all([alone], features[place : place + 1])
            said = {name: score for *corners, name, score in value if corners == [*box[:4]]}
            expected = [probability * box[4] for probability in asked.value]
            assert [said[name] for name in task.classes] == pytest.approx(expected, abs=1e-6), k
    adapter.select(0)
    for prediction, value in zip(adapter.predict(examples, features), values, strict=True):
        assert [box[5] for box in prediction.value] == pytest.approx([box[5] for box in value], abs=1e-6)


def test_at_most_fifty_of_a_key_frame_are_said_and_none_where_there_is_no_box() -> None:
    task, examples, features = framed(*halves())
    names = tuple("" if k % 4 == 3 else f"c{k}" for k in range(80))
    task = replace(task, classes=names, test=examples)
    adapter = make_adapter("probe", tiny_encoder(), task, head="box").eval()
    empty = replace(examples[1], boxes=())
    first, second = adapter.predict([examples[0], empty], features[:2])
    assert second.value == [] and len(first.value) == 50 and "" not in {box[4] for box in first.value}
    scores = [box[5] for box in first.value]
    given = examples[0].boxes or ()
    alone = [replace(examples[0], box=box[:4], boxes=None) for box in given]
    said = adapter.predict(alone, features[:1].expand(3, *features.shape[1:]))
    products = [
        probability * box[4]
        for box, of_box in zip(given, said, strict=True)
        for name, probability in zip(names, of_box.value, strict=True)
        if name
    ]
    every = sorted(products, reverse=True)
    assert scores == pytest.approx(every[:50], abs=1e-6)


def test_key_frames_are_for_the_test_and_single_boxes_for_training() -> None:
    task, examples, _ = framed(*halves())
    with pytest.raises(UserError, match=r"^example '0/0' of train is a key frame: wanted an example per box"):
        make_adapter("probe", tiny_encoder(), replace(task, train=examples), head="box")
    with pytest.raises(UserError, match=r"^example 'x' has no box, which adapter.head=roi asks with: use "):
        make_adapter("probe", tiny_encoder(), replace(task, test=[Example("x", Path("x"), (0,))]), head="roi")


@pytest.mark.parametrize(
    "box", [(0.5, 0, 0.4, 1, 1), (0, 0, 1.01, 1, 1), (0, 0, 1, 1, 1.5), (0, 0, 1, 1, float("nan")), (0, 0, 1, 1)]
)
def test_what_is_no_box_of_a_key_frame_is_told_with_its_example(box: Any) -> None:
    _, examples, _ = framed(*halves())
    task = Task(test=[replace(examples[0], boxes=(examples[0].boxes or ())[:1] + (box,))], score=ava_map)
    with pytest.raises(
        UserError, match=r"^example '0/0' has the box \(.*\): wanted left, top, right, bottom and a score"
    ):
        boxes.check(task, SQUASH, None)
    with pytest.raises(UserError, match="clip.resize=crop cuts the frame"):
        boxes.check(replace(task, test=examples), replace(SQUASH, resize="crop"), None)
