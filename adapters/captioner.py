"""A frozen encoder's tokens in words: captions, summaries and open answers, by a small language model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

from annotated_types import Ge, Gt
from torch import Tensor

from evalkit.api import Batch, Encoder, Example, FeatureSpec, Prediction, Task
from evalkit.errors import UserError
from evalkit.heads.optim import Trained
from evalkit.language.models import check_prompt, load, untrained
from evalkit.language.reader import READER_SETTINGS, Continuation, Join, Temporal, VideoLanguageModel, steps

Answers = Literal["open", "closed"]

# Settings that say how it is asked, whatever it was trained with.
ASKING = ("answers", "vocabulary", "max_tokens", "beams")
# Adapters whose weights fit, and the settings of theirs that go with them.
TAKES = {"multiple_choice": READER_SETTINGS}


class Captioner(Trained):
    """Encoder tokens -> resampler -> a language model that goes on from the prompt."""

    trains_encoder = False

    def __init__(
        self,
        reader: VideoLanguageModel,
        vocabulary: Mapping[str, int],
        feature_spec: FeatureSpec,
        prompt: str,
        most: int,
        beams: int,
        lr: float,
        weight_decay: float,
        epochs: int,
        batch_size: int,
    ) -> None:
        super().__init__(lr, weight_decay, epochs, batch_size)
        self.reader, self.vocabulary, self.prompt, self.most, self.beams = reader, vocabulary, prompt, most, beams
        self.feature_spec = feature_spec

    @property
    def frozen(self) -> dict[str, str]:
        """Hashes of the frozen parts that the trained weights belong to."""
        return {"lm": self.reader.sha256} if self.reader.frozen else {"vocabulary": self.reader.vocabulary}

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Of several references of a video, each epoch learns the next."""
        texts = [one.target[self.current_epoch % len(one.target)] for one in batch.examples]
        asked = [
            Continuation(i, self._asks(one), text)
            for i, (one, text) in enumerate(zip(batch.examples, texts, strict=True))
        ]
        logprobs, mask = self.reader(asked, batch.features[:, 0], end=True)
        return -(logprobs * mask).sum() / mask.sum()  # type: ignore[no-any-return]

    def predict(self, examples: list[Example], features: Tensor | None) -> list[Prediction]:
        """What the model says of each video; or the likeliest of the answers that it may choose from."""
        if features is not None and features.shape[1] != 1:
            raise UserError("adapter=captioner reads one view per video: set clip.clips=1 clip.crops=1")
        tokens = None if features is None else features[:, 0]
        prompts = [self._asks(one) for one in examples]
        if not self.vocabulary:
            said = self.reader.generate(prompts, tokens, self.beams, self.most)
            return [Prediction(text, {"ended": ended}) for text, ended in said]
        likelihood = self.reader.next_token_logprobs(prompts, tokens)[:, list(self.vocabulary.values())]
        answers = list(self.vocabulary)
        return [
            Prediction(answers[best], {"log_likelihood": round(float(row[best]), 5)})
            for row, best in zip(likelihood, likelihood.argmax(1).tolist(), strict=True)
        ]

    def _asks(self, example: Example) -> str:
        return self.prompt.format(question=example.text)


def closed(reader: VideoLanguageModel, prompt: str, answers: Iterable[str], most: int) -> dict[str, int]:
    """The most frequent answers that are one token after the prompt, and that token, the most frequent first.

    Of answers that begin alike, and so have the same token, only the most frequent is there.
    """
    asked = prompt.format(question="")
    found: dict[int, str] = {}
    answers = list(answers)
    if not answers:
        raise UserError("adapter.answers=closed chooses among training answers, and this task has none; use open")
    for answer, _ in Counter(answers).most_common():
        ids = reader.split(asked, answer)[1]
        if len(ids) == 1 and len(found) < most:
            found.setdefault(ids[0], answer)
    if not found:
        raise UserError("adapter.answers=closed: no training answer is one token of the language model; use open")
    return {answer: token for token, answer in found.items()}


def adapter(
    encoder: Encoder,
    task: Task,
    *,
    lm: str = "",
    join: Join = "cross_attention",
    gate: bool = True,
    temporal: Temporal = "none",
    stride: Annotated[int, Gt(0)] = 4,
    latents: Annotated[int, Gt(0)] = 64,
    depth: Annotated[int, Gt(0)] = 2,
    prompt: str = "Question: {question} Answer:",
    answers: Answers = "open",
    vocabulary: Annotated[int, Gt(0)] = 250,
    max_tokens: Annotated[int, Gt(0)] = 32,
    beams: Annotated[int, Gt(0)] = 1,
    lr: Annotated[float, Gt(0)] = 3e-3,
    weight_decay: Annotated[float, Ge(0)] = 0.05,
    epochs: Annotated[int, Ge(0)] = 24,
    batch_size: Annotated[int, Gt(0)] = 32,
) -> Captioner:
    """Tells what is in a video in words, by a small language model that reads the encoder's tokens.

    LongViViT (https://arxiv.org/abs/2312.07395, section 3.2): join=cross_attention, temporal=mean, a frozen language
    model. VideoPrism (https://arxiv.org/abs/2402.13217, appendix G): join=prefix, latents=256, depth=1, greedy, 32
    tokens; for questions with answers=closed too. Only what stands between encoder and language model is trained, by
    the likelihood of the task's texts.

    Args:
        lm: any causal language model of transformers, a local folder or hub id; empty means the embedded one; scratch
            trains a decoder of three layers and a vocabulary of the task's own training texts.
        join: cross_attention lets the words look at the visual tokens before each layer of the model; prefix puts
            them before the prompt.
        gate: of cross-attention: a learned share, which starts at none.
        temporal: none keeps the tokens of all steps, strided those of every stride-th, mean averages them over time.
        stride: for temporal=strided.
        latents: visual tokens that the language model reads.
        depth: layers of the resampler.
        prompt: what stands before the text, with the example's own {question}; other examples of question and answer
            may stand in it.
        answers: open is what the model says; closed the likeliest of the most frequent training answers of one token.
        vocabulary: so many of them; VideoPrism's 250 of 100 to 2,000 was best on val.
        max_tokens: of what the model says.
        beams: kept while it searches what to say; 1 is greedy.
        lr: peak learning rate.
        weight_decay: of the matrices.
        epochs: passes over the training examples.
        batch_size: examples in one training step.
    """
    check_prompt(prompt, ["{question}"])
    texts = [text for example in task.train for text in _references(example)]
    for example in task.val:
        _references(example)
    if lm == "scratch":
        if not texts:
            raise UserError("lm=scratch learns its vocabulary from training captions; this task has none")
        asked = {prompt.format(question=example.text) for example in task.train}
        model, tokenizer = untrained([*texts, *sorted(asked)])
    else:
        model, tokenizer = load(lm)
    reader = VideoLanguageModel(
        encoder.dim, model, tokenizer, latents=latents, depth=depth, join=join, gate=gate, frozen=lm != "scratch"
    )
    return Captioner(
        reader,
        closed(reader, prompt, texts, vocabulary) if answers == "closed" else {},
        steps(temporal, stride),
        prompt,
        max_tokens,
        beams,
        lr,
        weight_decay,
        epochs,
        batch_size,
    )


def _references(example: Example) -> tuple[str, ...]:
    """The texts that are right of an example."""
    if not isinstance(example.target, tuple) or not all(isinstance(text, str) for text in example.target):
        raise UserError(
            f"adapter=captioner needs texts to learn; example {example.id} has the target {str(example.target)[:40]!r}"
        )
    return example.target
