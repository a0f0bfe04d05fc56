"""What an encoder is, what it gives, and what of that is kept."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

from evalkit.api.clip import Clip
from evalkit.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


class EncoderOutput(NamedTuple):
    """An encoder's output, float.

    Attributes:
        tokens: (B, T', S, D), of the last layer, after its norm; without class tokens.
        pooled: (B, E), one vector per clip; where the encoder embeds text, comparable with it by the cosine.
        layers: where more than one layer was asked for, the tokens of the last ones, oldest first, each
            (B, T', S, D) as its block gives it; the last of them is `tokens`. Where layers were asked for by their
            numbers, those of each, after the encoder's norm.
        frames: (B, T', E), one vector per frame, where the encoder embeds frames by themselves; else None.
        sequence: (B, T', L, W), what its layers read that match texts with videos, in the T' steps that are pooled by
            themselves (1: the clip as a whole); None where it has no such layers.
    """

    tokens: Tensor
    pooled: Tensor
    layers: tuple[Tensor, ...] = ()
    frames: Tensor | None = None
    sequence: Tensor | None = None

    @property
    def per_frame(self) -> Tensor:
        """One vector per time step: `frames`, else the mean over each step's tokens (B, T', D)."""
        return self.tokens.mean(2) if self.frames is None else self.frames


@dataclass(frozen=True)
class FeatureSpec:
    """Which part of an encoder's output is kept for each clip; part of the key of a stored feature.

    Attributes:
        what: `pooled` (E,); `frames`, one vector per time step (T', E); `tokens` (T', S, D); or `sequence` (T', L, W),
            of an encoder that matches texts with videos.
        layers: tokens of the last so many layers, (layers, T', S, D) where more than one; or of the layers of these
            numbers, counted from 0, each after the encoder's norm, as an encoder with `named_layers` gives them.
        steps: of tokens: every n-th time step, from the middle of the first n; 0 means their mean over time, (1, S, D).
        grid: of tokens: the mean over each field of a grid x grid division of the frame, (T', grid x grid, D); 0 keeps
            all S, which must be a square, of whose side the grid is a divisor.
        dtype: float16 halves the space; an attentive head reads it as well. int8 quarters it: what is read is float32,
            and off by at most 1/254 of the largest magnitude in its vector (`Store.put`).
    """

    what: Literal["pooled", "frames", "tokens", "sequence"] = "pooled"
    layers: int | tuple[int, ...] = 1
    steps: int = 1
    grid: int = 0
    dtype: Literal["float32", "float16", "int8"] = "float32"

    @property
    def layout(self) -> Literal["given", "int8"]:
        """How the store is to hold what `take` gives."""
        return "int8" if self.dtype == "int8" else "given"

    def take(self, encoded: EncoderOutput) -> Tensor:
        """The kept part (B, ...): float16, or float32, which is still to be rounded where int8 is kept.

        Raises:
            UserError: the grid does not divide the encoder's, or there is no sequence.
        """
        import torch

        if self.what == "pooled":
            features = encoded.pooled
        elif self.what == "frames":
            features = encoded.per_frame
        elif self.what == "sequence":
            if encoded.sequence is None:
                raise UserError("re-ranking reads the encoder's sequence, and it gives none: see evalkit.api.Encoder")
            features = encoded.sequence
        else:
            features = encoded.tokens if self.layers == 1 else torch.stack(encoded.layers, 1)
            features = (
                features[..., self.steps // 2 :: self.steps, :, :] if self.steps else features.mean(-3, keepdim=True)
            )
            features = self._pooled(features) if self.grid else features
        return features.to(torch.float16 if self.dtype == "float16" else torch.float32)

    def _pooled(self, tokens: Tensor) -> Tensor:
        """Tokens (..., S, D) -> (..., grid x grid, D)."""
        side = math.isqrt(tokens.shape[-2])
        if side**2 != tokens.shape[-2]:
            raise UserError(f"tokens kept on a grid of {self.grid}: the encoder's {tokens.shape[-2]} are no square")
        if side % self.grid:
            allowed = ", ".join(str(n) for n in range(1, side + 1) if side % n == 0)
            raise UserError(f"tokens kept on a grid of {self.grid}: the encoder's are {side} x {side}; use {allowed}")
        each = side // self.grid
        fields = tokens.reshape(*tokens.shape[:-2], self.grid, each, self.grid, each, tokens.shape[-1])
        return fields.mean((-4, -2)).flatten(-3, -2)


@runtime_checkable
class Encoder(Protocol):
    """A backbone: float video (B, T, C, H, W), scaled as its clip says, in; tokens and one pooled vector out.

    An encoder with a text tower also has `encode_text(texts: list[str]) -> Tensor (B, E)`. One whose layers match texts
    with videos gives `sequence`, and has `pool(sequence (B, T', L, W)) -> (B, E)`, which is its pooled,
    `text_states(texts: list[str])`, a list of (N, W), and `match(sequence (T', L, W), states) -> (B,)`, the logits that
    B texts describe one video. One that takes `layers=k` beside the video gives the tokens of its last k layers in the
    same forward pass. One that has `named_layers`, how many layers it has, takes a tuple of their numbers in place of
    k, too. One that has `tubelet`, the frames, rows and columns of pixels of a token, takes uint8 video and `masked`,
    (B, T', S) bool, true where a token is left out: tokens are (B, 1, kept, D) then, in the order of their places. One
    whose positions are interpolated for clips of another shape than its own names in `interpolates` of which: "frames",
    "size".

    Attributes:
        clip: what it sees.
        dim: D, the width of the tokens. Where pooled has another width E, the encoder has `pooled_dim`, too.
    """

    clip: Clip
    dim: int

    def __call__(self, video: Tensor) -> EncoderOutput: ...


def pooled_dim(encoder: Any) -> int:
    """E, the width of an encoder's pooled vectors."""
    return int(getattr(encoder, "pooled_dim", encoder.dim))


def as_texts(texts: Sequence[str]) -> list[str]:
    """Texts to embed, as a list.

    Raises:
        ValueError: it is one text, whose letters would be taken for texts, or none at all.
    """
    if isinstance(texts, str) or not texts:
        raise ValueError(f"texts={texts!r}: wanted a list of at least one text")
    return list(texts)


def has_text(encoder: object) -> bool:
    """Whether an encoder can embed text: it has `encode_text`, and its `text` attribute, if any, is not None."""
    return callable(getattr(encoder, "encode_text", None)) and getattr(encoder, "text", True) is not None


def has_match(encoder: object) -> bool:
    """Whether an encoder's layers match texts with videos: it has `match`, and its `fusion`, if any, is not None."""
    return callable(getattr(encoder, "match", None)) and getattr(encoder, "fusion", True) is not None


def can_mask(encoder: Any) -> bool:
    """Whether an encoder leaves tokens out: its `forward` takes `mask_ratio` and `masked`, and video as uint8, too."""
    return {"mask_ratio", "masked"} <= inspect.signature(getattr(encoder, "forward", encoder)).parameters.keys()


def check_text(encoder: Any, text: str) -> None:
    """Embeds a text with an encoder's text tower, so that missing parts, such as its tokenizer, are reported early.

    Raises:
        UserError: as `encode_text`.
    """
    import torch

    with torch.inference_mode():
        encoder.encode_text([text])
