"""The LongViViT family: image and video transformers with joint space-time attention and a BERT text tower.

ImageViT, ShortViViT and LongViViT of "A Simple Recipe for Contrastively Pre-training Video-First Encoders Beyond 16
Frames" (https://arxiv.org/abs/2312.07395) are configurations of one model; configs/ holds them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evalkit.api import Clip, Encoded, UserError

MAX_FRAMES = 256


@dataclass(frozen=True)
class Text:
    """The text tower: BERT of this size, its token embeddings averaged over the caption's tokens."""

    vocabulary: int = 30522
    dim: int = 512
    depth: int = 8
    heads: int = 8
    tokens: int = 64


class Attention(nn.Module):
    """Multi-head self-attention over tokens (B, N, D)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            self.qkv(x).reshape(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        )  # each (B, heads, N, D/heads)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Block(nn.Module):
    """One pre-norm transformer layer over tokens (B, N, D)."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class TextTower(nn.Module):
    """BERT over sentencepiece tokens; one vector per text, the mean over its tokens, projected to the video's width."""

    def __init__(self, text: Text, dim: int, tokenizer: Path | None) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        self.tokens = text.tokens
        self.tokenizer = tokenizer
        config = BertConfig(
            vocab_size=text.vocabulary,
            hidden_size=text.dim,
            num_hidden_layers=text.depth,
            num_attention_heads=text.heads,
            intermediate_size=4 * text.dim,
            max_position_embeddings=text.tokens,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        self.bert = BertModel(config, add_pooling_layer=False)
        self.projection = nn.Linear(text.dim, dim, bias=False)

    def forward(self, texts: list[str]) -> Tensor:
        """Embeddings (B, D) of texts; longer ones are cut at the tower's number of tokens."""
        if self.tokenizer is None:
            raise UserError("this encoder has no tokenizer.model beside its weights, so it cannot embed text")
        from sentencepiece import SentencePieceProcessor

        rows = SentencePieceProcessor(model_file=str(self.tokenizer)).encode(texts)
        rows = [row[: self.tokens] for row in rows]
        ids = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
        mask = nn.utils.rnn.pad_sequence([torch.ones(len(row)) for row in rows], batch_first=True)
        ids, mask = (t.to(self.projection.weight.device) for t in (ids, mask))
        states = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state  # (B, L, text dim)
        mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        return self.projection(mean)  # type: ignore[no-any-return]


class ViViT(nn.Module):
    """Video transformer: (B, T, C, H, W) -> tokens (B, T', S, D) and their mean, pooled (B, D).

    The video is float, scaled as `clip.normalise` does, or uint8 pixels, which are then scaled here.
    T may be any number from 1 to 256 and H, W any multiple of the tubelet's: positions are interpolated. A video whose
    T is no multiple of the tubelet's depth holds its last frame. With `mask_ratio` > 0 that share of the tubelets,
    drawn at random for each video, is left out and tokens are (B, 1, kept, D).
    """

    def __init__(
        self,
        clip: Clip,
        tubelet: tuple[int, int, int],
        dim: int,
        depth: int,
        heads: int,
        hidden: int,
        attention: Literal["joint", "frame"],
        image_path: bool,
        text: Text | None,
        tokenizer: Path | None,
    ) -> None:
        super().__init__()
        self.clip, self.dim, self.tubelet, self.attention = clip, dim, tubelet, attention
        t, h, w = tubelet
        if clip.size % h or clip.size % w:
            raise UserError(f"clip.size={clip.size} is no multiple of the tubelet's {h} x {w} pixels")
        # A convolution whose stride is its kernel is a linear map of each tubelet.
        self.patch = nn.Linear(3 * t * h * w, dim)
        self.image_patch = nn.Linear(3 * h * w, dim) if image_path else None
        grid = (-(-clip.frames // t), clip.size // h, clip.size // w)
        self.positions = nn.Parameter(torch.randn(1, dim, *grid) * 0.02)  # (1, D, T', H', W')
        self.blocks = nn.ModuleList(Block(dim, heads, hidden) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.text = TextTower(text, dim, tokenizer) if text else None

    def forward(self, video: Tensor, mask_ratio: float = 0.0) -> Encoded:
        patch, x = self._tubelets(video)  # (B, T', S, values of a tubelet)
        positions = self._positions(x.shape[1], video.shape[-2:])  # (T', S, D)
        batch, steps, places, _ = x.shape
        if self.attention == "joint":  # attention sees one group: the whole clip, or one frame
            x, positions = x.flatten(1, 2)[:, None], positions.flatten(0, 1)[None]
        if mask_ratio:  # first of all, so that what is left out costs nothing
            kept = max(1, round(x.shape[2] * (1 - mask_ratio)))
            order = torch.rand(x.shape[:3], device=x.device).argsort(-1)[..., :kept, None]
            x = x.gather(2, order.expand(-1, -1, -1, x.shape[-1]))
            positions = positions.expand(batch, -1, -1, -1).gather(2, order.expand(-1, -1, -1, self.dim))
        if x.dtype == torch.uint8:  # pixels as decoded: the masked ones need no scaling
            x = self.clip.normalise(x.reshape(*x.shape[:-1], 3, -1, 1)).flatten(-3)
        x = (patch(x) + positions).flatten(0, 1)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x).reshape(batch, 1 if mask_ratio else steps, -1, self.dim)
        return Encoded(x, x.mean((1, 2)))

    def encode_text(self, texts: list[str]) -> Tensor:
        """Embeddings (B, D) of captions, comparable with pooled by their cosine."""
        if self.text is None:
            raise UserError("this encoder has no text tower, so it cannot embed text")
        return self.text(texts)  # type: ignore[no-any-return]

    def _tubelets(self, video: Tensor) -> tuple[nn.Module, Tensor]:
        """The map to use and its input: pixels of each tubelet (B, T', S, 3 t h w)."""
        batch, frames, channels, height, width = video.shape
        t, h, w = self.tubelet
        if channels != 3 or height % h or width % w or not 1 <= frames <= MAX_FRAMES:
            raise ValueError(
                f"video of shape {tuple(video.shape)}: wanted (B, T, 3, H, W) with T from 1 to {MAX_FRAMES}, "
                f"H a multiple of {h} and W of {w}"
            )
        patch = self.patch
        if frames == 1 and self.image_patch is not None:
            t, patch = 1, self.image_patch
        elif frames % t:
            video = torch.cat([video, video[:, -1:].expand(-1, t - frames % t, -1, -1, -1)], 1)
        tubelets = video.reshape(batch, -1, t, 3, height // h, h, width // w, w)
        return patch, tubelets.permute(0, 1, 4, 6, 3, 2, 5, 7).flatten(4).flatten(2, 3)

    def _positions(self, steps: int, size: torch.Size) -> Tensor:
        """Positions (T', S, D) for a clip of this many steps and this size in pixels."""
        grid = (steps, size[0] // self.tubelet[1], size[1] // self.tubelet[2])
        positions: Tensor = self.positions
        if positions.shape[2:] != grid:
            positions = F.interpolate(positions, grid, mode="trilinear", align_corners=False)
        return positions[0].flatten(2).permute(1, 2, 0)


def encoder(
    clip: Clip,
    tokenizer: Path | None = None,
    *,
    tubelet: tuple[int, int, int] = (2, 16, 16),
    dim: int = 768,
    depth: int = 12,
    heads: int = 12,
    hidden: int = 3072,
    attention: Literal["joint", "frame"] = "joint",
    image_path: bool = False,
    text: dict[str, Any] | None = None,
) -> ViViT:
    """Video transformer of the LongViViT family, with random weights.

    Args:
        clip: what the encoder sees; its frames and size set the learned positions.
        tokenizer: sentencepiece model of the text tower; None where there is none yet.
        tubelet: frames, height and width of the patch that becomes one token.
        dim: width of the tokens.
        depth: number of transformer layers.
        heads: attention heads per layer.
        hidden: width of the MLP.
        attention: joint (space-time over the whole clip) or frame (each frame by itself, as ImageViT).
        image_path: a single frame goes through its own 2-D convolution.
        text: size of the BERT text tower (vocabulary, dim, depth, heads, tokens); None for no text.
    """
    return ViViT(
        clip,
        (tubelet[0], tubelet[1], tubelet[2]),
        dim,
        depth,
        heads,
        hidden,
        attention,
        image_path,
        Text(**text) if text else None,
        tokenizer,
    )
