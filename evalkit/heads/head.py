"""A probe built from torch's own modules: it passes gradients to its features and has the FLOPs that papers count."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evalkit.errors import UserError
from evalkit.heads import boxes
from evalkit.heads.roi import RoiAttention


@dataclass(frozen=True)
class HeadShape:
    """The architecture of a probe.

    Attributes:
        dim: D, width of the features.
        classes: C.
        heads: attention heads, a divisor of dim; 0 makes a linear probe: LayerNorm, dropout, a linear classifier.
        steps: time steps of which an attentive probe learns positions, zero at first, that are added to the tokens of
            every layer; 0 for none.
        layers: of features that the query passes through, each with an attention and an MLP (MLAP); 0 for one attention
            without an MLP.
        boxed: the query of an attentive probe is the content of a box, in place of a learned one, and what each
            attention finds is added to it.
        roi: a boxed probe is VideoGLUE's code's (evalkit/heads/roi.py), whose heads are as wide as the features each.

    Raises:
        ValueError: a linear probe has steps, layers or boxes; or `roi` comes with steps, with layers or unboxed.
    """

    dim: int
    classes: int
    heads: int = 0
    steps: int = 0
    layers: int = 0
    boxed: bool = False
    roi: bool = False

    def __post_init__(self) -> None:
        if (self.steps or self.layers or self.boxed) and not self.heads:
            raise ValueError(
                f"boxed={self.boxed}, steps={self.steps}, layers={self.layers}: only attentive probes have them"
            )
        if self.roi and (self.steps or self.layers or not self.boxed):
            raise ValueError(
                f"roi: it wants boxed=True, has positions of its own and reads one layer: steps={self.steps}, "
                f"layers={self.layers}"
            )

    @property
    def width(self) -> int:
        """Of what the classifier gets."""
        return self.dim * self.heads if self.roi else self.dim


class Head(nn.Module):
    """Class scores from an encoder's features: one head of `evalkit.heads.bank.Bank`, whose `state` it loads.

    Args:
        shape: of the head.
        dropout: before the classifier.
    """

    def __init__(self, shape: HeadShape, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape = shape
        dim, heads, steps, layers = shape.dim, shape.heads, shape.steps, shape.layers
        self.positions = nn.Parameter(torch.zeros(steps, 1, dim)) if steps else None
        self.pool: Any = nn.LayerNorm(dim)
        if layers:
            self.pool = QueryPool(dim, heads, layers, learned=not shape.boxed)
        elif shape.roi:
            self.pool = RoiAttention(dim, heads)
        elif heads:
            self.pool = _Attention(dim, heads, mlp=False, residual=shape.boxed)
            if not shape.boxed:
                self.pool.query = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.classify = nn.Sequential(nn.Dropout(dropout), nn.Linear(shape.width, shape.classes))

    def forward(self, features: Tensor, within: Tensor | None = None) -> Tensor:
        """Logits (B, C) from vectors (B, D), tokens (B, T', S, D), or those of several layers (B, layers, T', S, D).

        One that is boxed asks with the tokens within boxes (B, 4), or within the whole frame.
        """
        if not self.shape.heads:
            return self.classify(self.pool(features))  # type: ignore[no-any-return]
        layers = features.unbind(1) if self.shape.layers > 1 else (features,)
        query = None
        if self.shape.boxed:
            within = torch.tensor([boxes.WHOLE], device=features.device) if within is None else within
            within = within.expand(len(features), 4)
            if self.shape.roi:
                return self.classify(self.pool(features, within))  # type: ignore[no-any-return]
            last = self.pool.layers[-1] if self.shape.layers else self.pool
            query = last.norm(boxes.mean_in(within, layers[-1]))[:, None]
        elif not self.shape.layers:
            query = self.pool.query.expand(len(features), -1, -1)
        tokens = [self._placed(of_layer).flatten(1, 2) for of_layer in layers]
        if self.shape.layers:
            return self.classify(self.pool(tokens, query))  # type: ignore[no-any-return]
        return self.classify(self.pool(query, tokens[0])[:, 0])  # type: ignore[no-any-return]

    @torch.no_grad()
    def attention(self, features: Tensor, within: Tensor | None = None) -> Tensor | None:
        """The query's attention weights (B, layers, T', S) over `features`, for visualization.

        Those of each layer are the mean over its attention heads, and sum to 1. None of a linear probe, or of `roi`.
        """
        found = recorded_weights(
            [part for part in self.modules() if isinstance(part, _Attention)], self, features, within
        )
        return torch.stack(found, 1).reshape(len(features), len(found), *features.shape[-3:-1]) if found else None

    def _placed(self, tokens: Tensor) -> Tensor:
        """The tokens with their learned positions in time, interpolated to as many as there are."""
        if self.positions is None:
            return tokens
        times = F.interpolate(self.positions.permute(1, 2, 0), tokens.shape[1], mode="linear")  # (1, D, T')
        return tokens + times.mT[:, :, None]


class QueryPool(nn.Module):
    """A query that reads the tokens of several layers in turn, each with an attention and an MLP (MLAP).

    Args:
        dim: D, width of the tokens.
        heads: of each attention.
        layers: how many.
        learned: the query is; else it is given, and what each attention finds is added to it.
    """

    def __init__(self, dim: int, heads: int, layers: int, learned: bool = True) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Attention(dim, heads, mlp=True, residual=not learned) for _ in range(layers))
        self.query = nn.Parameter(torch.randn(1, 1, dim) * 0.02) if learned else None

    def forward(self, tokens: Sequence[Tensor], query: Tensor | None = None) -> Tensor:
        """One vector (B, D) of the tokens (B, N, D) of each layer, the oldest first, and of a query (B, 1, D)."""
        if query is None:
            assert self.query is not None
            query = self.query.expand(len(tokens[0]), -1, -1)
        for layer, of_layer in zip(self.layers, tokens, strict=True):
            query = layer(query, of_layer)
        return query[:, 0]


class _Attention(nn.Module):
    """Attention of a query (B, 1, D) to tokens (B, N, D), optionally followed by a transformer's MLP.

    With `residual`, what the attention finds is added to the query.
    """

    def __init__(self, dim: int, heads: int, mlp: bool, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.norm, self.attention = nn.LayerNorm(dim), nn.MultiheadAttention(dim, heads, batch_first=True)
        self.mlp = (
            nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
            if mlp
            else None
        )

    def forward(self, query: Tensor, tokens: Tensor) -> Tensor:
        normed = self.norm(tokens)
        attended, _ = self.attention(query, normed, normed, need_weights=False)
        attended = query + attended if self.residual else attended
        return attended if self.mlp is None else attended + self.mlp(attended)  # type: ignore[no-any-return]

    def weights(self, query: Tensor, tokens: Tensor) -> Tensor:
        """How much the query (B, 1, D) looks at each of the tokens (B, N, D): (B, N), the mean over the heads."""
        normed = self.norm(tokens)
        return self.attention(query, normed, normed, need_weights=True)[1][:, 0]  # type: ignore[no-any-return]


def recorded_weights(blocks: Iterable[nn.Module], call: Callable[..., Any], *given: Any) -> list[Tensor]:
    """What `weights` of each of the blocks gives of what it is called with, while `call` is made with `given`."""
    found: list[Tensor] = []
    hooks = [
        block.register_forward_pre_hook(lambda block, words: found.append(block.weights(*words))) for block in blocks
    ]
    try:
        call(*given)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def attention_heads(dim: int, asked: int = 0, most: int = 12, narrowest: int = 1) -> int:
    """Number of attention heads on tokens of a width.

    Args:
        dim: width of the tokens.
        asked: setting `adapter.heads`; 0 means the most heads that divide the width, within the two bounds.
        most: bound on the number, where none is asked for.
        narrowest: bound on the width of one head, where none is asked for.

    Raises:
        UserError: the heads asked for do not divide the width.
    """
    heads = asked or max(n for n in range(1, most + 1) if dim % n == 0 and dim // n >= narrowest)
    if dim % heads:
        allowed = [n for n in range(1, 33) if dim % n == 0]
        raise UserError(f"adapter.heads={heads} does not divide the encoder's width {dim}; use one of {allowed}")
    return heads
