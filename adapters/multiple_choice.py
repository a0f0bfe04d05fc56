"""Multiple choice through a frozen language model that reads a frozen encoder's tokens."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt
from torch import Tensor

from evalkit.api import Batch, Encoder, Example, Prediction, Task
from evalkit.canary.finding import Finding
from evalkit.errors import UserError
from evalkit.heads.adapter import Training
from evalkit.heads.optim import Trained
from evalkit.language.models import check_prompt, load
from evalkit.language.reader import READER_SETTINGS, Continuation, ReaderSettings, VideoLanguageModel, steps

Scorer = Literal["likelihood", "likelihood_per_token", "pmi", "letter", "letter_said", "yes"]

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


@dataclass(frozen=True)
class Settings(Training, ReaderSettings):
    """Settings of `adapter=multiple_choice`.

    Attributes:
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

    # LongViViT's reader has learned to describe what happens, and EgoSchema, which has no training split, asks it how
    # likely the options are.
    COMPATIBLE_ADAPTERS: ClassVar[Mapping[str, Sequence[str]]] = {"captioner": READER_SETTINGS}

    scorer: Scorer = "likelihood"
    prompt: str = ""
    lr: Annotated[float, Gt(0)] = 3e-3
    weight_decay: Annotated[float, Ge(0)] = 0.05
    epochs: Annotated[int, Ge(0)] = 24
    batch_size: Annotated[int, Gt(0)] = 32


class MultipleChoice(Trained):
    """Encoder tokens -> resampler -> a frozen language model, which is asked about each option."""

    needs_video = False
    single_view = True

    def __init__(self, reader: VideoLanguageModel, settings: Settings) -> None:
        super().__init__(settings)
        self.reader, self.scorer = reader, settings.scorer
        self.prompt = settings.prompt or PROMPTS[settings.scorer]
        self.feature_spec = steps(settings.temporal, settings.stride)

    @property
    def frozen(self) -> dict[str, str]:
        """Hashes of the frozen parts that the trained weights belong to."""
        return {"lm": self.reader.sha256}

    @property
    def findings(self) -> Sequence[Finding]:
        return self.reader.findings

    def training_step(self, batch: Batch, index: int) -> Tensor:
        return self.reader.loss(self._lesson(batch.examples), batch.features[:, 0])

    def predict(self, examples: Sequence[Example], features: Tensor | None) -> list[Prediction]:
        """The option that the scorer prefers, of equals the first; none where a letter was to be said and was not."""
        tokens = None if features is None else features[:, 0]
        if self.scorer == "letter_said":
            answers = self.reader.generate([self._asks(example) for example in examples], tokens, 1, SAID)
            return [named(text, len(example.choices)) for (text, _), example in zip(answers, examples, strict=True)]
        texts = [self._texts(example) for example in examples]
        continuations = [
            Continuation(i, self._asks(example, option), text)
            for i, example in enumerate(examples)
            for option, text in zip(example.choices, texts[i], strict=True)
        ]
        likelihoods = self.reader.loglikelihoods(continuations, tokens)
        values = [likelihood.logprob for likelihood in likelihoods]
        if self.scorer == "likelihood_per_token":
            values = [logprob / count for logprob, count in likelihoods]
        if self.scorer == "pmi":
            prompt = self.prompt.format(question="")
            alone = self.reader.loglikelihoods([c._replace(context=prompt) for c in continuations])
            values = [value - likelihood.logprob for value, likelihood in zip(values, alone, strict=True)]
        predictions, start = [], 0
        for options in texts:
            some = slice(start, start := start + len(options))
            detail = {
                "log_likelihood": [round(logprob, 5) for logprob, _ in likelihoods[some]],
                "tokens": [count for _, count in likelihoods[some]],
            }
            predictions.append(Prediction(values[some].index(max(values[some])), detail))
        return predictions

    def _lesson(self, examples: Sequence[Example]) -> list[Continuation]:
        """What is right of each example, as the scorer will ask about it."""
        lesson = []
        for i, example in enumerate(examples):
            texts = self._texts(example)
            if self.scorer == "yes":
                texts = [YES if k == example.target else NO for k in range(len(texts))]
                lesson += [
                    Continuation(i, self._asks(example, o), text)
                    for o, text in zip(example.choices, texts, strict=True)
                ]
            else:
                lesson.append(Continuation(i, self._asks(example), texts[example.target]))
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

# A letter names an option where it stands by itself: at the start with a mark (B. or B:), in brackets, after "answer"
# or "I think", or alone. Before any other word it may be a word: A, I, and C, EgoSchema's name of the camera wearer.
_END = r"[\W_]*$"
_REASON = (
    r"\s*,?\s+(?:because|since|as(?!\s+in\b)|(?:is|was|would\s+be|seems)\s+(?:right|correct|the|my|most|best|likely))\b"
)
_AFTER = rf"(?={_END}|\s*[.):\]/](?:\s|$|[a-z]{{3}})|\s*,|\s+[-–—]\s|\s+(?:or|and)\b|{_REASON})"
_MARKED = re.compile(r"\A(?![(\[{])[\W_]*?([A-Za-z])(?:\s*[):\]]|\.(?=\s|$|[a-z]{3})|\s+[-–—]\s)")
_STATED = re.compile(
    r"\b(?i:answer|ans|option|choice)\b(?:\s+(?i:is|was|would\s+be))?([\W_]*)(?:([B-HJ-Zb-hj-z])(?![\w'’.-]\w|\w)"
    rf"|(?:(A|I){_AFTER})|([ai])(?={_END}))"
)
_BRACKETED = re.compile(r"[(\[{]\s*([A-Za-z])\s*[)\]}]")
_FIRST = re.compile(rf"\A[\W_]*(?:([A-Z]){_AFTER}|([a-z])(?:{_END}|(?=\s*,)))")
_MEANT = re.compile(
    r"\b(?i:is|be|it's|think|say|said|guess|choose|pick|select|with|therefore|thus|hence|so|but)\b[\W_]+"
    rf"(?:(?i:it)(?:'s|\s+is)\s+)?([A-Z]){_AFTER}"
)
_ANOTHER = re.compile(
    rf"[\s)\].]*(?:[,/&]|\b(?:or|and|nor)\b)\s*(?:(?:or|and|nor|maybe|perhaps|possibly)\s+)*[(\[]?([A-Za-z]){_AFTER}"
)
_DENIED = re.compile(r"\b(?:not|isn't|neither|except)[\W_]+(?:option\s+)?[(\[{]?$", re.I)
_WRONG = re.compile(r"[)\]}\s]*(?:is|was|seems)\s+(?:wrong|incorrect|false|not)\b", re.I)
_THOUGHT = re.compile(r"<think>.*?</think>|<[^<>\s]{1,20}>", re.S)
_OPENING = re.compile(r"(?:[:!]|\b(?:is|assistant))$", re.I)  # a line that the answer follows


def named(answer: str, options: int) -> Prediction:
    """The option whose letter a text names; none, with the reason, where it names none or several.

    That is the letter after "answer" or "option", at its start (B., B because), in brackets, or after "I think", in the
    first line; in the next, where that only leads up to it ("The answer is").
    """
    letter = _letter(answer)
    place = LETTERS.index(letter) if letter else options
    if place < options:
        return Prediction(place, {"said": answer})
    return Prediction(None, {"said": answer, "failure": f"the answer {answer[:60]!r} names none of {options} options"})


def _letter(answer: str) -> str | None:
    text = _THOUGHT.sub(" ", unicodedata.normalize("NFKC", answer))
    for line in filter(None, map(str.strip, text.split("\n"))):
        if letters := _letters(line):
            return letters.pop() if len(letters) == 1 else None
        if not _OPENING.search(line) or line.lower().startswith("question"):
            return None
    return None


def _letters(line: str) -> set[str]:
    """The letters that a line names, in the first way of naming that it has."""
    for form in (_STATED, _MARKED, _BRACKETED, _FIRST, _MEANT):
        letters: set[str] = set()
        for match in form.finditer(line):
            group = next(i for i in range(match.re.groups, 0, -1) if match[i])
            if _DENIED.search(line, 0, match.start(group)) or _WRONG.match(line, match.end(group)):
                continue
            if form is _STATED and group == 4 and ":" not in match[1]:  # "the answer is a" goes on
                continue
            letters.add(match[group].upper())
            if another := _ANOTHER.match(line, match.end(group)):
                letters.add(another[1].upper())
        if letters:
            return letters
    return set()


def adapter(encoder: Encoder, task: Task, points: Sequence[Settings]) -> MultipleChoice:
    """Answers multiple choice with a small frozen language model that reads the encoder's tokens.

    LongViViT's video-to-text recipe (https://arxiv.org/abs/2312.07395, section 3.2): frozen encoder, temporal pooling,
    Perceiver resampler, frozen language model. Only what stands between is trained, by the log-likelihood of what is
    right in the scorer's own words. What the literature calls similarity of video and text is adapter=contrastive or
    zero_shot.
    """
    (settings,) = points
    scorer = settings.scorer
    needs = [f"{{{name}}}" for name in ("question", "options", "option") if f"{{{name}}}" in PROMPTS[scorer]]
    check_prompt(settings.prompt or PROMPTS[scorer], needs)
    if any(not example.choices for example in (*task.train, *task.test)):
        raise UserError("adapter=multiple_choice needs questions with options; this task has none")
    most = max((len(example.choices) for example in (*task.train, *task.test)), default=0)
    if scorer.startswith("letter") and most > len(LETTERS):
        raise UserError(f"adapter.scorer={scorer}: a question has {most} options, for which there are no letters")
    model, tokenizer = load(settings.lm, precision=settings.lm_precision)
    reader = VideoLanguageModel(
        encoder.dim,
        model,
        tokenizer,
        latents=settings.latents,
        depth=settings.depth,
        join=settings.join,
        gate=settings.gate,
    )
    words = LETTERS[: max(1, most)] if scorer.startswith("letter") else (YES, NO) if scorer == "yes" else ()
    if unknown := [
        text for text in words if tokenizer.decode(reader.split_options(PLAIN, [text])[1][0]).strip() != text
    ]:
        raise UserError(
            f"adapter.scorer={scorer}: the language model's vocabulary has no {unknown[0]!r}; use another lm, "
            "or scorer=likelihood"
        )
    return MultipleChoice(reader, settings)
