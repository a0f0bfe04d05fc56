"""A language model that reads an encoder's tokens, through a resampler and one of two joins."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from evalkit.api import FeatureSpec
from evalkit.language.causal_lm import Continuation as Continuation
from evalkit.language.causal_lm import LanguageModel
from evalkit.language.joins import CrossAttention, CrossAttentionJoin, Resampler, decoder_layers

# Settings of an adapter that decide which weights its `VideoLanguageModel` has.
READER_SETTINGS = ("lm", "join", "gate", "temporal", "stride", "latents", "depth")

Join = Literal["prefix", "cross_attention"]
Temporal = Literal["none", "strided", "mean"]


def steps(temporal: Temporal, stride: int) -> FeatureSpec:
    """Encoder tokens that a language model reads: of all time steps, of every stride-th, or their mean."""
    return FeatureSpec("tokens", steps={"none": 1, "strided": stride, "mean": 0}[temporal], dtype="float16")


class VideoLanguageModel(LanguageModel):
    """A language model that reads an encoder's tokens (B, T', S, D), resampled to visual tokens (B, latents, W).

    `prefix` puts the visual tokens before the words (VideoPrism, https://arxiv.org/abs/2402.13217, appendix G);
    `cross_attention` lets the words attend to them before each of the model's layers (LongViViT,
    https://arxiv.org/abs/2312.07395, section 3.2).

    Args:
        dim: D, width of the encoder's tokens.
        lm: the language model.
        tokenizer: its tokenizer.
        latents: visual tokens of a video.
        depth: layers of the resampler.
        join: prefix or cross_attention.
        gate: of cross-attention.
        frozen: keep the language model as it is, so that only resampler and join are trained.

    Raises:
        UserError: the model has no list of layers that cross-attention could stand before.
    """

    def __init__(
        self,
        dim: int,
        lm: nn.Module,
        tokenizer: Any,
        *,
        latents: int,
        depth: int,
        join: Join = "prefix",
        gate: bool = True,
        frozen: bool = True,
    ) -> None:
        super().__init__(lm, tokenizer, frozen)
        width = self.words.embedding_dim
        self.resampler = Resampler(dim, width, latents, depth)
        # A prefix starts with the standard deviation of the word embeddings that it stands among.
        scale = self.words.weight.std() if join == "prefix" else torch.ones(())
        self.scale = nn.Parameter(scale.detach().clone())
        if join == "cross_attention":
            layers = decoder_layers(lm)
            self.crossings = nn.ModuleList(CrossAttention(width, gate) for _ in layers)
            self.join = CrossAttentionJoin(layers, self.crossings)

    def visual_tokens(self, tokens: Tensor | None) -> Tensor | None:
        """Resample an encoder's tokens (B, T', S, D) to visual tokens (B, latents, W); None stays None.

        In evaluation, equal neighbors are resampled once: several questions about one video stand side by side.
        """
        if tokens is None:
            return None
        first = [i for i in range(len(tokens)) if self.training or not i or not torch.equal(tokens[i - 1], tokens[i])]
        visual = self.resampler(tokens[first].to(self.scale.device, self.scale.dtype)) * self.scale
        times = torch.tensor(first + [len(tokens)], device=visual.device).diff()
        return visual.repeat_interleave(times, 0)  # type: ignore[no-any-return]
