"""The video transformer of VideoMAE v2, UMT and InternVideo2; modules are named as in the authors' files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evalkit.api import Clip, EncoderOutput, as_texts
from evalkit.encoders._tubelets import cover, last_states
from evalkit.encoders.opengvlab import text as towers
from evalkit.encoders.opengvlab.fusion import Fusion
from evalkit.errors import UserError

Kind = Literal["videomae_v2", "umt", "internvideo2"]
POOL_HEADS = 16  # of InternVideo2's attention pooling, at every size


class Attention(nn.Module):
    """Self-attention of (B, N, D). Queries and values have biases, and keys none.

    InternVideo2's (`normed`) have none at all; its queries and keys have a norm over all heads together.
    """

    def __init__(self, dim: int, heads: int, normed: bool) -> None:
        super().__init__()
        self.heads, self.normed = heads, normed
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        if normed:
            self.q_norm, self.k_norm = nn.RMSNorm(dim, 1e-6), nn.RMSNorm(dim, 1e-6)
        else:
            self.q_bias, self.v_bias = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.zeros(dim))
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).chunk(3, -1)
        if self.normed:
            query, key = self.q_norm(query), self.k_norm(key)
        else:
            query, value = query + self.q_bias, value + self.v_bias
        return self.proj(attended(query, key, value, self.heads))  # type: ignore[no-any-return]


class MLP(nn.Module):
    """Two linear maps with GELU between them; InternVideo2 was trained with its approximation by tanh."""

    def __init__(self, dim: int, hidden: int, approximate: Literal["none", "tanh"]) -> None:
        super().__init__()
        self.fc1, self.fc2, self.approximate = nn.Linear(dim, hidden), nn.Linear(hidden, dim), approximate

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate=self.approximate))  # type: ignore[no-any-return]


class Scale(nn.Module):
    """A factor for each channel of what a branch adds."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), 1e-5))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    """Attention and MLP, each after a norm; of InternVideo2 both norms are by the root mean square, and both scaled."""

    def __init__(self, dim: int, heads: int, hidden: int, internvideo2: bool) -> None:
        super().__init__()
        norm: Any = nn.RMSNorm if internvideo2 else nn.LayerNorm
        self.norm1, self.attn, self.norm2 = norm(dim, 1e-6), Attention(dim, heads, internvideo2), norm(dim, 1e-6)
        self.mlp = MLP(dim, hidden, "tanh" if internvideo2 else "none")
        scale: Any = Scale if internvideo2 else nn.Identity
        self.ls1, self.ls2 = scale(dim), scale(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))  # type: ignore[no-any-return]


class CrossAttention(nn.Module):
    """Attention of queries to other tokens, with biases beside the linear maps, as the files hold them."""

    def __init__(self, dim: int, heads: int, out: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.q_bias, self.k_bias, self.v_bias = (nn.Parameter(torch.zeros(dim)) for _ in range(3))
        self.proj = nn.Linear(dim, out)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        query, key, value = self.q(query) + self.q_bias, self.k(key) + self.k_bias, self.v(value) + self.v_bias
        return self.proj(attended(query, key, value, self.heads))  # type: ignore[no-any-return]


class AttentionPool(nn.Module):
    """Tokens (B, N, D) -> (B, out): their mean attends to them, each after a norm of its own."""

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.norm1_q, self.norm1_k, self.norm1_v = (nn.LayerNorm(dim, 1e-5) for _ in range(3))
        self.cross_attn = CrossAttention(dim, POOL_HEADS, out)

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.cross_attn(self.norm1_q(x.mean(1, keepdim=True)), self.norm1_k(x), self.norm1_v(x))
        return pooled[:, 0]


class Patches(nn.Module):
    """Linear map of tubelets: video (B, T, 3, H, W) -> (B, N, D), in the order of time, rows, columns."""

    def __init__(self, dim: int, tubelet: tuple[int, int, int]) -> None:
        super().__init__()
        self.proj = nn.Conv3d(3, dim, tubelet, tubelet)

    def forward(self, video: Tensor) -> Tensor:
        return self.proj(video.transpose(1, 2)).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]


class VideoTransformer(nn.Module):
    """Video (B, T, 3, H, W), scaled as its clip says -> tokens (B, T', S, D), without the class token, and pooled.

    Tokens are after the last norm, where the model has one: InternVideo2 has none, and a fine-tuned VideoMAE v2 or UMT
    has it after the mean, as part of its classifier. pooled is the mean of the tokens (B, D); of InternVideo2 its
    attention pooling (B, 768). With a text tower it is projected to the texts' width: of UMT the mean over each frame's
    tokens, after a norm, so that `frames` (B, T', E) are there, and pooled is the mean of their directions, whose
    products with a text are the authors' mean of the frames' cosines.

    With `fusion`, the layers of a second stage that look at video and text, `sequence` is there: UMT's tokens, and all
    of InternVideo2's states, the class token first, as one step; neither after another norm than the tokens.

    T may be any number, and H and W any multiples of the patch: positions are interpolated, linearly in time and by
    bicubics in space, as in UMT's and InternVideo2's code. A video whose T is no multiple of the tubelet's depth holds
    its last frame.
    """

    table: Tensor
    interpolates = ("frames", "size")

    def __init__(
        self,
        clip: Clip,
        kind: Kind,
        dim: int,
        depth: int,
        heads: int,
        hidden: int,
        tubelet: tuple[int, int, int],
        grid: tuple[int, int, int],
        learned: bool,
        norm: bool,
        pooled: int,
        text: Any,
        fusion: Fusion | None,
    ) -> None:
        super().__init__()
        self.clip, self.kind, self.dim, self.tubelet, self.grid = clip, kind, dim, tubelet, grid
        internvideo2 = kind == "internvideo2"
        self.patch_embed = Patches(dim, tubelet)
        self.blocks = nn.ModuleList(Block(dim, heads, hidden, internvideo2) for _ in range(depth))
        self.learned = learned
        places = math.prod(grid)
        if internvideo2:
            self.cls_token = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
            self.clip_projector = AttentionPool(dim, pooled)
        if learned:
            self.pos_embed = nn.Parameter(torch.randn(1, places + internvideo2, dim) * 0.02)
        else:
            self.register_buffer("table", sinusoid(places, dim), persistent=False)
        self.norm = nn.LayerNorm(dim, 1e-6) if norm else None
        self.pooled_dim = pooled if internvideo2 else dim
        self.text: Any = text
        self.vision_proj: Any = None
        if isinstance(text, towers.BERT):
            self.pool_norm = None if internvideo2 else nn.LayerNorm(dim, 1e-6)
            self.vision_proj = nn.Linear(self.pooled_dim, text.dim)
        elif isinstance(text, towers.MobileCLIP):
            self.vision_proj = nn.Sequential(nn.LayerNorm(self.pooled_dim), nn.Linear(self.pooled_dim, text.dim))
        if text is not None:
            self.pooled_dim = text.dim
        self.fusion = fusion

    def recompute(self) -> None:
        """Make again what no file holds, after the module was made without values."""
        if not self.learned:
            self.table = sinusoid(math.prod(self.grid), self.dim)
        if self.text is not None:
            self.text.recompute()

    def forward(self, video: Tensor, layers: int = 1) -> EncoderOutput:
        """See the class; `layers` last layers' tokens come along where it is above 1."""
        video, grid = cover(video, self.tubelet)
        x = self.patch_embed(video)
        places = self.pos_embed if self.learned else self.table.to(x)
        first = places[:, : -math.prod(self.grid)]
        x = x + resized(places[:, first.shape[1] :], self.grid, grid)
        if self.kind == "internvideo2":
            x = torch.cat([(self.cls_token + first).expand(len(x), -1, -1), x], 1)
        states = last_states(self.blocks, x, layers)
        if self.norm is not None:
            states[-1] = self.norm(states[-1])
        tokens = tuple(state[:, first.shape[1] :].reshape(len(state), grid[0], -1, self.dim) for state in states)
        pooled, frames = self._pooled(states[-1], tokens[-1])
        sequence = None
        if self.fusion is not None:
            sequence = states[-1][:, None] if self.kind == "internvideo2" else tokens[-1]
        return EncoderOutput(tokens[-1], pooled, tokens if layers > 1 else (), frames, sequence)

    def encode_text(self, texts: list[str]) -> Tensor:
        """Embeddings (B, E) of texts, cleaned as the authors do, comparable with pooled by their cosine.

        Raises:
            UserError: there is no text tower, or no tokenizer for it.
        """
        if self.text is None:
            raise UserError("this encoder has no text tower, so it cannot embed text")
        return self.text([towers.cleaned(text) for text in as_texts(texts)])  # type: ignore[no-any-return]

    def text_states(self, texts: list[str]) -> list[Tensor]:
        """States (N, W) of the tokens of each text, which `match` reads.

        Raises:
            UserError: as `encode_text`.
        """
        return self.text.states([towers.cleaned(text) for text in as_texts(texts)])  # type: ignore[no-any-return]

    def match(self, sequence: Tensor, states: Sequence[Tensor]) -> Tensor:
        """Logits (B,) that texts, given by their states, describe one video, given by its sequence (T', L, W)."""
        assert self.fusion is not None
        return self.fusion(sequence.flatten(0, 1), states)  # type: ignore[no-any-return]

    def pool(self, sequence: Tensor) -> Tensor:
        """The vectors (B, E) that `forward` gives as pooled, by the sequences (B, T', L, W)."""
        return self._pooled(sequence.flatten(1, 2), sequence)[0]

    def _pooled(self, x: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """What is pooled, and frames, from the last block's output and its tokens."""
        if self.kind == "internvideo2":
            pooled = self.clip_projector(x)
            return (pooled if self.vision_proj is None else self.vision_proj(pooled)), None
        if self.vision_proj is None:
            return tokens.mean((1, 2)), None
        assert self.pool_norm is not None
        frames = self.vision_proj(self.pool_norm(tokens.mean(2)))
        return F.normalize(frames, dim=-1).mean(1), frames


def encoder(
    clip: Clip,
    tokenizer: Path | None = None,
    *,
    model_type: Kind,
    dim: int = 768,
    depth: int = 12,
    heads: int = 12,
    hidden: int = 3072,
    tubelet: tuple[int, int, int] = (1, 14, 14),
    grid: tuple[int, int, int] = (8, 16, 16),
    learned: bool = False,
    norm: bool = False,
    pooled: int = 768,
    text: dict[str, Any] | None = None,
    fusion: int = 0,
) -> VideoTransformer:
    """VideoMAE v2, UMT or InternVideo2 with random weights.

    Args:
        clip: what the encoder sees.
        tokenizer: of the text tower: a vocabulary of BERT's word pieces, CLIP's tokenizer or a sentencepiece model.
        model_type: which of them.
        dim: D, width of the tokens.
        depth: blocks.
        heads: attention heads per block.
        hidden: width of the MLPs.
        tubelet: frames, rows and columns of pixels of a token.
        grid: tokens in time, rows and columns that the positions were made for.
        learned: positions are weights; else sines and cosines of a token's number.
        norm: there is a norm after the last block.
        pooled: width of InternVideo2's attention pooling.
        text: of the text tower: `kind` bert, mobileclip or llama, and its sizes.
        fusion: layers of BERT that look at the video, beyond those of the text tower; 0: none.

    Raises:
        ValueError: there is no such kind, or sizes do not fit.
    """
    if model_type not in get_args(Kind):
        raise ValueError(f"model_type={model_type!r}: wanted one of {', '.join(get_args(Kind))}")
    if dim % heads or (model_type == "internvideo2" and dim % POOL_HEADS):
        raise ValueError(f"dim={dim} is no multiple of heads={heads}, or of the {POOL_HEADS} of the attention pooling")
    tower = None if text is None else towers.make(dict(text), tokenizer)
    if fusion and not isinstance(tower, towers.BERT):
        raise ValueError(f"fusion={fusion} without text.kind=bert, whose layers they are")
    matching = Fusion(fusion, text["width"], text["hidden"], dim) if fusion and text else None
    learned = learned or model_type == "internvideo2"
    return VideoTransformer(
        clip, model_type, dim, depth, heads, hidden, tubelet, grid, learned, norm, pooled, tower, matching
    )


def attended(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Values (B, N, D) that queries attend to by keys, in as many heads."""
    query, key, value = (part.reshape(*part.shape[:2], heads, -1).transpose(1, 2) for part in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


def sinusoid(count: int, dim: int) -> Tensor:
    """Positions (1, count, D), float32: sine and cosine in turn of a token's number, as in VideoMAE's code."""
    speeds = 10_000.0 ** -(torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angles = torch.arange(count, dtype=torch.float64)[:, None] * speeds
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[None, :, :dim].float()


def resized(positions: Tensor, of: tuple[int, int, int], grid: tuple[int, int, int]) -> Tensor:
    """Positions (1, N, D) of one grid as those of another."""
    if of == grid:
        return positions
    maps = positions[0].reshape(*of, -1).movedim(-1, 1)  # (T', D, H', W')
    if of[1:] != grid[1:]:
        maps = F.interpolate(maps, grid[1:], mode="bicubic", align_corners=False)
    steps = maps.flatten(1).T[None]  # (1, D x H' x W', T')
    if of[0] != grid[0]:
        steps = F.interpolate(steps, grid[0], mode="linear", align_corners=False)
    return steps[0].T.reshape(grid[0], -1, *grid[1:]).movedim(1, -1).reshape(1, -1, positions.shape[-1])
