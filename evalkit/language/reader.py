"""Causal language models: loaded, split into prompt and answer, and made to read what an encoder saw."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evalkit.api import FeatureSpec
from evalkit.errors import UserError
from evalkit.weights import checkpoint

# Settings of an adapter that decide which weights its `Reader` has.
READER_SETTINGS = ("lm", "join", "gate", "temporal", "stride", "latents", "depth")

Join = Literal["prefix", "cross_attention"]
Temporal = Literal["none", "strided", "mean"]


class Continuation(NamedTuple):
    """A text after a prompt, about one of the videos of a batch (its place there)."""

    video: int
    prompt: str
    text: str


def steps(temporal: Temporal, stride: int) -> FeatureSpec:
    """What a language model reads of an encoder's tokens: all time steps, every stride-th, or their mean."""
    return FeatureSpec("tokens", steps={"none": 1, "strided": stride, "mean": 0}[temporal], dtype="float16")


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
        read = self.read(tokens)  # (B, T', S, out)
        steps, width = read.shape[1], read.shape[-1]
        share = (torch.arange(steps, device=read.device) + 0.5) / steps  # of the clip's length
        waves = share[:, None] * torch.pi * torch.arange(1, width // 2 + 1, device=read.device)
        time = self.time(torch.cat([waves.sin(), waves.cos()], -1))  # (T', out)
        memory = (read + time[:, None]).flatten(1, 2)
        latents = self.latents.expand(len(tokens), -1, -1)
        for layer in self.layers:
            latents = layer(latents, memory)
        return self.norm(latents)  # type: ignore[no-any-return]


class CrossAttention(nn.Module):
    """What stands before each layer of a frozen language model: words (N, L, W) look at latents (N, latents, W).

    With a gate, what was seen is scaled by the tanh of a learned number that starts at 0, so that the model starts as
    it was (Flamingo, https://arxiv.org/abs/2204.14198).
    """

    def __init__(self, width: int, gate: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, _heads(width), batch_first=True)
        self.gate = nn.Parameter(torch.zeros(())) if gate else None

    def forward(self, words: Tensor, latents: Tensor) -> Tensor:
        latents = latents.repeat_interleave(len(words) // len(latents), 0)  # several beams of one video
        seen = self.attention(self.norm(words), latents, latents, need_weights=False)[0]
        return words + (seen if self.gate is None else seen * self.gate.tanh())  # type: ignore[no-any-return]


class VideoLanguageModel(nn.Module):
    """A language model that reads an encoder's tokens: how likely it finds texts, and what it says itself.

    `prefix` puts the resampled tokens before the words (VideoPrism, appendix G); `cross_attention` lets the words look
    at them before each of the model's layers (LongViViT, https://arxiv.org/abs/2312.07395, section 3.2). A frozen
    model stays frozen: only what stands between is trained.

    Args:
        dim: D, the width of the encoder's tokens.
        lm: the language model.
        tokenizer: its own.
        latents: tokens that the resampler makes of a video; 0 for a model that is told words alone.
        depth: layers of the resampler.
        join: prefix or cross_attention.
        gate: of cross-attention.
        frozen: whether the model's own weights stay as they are.

    Attributes:
        vocabulary: hash of the tokens.

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
        super().__init__()
        self.lm, self.tokenizer, self.frozen = lm.eval().requires_grad_(not frozen), tokenizer, frozen
        pieces = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
        self.vocabulary = hashlib.sha256(repr(pieces).encode()).hexdigest()  # plain, so that `architecture` tells it
        if latents:
            self.resampler = Resampler(dim, self.words.embedding_dim, latents, depth)
            # Among words, visual tokens start as loud as these.
            loud = self.words.weight.std() if join == "prefix" else torch.ones(())
            self.scale = nn.Parameter(loud.detach().clone())
        self.crossings = nn.ModuleList()
        self._latents: Tensor | None = None  # what the words look at just now
        self._keeps = "logits_to_keep" in inspect.signature(lm.forward).parameters
        if join == "cross_attention":
            for layer in _layers(lm):
                crossing = CrossAttention(self.words.embedding_dim, gate)
                self.crossings.append(crossing)
                layer.register_forward_pre_hook(self._looking(crossing), with_kwargs=True)

    @property
    def words(self) -> nn.Embedding:
        return self.lm.get_input_embeddings()  # type: ignore[operator,no-any-return]

    @property
    def sha256(self) -> str:
        """Hash of the language model."""
        return checkpoint.sha256(self.lm)

    def train(self, mode: bool = True) -> VideoLanguageModel:
        super().train(mode)
        if self.frozen:
            self.lm.eval()
        return self

    def forward(self, asked: Sequence[Continuation], tokens: Tensor | None, end: bool = False) -> tuple[Tensor, Tensor]:
        """How likely each text is after its prompt.

        Args:
            asked: video, prompt and text of each.
            tokens: (B, T', S, D), one row per video; None means no video.
            end: whether the end of the text counts, too.

        Returns:
            The log-probability of each token, and 1 where it is one of the text's, else 0: both (len(asked), L).
        """
        rows = [self.split(one.prompt, one.text, end) for one in asked]
        ids = [torch.tensor(prompt + text) for prompt, text in rows]
        device = self.words.weight.device
        padded = nn.utils.rnn.pad_sequence(ids, batch_first=True).to(device)
        attend = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in ids], batch_first=True).to(device)
        spoken = [torch.tensor([0.0] * len(prompt) + [1.0] * len(text)) for prompt, text in rows]
        mask = nn.utils.rnn.pad_sequence(spoken, batch_first=True).to(device)
        video = torch.tensor([one.video for one in asked], device=device)
        embedded, attend = self._joined(self.words(padded), attend, self._read(tokens), video)
        self._fits(embedded.shape[1])
        logits = self._logits(embedded, attend, padded.shape[1])
        # Position p predicts token p + 1; the first token has no text before it, but it is never the text's own.
        losses = F.cross_entropy(logits[:, :-1].transpose(1, 2), padded[:, 1:], reduction="none")
        return -F.pad(losses, (1, 0)), mask

    def generate(self, prompts: Sequence[str], tokens: Tensor | None, beams: int, most: int) -> list[tuple[str, bool]]:
        """What the model says after each prompt, and whether it came to an end by itself.

        Greedy with one beam. Prompts of equal length go together, so that nothing is padded and no text depends on what
        else is in its batch.

        Args:
            prompts: one per video.
            tokens: (B, T', S, D), one row per prompt; None means no video.
            beams: kept while searching.
            most: tokens at most.
        """
        said: list[tuple[str, bool]] = [("", False)] * len(prompts)
        for group, embedded, attend in self._alike(prompts, tokens):
            self._fits(embedded.shape[1] + most)
            found = self.lm.generate(  # type: ignore[operator]
                inputs_embeds=embedded,
                attention_mask=attend,
                max_new_tokens=most,
                num_beams=beams,
                do_sample=False,
                eos_token_id=self.end,
                pad_token_id=self.end,
            )
            for i, row in zip(group, found.tolist(), strict=True):
                ended = self.end in row
                row = row[: row.index(self.end)] if ended else row
                said[i] = self.tokenizer.decode(row, skip_special_tokens=True).strip(), ended
        return said

    def following(self, prompts: Sequence[str], tokens: Tensor | None) -> Tensor:
        """Log-probabilities of the token after each prompt (B, vocabulary), float32; arguments as `generate`."""
        found: list[Tensor] = [torch.empty(0)] * len(prompts)
        for group, embedded, attend in self._alike(prompts, tokens):
            self._fits(embedded.shape[1])
            for i, row in zip(group, self._logits(embedded, attend, 1)[:, 0].log_softmax(-1), strict=True):
                found[i] = row
        return torch.stack(found)

    @property
    def end(self) -> int:
        """The token that ends a text.

        Raises:
            UserError: the tokenizer has none.
        """
        if self.tokenizer.eos_token_id is None:
            raise UserError("the language model's tokenizer has no token that ends a text (eos_token)")
        return int(self.tokenizer.eos_token_id)

    def encode(self, prompt: str) -> list[int]:
        """Tokens of a text that stands before another."""
        ids: list[int] = self.tokenizer.encode(prompt)
        return ids[:-1] if ids and ids[-1] == self.tokenizer.eos_token_id else ids  # some end every text by themselves

    def split(self, prompt: str, text: str, end: bool = False) -> tuple[list[int], list[int]]:
        """Prompt and text as tokens of one running text, so that each tokenizer puts the space where it does."""
        before, whole = self.encode(prompt), self.encode(f"{prompt} {text}")
        n = next((i for i, (a, b) in enumerate(zip(before, whole, strict=False)) if a != b), len(before))
        if not n:
            raise UserError(f"prompt {prompt!r}: nothing of it stands before the text; say more in adapter.prompt")
        return whole[:n], whole[n:] + ([self.end] if end else [])

    def _alike(self, prompts: Sequence[str], tokens: Tensor | None) -> Iterator[tuple[list[int], Tensor, Tensor]]:
        """Prompts of equal length: which ones, and what the model reads of them and their videos, with its mask."""
        asked = [self.encode(prompt) for prompt in prompts]
        latents = self._read(tokens)
        lengths: dict[int, list[int]] = {}
        for i, ids in enumerate(asked):
            lengths.setdefault(len(ids), []).append(i)
        for group in lengths.values():
            place = torch.tensor(group, device=self.words.weight.device)
            same = torch.tensor([asked[i] for i in group], device=self.words.weight.device)
            embedded, attend = self._joined(self.words(same), torch.ones_like(same), latents, place)
            yield group, embedded, attend

    def _read(self, tokens: Tensor | None) -> Tensor | None:
        """What is read of each video (B, latents, W); once of equal neighbors, as several questions about one have."""
        if tokens is None:
            return None
        first = [i for i in range(len(tokens)) if self.training or not i or not torch.equal(tokens[i - 1], tokens[i])]
        latents = self.resampler(tokens[first].to(self.scale.device, self.scale.dtype)) * self.scale
        times = torch.tensor(first + [len(tokens)], device=latents.device).diff()
        return latents.repeat_interleave(times, 0)  # type: ignore[no-any-return]

    def _joined(self, embedded: Tensor, attend: Tensor, latents: Tensor | None, video: Tensor) -> tuple[Tensor, Tensor]:
        """Words (N, L, W) and their mask, with what was read of their videos before them where they are joined so."""
        self._latents = None
        if latents is None:
            return embedded, attend
        latents = latents[video].to(embedded.dtype)
        if self.crossings:
            self._latents = latents
            return embedded, attend
        attend = torch.cat([attend.new_ones(latents.shape[:2]), attend], 1)
        return torch.cat([latents, embedded], 1), attend

    def _logits(self, embedded: Tensor, attend: Tensor, last: int) -> Tensor:
        """Float32 logits (N, last, vocabulary) of the last places; of a large vocabulary no others are made."""
        kept = {"logits_to_keep": last} if self._keeps else {}
        return self.lm(inputs_embeds=embedded, attention_mask=attend, **kept).logits[:, -last:].float()  # type: ignore[no-any-return]

    def _fits(self, places: int) -> None:
        """Nothing where the model reads so many tokens; a UserError where it does not."""
        most = getattr(self.lm.config, "max_position_embeddings", places)
        if places > most:
            raise UserError(
                f"the language model reads {most:,} tokens, and video, prompt and text have {places:,}: give fewer "
                "adapter.latents or adapter.max_tokens, a shorter adapter.prompt, or another lm"
            )

    def _looking(self, crossing: CrossAttention) -> Any:
        def look(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if self._latents is None:
                return None
            if args:
                return (crossing(args[0], self._latents), *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": crossing(kwargs["hidden_states"], self._latents)}

        return look


def _layers(lm: nn.Module) -> nn.ModuleList:
    n = getattr(lm.config, "num_hidden_layers", 0)
    for module in lm.modules():
        if isinstance(module, nn.ModuleList) and len(module) == n:
            return module
    raise UserError(f"adapter.join=cross_attention: {type(lm).__name__} has no list of its {n} layers; use join=prefix")


def _heads(width: int) -> int:
    return max(n for n in range(1, 17) if width % n == 0 and width // n >= 16)
