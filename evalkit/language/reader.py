"""A language model that reads an encoder's tokens, through a resampler and one of two joins."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

import torch
from annotated_types import Gt
from torch import Tensor, nn

from evalkit.api import FeatureSpec
from evalkit.errors import UserError
from evalkit.heads.adapter import AdapterSettings
from evalkit.language.causal_lm import Continuation as Continuation
from evalkit.language.causal_lm import LanguageModel
from evalkit.language.joins import CrossAttention, CrossAttentionJoin, Resampler, decoder_layers, embedding_factor
from evalkit.language.models import Precision

Join = Literal["prefix", "cross_attention"]
Temporal = Literal["none", "strided", "mean"]


@dataclass(frozen=True)
class ReaderSettings(AdapterSettings):
    """Settings of an adapter that decide which weights its `VideoLanguageModel` has.

    Attributes:
        lm: any causal language model of transformers: a local folder, a GGUF file or a hub id; with ckpt=none also a
            served one, http://HOST:PORT/v1#MODEL; empty means the embedded one; scratch, of captioner alone, trains a
            decoder of three layers and a vocabulary of the task's own training texts.
        lm_precision: of the language model's weights and arithmetic; what is trained beside it stays float32.
        join: prefix puts the visual tokens before the prompt (VideoPrism, https://arxiv.org/abs/2402.13217, appendix
            G); cross_attention lets the words look at them before each layer of the model (LongViViT).
        gate: of cross-attention: a learned share, which starts at none.
        temporal: none keeps the tokens of all steps, strided those of every stride-th, mean averages them over time
            (LongViViT).
        stride: for temporal=strided.
        latents: visual tokens that the language model reads.
        depth: layers of the resampler.
    """

    lm: str = ""
    lm_precision: Precision = "32"
    join: Join = "prefix"
    gate: bool = True
    temporal: Temporal = "none"
    stride: Annotated[int, Gt(0)] = 4
    latents: Annotated[int, Gt(0)] = 64
    depth: Annotated[int, Gt(0)] = 2


READER_SETTINGS = tuple(field.name for field in fields(ReaderSettings))


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
        UserError: the model cannot be joined this way.
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
        if join == "prefix":
            if not self.traits.embeddings:
                raise UserError(
                    f"adapter.join=prefix: {type(lm).__name__} reads embeddings otherwise than the words that they are "
                    "of, so that it cannot read a video before its words; use join=cross_attention, or another lm"
                )
            width = self.words.embedding_dim
            # A prefix starts with the standard deviation of the embedded words that it stands among.
            scale = self.words.weight.std() * embedding_factor(self.words)
        else:
            layers, width = decoder_layers(lm)
            scale = torch.ones(())
        self.resampler = Resampler(dim, width, latents, depth)
        self.scale = nn.Parameter(scale.detach().float().clone())
        if join == "cross_attention":
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
