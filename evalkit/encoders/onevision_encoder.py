"""OneVision-Encoder (https://github.com/EvolvingLMMs-Lab/OneVision-Encoder), from its Hugging Face folder.

Its own code lies beside its weights (auto_map), which evalkit never runs, and transformers has no such model; so it is
written here, with modules named as in its files. A vision transformer over the patches of single frames, all of which
attend to each other; queries and keys are turned by time, row and column. Every patch of a frame is seen: those that
a codec chooses are not supported.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evalkit.api import Clip, EncoderOutput, Loading
from evalkit.encoders._tubelets import cover, last_states
from evalkit.encoders.hf_image_text import CLIP_MEAN, CLIP_STD
from evalkit.errors import UserError
from evalkit.weights import checkpoint, huggingface, strict
from evalkit.weights.huggingface import Weights
from evalkit.weights.preprocessor import read_clip

MODEL_TYPES = ("onevision_encoder",)
CLIP = Clip(16, 224, CLIP_MEAN, CLIP_STD, interpolation="bicubic")  # of videos; still images have 448 pixels
SHARES = (4, 6, 6)  # of 16: angles of time, row and column
_SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "patch_size")


class Attention(nn.Module):
    """Self-attention (B, N, D), whose queries and keys are turned by angles (N, D / heads)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:
        query, key, value = (
            part(x).reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)
            for part in (self.q_proj, self.k_proj, self.v_proj)
        )
        seen = F.scaled_dot_product_attention(turned(query, angles), turned(key, angles), value)
        return self.out_proj(seen.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class MLP(nn.Module):
    """Two linear maps with GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))  # type: ignore[no-any-return]


class Layer(nn.Module):
    """Attention and MLP, each after a norm."""

    def __init__(self, dim: int, heads: int, hidden: int, norm: Any) -> None:
        super().__init__()
        self.self_attn, self.layer_norm1 = Attention(dim, heads), norm()
        self.mlp, self.layer_norm2 = MLP(dim, hidden), norm()

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x), angles)
        return x + self.mlp(self.layer_norm2(x))  # type: ignore[no-any-return]


class Head(nn.Module):
    """Tokens (B, N, D) -> (B, D): a learned query attends to them, then an MLP."""

    def __init__(self, dim: int, heads: int, hidden: int, epsilon: float) -> None:
        super().__init__()
        self.probe = nn.Parameter(torch.randn(1, 1, dim))
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.norm, self.mlp = nn.RMSNorm(dim, epsilon), MLP(dim, hidden)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.attention(self.probe.expand(len(x), -1, -1), x, x, need_weights=False)[0]
        return (seen + self.mlp(self.norm(seen)))[:, 0]  # type: ignore[no-any-return]


class OneVisionEncoder(nn.Module):
    """Video (B, T, 3, H, W), scaled as its clip says -> tokens (B, T, S, D) after the last norm, and pooled (B, D).

    Times of T frames are spread over those of the model, 64, as its authors do; T may be any number, and H and W any
    multiples of the patch. pooled is what its head gives; without a head, the mean of the tokens.

    Args:
        clip: what the encoder sees.
        values: the configuration, by its own names.
    """

    def __init__(self, clip: Clip, values: dict[str, Any]) -> None:
        super().__init__()
        dim, hidden, depth, heads, patch = (values[name] for name in _SIZES)
        epsilon, squares = values.get("layer_norm_eps", 1e-6), values.get("layer_norm_type") == "rms_norm"
        self.clip, self.dim, self.tubelet = clip, dim, (1, patch, patch)
        self.width, self.times = dim // heads, values.get("rope_temporal_size", 64)
        self.speed = float(values.get("rope_theta", 10_000.0))

        def norm() -> nn.Module:
            return nn.RMSNorm(dim, epsilon) if squares else nn.LayerNorm(dim, epsilon)

        self.embeddings, self.encoder = nn.Module(), nn.Module()
        self.embeddings.patch_embedding = nn.Conv2d(3, dim, patch, patch, bias=False)
        self.encoder.layers = nn.ModuleList(Layer(dim, heads, hidden, norm) for _ in range(depth))
        self.layernorm_pre = norm()
        has_head = values.get("use_head", True)
        self.layernorm_post = norm() if has_head else None
        self.head = Head(dim, heads, hidden, epsilon) if has_head else None

    def forward(self, video: Tensor, layers: int = 1) -> EncoderOutput:
        """See the class; `layers` last layers' tokens come along where it is above 1."""
        video, grid = cover(video, self.tubelet)
        patches = self.embeddings.patch_embedding(video.flatten(0, 1))  # type: ignore[operator]
        x = self.layernorm_pre(patches.flatten(2).transpose(1, 2).reshape(len(video), -1, self.dim))
        states = last_states(self.encoder.layers, x, layers, self._angles(grid, x))
        if self.layernorm_post is not None:
            states[-1] = self.layernorm_post(states[-1])
        tokens = tuple(state.reshape(len(video), grid[0], -1, self.dim) for state in states)
        pooled = states[-1].mean(1) if self.head is None else self.head(states[-1])
        return EncoderOutput(tokens[-1], pooled, tokens if layers > 1 else ())

    def _angles(self, grid: tuple[int, int, int], like: Tensor) -> Tensor:
        """Angles (N, D / heads) of all patches: of time, row and column, and then again."""
        times = torch.arange(grid[0])
        if self.times and grid[0] > 1:
            times = torch.linspace(0, self.times - 1, grid[0]).long()
        places = torch.meshgrid(times, torch.arange(grid[1]), torch.arange(grid[2]), indexing="ij")
        parts = []
        for place, share in zip(places, SHARES, strict=True):
            count = self.width // 32 * share
            parts.append(place.reshape(-1, 1) * self.speed ** -(torch.arange(count) / count))
        return torch.cat([*parts, *parts], -1).to(like)


def encoder(
    clip: Clip, tokenizer: Path | None = None, *, model_type: str = "onevision_encoder", **config: Any
) -> OneVisionEncoder:
    """OneVision-Encoder with random weights.

    Args:
        clip: what the encoder sees.
        tokenizer: not used: the model has no text tower.
        model_type: onevision_encoder, the only one.
        config: its configuration's own names and values.

    Raises:
        ValueError: a size is missing or does not fit.
    """
    if model_type not in MODEL_TYPES:
        raise ValueError(f"model_type={model_type!r}: wanted onevision_encoder")
    sizes = [config.get(name) for name in _SIZES]
    if missing := [name for name, size in zip(_SIZES, sizes, strict=True) if type(size) is not int or size < 1]:
        raise ValueError(f"{missing[0]}={str(config.get(missing[0]))[:60]}: wanted a whole number above 0")
    dim, heads = config["hidden_size"], config["num_attention_heads"]
    if dim % heads or dim // heads % 32:
        raise ValueError(f"hidden_size={dim} over {heads} heads: wanted a multiple of 32 for each")
    return OneVisionEncoder(clip, config)


def pretrained(path: Path, loading: Loading, weights: Weights = None) -> OneVisionEncoder:
    """Load the encoder from its Hugging Face folder strictly, without running code in it.

    Raises:
        UserError: weights are missing, unexpected or of another shape, or the files cannot be read.
    """
    values = checkpoint.read_json(path / "config.json")
    clip = replace(read_clip(path, CLIP), frames=CLIP.frames, size=CLIP.size)
    files = sorted(path.glob("*.safetensors")) or sorted(path.glob("*.bin"))
    if weights is None and len(files) != 1:
        raise UserError(f"{path}: wanted one file of weights, model.safetensors, found {len(files)}")
    try:
        huggingface.refuse_huge(values)
        with torch.device("meta"):
            module = encoder(clip, **values)
    except (TypeError, ValueError) as error:
        raise UserError(f"cannot read {path / 'config.json'} as a OneVision-Encoder: {error}") from error
    given = checkpoint.read_weights(files[0], trust=loading.trust) if weights is None else weights
    strict.check_names(module.state_dict(), given, path)
    strict.check_finite(given, path)
    module.to_empty(device="cpu")
    module.load_state_dict(dict(given))
    return module


def turned(qk: Tensor, angles: Tensor) -> Tensor:
    """Queries or keys (B, heads, N, D / heads), each pair of neighbors turned, by an angle for each of the two."""
    across = torch.stack([-qk[..., 1::2], qk[..., ::2]], -1).flatten(-2)
    return qk * angles.cos() + across * angles.sin()
