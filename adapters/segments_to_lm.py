"""LongViViT's modular baseline: each segment of a video captioned by itself, and a language model that reads that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Annotated

from annotated_types import Gt
from torch import Tensor, nn

from evalkit import plugins
from evalkit.api import Encoder, Example, Prediction, Task
from evalkit.canary.finding import Finding
from evalkit.config.keys import settings_class
from evalkit.errors import UserError
from evalkit.heads.adapter import Adapter, AdapterSettings
from evalkit.language.causal_lm import Continuation, LanguageModel
from evalkit.language.models import Precision, check_prompt, load
from evalkit.weights import checkpoint, trained_adapter


@dataclass(frozen=True)
class Settings(AdapterSettings):
    """Settings of `adapter=segments_to_lm`.

    Attributes:
        captioner: folder of a captioner that evalkit adapt wrote for this encoder, on a task of short clips.
        lm: any causal language model of transformers: a local folder, a GGUF file or a hub id; empty means the embedded
            one.
        lm_precision: of the language model's weights and arithmetic.
        question: what the captioner is asked of each segment.
        max_tokens: of each caption.
        prompt: what stands before an option, with {captions} and {question}.
    """

    captioner: Path | None = None
    lm: str = ""
    lm_precision: Precision = "32"
    question: str = "What happens?"
    max_tokens: Annotated[int, Gt(0)] = 32
    prompt: str = "{captions}. Question: {question} Answer:"


class SegmentsToLM(Adapter):
    """Clips of a video -> a caption of each -> the likelihood of each option after all captions."""

    needs_video = False

    def __init__(self, captioner: Adapter, reader: LanguageModel, settings: Settings) -> None:
        super().__init__()
        self.captioner, self.reader = captioner.requires_grad_(False), reader
        self.question, self.prompt = settings.question, settings.prompt
        self.feature_spec = captioner.feature_spec

    @property
    def frozen(self) -> dict[str, str]:
        """Hashes of the language model, and of what was learned to caption."""
        return {"lm": self.reader.sha256, "captioner": checkpoint.sha256(self.captioner)}

    @property
    def findings(self) -> Sequence[Finding]:
        return self.reader.findings

    def predict(self, examples: Sequence[Example], features: Tensor | None) -> list[Prediction]:
        """The likeliest option after the captions (B, V clips, T', S, D), of equals the first; blind: after none."""
        captions_of = [""] * len(examples) if features is None else self._captions(examples, features)
        continuations = [
            Continuation(i, self.prompt.format(captions=captions, question=example.text).strip(), option)
            for i, (captions, example) in enumerate(zip(captions_of, examples, strict=True))
            for option in example.choices
        ]
        likelihoods = iter(self.reader.loglikelihoods(continuations))
        predictions = []
        for captions, example in zip(captions_of, examples, strict=True):
            values = [next(likelihoods).logprob for _ in example.choices]
            detail = {"captions": captions, "log_likelihood": [round(value, 5) for value in values]}
            predictions.append(Prediction(values.index(max(values)), detail))
        return predictions

    def _captions(self, examples: Sequence[Example], features: Tensor) -> list[str]:
        """The captions of each video in the order of its clips, without repeats of the one before."""
        captions_of = []
        for example, clips in zip(examples, features, strict=True):
            predictions = self.captioner.predict([replace(example, text=self.question)] * len(clips), clips[:, None])
            captions = groupby(prediction.value for prediction in predictions)
            captions_of.append(", ".join(caption for caption, _ in captions if caption))
        return captions_of


def adapter(encoder: Encoder, task: Task, points: Sequence[Settings]) -> SegmentsToLM:
    """Answers multiple choice from captions of a video's segments, which a language model reads without the video.

    LongViViT's modular baseline (https://arxiv.org/abs/2312.07395, section 6.3): captions of segments of 16 seconds,
    and a language model that puts them together, there Bard. The segments are the task's clips: for one in every 16
    seconds of three minutes, clip.sampling=fps clip.fps=1 clip.frames=16 clip.clips=12. Nothing is trained.
    """
    (settings,) = points
    captioner = settings.captioner
    check_prompt(settings.prompt, ["{captions}", "{question}"])
    if any(not example.choices for example in task.test):
        raise UserError("adapter=segments_to_lm needs questions with options; this task has none")
    if captioner is None:
        raise UserError("give adapter.captioner=FOLDER, which evalkit adapt adapter=captioner wrote")
    folder = trained_adapter.adapter_folder(captioner.expanduser(), "captioner")
    if not folder.is_dir():
        raise UserError(f"adapter.captioner={captioner}: wanted a folder that evalkit adapt adapter=captioner wrote")
    untrained = replace(task, train=(), val=())  # it was trained on another task, which has captions
    trained = trained_adapter.adapter_settings(folder)
    if trained.get("lm") == "scratch" or trained.get("answers") == "closed":
        raise UserError(f"adapter.captioner={captioner}: wanted one of answers=open, and of another lm than scratch")
    captioner_settings = settings_class("captioner")(**{**trained, "max_tokens": settings.max_tokens})
    made: Adapter = plugins.factory("adapter", "captioner")(encoder, untrained, [captioner_settings])
    assert isinstance(encoder, nn.Module)
    trained_adapter.restore_adapter(made, folder, {"encoder": checkpoint.sha256(encoder)})
    model, tokenizer = load(settings.lm, precision=settings.lm_precision)
    return SegmentsToLM(made.eval(), LanguageModel(model, tokenizer), settings)
