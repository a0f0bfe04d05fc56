"""A frozen encoder's tokens in words: captions, summaries and open answers, by a small language model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt
from torch import Tensor

from evalkit.api import Batch, Encoder, Example, Prediction, Task
from evalkit.canary.finding import Finding
from evalkit.errors import UserError
from evalkit.heads.adapter import Training
from evalkit.heads.optim import Trained
from evalkit.language.answers import Stop, cut, failed, likeliest
from evalkit.language.causal_lm import LanguageModel
from evalkit.language.continuations import Generated
from evalkit.language.models import check_prompt, untrained
from evalkit.language.reader import READER_SETTINGS, Continuation, Join, ReaderSettings, steps
from evalkit.language.served import ServedModel
from evalkit.language.source import describe, frozen_parts, loss_origin, open_reader
from evalkit.language.templates import TemplateChoice

Answers = Literal["open", "closed"]


@dataclass(frozen=True)
class Settings(Training, ReaderSettings):
    """Settings of `adapter=captioner`.

    Attributes:
        prompt: text before the answer, with {question} for the example's question; it may contain example questions and
            answers.
        template: none uses plain text, chat the language model's chat template, auto the chat template if there is one.
        answers: open is the generated text; closed is the likeliest of the most frequent single-token training answers.
        vocabulary: the number of such answers; VideoPrism's 250 was best on val among 100 to 2,000.
        max_tokens: maximum number of generated tokens.
        stop: where generation stops besides the model's end token: question, where a base model starts the next
            question; line, after the first line; none, nowhere.
        beams: beams of the search; 1 is greedy decoding.
        lr: peak learning rate.
        weight_decay: weight decay of the matrices.
        epochs: passes over the training examples.
        batch_size: examples per training step.
    """

    COMPATIBLE_ADAPTERS: ClassVar[Mapping[str, Sequence[str]]] = {"multiple_choice": (*READER_SETTINGS, "template")}
    INFERENCE_SETTINGS: ClassVar[tuple[str, ...]] = ("answers", "vocabulary", "max_tokens", "stop", "beams")
    TRAINED_WITH: ClassVar[tuple[str, ...]] = ("temporal", "stride")
    TEXT_ONLY: ClassVar[bool] = True

    join: Join = "cross_attention"
    prompt: str = "Question: {question} Answer:"
    template: TemplateChoice = "auto"
    answers: Answers = "open"
    vocabulary: Annotated[int, Gt(0)] = 250
    max_tokens: Annotated[int, Gt(0)] = 32
    stop: Stop = "question"
    beams: Annotated[int, Gt(0)] = 1
    lr: Annotated[float, Gt(0)] = 3e-3
    weight_decay: Annotated[float, Ge(0)] = 0.05
    epochs: Annotated[int, Ge(0)] = 24
    batch_size: Annotated[int, Gt(0)] = 32


class Captioner(Trained):
    """Encoder tokens -> resampler -> a language model that goes on from the prompt.

    Args:
        reader: the language model, and what of it is trained.
        vocabulary: the token of each answer that it may choose from; empty for open answers.
        settings: of the prompt, the search, the features and the training.
    """

    needs_video = False
    single_view = True

    def __init__(self, reader: LanguageModel | ServedModel, vocabulary: Mapping[str, int], settings: Settings) -> None:
        super().__init__(settings)
        self.reader, self.vocabulary, self.prompt, self.lm = reader, vocabulary, settings.prompt, settings.lm
        self.max_tokens, self.beams, self.stop = settings.max_tokens, settings.beams, settings.stop
        self.feature_spec = steps(settings.temporal, settings.stride)

    @property
    def frozen(self) -> dict[str, str]:
        """Hashes of the frozen parts that the trained weights belong to."""
        return frozen_parts(self.reader)

    def describe_language_model(self, example: Example) -> dict[str, Any]:
        return describe(self.reader, self.lm, self._asks(example))

    @property
    def findings(self) -> Sequence[Finding]:
        return self.reader.findings

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Of several references of a video, each epoch learns the next."""
        assert isinstance(self.reader, LanguageModel)
        return self.reader.loss(self._lesson(batch.examples), batch.features[:, 0], end=True)

    def loss_origin(self, batch: Batch) -> str:
        return loss_origin(self.reader, self._lesson(batch.examples), batch) or super().loss_origin(batch)

    def predict(self, examples: Sequence[Example], features: Tensor | None) -> list[Prediction]:
        """The generated text for each video, or the likeliest of a fixed set of answers."""
        tokens = None if features is None else features[:, 0]
        prompts = [self._asks(example) for example in examples]
        if not self.vocabulary:
            return [self._said(text) for text in self.reader.generate(prompts, tokens, self.beams, self.max_tokens)]
        assert isinstance(self.reader, LanguageModel)
        logprobs, failures = self.reader.next_token_logprobs(prompts, tokens)
        rows = logprobs[:, list(self.vocabulary.values())].tolist()
        return [
            likeliest(row, list(self.vocabulary), {"log_likelihood": round(max(row), 5)}, [failure])
            for row, failure in zip(rows, failures, strict=True)
        ]

    def _said(self, generated: Generated) -> Prediction:
        """The generated text, cut where the model starts something new."""
        if generated.text is None:
            return failed(generated.failure)
        text, stopped = cut(generated.text, self.stop)
        return Prediction(text, {"ended": generated.ended or stopped})

    def _lesson(self, examples: Sequence[Example]) -> list[Continuation]:
        texts = [example.target[self.current_epoch % len(example.target)] for example in examples]
        return [
            Continuation(i, self._asks(example), text)
            for i, (example, text) in enumerate(zip(examples, texts, strict=True))
        ]

    def _asks(self, example: Example) -> str:
        return self.prompt.format(question=example.text)


def closed(reader: LanguageModel, prompt: str, answers: Iterable[str], most: int) -> dict[str, int]:
    """The most frequent answers that are one token after the prompt, and that token, the most frequent first.

    Of answers that begin alike, and so have the same token, only the most frequent is there.
    """
    question = prompt.format(question="")
    answer_of: dict[int, str] = {}
    answers = list(answers)
    if not answers:
        raise UserError("adapter.answers=closed chooses among training answers, and this task has none; use open")
    for answer, _ in Counter(answers).most_common():
        ids = reader.prompts.split_options(question, [answer])[1][0]
        if len(ids) == 1 and len(answer_of) < most:
            answer_of.setdefault(ids[0], answer)
    if not answer_of:
        raise UserError("adapter.answers=closed: no training answer is one token of the language model; use open")
    return {answer: token for token, answer in answer_of.items()}


def adapter(encoder: Encoder, task: Task, points: Sequence[Settings]) -> Captioner:
    """Describes videos or answers questions with a small language model that reads the encoder's tokens.

    LongViViT (https://arxiv.org/abs/2312.07395, section 3.2): join=cross_attention, temporal=mean, a frozen language
    model. VideoPrism (https://arxiv.org/abs/2402.13217, appendix G): join=prefix, latents=256, depth=1, greedy
    decoding, 32 tokens; for questions also answers=closed. Only the modules between encoder and language model are
    trained, on the likelihood of the task's texts.
    """
    (settings,) = points
    prompt = settings.prompt
    check_prompt(prompt, ["{question}"])
    texts = [text for example in task.train for text in _references(example)]
    for example in (*task.val, *(example for example in task.test if example.choices)):
        _references(example)
    scratch = None
    if settings.lm == "scratch":
        if not texts:
            raise UserError("lm=scratch learns its vocabulary from training captions; this task has none")
        if settings.lm_precision != "32":
            raise UserError(f"lm.precision={settings.lm_precision}: lm=scratch is trained in float32; leave it out")
        questions = {prompt.format(question=example.text) for example in task.train}
        scratch = untrained([*texts, *sorted(questions)])
    reader = open_reader(encoder, settings, settings.template, scratch)
    vocabulary: dict[str, int] = {}
    if settings.answers == "closed":
        if settings.stop != Settings.stop:
            raise UserError(
                f"adapter.stop={settings.stop} has no effect with adapter.answers=closed, which are one token each: "
                "leave it out, or give adapter.answers=open"
            )
        if isinstance(reader, ServedModel):
            raise UserError(f"adapter.answers=closed: lm={settings.lm} does not give all its tokens; use answers=open")
        vocabulary = closed(reader, prompt, texts, settings.vocabulary)
    return Captioner(reader, vocabulary, settings)


def _references(example: Example) -> tuple[str, ...]:
    """The texts that are right of an example."""
    if not isinstance(example.target, tuple) or not all(isinstance(text, str) for text in example.target):
        raise UserError(
            "adapter=captioner writes texts, and this task asks for something else; example "
            f"{example.id} has the target {str(example.target)[:40]!r}"
        )
    return example.target
