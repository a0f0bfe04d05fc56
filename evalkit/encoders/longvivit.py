"""The LongViViT family: image and video transformers and a BERT text tower.

ImageViT, ShortViViT, LongViViT and the variants that section 4 of "A Simple Recipe for Contrastively Pre-training
Video-First Encoders Beyond 16 Frames" (https://arxiv.org/abs/2312.07395) compares them with are configurations of one
model; configs/ holds them. The paper's appendices, which state sizes of adapters and details of the kernels, could not
be read; what is assumed in their place is said where it is assumed.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evalkit.api import Clip, EncoderOutput, as_texts
from evalkit.errors import UserError
from evalkit.weights import checkpoint

MAX_FRAMES = 256
AttentionKind = Literal["joint", "frame", "factorized"]
Pooling = Literal["mean", "attention"]
Box = tuple[int, int, int]  # frames, height, width


@dataclass(frozen=True)
class Text:
    """The text tower: BERT of this size, its token embeddings averaged over the caption's tokens."""

    vocabulary: int = 30522
    dim: int = 512
    depth: int = 8
    heads: int = 8
    tokens: int = 64


@dataclass(frozen=True)
class Tube:
    """Which pixels become one token: the box `kernel`, moved by `stride` from `offset` on as often as it fits."""

    kernel: Box
    stride: Box
    offset: Box = (0, 0, 0)

    @property
    def least(self) -> Box:
        """The smallest video (frames, height, width) that holds one box."""
        t, h, w = (kernel + offset for kernel, offset in zip(self.kernel, self.offset, strict=True))
        return t, h, w

    @property
    def values(self) -> int:
        """Numbers in one box, three channels."""
        return 3 * math.prod(self.kernel)

    def cut(self, video: Tensor) -> Tensor:
        """The boxes (B, T', H', W', 3 t h w) of a video (B, T, 3, H, W)."""
        t, h, w = self.offset
        boxes = video[:, t:, :, h:, w:]
        for axis, kernel, stride in zip((1, 3, 4), self.kernel, self.stride, strict=True):
            boxes = boxes.unfold(axis, kernel, stride)
        return boxes.permute(0, 1, 3, 4, 2, 5, 6, 7).flatten(4)

    def waves(self, grid: Sequence[int], dim: int, like: Tensor) -> Tensor:
        """Fixed positions (T', H', W', D) for a grid of boxes: sines and cosines of each box's center.

        TubeViT's (https://arxiv.org/abs/2212.03229): a third of the width each for frame, row and column,
        counted in frames and pixels, with wavelengths from 2 pi to 10000 x 2 pi. What is left of a width that is no
        multiple of six is zero.
        """
        rates = 10000.0 ** -(torch.arange(dim // 6, device=like.device) / (dim // 6))
        axes = []
        for i, (n, kernel, stride, offset) in enumerate(zip(grid, self.kernel, self.stride, self.offset, strict=True)):
            angles = (torch.arange(n, device=like.device) * stride + offset + kernel / 2)[:, None] * rates
            shape = [n if axis == i else 1 for axis in range(3)]
            axes.append(torch.cat([angles.sin(), angles.cos()], -1).reshape(*shape, -1).expand(*grid, -1))
        return F.pad(torch.cat(axes, -1), (0, dim % 6)).to(like.dtype)


class Layout(NamedTuple):
    """How the rows (B x T', kept, D) that blocks see lie in the video.

    Attributes:
        steps: T'.
        places: tokens in one step where nothing is masked.
        kept: (B, T', kept), the place of each token in its step; None where all of them are there, in order.
    """

    steps: int
    places: int
    kept: Tensor | None


class Attention(nn.Module):
    """Multi-head self-attention over tokens (B, N, D); with a mask (B, 1, N, N), of what each one sees."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = (
            self.qkv(x).reshape(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        )  # each (B, heads, N, D/heads)
        return self.out(F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class TemporalAttention(nn.Module):
    """Attention along time at each place by itself, added through a gate that is shut at the start.

    h + tanh(alpha) h_temporal with alpha = 0 (section 4): until the gate is trained, nothing changes. Norm and weights
    start as the spatial attention's of the same layer. Where tubelets are masked, a place sees its kept ones only.
    """

    def __init__(self, norm: nn.LayerNorm, spatial: Attention) -> None:
        super().__init__()
        self.norm, self.attention = copy.deepcopy(norm), copy.deepcopy(spatial)
        self.alpha = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        h: Tensor = self.norm(x).unflatten(0, (-1, layout.steps))  # (B, T', kept, D)
        index, mask = None, None
        if layout.kept is not None:
            index = layout.kept[..., None].expand_as(h)
            there = torch.zeros(*h.shape[:2], layout.places, dtype=torch.bool, device=h.device)
            there = there.scatter(2, layout.kept, True).transpose(1, 2).flatten(0, 1)  # (B x places, T')
            # An empty step sees itself: a softmax over nothing is no number in some kernels. It is dropped again below.
            mask = (there[:, None] | torch.eye(layout.steps, dtype=torch.bool, device=h.device))[:, None]
            h = h.new_zeros(*h.shape[:2], layout.places, h.shape[-1]).scatter(2, index, h)
        h = self.attention(h.transpose(1, 2).flatten(0, 1), mask).unflatten(0, (-1, layout.places)).transpose(1, 2)
        if index is not None:
            h = h.gather(2, index)
        return x + self.alpha.tanh() * h.flatten(0, 1)


class Block(nn.Module):
    """One pre-norm transformer layer over rows of tokens (B x T', N, D).

    The temporal attention stands between spatial attention and MLP, as in ViViT's factorized self-attention
    (https://arxiv.org/abs/2103.15691, model 3). The adapter is Houlsby's (https://arxiv.org/abs/1902.00751): a
    bottleneck with its own residual on the MLP's output; its last map starts at zero, so that it changes nothing.
    """

    def __init__(self, dim: int, heads: int, hidden: int, temporal: bool, adapter: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
        self.temporal = TemporalAttention(self.norm1, self.attention) if temporal else None
        self.adapter = None
        if adapter:
            up = nn.Linear(adapter, dim)
            nn.init.zeros_(up.weight)
            nn.init.zeros_(up.bias)
            self.adapter = nn.Sequential(nn.Linear(dim, adapter), nn.GELU(), up)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        x = x + self.attention(self.norm1(x))
        if self.temporal is not None:
            x = self.temporal(x, layout)
        h: Tensor = self.mlp(self.norm2(x))
        if self.adapter is not None:
            h = h + self.adapter(h)
        return x + h


class AttentionPool(nn.Module):
    """One vector (B, D) of tokens (B, N, D): what one learned query finds in them."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        found, _ = self.attention(self.query.expand(len(tokens), -1, -1), tokens, tokens, need_weights=False)
        return found[:, 0]  # type: ignore[no-any-return]


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
    """Video transformer: (B, T, C, H, W) -> tokens (B, T', S, D) and pooled (B, D).

    The video is float, scaled as `clip.normalize` does, or uint8 pixels, which are then scaled here.
    T may be any number from 1 to 256 and H, W any multiple of the tubelet's: positions are interpolated. A video whose
    T is no multiple of the tubelet's depth holds its last frame, and so does one shorter than the longest tube.

    With `mask_ratio` > 0 that share of the tubelets, drawn at random for each video, is left out: of the whole clip
    with joint attention (tokens (B, 1, kept, D)), of each step with the others (tokens (B, T', kept, D)), of each
    kernel with several tubes. Several tubes have no common grid, so their tokens are (B, 1, N, D), kernel after kernel.

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
                raise UserError(f"clip.size={clip.size} is no multiple of the tubelet's {h} x {w} pixels")
            self.patch = nn.Linear(self.tubes[0].values, dim)
        self.image_patch = nn.Linear(self.image_tube.values, dim) if image_path else None
        if not tubes:
            grid = (-(-clip.frames // t), clip.size // h, clip.size // w)
            self.positions = nn.Parameter(torch.randn(1, dim, *grid) * 0.02)  # (1, D, T', H', W')
        self.blocks = nn.ModuleList(Block(dim, heads, hidden, attention == "factorized", adapter) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.text = TextTower(text, dim, tokenizer) if text else None
        self.pool = AttentionPool(dim, heads) if pooling == "attention" else None

    def forward(self, video: Tensor, mask_ratio: float = 0.0, layers: int = 1) -> EncoderOutput:
        if not 1 <= layers <= len(self.blocks):
            raise UserError(f"layers={layers}: this encoder has {len(self.blocks)} layers; wanted 1 to that many")
        video, patches = self._patches(video)
        embedded = [self._embed(video, tube, patch, mask_ratio) for tube, patch in patches]
        x, layout = (
            embedded[0] if len(embedded) == 1 else (torch.cat([rows for rows, _ in embedded], 1), embedded[0][1])
        )
        outputs: list[Tensor] = []
        for block in self.blocks:
            x = block(x, layout)
            outputs = [*outputs, x][-layers:]
        # Joint attention sees one row of tokens; they are given as a grid where they still are one.
        steps = 1 if self.attention == "joint" and (mask_ratio or len(embedded) > 1) else layout.steps
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
        """The video, its last frame held as long as needed, and the tubes to cut from it, each with its map."""
        frames, channels, height, width = video.shape[1:]
        if self.positions is None:
            least = [max(tube.least[axis] for tube in self.tubes) for axis in range(3)]
            fits, wanted = height >= least[1] and width >= least[2], f"H at least {least[1]} and W at least {least[2]}"
            missing = max(0, least[0] - frames)
        else:
            t, h, w = self.tubes[0].kernel
            fits, wanted = not (height % h or width % w), f"H a multiple of {h} and W of {w}"
            missing = -frames % t
        if channels != 3 or not fits or not 1 <= frames <= MAX_FRAMES:
            raise ValueError(
                f"video of shape {tuple(video.shape)}: wanted (B, T, 3, H, W) with T from 1 to {MAX_FRAMES}, {wanted}"
            )
        if frames == 1 and self.image_patch is not None:
            return video, [(self.image_tube, self.image_patch)]
        if missing:
            video = torch.cat([video, video[:, -1:].expand(-1, missing, -1, -1, -1)], 1)
        maps = self.patch if isinstance(self.patch, nn.ModuleList) else [self.patch]
        return video, list(zip(self.tubes, maps, strict=True))

    def _embed(self, video: Tensor, tube: Tube, patch: nn.Module, mask_ratio: float) -> tuple[Tensor, Layout]:
        """Rows of tokens (B x rows, N, D) with their positions: one row a clip, or a step where attention is within."""
        x = tube.cut(video)
        positions = self._positions(tube, x.shape[1:4]).flatten(1, 2)  # (T', S, D)
        x = x.flatten(2, 3)
        layout = Layout(x.shape[1], x.shape[2], None)
        if self.attention == "joint":
            x, positions = x.flatten(1, 2)[:, None], positions.flatten(0, 1)[None]
        if mask_ratio:  # first of all, so that what is left out costs nothing
            kept = max(1, round(x.shape[2] * (1 - mask_ratio)))
            order = torch.rand(x.shape[:3], device=x.device).argsort(-1)[..., :kept]
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


def inflate(image: ViViT, video: ViViT) -> None:
    """Starts a video encoder, in place, with the weights of one that sees single frames or fewer of them.

    The patch's weights are repeated over time and divided by how often, so that a still video gives the tokens of its
    frame; positions are interpolated; temporal attention starts as the spatial one; a path for single images that
    `image` lacks starts as its patch. Gates, adapters, LoRA and attention pooling stay as they are where `image` has
    none.

    Args:
        image: of the same width and depth, with a tubelet of the same height and width.
        video: what is started.

    Raises:
        UserError: names what does not fit.
    """
    source, weights = image.state_dict(), {}
    for name, own in video.state_dict().items():
        origin = name if name in source else name.replace(".base_layer.", ".").replace(".temporal.norm.", ".norm1.")
        origin = origin if origin in source else origin.replace(".temporal.", ".")
        if origin not in source and name.startswith("image_patch."):
            origin = name.removeprefix("image_")
        if origin not in source and any(part in f".{name}" for part in (".alpha", ".adapter.", ".lora_", ".pool.")):
            weights[name] = own
        elif origin == "positions":
            weights[name] = F.interpolate(source[origin], own.shape[2:], mode="trilinear", align_corners=False)
        elif name == "patch.weight" and origin in source and own.ndim == 2:
            depth, times = image.tubes[0].kernel[0], video.tubes[0].kernel[0] // image.tubes[0].kernel[0]
            boxes = source[origin].unflatten(1, (3, depth, -1)).repeat(1, 1, times, 1)
            weights[name] = boxes.flatten(1) / times
        elif origin in source:
            weights[name] = source[origin]
    checkpoint.load_strictly(video, weights, "the image encoder")


def _with_lora(blocks: nn.ModuleList, rank: int) -> None:
    """Puts a low-rank term beside every map of attention and MLP, in place; zero at the start, scaled by one."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise UserError(f"lora={rank} needs the package peft: pip install 'evalkit[peft]'") from error

    maps = ["attention.qkv", "attention.out", "mlp.0", "mlp.2"]
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=maps), blocks)
    blocks.requires_grad_(True)  # peft freezes the rest; what is trained is said elsewhere


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
        UserError: settings that do not fit together, or peft is missing.
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
        _with_lora(model.blocks, lora)
    return model


def _box(values: Sequence[int]) -> Box:
    frames, height, width = values
    return frames, height, width
