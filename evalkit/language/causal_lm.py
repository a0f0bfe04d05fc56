"""A causal language model with its tokenizer: log-likelihoods and texts, from text and visual tokens."""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evalkit.canary.finding import Finding
from evalkit.errors import UserError, one_line
from evalkit.language.context_length import ContextLength
from evalkit.language.continuations import Continuation as Continuation
from evalkit.language.continuations import Generated, Row
from evalkit.language.continuations import Likelihood as Likelihood
from evalkit.language.examine import options, repeated, rows_of_head, traits
from evalkit.language.generation import BrokenRows, generate_greedily
from evalkit.language.joins import Join, VisualPrefix
from evalkit.language.prompts import Prompts
from evalkit.language.templates import Template
from evalkit.weights import checkpoint

# What a pass of likelihoods holds at most, unless one text alone is longer: tokens whose keys and values are kept,
# padding included, and bytes of float32 logits.
MOST_POSITIONS = 8192
MOST_LOGITS = 2**28
# A pass with so many tokens is ended before a row that would fill less than this share of its length.
FEW_POSITIONS, LEAST_FILLED = 256, 0.85
NO_TEXT = "the language model gives NaN in place of a text"


class LanguageModel(nn.Module):
    """A causal language model: how likely texts are, and what it generates.

    Args:
        lm: a causal language model of transformers.
        tokenizer: its tokenizer.
        frozen: keep its weights and evaluation mode.

    Attributes:
        vocabulary: hash of the tokens.
        traits: what was measured of the model.
        context_length: how many tokens it reads.
        join: how the model reads visual tokens; here before the words.
        prompts: token ids of what is asked, in a template.

    Raises:
        UserError: the model is not causal, or does not read text by itself.
    """

    def __init__(self, lm: nn.Module, tokenizer: Any, frozen: bool = True) -> None:
        super().__init__()
        self.lm, self.frozen = lm.eval().requires_grad_(not frozen), frozen
        self.tokenizer, self.prompts = tokenizer, Prompts(tokenizer)
        pieces = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
        self.vocabulary = hashlib.sha256(repr(pieces).encode()).hexdigest()  # plain, so that `architecture` tells it
        self.traits = traits(lm)
        self.context_length = ContextLength(lm.config, self.traits.window)
        self.join: Join = VisualPrefix()

    @property
    def template(self) -> Template:
        """What stands around each prompt."""
        return self.prompts.template

    @property
    def words(self) -> nn.Embedding:
        return self.lm.get_input_embeddings()  # type: ignore[operator,no-any-return]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was measured of the model, for the record."""
        return self.traits.findings

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

    @property
    def ends(self) -> list[int]:
        """Ids of the tokens that end a text: the tokenizer's, those of the model's configurations and the template's.

        Raises:
            UserError: there is none.
        """
        stated = getattr(getattr(self.lm, "generation_config", None), "eos_token_id", None)
        named = [*stated] if isinstance(stated, list | tuple) else [stated]
        named += [self.tokenizer.eos_token_id, self.tokenizer.get_vocab().get(self.template.end)]
        known = {token for token in named if type(token) is int and 0 <= token < self.words.num_embeddings}
        return sorted(known) or [self.eos]

    def train(self, mode: bool = True) -> LanguageModel:
        super().train(mode)
        if self.frozen:
            self.lm.eval()
        return self

    @torch.no_grad()
    def loglikelihoods(self, continuations: Sequence[Continuation], tokens: Tensor | None = None) -> list[Likelihood]:
        """Log-probability of each text after its context, whatever else is asked.

        Texts after the same context about the same video are cut at their shortest common prompt (`split_options`), and
        share what the model has read of it, where its cache allows that. Logits are computed of the texts alone, in
        passes of at most `MOST_LOGITS` bytes and `MOST_POSITIONS` tokens, sorted by length. Keys and values are held of
        one pass and of the contexts that it goes on from, which are at most as many tokens.

        Args:
            continuations: video, context and text of each; one that is longer than the model reads is a failure.
            tokens: one row per video, as `visual_tokens` takes them; None for words alone.
        """
        visual = self.visual_tokens(tokens)
        logprobs = [0.0] * len(continuations)
        asked: dict[tuple[int, ...], list[Row]] = {}
        rows = self.prompts.rows(continuations, visual is not None)
        more = self.join.positions(visual)
        failures = [self.context_length.failure(row.length + more, visual is not None) for row in rows]
        for row, failure in zip(rows, failures, strict=True):
            if failure:
                logprobs[row.place] = math.nan
            else:
                asked.setdefault((row.video, *row.context), []).append(row)
        alone: list[Row] = []
        by_length: dict[int, list[list[Row]]] = {}  # equal lengths, so that nothing stands between context and text
        for group in asked.values():
            context = len(group[0].context)
            sharing = [row for row in group if self._goes_on(row, visual)]
            if self.traits.cache and len(sharing) > 1 and context > 1:
                by_length.setdefault(context, []).append(sharing)
                group = [row for row in group if not self._goes_on(row, visual)]
            alone += group
        for batch in self._batches(alone, visual):
            inputs, starts = self._inputs(batch, visual)
            self._score(inputs, batch, starts, logprobs)
        for length, groups in by_length.items():
            most = max(1, MOST_POSITIONS // (length + more))
            for start in range(0, len(groups), most):
                self._score_after_contexts(groups[start : start + most], visual, logprobs)
        counts = [len(row.text) for row in rows]
        return [Likelihood(*of_text) for of_text in zip(logprobs, counts, failures, strict=True)]

    def loss(self, continuations: Sequence[Continuation], tokens: Tensor | None, end: bool = False) -> Tensor:
        """Mean negative log-likelihood over all tokens of the texts, with its gradient.

        Args:
            continuations: video, context and text of each.
            tokens: one row per video, as `visual_tokens` takes them; None for words alone.
            end: learn the token that ends the text, too.
        """
        visual = self.visual_tokens(tokens)
        rows = self.prompts.rows(continuations, visual is not None)
        if end:
            rows = [row._replace(text=[*row.text, self.eos]) for row in rows]
        longest = max(row.length for row in rows) + self.join.positions(visual)
        if failure := self.context_length.failure(longest, visual is not None):
            raise UserError(failure)
        inputs, starts = self._inputs(rows, visual)
        at, targets = self._texts(rows, starts)
        return F.cross_entropy(self._logits(inputs, *at), targets)

    forward = loss

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[str], tokens: Tensor | None = None, beams: int = 1, most: int = 32
    ) -> list[Generated]:
        """Generate a text after each prompt; none where logits hold NaN, or the model does not read so much.

        Greedy with one beam. Prompts of equal length go together, so that nothing is padded and no text depends on what
        else is in its batch.

        Args:
            prompts: one per video.
            tokens: one row per prompt, as `visual_tokens` takes them; None for words alone.
            beams: width of the beam search.
            most: new tokens at most.

        Raises:
            UserError: the model searches no beams, or transformers cannot generate with it.
        """
        texts = [Generated("")] * len(prompts)
        ends = self.ends
        for group, inputs in self._equal_lengths(prompts, tokens):
            length = inputs["attention_mask"].shape[1]
            if failure := self.context_length.failure(length + most, tokens is not None, length):
                for i in group:
                    texts[i] = Generated(None, failure=failure)
                continue
            broken = BrokenRows(len(group))
            generate = self.lm.generate if self._generates_after(inputs) else self._generate_greedily
            try:
                generated = generate(  # type: ignore[operator]
                    **inputs,
                    max_new_tokens=most,
                    num_beams=beams,
                    do_sample=False,
                    eos_token_id=ends,
                    pad_token_id=ends[0],
                    logits_processor=[broken],
                )
            except (UserError, torch.OutOfMemoryError):
                raise
            except Exception as error:  # transformers' own, of a kind of model with which its `generate` cannot go on
                kind = type(self.lm).__name__
                raise UserError(
                    f"transformers generates no texts with {kind}: {one_line(error)}; take another lm="
                ) from error
            given = inputs["input_ids"].shape[1] if "input_ids" in inputs else 0
            for i, ids, bad in zip(group, generated[:, given:].tolist(), broken.rows, strict=True):
                length = next((n for n, token in enumerate(ids) if token in ends), len(ids))
                text = self.tokenizer.decode(ids[:length], skip_special_tokens=True).strip()
                texts[i] = Generated(None, failure=NO_TEXT) if bad else Generated(text, length < len(ids))
        return texts

    @torch.no_grad()
    def next_token_logprobs(self, prompts: Sequence[str], tokens: Tensor | None = None) -> tuple[Tensor, list[str]]:
        """Log-probabilities of the token after each prompt (B, vocabulary), float32; arguments as `generate`.

        NaN after a prompt that is longer than the model reads, with the reason; the others' reasons are empty.
        """
        rows: dict[int, Tensor] = {}
        failures = [""] * len(prompts)
        for group, inputs in self._equal_lengths(prompts, tokens):
            if failure := self.context_length.failure(inputs["attention_mask"].shape[1], tokens is not None):
                for i in group:
                    failures[i] = failure
                continue
            at = torch.arange(len(group), device=self.words.weight.device)
            logits = self._logits(inputs, at, torch.full_like(at, inputs["attention_mask"].shape[1] - 1))
            rows |= zip(group, logits.log_softmax(-1), strict=True)
        some = next(iter(rows.values()), self.words.weight[:, 0].float())
        unread = torch.full_like(some, math.nan)
        return torch.stack([rows.get(i, unread) for i in range(len(prompts))]), failures

    def visual_tokens(self, tokens: Tensor | None) -> Tensor | None:
        """Visual tokens (B, P, W) that are joined with the words: here those given, of the word embeddings' width."""
        return tokens

    @property
    def _most_scored(self) -> int:
        """Tokens whose logits are computed at once."""
        return max(1, MOST_LOGITS // (4 * self.words.num_embeddings))

    def _goes_on(self, row: Row, visual: Tensor | None) -> bool:
        """Whether a text can go on from its cached context, with all of its logits in one pass."""
        read = len(row.context) + self.join.positions(visual) - 1  # the last token of neither is read
        fits = len(row.text) <= self._most_scored
        return fits and not self.context_length.crosses(read, read + len(row.text))

    def _batches(self, rows: Sequence[Row], visual: Tensor | None) -> Iterator[list[Row]]:
        """Yield rows of similar length, as many as fit into one pass, the longest first."""
        more, batch, scored = self.join.positions(visual), list[Row](), 0
        for row in sorted(rows, key=lambda row: row.length, reverse=True):
            longest = (batch or [row])[0].length + more
            full = (len(batch) + 1) * longest > MOST_POSITIONS or scored + len(row.text) > self._most_scored
            padded = len(batch) * longest >= FEW_POSITIONS and row.length + more < LEAST_FILLED * longest
            if batch and (full or padded or self.context_length.crosses(row.length + more - 1, longest - 1)):
                yield batch
                batch, scored = [], 0
            batch.append(row)
            scored += len(row.text)
        if batch:
            yield batch

    def _inputs(self, rows: Sequence[Row], visual: Tensor | None) -> tuple[dict[str, Any], list[int]]:
        """The model's inputs of whole rows, and of each the position that predicts its text's first token."""
        ids, mask = self._padded([row.context + row.text[:-1] for row in rows])
        inputs = self.join.inputs(self.words, ids, mask, _of(visual, rows))
        return inputs, [self.join.positions(visual) + len(row.context) - 1 for row in rows]

    def _score_after_contexts(
        self, groups: Sequence[Sequence[Row]], visual: Tensor | None, logprobs: list[float]
    ) -> None:
        """Write the log-probabilities of texts after contexts of equal length, each of which is read once."""
        firsts = [group[0] for group in groups]
        ids, mask = self._padded([row.context[:-1] for row in firsts])
        inputs = self.join.inputs(self.words, ids, mask, _of(visual, firsts))
        before = inputs["attention_mask"]
        one = torch.zeros(1, dtype=torch.long, device=ids.device)
        past = self._run({**inputs, "use_cache": True}, one, one).past_key_values
        place_of = {row.place: k for k, group in enumerate(groups) for row in group}
        for batch in self._batches([row for group in groups for row in group], visual):
            ids, mask = self._padded([row.context[-1:] + row.text[:-1] for row in batch])
            kept = torch.tensor([place_of[row.place] for row in batch], device=ids.device)
            inputs = self.join.further(ids, torch.cat([before[kept], mask], 1), _of(visual, batch))
            cached = {**inputs, "past_key_values": repeated(past, kept), "use_cache": True}
            self._score(cached, batch, [0] * len(batch), logprobs)

    def _score(
        self, inputs: Mapping[str, Any], rows: Sequence[Row], starts: Sequence[int], logprobs: list[float]
    ) -> None:
        """Add the log-probability of each token of the rows' texts to their places."""
        (of_row, columns), targets = self._texts(rows, starts)
        places = [row.place for row in rows for _ in row.text]
        done = 0
        for start in range(0, len(targets), self._most_scored):
            some = slice(start, start + self._most_scored)
            losses = F.cross_entropy(self._logits(inputs, of_row[some], columns[some]), targets[some], reduction="none")
            for loss in losses.tolist():
                logprobs[places[done]] -= loss
                done += 1

    def _texts(self, rows: Sequence[Row], starts: Sequence[int]) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Row and position that predict each token of the texts, and these tokens, each flat."""
        device = self.words.weight.device
        flat = [(k, start + j) for k, start in enumerate(starts) for j in range(len(rows[k].text))]
        of_row, columns = torch.tensor(flat, device=device).unbind(1)
        return (of_row, columns), torch.tensor([token for row in rows for token in row.text], device=device)

    def _padded(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Token ids with zeros to the right, and which of them are tokens: both (N, L)."""
        longest, device = max(map(len, rows)), self.words.weight.device
        ids = [[*row, *[0] * (longest - len(row))] for row in rows]
        mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)

    def _equal_lengths(
        self, prompts: Sequence[str], tokens: Tensor | None
    ) -> Iterator[tuple[list[int], dict[str, Any]]]:
        """Yield prompts of equal length: their indices, and the model's inputs."""
        rows = [self.prompts.encode(prompt) for prompt in prompts]
        visual = self.visual_tokens(tokens)
        groups: dict[int, list[int]] = {}
        for i, ids in enumerate(rows):
            groups.setdefault(len(ids), []).append(i)
        for group in groups.values():
            ids_of_group, mask = self._padded([rows[i] for i in group])
            of_group = None if visual is None else visual[torch.tensor(group, device=visual.device)]
            yield group, self.join.inputs(self.words, ids_of_group, mask, of_group)

    def _generates_after(self, inputs: Mapping[str, Any]) -> bool:
        """Whether the model's own `generate` goes on from such inputs; that of some takes no embeddings."""
        prepare = self.lm.prepare_inputs_for_generation
        return "input_ids" in inputs or "inputs_embeds" in inspect.signature(prepare).parameters  # type: ignore[arg-type]

    def _generate_greedily(
        self, inputs_embeds: Tensor, attention_mask: Tensor, num_beams: int, **settings: Any
    ) -> Tensor:
        """New tokens (N, at most max_new_tokens), all of the text read again for each, as `generate` gives them."""
        if num_beams > 1:
            raise UserError(
                f"adapter.beams={num_beams}: {type(self.lm).__name__} searches no beams with join=prefix: use "
                "adapter.beams=1, or adapter.join=cross_attention"
            )
        at = torch.arange(len(inputs_embeds), device=inputs_embeds.device)

        def read(embedded: Tensor, mask: Tensor) -> Tensor:
            inputs = {"inputs_embeds": embedded, "attention_mask": mask}
            return self._logits(inputs, at, torch.full_like(at, embedded.shape[1] - 1))

        return generate_greedily(read, self.words, inputs_embeds, attention_mask, **settings)

    def _run(self, inputs: Mapping[str, Any], rows: Tensor, columns: Tensor) -> Any:
        """The model's output, its logits (1, M, vocabulary) of these positions alone where the model allows that."""
        given: dict[str, Any] = {**options(self.lm, use_cache=False), **inputs}
        if not self.traits.rows:
            return self.lm(**given)
        with rows_of_head(self.lm, rows, columns):
            return self.lm(**given)

    def _logits(self, inputs: Mapping[str, Any], rows: Tensor, columns: Tensor) -> Tensor:
        """Float32 logits (M, vocabulary) of these positions."""
        logits = self._run(inputs, rows, columns).logits
        return (logits[0] if self.traits.rows else logits[rows, columns]).float()  # type: ignore[no-any-return]


def _of(visual: Tensor | None, rows: Sequence[Row]) -> Tensor | None:
    """The visual tokens of each row."""
    return None if visual is None else visual[torch.tensor([row.video for row in rows], device=visual.device)]
