"""Boxes of examples in the frame, and the encoder's tokens that lie in them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from evalkit.api import Augment, Example, Task, Views
from evalkit.errors import UserError
from evalkit.heads.kernels import CHUNK

WHOLE = (0.0, 0.0, 1.0, 1.0)
# By which a box is widened on each side, as a share of the frame, so that one without an area has a token.
_MARGIN = 1e-6


def check(task: Task, views: Views, augment: Augment | None) -> None:
    """Raises UserError if a box is invalid, or if a clip's crop or augmentation would move it.

    Args:
        task: whose examples have boxes, or have none.
        views: resolved.
        augment: how training views differ.

    Raises:
        UserError: a box is none; or a clip shows a part of the frame, or its mirror image.
    """
    boxed = [example for example in (*task.train, *task.val, *task.test) if example.box]
    for example in boxed:
        left, top, right, bottom = example.box or WHOLE
        if not (0 <= left <= right <= 1 and 0 <= top <= bottom <= 1):
            raise UserError(
                f"example {example.id!r} has the box {example.box}: wanted left, top, right and bottom in 0..1"
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


def boxes(examples: Sequence[Example]) -> Tensor:
    """The boxes of examples, (B, 4): left, top, right, bottom.

    Raises:
        UserError: an example has none.
    """
    if missing := [example.id for example in examples if example.box is None]:
        raise UserError(f"example {missing[0]!r} has no box, which adapter.head=box asks with: use another head")
    return torch.tensor([example.box for example in examples])


def shares(boxes: Tensor, tokens: int) -> Tensor:
    """How much of each box (B, 4) lies in the field of each of S tokens, which sum to one: (B, S).

    Args:
        tokens: S, a square, row by row from the top left.

    Raises:
        UserError: it is no square.
    """
    side = math.isqrt(tokens)
    if side**2 != tokens:
        raise UserError(f"adapter.head=box wants tokens in a square; the encoder's {tokens} of a moment are none")
    edges = torch.linspace(0, 1, side + 1, device=boxes.device)
    low, high = boxes[:, :2, None] - _MARGIN, boxes[:, 2:, None] + _MARGIN
    across, down = (high.minimum(edges[1:]) - low.maximum(edges[:-1])).clamp_min(0).unbind(1)
    areas = (down[:, :, None] * across[:, None]).flatten(1)
    return areas / areas.sum(1, keepdim=True)


def mean_in(boxes: Tensor, tokens: Tensor) -> Tensor:
    """The mean over time, and over each box (B, 4), of tokens (B, T', S, D): (B, D), in float32 or better."""
    dtype = torch.promote_types(tokens.dtype, torch.float32)
    parts = torch.split(tokens, max(1, CHUNK // tokens[0].numel()))  # a float copy of all would fill the memory
    still = torch.cat([part.mean(1, dtype=dtype) for part in parts])
    return torch.bmm(shares(boxes.to(still), tokens.shape[2])[:, None], still)[:, 0]
