"""ImageViT, ShortViViT, LongViViT and their variants: one video transformer, configured."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evalkit.api import Clip, EncoderOutput, as_texts
from evalkit.encoders.longvivit.layers import AttentionPool, Block, Layout
from evalkit.encoders.longvivit.text import Text, TextTower
from evalkit.encoders.longvivit.tubes import Box, Tube
from evalkit.errors import UserError
from evalkit.heads.tuning import add_low_rank

MAX_FRAMES = 256
AttentionKind = Literal["joint", "frame", "factorized"]
Pooling = Literal["mean", "attention"]


class ViViT(nn.Module):
    """Video transformer: (B, T, C, H, W) -> tokens (B, T', S, D) and pooled (B, D).

    The video is float, scaled as `clip.normalize` does, or uint8 pixels, which are then scaled here.
    T may be any number from 1 to 256 and H, W any multiple of the tubelet's: positions are interpolated. A video whose
    T is not a multiple of the tubelet's depth holds its last frame, and so does one shorter than the longest tube.

    With `mask_ratio` > 0 that share of the tubelets, drawn at random for each video, is left out: of the whole clip
    with joint attention (tokens (B, 1, kept, D)), of each step with the others (tokens (B, T', kept, D)), of each
    kernel with several tubes. Several tubes have no common grid, so their tokens are (B, 1, N, D), kernel after kernel.

    `masked` (B, T', S) bool, true where a tubelet is left out, says which ones in place of a draw: the same number in
    each clip with joint attention, in each step with the others.

    `layers` > 1 also gives the outputs of that many last blocks; only the last of them has gone through the norm.
    `frames` (B, T', D) are there with attention within frames: each frame pooled by itself.
    """

    def __init__(
        self,
        clip: Clip,
        tubelet: Box,
        dim: int,
        depth: int,
        heads: int,
        hidden: int,
        attention: AttentionKind,
        pooling: Pooling,
        tubes: Sequence[Tube],
        adapter: int,
        image_path: bool,
        text: Text | None,
        tokenizer: Path | None,
    ) -> None:
        super().__init__()
        self.clip, self.dim, self.attention = clip, dim, attention
        t, h, w = tubelet
        self.image_tube = Tube((1, h, w), (1, h, w))
        self.tubes = tuple(tubes) or (Tube(tubelet, tubelet),)
        # A convolution is a linear map of each box that it sees.
        self.patch: nn.Module
        self.positions: nn.Parameter | None = None
        if tubes:
            if attention != "joint":
                raise UserError(f"attention={attention} needs one grid of tokens; with tubes, attention is joint")
            if clip.size < (side := max(max(tube.least[1:]) for tube in tubes)):
                raise UserError(f"clip.size={clip.size} does not hold every tube once; it takes {side} pixels")
            self.patch = nn.ModuleList(nn.Linear(tube.values, dim) for tube in tubes)
        else:
            if clip.size % h or clip.size % w:
                raise UserError(f"clip.size={clip.size} is not a multiple of the tubelet's {h} x {w} pixels")
            self.patch = nn.Linear(self.tubes[0].values, dim)
        self.image_patch = nn.Linear(self.image_tube.values, dim) if image_path else None
        if not tubes:
            grid = (-(-clip.frames // t), clip.size // h, clip.size // w)
            self.positions = nn.Parameter(torch.randn(1, dim, *grid) * 0.02)  # (1, D, T', H', W')
        self.interpolates = () if self.positions is None else ("frames", "size")
        self.blocks = nn.ModuleList(Block(dim, heads, hidden, attention == "factorized", adapter) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.text = TextTower(text, dim, tokenizer) if text else None
        self.pool = AttentionPool(dim, heads) if pooling == "attention" else None

    @property
    def tubelet(self) -> Box | None:
        """Frames, height and width in pixels of what becomes one token; None with tubes, which have no common grid."""
        return self.tubes[0].kernel if self.positions is not None else None

    def forward(
        self, video: Tensor, mask_ratio: float = 0.0, layers: int = 1, masked: Tensor | None = None
    ) -> EncoderOutput:
        if not 1 <= layers <= len(self.blocks):
            raise UserError(f"layers={layers}: this encoder has {len(self.blocks)} layers; wanted 1 to that many")
        video, patches = self._patches(video)
        embedded = [self._embed(video, tube, patch, mask_ratio, masked) for tube, patch in patches]
        x, layout = (
            embedded[0] if len(embedded) == 1 else (torch.cat([rows for rows, _ in embedded], 1), embedded[0][1])
        )
        outputs: list[Tensor] = []
        for block in self.blocks:
            x = block(x, layout)
            outputs = [*outputs, x][-layers:]
        # Joint attention sees one row of tokens; they are given as a grid where they still are one.
        grid_is_gone = mask_ratio or masked is not None or len(embedded) > 1
        steps = 1 if self.attention == "joint" and grid_is_gone else layout.steps
        tokens = self.norm(x).reshape(len(video), steps, -1, self.dim)
        earlier = tuple(rows.reshape(tokens.shape) for rows in outputs[:-1])
        frames = None
        if self.attention == "frame":
            frames = tokens.mean(2) if self.pool is None else self.pool(tokens.flatten(0, 1)).unflatten(0, (-1, steps))
        pooled = tokens.mean((1, 2)) if self.pool is None else self.pool(tokens.flatten(1, 2))
        return EncoderOutput(tokens, pooled, (*earlier, tokens) if earlier else (), frames)

    def encode_text(self, texts: list[str]) -> Tensor:
        """Embeddings (B, D) of captions, comparable with pooled by their cosine."""
        if self.text is None:
            raise UserError("this encoder has no text tower, so it cannot embed text")
        return self.text(as_texts(texts))  # type: ignore[no-any-return]

    def _patches(self, video: Tensor) -> tuple[Tensor, list[tuple[Tube, nn.Module]]]:
        """The video, padded with its last frame to fill the tubes, and the tubes to cut from it, each with its map."""
        frames, channels, height, width = video.shape[1:]
        if self.positions is None:
            least = [max(tube.least[axis] for tube in self.tubes) for axis in range(3)]
            fits, allowed = height >= least[1] and width >= least[2], f"H at least {least[1]} and W at least {least[2]}"
            missing = max(0, least[0] - frames)
        else:
            t, h, w = self.tubes[0].kernel
            fits, allowed = not (height % h or width % w), f"H a multiple of {h} and W of {w}"
            missing = -frames % t
        if channels != 3 or not fits or not 1 <= frames <= MAX_FRAMES:
            raise ValueError(
                f"video of shape {tuple(video.shape)}: wanted (B, T, 3, H, W) with T from 1 to {MAX_FRAMES}, {allowed}"
            )
        if frames == 1 and self.image_patch is not None:
            return video, [(self.image_tube, self.image_patch)]
        if missing:
            video = torch.cat([video, video[:, -1:].expand(-1, missing, -1, -1, -1)], 1)
        maps = self.patch if isinstance(self.patch, nn.ModuleList) else [self.patch]
        return video, list(zip(self.tubes, maps, strict=True))

    def _embed(
        self, video: Tensor, tube: Tube, patch: nn.Module, mask_ratio: float, masked: Tensor | None
    ) -> tuple[Tensor, Layout]:
        """Embed one tube's boxes: rows of tokens (B x rows, N, D), one row per clip (joint) or per time step."""
        x = tube.cut(video)
        positions = self._positions(tube, x.shape[1:4]).flatten(1, 2)  # (T', S, D)
        x = x.flatten(2, 3)
        layout = Layout(x.shape[1], x.shape[2], None)
        if self.attention == "joint":
            x, positions = x.flatten(1, 2)[:, None], positions.flatten(0, 1)[None]
        if mask_ratio or masked is not None:  # first of all, so that masked tubelets cost nothing
            if masked is None:
                kept = max(1, round(x.shape[2] * (1 - mask_ratio)))
                order = torch.rand(x.shape[:3], device=x.device).argsort(-1)[..., :kept]
            else:
                order = _unmasked(masked.to(x.device).reshape(x.shape[:3]))
            layout = layout._replace(kept=order)
            x = x.gather(2, order[..., None].expand(-1, -1, -1, x.shape[-1]))
            positions = positions.expand(len(x), -1, -1, -1).gather(2, order[..., None].expand(-1, -1, -1, self.dim))
        if x.dtype == torch.uint8:  # pixels as decoded: the masked ones need no scaling
            x = self.clip.normalize(x.reshape(*x.shape[:-1], 3, -1, 1)).flatten(-3)
        return (patch(x) + positions).flatten(0, 1), layout

    def _positions(self, tube: Tube, grid: torch.Size) -> Tensor:
        """Positions (T', H', W', D) of a grid of tubes: learned ones, interpolated to it; fixed ones of several."""
        if self.positions is None:
            return tube.waves(grid, self.dim, self.norm.weight)
        positions: Tensor = self.positions
        if positions.shape[2:] != grid:
            positions = F.interpolate(positions, grid, mode="trilinear", align_corners=False)
        return positions[0].permute(1, 2, 3, 0)


def _unmasked(masked: Tensor) -> Tensor:
    """The indices (B, rows, kept), in order, of tokens that are not masked (B, rows, N).

    Raises:
        UserError: the rows have different numbers of them.
    """
    kept = (~masked).sum(-1)
    if not bool((kept == kept.flatten()[0]).all()):
        raise UserError(
            f"the mask leaves {int(kept.min())} to {int(kept.max())} tokens in a step: encoders that see frames by "
            "themselves (attention=frame, factorized) take as many in each, as tubes have"
        )
    return masked.int().argsort(dim=-1, stable=True)[..., : int(kept.flatten()[0])]


def _add_lora(blocks: nn.ModuleList, rank: int) -> None:
    """Add a low-rank term to every linear map of attention and MLP, in place; it gives zero until it is trained."""
    for name, layer in list(blocks.named_modules()):
        if isinstance(layer, nn.Linear) and re.search(r"\.(attention\.(qkv|out)|mlp\.\d)$", name):
            layer.lora_down, layer.lora_up = add_low_rank(layer, rank)


def encoder(
    clip: Clip,
    tokenizer: Path | None = None,
    *,
    tubelet: tuple[int, int, int] = (2, 16, 16),
    dim: int = 768,
    depth: int = 12,
    heads: int = 12,
    hidden: int = 3072,
    attention: AttentionKind = "joint",
    pooling: Pooling = "mean",
    tubes: Sequence[dict[str, Any]] = (),
    adapter: int = 0,
    lora: int = 0,
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
        attention: joint (space-time over the whole clip), frame (each frame by itself, as ImageViT) or factorized
            (within each frame, then along time at each place).
        pooling: mean of all tokens, or attention: one learned query over the tokens of all frames, which is what the
            paper's reference for it does (VideoCoCa, https://arxiv.org/abs/2212.04979).
        tubes: several kernels in place of the tubelet, each with its kernel, stride and offset (frames, height,
            width), as TubeViT (https://arxiv.org/abs/2212.03229); their positions are fixed, not learned.
        adapter: width of the MLP adapters after each MLP; 0 for none.
        lora: rank of the low-rank terms in attention and MLP (one for query, key and value together); 0 for none.
        image_path: a single frame goes through its own 2-D convolution, of the tubelet's height and width.
        text: size of the BERT text tower (vocabulary, dim, depth, heads, tokens); None for no text.

    Raises:
        UserError: settings that do not fit together.
    """
    for name, value, kind in (("attention", attention, AttentionKind), ("pooling", pooling, Pooling)):
        if value not in get_args(kind):
            raise UserError(f"{name}={value}: wanted {' or '.join(get_args(kind))}")
    model = ViViT(
        clip,
        _box(tubelet),
        dim,
        depth,
        heads,
        hidden,
        attention,
        pooling,
        [Tube(**{key: _box(value) for key, value in dict(tube).items()}) for tube in tubes],
        adapter,
        image_path,
        Text(**text) if text else None,
        tokenizer,
    )
    if lora:
        _add_lora(model.blocks, lora)
    return model


def _box(values: Sequence[int]) -> Box:
    frames, height, width = values
    return frames, height, width
