"""Multiple choice through a frozen language model that reads a frozen encoder's tokens."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from evalkit.api import Batch, Encoder, Example, FeatureSpec, Prediction, Task
from evalkit.errors import UserError
from evalkit.heads.optim import Trained
from evalkit.language.models import check_prompt, load
from evalkit.language.reader import READER_SETTINGS, Continuation, Join, Temporal, VideoLanguageModel, steps

Scorer = Literal["likelihood", "likelihood_per_token", "pmi", "letter", "letter_said", "yes"]

# Adapters whose weights fit, and the settings of theirs that go with them: LongViViT's reader has learned to tell what
# happens, and EgoSchema, which has no training split, asks it how likely the options are.
TAKES = {"captioner": READER_SETTINGS}
PLAIN = "Question: {question} Answer:"
PROMPTS: dict[Scorer, str] = {
    "likelihood": PLAIN,
    "likelihood_per_token": PLAIN,
    "pmi": PLAIN,
    "letter": "Question: {question} Options: {options} Answer:",
    "letter_said": "Question: {question} Options: {options} Answer:",
    "yes": "Question: {question} Is it: {option}? Answer:",
}
YES, NO = "yes", "no"
SAID = 4  # tokens in which a letter must be named


class MultipleChoice(Trained):
    """Encoder tokens -> resampler -> a frozen language model, which is asked about each option."""

    trains_encoder = False

    def __init__(
        self,
        reader: VideoLanguageModel,
        feature_spec: FeatureSpec,
        scorer: Scorer,
        prompt: str,
        lr: float,
        weight_decay: float,
        epochs: int,
        batch_size: int,
    ) -> None:
        super().__init__(lr, weight_decay, epochs, batch_size)
        self.reader, self.scorer, self.prompt = reader, scorer, prompt
        self.feature_spec = feature_spec

    @property
    def frozen(self) -> dict[str, str]:
        """Hashes of the frozen parts that the trained weights belong to."""
        return {"lm": self.reader.sha256}

    def training_step(self, batch: Batch, index: int) -> Tensor:
        logprobs, mask = self.reader(self._lesson(batch.examples), batch.features[:, 0])
        return -(logprobs * mask).sum() / mask.sum()  # type: ignore[no-any-return]

    def predict(self, examples: list[Example], features: Tensor | None) -> list[Prediction]:
        """The option that the scorer prefers, of equals the first; none where a letter was to be said and was not."""
        if features is not None and features.shape[1] != 1:
            raise UserError("adapter=multiple_choice reads one view per video: set clip.clips=1 clip.crops=1")
        tokens = None if features is None else features[:, 0]
        if self.scorer == "letter_said":
            said = self.reader.generate([self._asks(example) for example in examples], tokens, 1, SAID)
            return [named(text, len(one.choices)) for (text, _), one in zip(said, examples, strict=True)]
        texts = [self._texts(example) for example in examples]
        asked = [
            Continuation(i, self._asks(one, option), text)
            for i, one in enumerate(examples)
            for option, text in zip(one.choices, texts[i], strict=True)
        ]
        logprobs, mask = self.reader(asked, tokens)
        sums, counts = (logprobs * mask).sum(-1), mask.sum(-1)
        values = sums / counts if self.scorer == "likelihood_per_token" else sums
        if self.scorer == "pmi":
            alone, own = self.reader(
                [Continuation(0, self.prompt.format(question=""), one.text) for one in asked], None
            )
            values = sums - (alone * own).sum(-1)
        lengths = [len(own) for own in texts]
        predictions = []
        for value, row, count in zip(*(torch.split(all_, lengths) for all_ in (values, sums, counts)), strict=True):
            detail = {"log_likelihood": [round(v, 5) for v in row.tolist()], "tokens": count.int().tolist()}
            predictions.append(Prediction(int(value.argmax()), detail))
        return predictions

    def _lesson(self, examples: Sequence[Example]) -> list[Continuation]:
        """What is right of each example, as the scorer will ask about it."""
        lesson = []
        for i, one in enumerate(examples):
            texts = self._texts(one)
            if self.scorer == "yes":
                texts = [YES if k == one.target else NO for k in range(len(texts))]
                lesson += [
                    Continuation(i, self._asks(one, o), text) for o, text in zip(one.choices, texts, strict=True)
                ]
            else:
                lesson.append(Continuation(i, self._asks(one), texts[one.target]))
        return lesson

    def _asks(self, example: Example, option: str = "") -> str:
        options = " ".join(f"{letter}: {text}" for letter, text in zip(LETTERS, example.choices, strict=False))
        return self.prompt.format(question=example.text, options=options, option=option)

    def _texts(self, example: Example) -> Sequence[str]:
        """For each option the text whose likelihood speaks for it."""
        if self.scorer == "yes":
            return [YES] * len(example.choices)
        return LETTERS[: len(example.choices)] if self.scorer.startswith("letter") else example.choices


LETTERS = string.ascii_uppercase


def named(said: str, options: int) -> Prediction:
    """The option whose letter a text names: the letter alone, first, or in brackets; else none, with the reason."""
    found = re.match(r"\W*([A-Za-z])(\W*$|[.):,])", said) or re.search(r"\(([A-Za-z])\)", said)
    place = LETTERS.index(found[1].upper()) if found else options
    if place < options:
        return Prediction(place, {"said": said})
    return Prediction(None, {"said": said, "failure": f"the answer {said[:60]!r} names none of {options} options"})


def adapter(
    encoder: Encoder,
    task: Task,
    *,
    lm: str = "",
    join: Join = "prefix",
    gate: bool = True,
    temporal: Temporal = "none",
    stride: Annotated[int, Gt(0)] = 4,
    latents: Annotated[int, Gt(0)] = 64,
    depth: Annotated[int, Gt(0)] = 2,
    scorer: Scorer = "likelihood",
    prompt: str = "",
    lr: Annotated[float, Gt(0)] = 3e-3,
    weight_decay: Annotated[float, Ge(0)] = 0.05,
    epochs: Annotated[int, Ge(0)] = 24,
    batch_size: Annotated[int, Gt(0)] = 32,
) -> MultipleChoice:
    """Answers multiple choice with a small frozen language model that reads the encoder's tokens.

    LongViViT's video-to-text recipe (https://arxiv.org/abs/2312.07395, section 3.2): frozen encoder, temporal pooling,
    Perceiver resampler, frozen language model. Only what stands between is trained, by the log-likelihood of what is
    right in the scorer's own words. What the literature calls similarity of video and text is adapter=contrastive or
    zero_shot.

    Args:
        lm: any causal language model of transformers, a local folder or hub id; empty means the embedded one.
        join: prefix puts the visual tokens before the prompt (VideoPrism, https://arxiv.org/abs/2402.13217, appendix
            G); cross_attention lets the words look at them before each layer of the model (LongViViT).
        gate: of cross-attention: a learned share, which starts at none.
        temporal: none keeps the tokens of all steps, strided those of every stride-th, mean averages them over time
            (LongViViT).
        stride: for temporal=strided.
        latents: visual tokens that the language model reads.
        depth: layers of the resampler.
        scorer: likelihood is the sum over an option's tokens, likelihood_per_token their mean, pmi the sum less that
            without video and question (https://arxiv.org/abs/2104.08315); letter is the likelihood of the option's
            letter after all options, letter_said the letter that the model says, none where it says another thing;
            yes is the likelihood of yes after question and option (FrozenBiLM, https://arxiv.org/abs/2206.08155).
        prompt: what stands between video and answer, with {question}, and {options} or {option}, where it has them;
            empty means the scorer's own.
        lr: peak learning rate.
        weight_decay: of the matrices.
        epochs: passes over the training examples.
        batch_size: examples in one training step.
    """
    asks = prompt or PROMPTS[scorer]
    needs = [f"{{{name}}}" for name in ("question", "options", "option") if f"{{{name}}}" in PROMPTS[scorer]]
    check_prompt(asks, needs)
    if any(not example.choices for example in (*task.train, *task.test)):
        raise UserError("adapter=multiple_choice needs questions with options; this task has none")
    most = max((len(example.choices) for example in (*task.train, *task.test)), default=0)
    if scorer.startswith("letter") and most > len(LETTERS):
        raise UserError(f"adapter.scorer={scorer}: a question has {most} options, for which there are no letters")
    model, tokenizer = load(lm)
    reader = VideoLanguageModel(encoder.dim, model, tokenizer, latents=latents, depth=depth, join=join, gate=gate)
    said = LETTERS[: max(1, most)] if scorer.startswith("letter") else (YES, NO) if scorer == "yes" else ()
    if unknown := [text for text in said if tokenizer.decode(reader.split(PLAIN, text)[1]).strip() != text]:
        raise UserError(
            f"adapter.scorer={scorer}: the language model's vocabulary has no {unknown[0]!r}; use another lm, "
            "or scorer=likelihood"
        )
    feature_spec = steps(temporal, stride)
    return MultipleChoice(reader, feature_spec, scorer, asks, lr, weight_decay, epochs, batch_size)
