"""A causal language model with its tokenizer: log-likelihoods and texts, from text and visual tokens."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evalkit.errors import UserError
from evalkit.language.joins import Joined, VisualPrefix
from evalkit.weights import checkpoint


class Continuation(NamedTuple):
    """A text after a context, about one of the videos of a batch (its index)."""

    video: int
    context: str
    text: str


class LanguageModel(nn.Module):
    """A causal language model: how likely texts are, and what it generates.

    Args:
        lm: a causal language model of transformers.
        tokenizer: its tokenizer.
        frozen: keep its weights and evaluation mode.

    Attributes:
        vocabulary: hash of the tokens.
        join: how the model reads visual tokens; here before the words.
    """

    def __init__(self, lm: nn.Module, tokenizer: Any, frozen: bool = True) -> None:
        super().__init__()
        self.lm, self.tokenizer, self.frozen = lm.eval().requires_grad_(not frozen), tokenizer, frozen
        pieces = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
        self.vocabulary = hashlib.sha256(repr(pieces).encode()).hexdigest()  # plain, so that `architecture` tells it
        self.join: Joined = VisualPrefix()
        self._takes_logits_to_keep = "logits_to_keep" in inspect.signature(lm.forward).parameters

    @property
    def words(self) -> nn.Embedding:
        return self.lm.get_input_embeddings()  # type: ignore[operator,no-any-return]

    @property
    def sha256(self) -> str:
        """Hash of the language model's weights."""
        return checkpoint.sha256(self.lm)

    @property
    def eos(self) -> int:
        """Id of the token that ends a text.

        Raises:
            UserError: the tokenizer has none.
        """
        if self.tokenizer.eos_token_id is None:
            raise UserError("the language model's tokenizer has no token that ends a text (eos_token)")
        return int(self.tokenizer.eos_token_id)

    def train(self, mode: bool = True) -> LanguageModel:
        super().train(mode)
        if self.frozen:
            self.lm.eval()
        return self

    def loglikelihood(
        self, continuations: Sequence[Continuation], tokens: Tensor | None, end: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Log-probability of each text after its context.

        Args:
            continuations: video, context and text of each.
            tokens: one row per video, as `visual_tokens` takes them; None for words alone.
            end: count the token that ends the text, too.

        Returns:
            The log-probability of each token, and 1 where it is one of the text's, else 0: both (N, L).
        """
        rows = [self.split(context, text, end) for _, context, text in continuations]
        ids = [torch.tensor(context + text) for context, text in rows]
        device = self.words.weight.device
        padded = nn.utils.rnn.pad_sequence(ids, batch_first=True).to(device)
        attended = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in ids], batch_first=True).to(device)
        of_text = [torch.tensor([0.0] * len(context) + [1.0] * len(text)) for context, text in rows]
        mask = nn.utils.rnn.pad_sequence(of_text, batch_first=True).to(device)
        visual = self.visual_tokens(tokens)
        if visual is not None:
            visual = visual[torch.tensor([continuation.video for continuation in continuations], device=device)]
        embedded, attended = self.join(self.words(padded), attended, visual)
        self._check_length(embedded.shape[1])
        logits = self._logits(embedded, attended, padded.shape[1])
        # Position p predicts token p + 1; the first token has no text before it, but it is never the text's own.
        losses = F.cross_entropy(logits[:, :-1].transpose(1, 2), padded[:, 1:], reduction="none")
        return -F.pad(losses, (1, 0)), mask

    forward = loglikelihood

    def generate(self, prompts: Sequence[str], tokens: Tensor | None, beams: int, most: int) -> list[tuple[str, bool]]:
        """Generate a text after each prompt; beside it, whether the model ended the text itself.

        Greedy with one beam. Prompts of equal length go together, so that nothing is padded and no text depends on what
        else is in its batch.

        Args:
            prompts: one per video.
            tokens: one row per prompt, as `visual_tokens` takes them; None for words alone.
            beams: width of the beam search.
            most: new tokens at most.
        """
        texts: list[tuple[str, bool]] = [("", False)] * len(prompts)
        for group, embedded, mask in self._equal_lengths(prompts, tokens):
            self._check_length(embedded.shape[1] + most)
            generated = self.lm.generate(  # type: ignore[operator]
                inputs_embeds=embedded,
                attention_mask=mask,
                max_new_tokens=most,
                num_beams=beams,
                do_sample=False,
                eos_token_id=self.eos,
                pad_token_id=self.eos,
            )
            for i, ids in zip(group, generated.tolist(), strict=True):
                ended = self.eos in ids
                ids = ids[: ids.index(self.eos)] if ended else ids
                texts[i] = self.tokenizer.decode(ids, skip_special_tokens=True).strip(), ended
        return texts

    def next_token_logprobs(self, prompts: Sequence[str], tokens: Tensor | None) -> Tensor:
        """Log-probabilities of the token after each prompt (B, vocabulary), float32; arguments as `generate`."""
        rows: list[Tensor] = [torch.empty(0)] * len(prompts)
        for group, embedded, mask in self._equal_lengths(prompts, tokens):
            self._check_length(embedded.shape[1])
            for i, row in zip(group, self._logits(embedded, mask, 1)[:, 0].log_softmax(-1), strict=True):
                rows[i] = row
        return torch.stack(rows)

    def visual_tokens(self, tokens: Tensor | None) -> Tensor | None:
        """Visual tokens (B, P, W) that are joined with the words: here those given, of the word embeddings' width."""
        return tokens

    def encode(self, prompt: str) -> list[int]:
        """Token ids of a text that another text will follow."""
        ids: list[int] = self.tokenizer.encode(prompt)
        return ids[:-1] if ids and ids[-1] == self.tokenizer.eos_token_id else ids  # some end every text by themselves

    def split(self, context: str, text: str, end: bool = False) -> tuple[list[int], list[int]]:
        """Token ids of a context and of the text after it, encoded as one text: each tokenizer places the space itself.

        Args:
            context: what stands before the text.
            text: one space after it.
            end: add the token that ends the text.

        Raises:
            UserError: no token of the context stays its own.
        """
        before, whole = self.encode(context), self.encode(f"{context} {text}")
        n = next((i for i, (a, b) in enumerate(zip(before, whole, strict=False)) if a != b), len(before))
        if not n:
            raise UserError(f"prompt {context!r}: nothing of it stands before the text; say more in adapter.prompt")
        return whole[:n], whole[n:] + ([self.eos] if end else [])

    def _equal_lengths(
        self, prompts: Sequence[str], tokens: Tensor | None
    ) -> Iterator[tuple[list[int], Tensor, Tensor]]:
        """Yield prompts of equal length: their indices, and the model's inputs with their mask."""
        rows = [self.encode(prompt) for prompt in prompts]
        visual = self.visual_tokens(tokens)
        groups: dict[int, list[int]] = {}
        for i, ids in enumerate(rows):
            groups.setdefault(len(ids), []).append(i)
        for group in groups.values():
            ids_of_group = torch.tensor([rows[i] for i in group], device=self.words.weight.device)
            of_group = None if visual is None else visual[torch.tensor(group, device=self.words.weight.device)]
            embedded, mask = self.join(self.words(ids_of_group), torch.ones_like(ids_of_group), of_group)
            yield group, embedded, mask

    def _logits(self, embedded: Tensor, mask: Tensor, last: int) -> Tensor:
        """Float32 logits (N, last, vocabulary) of the last positions; of a large vocabulary no others are computed."""
        kept = {"logits_to_keep": last} if self._takes_logits_to_keep else {}
        return self.lm(inputs_embeds=embedded, attention_mask=mask, **kept).logits[:, -last:].float()  # type: ignore[no-any-return]

    def _check_length(self, length: int) -> None:
        """Raises UserError if the model does not read so many tokens."""
        most = getattr(self.lm.config, "max_position_embeddings", length)
        if length > most:
            raise UserError(
                f"the language model reads {most:,} tokens, and video, prompt and text have {length:,}: give fewer "
                "adapter.latents or adapter.max_tokens, a shorter adapter.prompt, or another lm"
            )
