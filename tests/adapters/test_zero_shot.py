"""Zero-shot answers: the nearest class or choice by words, against the same computed plainly."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from evalkit.api import Example, Task
from evalkit.encoders import load_encoder
from evalkit.errors import UserError
from evalkit.metrics.classification import accuracy, top1_top5
from evalkit.plugins import module_and_factory
from tests.given import make_adapter

MODULE = module_and_factory("adapter", "zero_shot")[0]
TEMPLATES = MODULE.TEMPLATES
CLASSES = ("a red circle moves left", "a blue ring grows", "a green square blinks")


@pytest.fixture(scope="module")
def encoder(tiny: Path) -> Any:
    return load_encoder(str(tiny))


def task_of(target: Any = 0, **more: Any) -> Task:
    return Task([Example("one", Path("one.mp4"), target)], top1_top5, classes=CLASSES, **more)


def videos(n: int, views: int, width: int) -> torch.Tensor:
    return torch.randn(n, views, width, generator=torch.Generator().manual_seed(1))


def test_clip_has_28_templates_for_actions() -> None:
    assert len(set(TEMPLATES["clip"])) == 28
    assert "a demonstration of a person practicing {}." in TEMPLATES["clip"]
    assert "a photo of {}." in TEMPLATES["clip"]
    assert len(set(TEMPLATES["clip_ucf101"])) == 48
    assert TEMPLATES["clip_ucf101"][:5] == (
        "a photo of a person {}.",
        "a video of a person {}.",
        "a example of a person {}.",
        "a demonstration of a person {}.",
        "a photo of the person {}.",
    )
    assert TEMPLATES["clip_ucf101"][-1] == "a demonstration of the person practicing {}."


@torch.inference_mode()
def test_the_nearest_class_is_that_of_the_mean_over_templates_and_views(encoder: Any) -> None:
    probe = make_adapter("zero_shot", encoder, task_of(), prompts="clip")
    features = videos(2, 3, encoder.dim)
    found = probe.predict([task_of().test[0]] * 2, features)
    for row, prediction in zip(features, found, strict=True):
        video = F.normalize(row, dim=-1).mean(0)
        near = []
        for name in CLASSES:
            each = torch.stack([encoder.encode_text([t.format(name)])[0] for t in TEMPLATES["clip"]])
            near.append(float(F.cosine_similarity(F.normalize(each, dim=-1).mean(0), video, dim=0)))
        expected = sorted(range(3), key=lambda k: -near[k])
        assert prediction.value == expected
        likely = torch.tensor(near).div(0.01).softmax(0)
        assert prediction.detail is not None
        assert prediction.detail["probabilities"] == pytest.approx([float(likely[k]) for k in expected], abs=2e-4)


@torch.inference_mode()
def test_of_several_classes_each_has_its_cosine(encoder: Any) -> None:
    probe = make_adapter("zero_shot", encoder, task_of((0, 2)), prompts="none")
    features = videos(1, 1, encoder.dim)
    (prediction,) = probe.predict([task_of().test[0]], features)
    expected = F.cosine_similarity(encoder.encode_text(list(CLASSES)), features[0], dim=-1)
    assert prediction.value == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.mark.parametrize("question", [True, False])
@torch.inference_mode()
def test_a_choice_is_compared_with_and_without_its_question(encoder: Any, question: bool) -> None:
    example = Example("one", Path("one.mp4"), 0, text="what happens?", choices=CLASSES)
    probe = make_adapter("zero_shot", encoder, Task([example], accuracy), question=question)
    features = videos(1, 2, encoder.dim)
    (prediction,) = probe.predict([example], features)
    texts = [f"what happens? {choice}" if question else choice for choice in CLASSES]
    video = F.normalize(features[0], dim=-1).mean(0)
    near = F.cosine_similarity(encoder.encode_text(texts), video, dim=-1)
    assert prediction.value == int(near.argmax())
    assert prediction.detail is not None
    assert prediction.detail["cosines"] == pytest.approx(near.tolist(), abs=1e-5)


def test_templates_may_come_from_a_file(encoder: Any, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("footage of {}\n\nsomeone filmed {}\n")
    assert make_adapter("zero_shot", encoder, task_of(), prompts=str(file)).templates == (
        "footage of {}",
        "someone filmed {}",
    )


@pytest.mark.parametrize("text", ["no name in it", "{} and {}", ""])
def test_a_template_without_a_place_for_the_name_is_refused(encoder: Any, tmp_path: Path, text: str) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text(text)
    with pytest.raises(UserError, match=r"prompts.txt: template .*: wanted lines with \{\} once"):
        make_adapter("zero_shot", encoder, task_of(), prompts=str(file))


def test_an_unknown_set_of_prompts_is_refused(encoder: Any) -> None:
    with pytest.raises(UserError, match=r"adapter.prompts=clips: wanted none, single, clip, clip_ucf101, or a text"):
        make_adapter("zero_shot", encoder, task_of(), prompts="clips")


def test_an_encoder_without_a_text_tower_is_refused() -> None:
    encoder: Any = load_encoder("random:vivit_demo", seed=0)
    encoder.text = None
    with pytest.raises(UserError, match="needs an encoder with a text tower"):
        make_adapter("zero_shot", encoder, task_of())


def test_without_a_video_nothing_is_nearest(encoder: Any) -> None:
    assert make_adapter("zero_shot", encoder, task_of()).needs_video
