"""How a language model reads visual tokens: the resampler that makes them, and the two joins with the words."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from evalkit.errors import UserError
from evalkit.heads.head import attention_heads
from evalkit.language.examine import options, traits


class Join(Protocol):
    """How a language model reads visual tokens (N, P, W) beside its words; visual is None for words alone."""

    def positions(self, visual: Tensor | None) -> int:
        """Positions that the visual tokens take in the model's input."""

    def inputs(self, words: nn.Embedding, ids: Tensor, mask: Tensor, visual: Tensor | None) -> dict[str, Tensor]:
        """The model's inputs of token ids (N, L) with their mask, and the visual tokens of each row."""

    def further(self, ids: Tensor, mask: Tensor, visual: Tensor | None) -> dict[str, Tensor]:
        """The inputs of token ids that go on where a cache ends; the mask is of all positions."""


class Resampler(nn.Module):
    """Perceiver resampler: a fixed number of learned latents attend to all tokens and to each other.

    Queries and keys have norms of their own, and a latent is added to what it read. With one layer, where the latents
    know nothing of the video when they attend to each other, this is VideoPrism's (https://arxiv.org/abs/2402.13217,
    appendix G). Tokens (B, T', S, D), with the time of each step added, -> (B, latents, out).
    """

    def __init__(self, dim: int, out: int, latents: int, depth: int) -> None:
        super().__init__()
        self.read = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, out))
        self.time = nn.Linear(out, out)
        self.latents = nn.Parameter(torch.randn(latents, out) * 0.02)
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(out, _heads(out), 4 * out, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(out)

    def forward(self, tokens: Tensor) -> Tensor:
        projected = self.read(tokens)  # (B, T', S, out)
        steps, width = projected.shape[1], projected.shape[-1]
        share = (torch.arange(steps, device=projected.device) + 0.5) / steps  # of the clip's length
        waves = share[:, None] * torch.pi * torch.arange(1, width // 2 + 1, device=projected.device)
        time = self.time(torch.cat([waves.sin(), waves.cos()], -1))  # (T', out)
        memory = (projected + time[:, None]).flatten(1, 2)
        latents = self.latents.expand(len(tokens), -1, -1)
        for layer in self.layers:
            latents = layer(latents, memory)
        return self.norm(latents)  # type: ignore[no-any-return]


class CrossAttention(nn.Module):
    """Gated cross-attention (Flamingo, https://arxiv.org/abs/2204.14198): text (N, L, W) attends to visual latents.

    With a gate, the output is scaled by the tanh of a learned number that starts at 0, so that the language model
    starts unchanged. Latents (B, P, W) are repeated where N is a multiple of B: several beams of one video.
    """

    def __init__(self, width: int, gate: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, _heads(width), batch_first=True)
        self.gate = nn.Parameter(torch.zeros(())) if gate else None

    def forward(self, words: Tensor, latents: Tensor) -> Tensor:
        latents = latents.repeat_interleave(len(words) // len(latents), 0)
        queries = self.norm(words.to(latents.dtype))  # those of a language model in half precision
        attended = self.attention(queries, latents, latents, need_weights=False)[0]
        attended = attended if self.gate is None else attended * self.gate.tanh()
        return words + attended.to(words.dtype)  # type: ignore[no-any-return]


class VisualPrefix:
    """Join of visual tokens before the words (VideoPrism, appendix G)."""

    def positions(self, visual: Tensor | None) -> int:
        return 0 if visual is None else visual.shape[1]

    def inputs(self, words: nn.Embedding, ids: Tensor, mask: Tensor, visual: Tensor | None) -> dict[str, Tensor]:
        if visual is None:
            return {"input_ids": ids, "attention_mask": mask}
        embedded = words(ids)
        embedded = torch.cat([visual.to(embedded.dtype), embedded], 1)
        return {"inputs_embeds": embedded, "attention_mask": torch.cat([mask.new_ones(visual.shape[:2]), mask], 1)}

    def further(self, ids: Tensor, mask: Tensor, visual: Tensor | None) -> dict[str, Tensor]:
        return {"input_ids": ids, "attention_mask": mask}


class CrossAttentionJoin:
    """Join by cross-attention before each layer (LongViViT, https://arxiv.org/abs/2312.07395, section 3.2).

    The words go in as they are; hooks on the layers let them attend to the visual tokens of the last call.

    Args:
        layers: of the language model.
        crossings: one module for each.
    """

    def __init__(self, layers: Iterable[nn.Module], crossings: Iterable[nn.Module]) -> None:
        self.visual: Tensor | None = None
        for layer, crossing in zip(layers, crossings, strict=True):
            layer.register_forward_pre_hook(partial(self._attend, crossing), with_kwargs=True)

    def positions(self, visual: Tensor | None) -> int:
        return 0

    def inputs(self, words: nn.Embedding, ids: Tensor, mask: Tensor, visual: Tensor | None) -> dict[str, Tensor]:
        return self.further(ids, mask, visual)

    def further(self, ids: Tensor, mask: Tensor, visual: Tensor | None) -> dict[str, Tensor]:
        self.visual = visual
        return {"input_ids": ids, "attention_mask": mask}

    def _attend(self, crossing: nn.Module, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.visual is None:
            return None
        if args:
            return (crossing(args[0], self.visual), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": crossing(kwargs["hidden_states"], self.visual)}


@torch.no_grad()
def decoder_layers(lm: nn.Module) -> tuple[nn.ModuleList, int]:
    """The list of a language model's layers, through which every text goes once, and the width of their input.

    Raises:
        UserError: it has no list of as many as its configuration says, or they read something else than (N, L, W).
    """
    config: Any = lm.config
    n = getattr(config.get_text_config(), "num_hidden_layers", 0)
    lists = [module for module in lm.modules() if isinstance(module, nn.ModuleList) and len(module) == n]
    shapes: dict[nn.Module, list[torch.Size]] = {layer: [] for layers in lists for layer in layers}

    def note(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        shapes[layer].append(getattr(args[0] if args else kwargs.get("hidden_states"), "shape", torch.Size()))

    hooks = [layer.register_forward_pre_hook(note, with_kwargs=True) for layer in shapes]
    try:
        ids = torch.ones(2, 3, dtype=torch.long, device=lm.get_input_embeddings().weight.device)  # type: ignore[operator]
        lm(input_ids=ids, attention_mask=torch.ones_like(ids), **options(lm, use_cache=False))
    finally:
        for hook in hooks:
            hook.remove()
    for layers in lists:
        seen = {shape for layer in layers for shape in shapes[layer]}
        once = all(len(shapes[layer]) == 1 for layer in layers)
        if once and len(seen) == 1 and (shape := seen.pop())[:2] == (2, 3) and len(shape) == 3:
            return layers, shape[2]
    raise UserError(
        f"adapter.join=cross_attention: {type(lm).__name__} has no list of {n} layers that each read all tokens "
        f"(N, L, width) once; {'use join=prefix, or another lm' if traits(lm).embeddings else 'use another lm'}"
    )


@torch.no_grad()
def embedding_factor(words: nn.Embedding) -> Tensor:
    """What a model's embedding multiplies its weights by: the root of the width in Gemma, 1 in most."""
    weight = words.weight[:1000]
    ids = torch.arange(len(weight), device=weight.device)
    return words(ids).float().std() / weight.float().std()  # type: ignore[no-any-return]


def _heads(width: int) -> int:
    return attention_heads(width, most=16, narrowest=16)
