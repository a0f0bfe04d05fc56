"""Boxes of examples in the frame, and the encoder's tokens inside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from evalkit.api import Augment, Example, Task, Views
from evalkit.errors import UserError
from evalkit.heads.kernels import chunk_rows

WHOLE = (0.0, 0.0, 1.0, 1.0)
# By which a box is widened on each side, as a share of the frame, so that one without an area has a token.
_MARGIN = 1e-6
_POINTS = 7  # of RoIAlign across a box, and as many down it


def check(task: Task, views: Views, augment: Augment | None) -> None:
    """Raises UserError if a box is invalid, or if a clip's crop or augmentation would move it.

    Args:
        task: whose examples have boxes, or have none.
        views: resolved.
        augment: how training views differ.

    Raises:
        UserError: a box is none; or a clip shows a part of the frame, or its mirror image.
    """
    boxed = [example for example in (*task.train, *task.val, *task.test) if example.box or example.boxes is not None]
    for example in boxed:
        if example.box and (len(example.box) != 4 or not _is_box(example.box)):
            raise UserError(
                f"example {example.id!r} has the box {example.box}: wanted left, top, right and bottom in 0..1"
            )
        for detected in example.boxes or ():
            if len(detected) != 5 or not _is_box(detected) or not 0 <= detected[4] <= 1:
                raise UserError(
                    f"example {example.id!r} has the box {detected}: wanted left, top, right, bottom and a score, each "
                    "in 0..1"
                )
    if boxed and views.resize != "squash":
        raise UserError(
            f"clip.resize={views.resize} cuts the frame that the task's boxes lie in: use clip.resize=squash"
        )
    if boxed and augment and (augment.area != (1, 1) or augment.flip):
        raise UserError(
            "the task's training views cut or mirror the frame that its boxes lie in: use trainer.views=0, or a task "
            "whose augment has area=(1, 1) and flip=False"
        )


def _is_box(box: Sequence[float]) -> bool:
    left, top, right, bottom = box[:4]
    return 0 <= left <= right <= 1 and 0 <= top <= bottom <= 1


def boxes(examples: Sequence[Example]) -> Tensor:
    """The boxes of examples, (B, 4): left, top, right, bottom.

    Raises:
        UserError: an example has none.
    """
    check_boxed(examples)
    return torch.tensor([example.box for example in examples])


def check_boxed(examples: Sequence[Example], head: str = "box") -> None:
    """Checks that each example has a box, or as a key frame its boxes.

    Raises:
        UserError: one has none.
    """
    missing = next((example for example in examples if example.box is None and example.boxes is None), None)
    if missing:
        advice = "use another head"
        if isinstance(missing.target, list):  # a key frame's own boxes
            advice = "give a file of detected boxes, data.detections=FILE, or say data.boxes=truth"
        raise UserError(f"example {missing.id!r} has no box, which adapter.head={head} asks with: {advice}")


def without_key_frames(task: Task, head: str = "box") -> Task:
    """A task that asks about boxes, without the key frames of val and test, whose boxes have classes of their own.

    Raises:
        UserError: an example has no box, or one of train is a key frame.
    """
    check_boxed([*task.train, *task.val, *task.test], head)
    if framed := next((example.id for example in task.train if example.box is None), None):
        raise UserError(f"example {framed!r} of train is a key frame: wanted an example per box, with its classes")
    val, test = ([example for example in split if example.boxes is None] for split in (task.val, task.test))
    return replace(task, val=val, test=test)


def shares(boxes: Tensor, tokens: int) -> Tensor:
    """How much of each box (B, 4) lies in the field of each of S tokens, which sum to one: (B, S).

    Args:
        tokens: S, a square, row by row from the top left.

    Raises:
        UserError: it is no square.
    """
    side = square_side(tokens)
    edges = torch.linspace(0, 1, side + 1, device=boxes.device)
    low, high = boxes[:, :2, None] - _MARGIN, boxes[:, 2:, None] + _MARGIN
    across, down = (high.minimum(edges[1:]) - low.maximum(edges[:-1])).clamp_min(0).unbind(1)
    areas = (down[:, :, None] * across[:, None]).flatten(1)
    return areas / areas.sum(1, keepdim=True)


def square_side(tokens: int) -> int:
    """The side of the square in which so many tokens of a moment lie.

    Raises:
        UserError: it is no square.
    """
    side = math.isqrt(tokens)
    if side**2 != tokens:
        raise UserError(f"adapter.head=box wants tokens in a square; the encoder's {tokens} of a moment are none")
    return side


def mean_in(boxes: Tensor, tokens: Tensor) -> Tensor:
    """The mean over time, and over each box (B, 4), of tokens (B, T', S, D): (B, D), in float32 or better."""
    still = mean_over_time(tokens)
    return torch.bmm(shares(boxes.to(still), tokens.shape[2])[:, None], still)[:, 0]


def mean_over_time(tokens: Tensor) -> Tensor:
    """The mean over time of tokens (B, T', S, D): (B, S, D), in float32 or better."""
    dtype = torch.promote_types(tokens.dtype, torch.float32)
    parts = torch.split(tokens, chunk_rows(tokens))  # a float copy of all would fill the memory
    return torch.cat([part.mean(1, dtype=dtype) for part in parts])


def roi_align(boxes: Tensor, tokens: int) -> Tensor:
    """The weights (B, 49, S) by which RoIAlign gives the 7 x 7 points of each box (B, 4), row by row, from S tokens.

    A point is in the middle of one of 7 x 7 equal parts of the box, and what is there is interpolated bilinearly
    between the centers of the tokens; beyond the outermost centers it is theirs. For boxes within the frame that is
    torchvision.ops.roi_align with output_size=7, sampling_ratio=1, aligned=True, and spatial_scale the square's side.

    Args:
        boxes: left, top, right and bottom as shares of width and height.
        tokens: S, a square, row by row from the top left.

    Raises:
        UserError: it is no square.
    """
    side = square_side(tokens)
    low, high = boxes[:, :2, None], boxes[:, 2:, None]
    parts = (torch.arange(_POINTS, device=boxes.device, dtype=boxes.dtype) + 0.5) / _POINTS
    places = ((low + (high - low) * parts) * side - 0.5).clamp(0, side - 1)  # (B, 2, 7), in tokens from the first
    # The share of a token falls linearly to nothing at the next one's center.
    weights = (1 - (places[..., None] - torch.arange(side, device=boxes.device)).abs()).clamp_min(0)
    across, down = weights.unbind(1)  # (B, 7, side)
    return torch.einsum("bps,bqt->bpqst", down, across).flatten(3, 4).flatten(1, 2)
