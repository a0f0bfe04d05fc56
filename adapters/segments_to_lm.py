"""LongViViT's modular baseline: each segment of a video captioned by itself, and a language model that reads that."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Gt
from torch import Tensor, nn

from evalkit import plugins
from evalkit.api import Encoder, Example, Prediction, Task
from evalkit.canary.finding import Finding
from evalkit.config.keys import settings_class
from evalkit.errors import UserError
from evalkit.heads.adapter import Adapter, AdapterSettings
from evalkit.language.answers import LETTERS, failed, lettered, likeliest
from evalkit.language.causal_lm import LanguageModel
from evalkit.language.continuations import Continuation, Generated, Likelihood
from evalkit.language.models import Precision, check_prompt
from evalkit.language.served import ServedModel
from evalkit.language.source import describe, frozen_parts, open_text_model
from evalkit.language.templates import TemplateChoice
from evalkit.weights import checkpoint, trained_adapter

logger = logging.getLogger("evalkit")


@dataclass(frozen=True)
class Settings(AdapterSettings):
    """Settings of `adapter=segments_to_lm`.

    Attributes:
        captioner: folder of a captioner that `evalkit adapt` trained for this encoder on a task of short clips.
        lm: any causal language model of transformers: a local folder, a GGUF file or a hub id; or a model server,
            http://HOST/v1#MODEL; empty means the one that evalkit ships.
        lm_precision: precision of the language model.
        template: none uses plain text, chat the language model's chat template, auto the chat template if there is one.
        question: the captioner's prompt for each segment.
        max_tokens: maximum number of tokens of a caption.
        prompt: text before an option, with {captions} and {question}; with {options} for a server that returns only the
            likeliest next tokens, so that letters are scored.
    """

    captioner: Path | None = None
    lm: str = ""
    lm_precision: Precision = "32"
    template: TemplateChoice = "auto"
    question: str = "What happens?"
    max_tokens: Annotated[int, Gt(0)] = 32
    prompt: str = "{captions}. Question: {question} Answer:"


WITH_LETTERS = "{captions}. Question: {question} Options: {options} Answer:"


class SegmentsToLM(Adapter):
    """Clips of a video -> a caption of each -> the likelihood of each option after all captions."""

    needs_video = False

    def __init__(self, captioner: Adapter, reader: LanguageModel | ServedModel, settings: Settings) -> None:
        super().__init__()
        self.captioner, self.reader, self.lm = captioner.requires_grad_(False), reader, settings.lm
        self.question, self.prompt = settings.question, settings.prompt
        self.letters = isinstance(reader, ServedModel) and reader.tells == "letters"
        if self.letters and settings.prompt == Settings.prompt:
            self.prompt = WITH_LETTERS
        self.feature_spec = captioner.feature_spec

    @property
    def frozen(self) -> dict[str, str]:
        """Hashes of the language model, and of what was learned to caption."""
        letters = {"scored_by": "letter"} if self.letters else {}
        return {**frozen_parts(self.reader), "captioner": checkpoint.sha256(self.captioner), **letters}

    def describe_language_model(self, example: Example) -> dict[str, Any]:
        return describe(self.reader, self.lm, self._asks(example, "{captions}"))

    @property
    def findings(self) -> Sequence[Finding]:
        return self.reader.findings

    def predict(self, examples: Sequence[Example], features: Tensor | None) -> list[Prediction]:
        """The likeliest option after the captions (B, V clips, T', S, D), of equals the first; blind: after none."""
        captions_of = [Generated("")] * len(examples)
        if features is not None:
            captions_of = self._captions(examples, features)
        known = [(e, said.text) for e, said in zip(examples, captions_of, strict=True) if said.text is not None]
        scores = iter(self._scores(known))
        predictions = []
        for captions in captions_of:
            if captions.text is None:
                predictions.append(failed(captions.failure))
                continue
            likelihoods = next(scores)
            values = [logprob for logprob, _, _ in likelihoods]
            detail = {"captions": captions.text, "log_likelihood": [round(value, 5) for value in values]}
            failures = [failure for *_, failure in likelihoods]
            predictions.append(likeliest(values, range(len(values)), detail, failures))
        return predictions

    def _scores(self, asked: Sequence[tuple[Example, str]]) -> list[list[Likelihood]]:
        """The log-likelihood of each option of examples, of which the captions are known; or of its letter."""
        prompts = [self._asks(example, captions) for example, captions in asked]
        if self.letters:
            assert isinstance(self.reader, ServedModel)
            rows = self.reader.letter_logprobs(prompts, LETTERS)
            letters = [row[: len(example.choices)] for row, (example, _) in zip(rows, asked, strict=True)]
            return [[Likelihood(value, 1) for value in row] for row in letters]
        continuations = [
            Continuation(i, prompt, option)
            for i, (prompt, (example, _)) in enumerate(zip(prompts, asked, strict=True))
            for option in example.choices
        ]
        likelihoods = iter(self.reader.loglikelihoods(continuations))
        return [[next(likelihoods) for _ in example.choices] for example, _ in asked]

    def _asks(self, example: Example, captions: str) -> str:
        options = lettered(example.choices)
        return self.prompt.format(captions=captions, question=example.text, options=options).strip()

    def _captions(self, examples: Sequence[Example], features: Tensor) -> list[Generated]:
        """The captions of each video in the order of its clips, without repeats; none where one failed."""
        captions_of = []
        for example, clips in zip(examples, features, strict=True):
            predictions = self.captioner.predict([replace(example, text=self.question)] * len(clips), clips[:, None])
            values = [prediction.value for prediction in predictions]
            joined = ", ".join(caption for caption, _ in groupby(values) if caption)
            reasons = [(p.detail or {}).get("failure", "") for p in predictions if p.value is None]
            captions_of.append(Generated(None, failure=f"a caption: {reasons[0]}") if reasons else Generated(joined))
        return captions_of


def adapter(encoder: Encoder, task: Task, points: Sequence[Settings]) -> SegmentsToLM:
    """Answers multiple-choice questions from captions of a video's segments, with a language model that sees no video.

    LongViViT's modular baseline (https://arxiv.org/abs/2312.07395, section 6.3): captions of 16-second segments,
    combined by a language model (Bard in the paper). The segments are the task's clips; for consecutive segments of a
    three-minute video, use clip.sampling=fps clip.fps=1 clip.frames=16 clip.clips=12. Nothing is trained.
    """
    (settings,) = points
    captioner = settings.captioner
    if not encoder.dim:
        raise UserError("adapter=segments_to_lm captions what an encoder sees: give one as ckpt=")
    check_prompt(
        settings.prompt, ["{captions}", "{question}", *(["{options}"] if "{options}" in settings.prompt else [])]
    )
    if any(not example.choices for example in task.test):
        raise UserError("adapter=segments_to_lm needs questions with options; this task has none")
    if captioner is None:
        raise UserError("give adapter.captioner=FOLDER, which evalkit adapt adapter=captioner wrote")
    folder = trained_adapter.adapter_folder(captioner.expanduser(), "captioner")
    if not folder.is_dir():
        raise UserError(f"adapter.captioner={captioner}: wanted a folder that evalkit adapt adapter=captioner wrote")
    untrained = replace(task, train=(), val=(), test=())  # it was trained on another task, which has captions
    trained = trained_adapter.adapter_settings(folder)
    if trained.get("lm") == "scratch" or trained.get("answers") == "closed":
        raise UserError(f"adapter.captioner={captioner}: wanted one of answers=open, and of another lm than scratch")
    captioner_settings = settings_class("captioner")(**{**trained, "max_tokens": settings.max_tokens})
    made: Adapter = plugins.factory("adapter", "captioner")(encoder, untrained, [captioner_settings])
    assert isinstance(encoder, nn.Module)
    trained_adapter.restore_adapter(made, folder, {"encoder": checkpoint.sha256(encoder)})
    reader = open_text_model(settings.lm, settings.template, settings.lm_precision)
    baseline = SegmentsToLM(made.eval(), reader, settings)
    if isinstance(reader, ServedModel) and reader.tells == "nothing":
        raise UserError(f"lm={settings.lm} gives no log-probabilities, which adapter=segments_to_lm needs")
    if baseline.letters:
        check_prompt(baseline.prompt, ["{captions}", "{question}", "{options}"])
        logger.warning(f"lm={settings.lm} gives only the likeliest next tokens: options are weighed by their letters")
    return baseline
