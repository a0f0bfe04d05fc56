"""LongViViT's modular baseline: each segment of a video captioned by itself, and a language model that reads that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import lightning
from annotated_types import Gt
from torch import Tensor, nn

from evalkit import plugins
from evalkit.api import Encoder, Example, FeatureSpec, Prediction, Task
from evalkit.errors import UserError
from evalkit.language.causal_lm import Continuation, LanguageModel
from evalkit.language.models import check_prompt, load
from evalkit.weights import checkpoint, trained_adapter


class SegmentsToLM(lightning.LightningModule):
    """Clips of a video -> a caption of each -> the likelihood of each option after all captions."""

    trains_encoder = False
    epochs, batch_size = 0, 1

    def __init__(self, captioner: Any, reader: LanguageModel, question: str, prompt: str) -> None:
        super().__init__()
        self.captioner, self.reader, self.question, self.prompt = (
            captioner.requires_grad_(False),
            reader,
            question,
            prompt,
        )
        self.feature_spec: FeatureSpec = captioner.feature_spec

    @property
    def frozen(self) -> dict[str, str]:
        """Hashes of the language model, and of what was learned to caption."""
        return {"lm": self.reader.sha256, "captioner": checkpoint.sha256(self.captioner)}

    def predict(self, examples: Sequence[Example], features: Tensor | None) -> list[Prediction]:
        """The likeliest option after the captions (B, V clips, T', S, D), of equals the first; blind: after none."""
        told = [""] * len(examples) if features is None else self._told(examples, features)
        asked = [
            Continuation(0, self.prompt.format(captions=captions, question=one.text).strip(), option)
            for captions, one in zip(told, examples, strict=True)
            for option in one.choices
        ]
        logprobs, mask = self.reader(asked, None)
        values = (logprobs * mask).sum(-1).split([len(one.choices) for one in examples])
        return [
            Prediction(int(row.argmax()), {"captions": captions, "log_likelihood": [round(v, 5) for v in row.tolist()]})
            for row, captions in zip(values, told, strict=True)
        ]

    def _told(self, examples: Sequence[Example], features: Tensor) -> list[str]:
        """The captions of each video in the order of its clips; what is said twice running is said once."""
        told = []
        for one, clips in zip(examples, features, strict=True):
            said = self.captioner.predict([replace(one, text=self.question)] * len(clips), clips[:, None])
            captions = groupby(prediction.value for prediction in said)
            told.append(", ".join(caption for caption, _ in captions if caption))
        return told


def adapter(
    encoder: Encoder,
    task: Task,
    *,
    captioner: Path | None = None,
    lm: str = "",
    question: str = "What happens?",
    max_tokens: Annotated[int, Gt(0)] = 32,
    prompt: str = "{captions}. Question: {question} Answer:",
) -> SegmentsToLM:
    """Answers multiple choice from captions of a video's segments, which a language model reads without the video.

    LongViViT's modular baseline (https://arxiv.org/abs/2312.07395, section 6.3): captions of segments of 16 seconds,
    and a language model that puts them together, there Bard. The segments are the task's clips: for one in every 16
    seconds of three minutes, clip.sampling=fps clip.fps=1 clip.frames=16 clip.clips=12. Nothing is trained.

    Args:
        captioner: folder of a captioner that evalkit adapt wrote for this encoder, on a task of short clips.
        lm: any causal language model of transformers, a local folder or hub id; empty means the embedded one.
        question: what the captioner is asked of each segment.
        max_tokens: of each caption.
        prompt: what stands before an option, with {captions} and {question}.
    """
    check_prompt(prompt, ["{captions}", "{question}"])
    if any(not example.choices for example in task.test):
        raise UserError("adapter=segments_to_lm needs questions with options; this task has none")
    if captioner is None:
        raise UserError("give adapter.captioner=FOLDER, which evalkit adapt adapter=captioner wrote")
    folder = trained_adapter.adapter_folder(captioner.expanduser(), "captioner")
    if not folder.is_dir():
        raise UserError(f"adapter.captioner={captioner}: wanted a folder that evalkit adapt adapter=captioner wrote")
    told = replace(task, train=(), val=())  # it was trained on another task, which has captions
    settings = trained_adapter.adapter_settings(folder)
    if settings.get("lm") == "scratch" or settings.get("answers") == "closed":
        raise UserError(f"adapter.captioner={captioner}: wanted one of answers=open, and of another lm than scratch")
    made = plugins.factory("adapter", "captioner")(encoder, told, **{**settings, "max_tokens": max_tokens})
    assert isinstance(encoder, nn.Module)
    trained_adapter.restore_adapter(made, folder, {"encoder": checkpoint.sha256(encoder)})
    model, tokenizer = load(lm)
    return SegmentsToLM(made.eval(), LanguageModel(model, tokenizer), question, prompt)
