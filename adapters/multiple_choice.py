"""Multiple choice through a frozen language model that reads a frozen encoder's tokens."""

from __future__ import annotations

import logging
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt
from torch import Tensor

from evalkit.api import Batch, Encoder, Example, Prediction, Task
from evalkit.canary.finding import Finding
from evalkit.errors import UserError
from evalkit.heads.adapter import Training
from evalkit.heads.optim import Trained
from evalkit.language.answers import LETTERS, Stop, cut, failed, lettered, likeliest
from evalkit.language.causal_lm import LanguageModel
from evalkit.language.models import check_prompt
from evalkit.language.reader import READER_SETTINGS, Continuation, ReaderSettings, steps
from evalkit.language.served import ServedModel
from evalkit.language.source import describe, frozen_parts, loss_origin, open_reader
from evalkit.language.templates import TemplateChoice

logger = logging.getLogger("evalkit")

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
SAID, SAID_IN_CHAT = 4, 16  # tokens in which a letter must be named; instruct models speak in sentences


@dataclass(frozen=True)
class Settings(Training, ReaderSettings):
    """Settings of `adapter=multiple_choice`.

    Attributes:
        scorer: likelihood sums the log-probabilities of an option's tokens, likelihood_per_token averages them, pmi
            subtracts the sum without video and question (https://arxiv.org/abs/2104.08315); letter is the likelihood of
            the option's letter after all options, letter_said the letter that the model generates, if any; yes is the
            likelihood of yes after question and option (FrozenBiLM, https://arxiv.org/abs/2206.08155).
        prompt: text between video and answer, with {question}, and {options} or {option} if needed; empty means the
            scorer's default.
        template: none uses plain text, chat the language model's chat template, auto the chat template if there is one.
        stop: where generation stops for letter_said: question, where a base model starts the next question; line, after
            the first line; none, nowhere.
        lr: peak learning rate.
        weight_decay: weight decay of the matrices.
        epochs: passes over the training examples.
        batch_size: examples per training step.
    """

    # LongViViT's reader has learned to describe what happens, and EgoSchema, which has no training split, asks it how
    # likely the options are.
    COMPATIBLE_ADAPTERS: ClassVar[Mapping[str, Sequence[str]]] = {"captioner": (*READER_SETTINGS, "template")}
    TRAINED_WITH: ClassVar[tuple[str, ...]] = ("temporal", "stride")
    TEXT_ONLY: ClassVar[bool] = True

    scorer: Scorer = "likelihood"
    prompt: str = ""
    template: TemplateChoice = "auto"
    stop: Stop = "question"
    lr: Annotated[float, Gt(0)] = 3e-3
    weight_decay: Annotated[float, Ge(0)] = 0.05
    epochs: Annotated[int, Ge(0)] = 24
    batch_size: Annotated[int, Gt(0)] = 32


class MultipleChoice(Trained):
    """Encoder tokens -> resampler -> a frozen language model, which is asked about each option."""

    needs_video = False
    single_view = True

    def __init__(self, reader: LanguageModel | ServedModel, settings: Settings) -> None:
        super().__init__(settings)
        self.reader, self.stop, self.lm = reader, settings.stop, settings.lm
        self.scorer, self.asked_scorer = settings.scorer, settings.scorer
        if isinstance(reader, ServedModel) and settings.scorer != "letter_said" and reader.tells != "echo":
            self.scorer = "letter" if reader.tells == "letters" else "letter_said"
        self.prompt = settings.prompt or PROMPTS[self.scorer]
        self.feature_spec = steps(settings.temporal, settings.stride)

    @property
    def frozen(self) -> dict[str, str]:
        """Hashes of the frozen parts that the trained weights belong to; the scorer where a server needs another."""
        other = {} if self.scorer == self.asked_scorer else {"scored_by": self.scorer}
        return {**frozen_parts(self.reader), **other}

    def describe_language_model(self, example: Example) -> dict[str, Any]:
        return describe(self.reader, self.lm, self._asks(example, example.choices[0]))

    @property
    def findings(self) -> Sequence[Finding]:
        return self.reader.findings

    def training_step(self, batch: Batch, index: int) -> Tensor:
        assert isinstance(self.reader, LanguageModel)
        return self.reader.loss(self._lesson(batch.examples), batch.features[:, 0])

    def loss_origin(self, batch: Batch) -> str:
        return loss_origin(self.reader, self._lesson(batch.examples), batch) or super().loss_origin(batch)

    def predict(self, examples: Sequence[Example], features: Tensor | None) -> list[Prediction]:
        """The option with the best score, the first of several; None if a letter should be generated and was not."""
        tokens = None if features is None else features[:, 0]
        if self.scorer == "letter_said":
            most = SAID if self.reader.template.name == "none" else SAID_IN_CHAT
            answers = self.reader.generate([self._asks(example) for example in examples], tokens, 1, most)
            return [
                failed(failure) if text is None else named(cut(text, self.stop)[0], len(example.choices))
                for (text, _, failure), example in zip(answers, examples, strict=True)
            ]
        if isinstance(self.reader, ServedModel) and self.reader.tells == "letters":
            return self._letters_of_server(self.reader, examples)
        texts = [self._texts(example) for example in examples]
        continuations = [
            Continuation(i, self._asks(example, option), text)
            for i, example in enumerate(examples)
            for option, text in zip(example.choices, texts[i], strict=True)
        ]
        likelihoods = self.reader.loglikelihoods(continuations, tokens)
        values = [logprob for logprob, _, _ in likelihoods]
        if self.scorer == "likelihood_per_token":
            values = [logprob / count if count else math.nan for logprob, count, _ in likelihoods]
        if self.scorer == "pmi":
            prompt = self.prompt.format(question="")
            alone = self.reader.loglikelihoods([c._replace(context=prompt) for c in continuations])
            values = [value - likelihood.logprob for value, likelihood in zip(values, alone, strict=True)]
        predictions, start = [], 0
        for options in texts:
            some = slice(start, start := start + len(options))
            detail = {
                "log_likelihood": [round(logprob, 5) for logprob, _, _ in likelihoods[some]],
                "tokens": [count for _, count, _ in likelihoods[some]],
            }
            if self.scorer == "pmi":  # which nothing else in the row tells
                detail["pmi"] = [round(value, 5) for value in values[some]]
            failures = [failure for *_, failure in likelihoods[some]]
            predictions.append(likeliest(values[some], range(len(options)), detail, failures))
        return predictions

    def _letters_of_server(self, server: ServedModel, examples: Sequence[Example]) -> list[Prediction]:
        """The options whose letters are likeliest among the next tokens that a server lists."""
        most = max(len(example.choices) for example in examples)
        rows = server.letter_logprobs([self._asks(example) for example in examples], LETTERS[:most])
        predictions = []
        for example, row in zip(examples, rows, strict=True):
            scores = row[: len(example.choices)]
            predictions.append(likeliest(scores, range(len(scores)), {"log_likelihood": [round(v, 5) for v in scores]}))
        return predictions

    def _lesson(self, examples: Sequence[Example]) -> list[Continuation]:
        """The right answer of each example, in the form that the scorer uses."""
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
        return self.prompt.format(question=example.text, options=lettered(example.choices), option=option)

    def _texts(self, example: Example) -> Sequence[str]:
        """For each option the text whose likelihood speaks for it."""
        if self.scorer == "yes":
            return [YES] * len(example.choices)
        return LETTERS[: len(example.choices)] if self.scorer.startswith("letter") else example.choices


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
    """Answers multiple-choice questions with a small frozen language model that reads the encoder's tokens.

    LongViViT's video-to-text recipe (https://arxiv.org/abs/2312.07395, section 3.2): frozen encoder, temporal pooling,
    Perceiver resampler, frozen language model. Only the modules in between are trained, on the log-likelihood of the
    right answer in the scorer's format. For similarity of video and text, use adapter=contrastive or zero_shot.
    """
    (settings,) = points
    scorer = settings.scorer
    needs = [f"{{{name}}}" for name in ("question", "options", "option") if f"{{{name}}}" in PROMPTS[scorer]]
    check_prompt(settings.prompt or PROMPTS[scorer], needs)
    if any(not example.choices for example in (*task.train, *task.test)):
        raise UserError("adapter=multiple_choice needs questions with options; this task has none")
    most = max((len(example.choices) for example in (*task.train, *task.test)), default=0)
    choice = MultipleChoice(open_reader(encoder, settings, settings.template), settings)
    reader = choice.reader
    if choice.scorer.startswith("letter") and most > len(LETTERS):
        raise UserError(
            f"adapter.scorer={choice.scorer}: a question has {most} options, for which there are no letters"
        )
    if settings.stop != Settings.stop and choice.scorer != "letter_said":
        raise UserError(
            f"adapter.stop={settings.stop} has no effect with adapter.scorer={choice.scorer}, which says nothing: "
            "leave it out, or give adapter.scorer=letter_said"
        )
    if isinstance(reader, ServedModel):
        if choice.scorer != scorer:
            given = "only the likeliest next tokens" if reader.tells == "letters" else "no log-probabilities"
            logger.warning(
                f"lm={settings.lm} gives {given}, so that adapter.scorer={choice.scorer} is used in place of {scorer}"
            )
            check_prompt(choice.prompt, ["{question}", "{options}"])
        return choice
    words = LETTERS[: max(1, most)] if scorer.startswith("letter") else (YES, NO) if scorer == "yes" else ()
    for word in words:
        ids = reader.prompts.split_options(PLAIN, [word])[1][0]
        if reader.tokenizer.decode(ids).strip() != word:
            raise UserError(
                f"adapter.scorer={scorer}: the language model's vocabulary has no {word!r}; use another lm, "
                "or scorer=likelihood"
            )
    return choice
