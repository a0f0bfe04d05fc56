"""Zero-shot: the class, or the answer, whose words are nearest to the video, for encoders with a text tower."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from evalkit.api import Encoder, Example, FeatureSpec, Prediction, Task, check_text, has_text
from evalkit.errors import UserError
from evalkit.heads.adapter import Adapter, AdapterSettings
from evalkit.heads.labels import best_classes, refuse_key_frames

# CLIP's own for Kinetics-700, 28 of them, and for UCF101, 48 (https://github.com/openai/CLIP/blob/main/data/prompts.md);
# Perception Encoder's code has the first for Kinetics and the second for UCF101 and HMDB51.
_SHOWN = ("photo", "video", "example", "demonstration")
_PERSON = ("", "a person ", *(f"a person {verb} " for verb in ("using", "doing", "during", "performing", "practicing")))
TEMPLATES = {
    "none": ("{}",),
    "single": ("a video of {}.",),  # of VideoPrism's demonstration (https://github.com/google-deepmind/videoprism)
    "clip": tuple(f"a {what} of {who}{{}}." for what in _SHOWN for who in _PERSON),
    "clip_ucf101": tuple(
        f"a {what} of {one} person {verb}{{}}."
        for verb in ("", "using ", "doing ", "during ", "performing ", "practicing ")
        for one in ("a", "the")
        for what in _SHOWN
    ),
}
TEXTS = 256  # embedded at a time
# Of the softmax that probabilities are told by; CLIP's, and without effect on which class is the nearest.
TEMPERATURE = 0.01


@dataclass(frozen=True)
class Settings(AdapterSettings):
    """Settings of `adapter=zero_shot`.

    Attributes:
        prompts: clip (CLIP's 28 action prompts, averaged), clip_ucf101 (its 48 for UCF101, averaged), single (a video
            of {}.), none, or a text file with one template per line, with {} for the class name. Options of a question
            are used without a prompt unless prompts is a file.
        question: put a question before each of its options.
    """

    prompts: str = "clip"
    question: bool = True


class ZeroShot(Adapter):
    """Texts against videos by the cosine; nothing is trained.

    Args:
        encoder: with `encode_text`.
        classes: names of the classes; empty where each example has choices of its own.
        several: an example may have several classes.
        templates: each class is the mean of its normalized embeddings in all of them.
        question: an example's own text stands before each of its choices.
    """

    feature_spec = FeatureSpec("pooled")

    def __init__(
        self, encoder: Any, classes: Sequence[str], several: bool, templates: Sequence[str], question: bool
    ) -> None:
        super().__init__()
        self.encoder, self.classes, self.several = encoder, classes, several
        self.templates, self.question = templates, question
        self._of_classes: Tensor | None = None

    def predict(self, examples: Sequence[Example], features: Tensor | None) -> list[Prediction]:
        """The five nearest classes of each example, best first; the nearest choice where it has choices.

        Where an example may have several classes: the cosine of every class. A video is the mean of its views, each of
        length 1.
        """
        assert features is not None
        videos = F.normalize(F.normalize(features.to(self.device).float(), dim=-1).mean(1), dim=-1)  # (B, E)
        if not self.classes:
            return [self._choice(example, video) for example, video in zip(examples, videos, strict=True)]
        if self._of_classes is None:
            self._of_classes = self._embed(self.classes)
        near = videos @ self._of_classes.T  # (B, C)
        if self.several:
            return [Prediction(row) for row in near.tolist()]
        best = best_classes((near / TEMPERATURE).softmax(-1))
        return [
            Prediction(classes, {"probabilities": [round(p, 6) for p in probabilities]})
            for classes, probabilities in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def _choice(self, example: Example, video: Tensor) -> Prediction:
        if not example.choices:
            raise UserError(f"adapter=zero_shot: example {example.id} has no choices, and its task no classes")
        near = self._embed(self._options(example)) @ video
        return Prediction(int(near.argmax()), {"cosines": [round(value, 6) for value in near.tolist()]})

    def _options(self, example: Example) -> list[str]:
        before = f"{example.text} " if self.question and example.text else ""
        return [before + choice for choice in example.choices]

    def texts(self, names: Sequence[str]) -> list[str]:
        """Each of the names in each of the templates."""
        return [template.replace("{}", name) for name in names for template in self.templates]

    def check_text(self, example: Example) -> None:
        """Embeds one text, if there is any, so that missing parts, such as a tokenizer, are reported early."""
        if names := self.classes or self._options(example):
            check_text(self.encoder, self.texts(names[:1])[0])

    def _embed(self, names: Sequence[str]) -> Tensor:
        """Unit vectors (n, E) of names, each the mean over the templates."""
        texts = self.texts(names)
        parts = [self.encoder.encode_text(texts[at : at + TEXTS]) for at in range(0, len(texts), TEXTS)]
        each = F.normalize(torch.cat(parts).float(), dim=-1).view(len(names), len(self.templates), -1)
        return F.normalize(each.mean(1), dim=-1)


def adapter(encoder: Encoder, task: Task, points: Sequence[Settings]) -> ZeroShot:
    """Predicts without training the class or option whose text embedding is most similar to the video's."""
    (settings,) = points
    prompts = settings.prompts
    if not has_text(encoder):
        raise UserError("adapter=zero_shot needs an encoder with a text tower; `evalkit list encoders` says which have")
    templates = TEMPLATES.get(prompts) or _read(prompts)
    if not task.classes and prompts in TEMPLATES:
        templates = TEMPLATES["none"]
    refuse_key_frames(task.test)
    several = any(isinstance(example.target, tuple | list) for example in task.test)
    made = ZeroShot(encoder, task.class_texts or task.classes, several, templates, settings.question)
    made.check_text(task.test[0])
    return made


def _read(prompts: str) -> tuple[str, ...]:
    try:
        lines = Path(prompts).expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise UserError(f"adapter.prompts={prompts}: wanted {', '.join(TEMPLATES)}, or a text file") from None
    templates = tuple(line.strip() for line in lines if line.strip())
    if wrong := [template for template in templates or ("",) if template.count("{}") != 1]:
        raise UserError(f"{prompts}: template {wrong[0]!r}: wanted lines with {{}} once, where the name goes")
    return templates
