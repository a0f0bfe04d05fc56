from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evalkit.api import Clip, Example, Task
from evalkit.encoders.longvivit import encoder
from evalkit.errors import UserError
from evalkit.metrics.classification import accuracy
from evalkit.weights import checkpoint, trained_adapter
from tests.given import make_adapter

CHOICES = ("a red ring grows", "a blue cross moves left")
QUESTIONS = [
    Example("1", Path("1"), 0, text="What?", choices=CHOICES),
    Example("2", Path("2"), 1, text="", choices=CHOICES),
]
TASK = Task(test=QUESTIONS, train=QUESTIONS, score=accuracy)


def seen() -> nn.Module:
    torch.manual_seed(0)
    return encoder(Clip(frames=4, size=32), None, dim=24, depth=1, heads=3, hidden=48).eval()


def clips(n: int, views: int = 3) -> Tensor:
    return torch.randn(n, views, 2, 4, 24, generator=torch.Generator().manual_seed(1)).half()


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory, lm: Path) -> Path:
    """A folder with an untrained captioner, as evalkit adapt writes it."""
    folder = tmp_path_factory.mktemp("captioner")
    settings = {"lm": str(lm), "latents": 2, "depth": 1, "gate": False, "max_tokens": 6}
    task = Task(test=(), score=accuracy)
    made = make_adapter("captioner", seen(), task, **settings)
    record = {"settings": settings, "frozen": {"encoder": checkpoint.sha256(seen())}}
    trained_adapter.save_adapter(made, trained_adapter.adapter_folder(folder, "captioner"), record)
    return folder


def baseline(captioned: Path, **settings: Any) -> Any:
    return make_adapter("segments_to_lm", seen(), TASK, captioner=captioned, **settings).eval()


def test_options_are_scored_after_the_captions_of_all_segments(captioned: Path) -> None:
    """As the embedded language model scores the same running text; the video plays no other part."""
    adapter = baseline(captioned)
    found = adapter.predict(QUESTIONS, clips(2))
    for example, prediction in zip(QUESTIONS, found, strict=True):
        captions = prediction.detail["captions"]
        assert captions
        prompt = adapter.reader.prompts.encode(f"{captions}. Question: {example.text} Answer:")
        for text, likelihood in zip(CHOICES, prediction.detail["log_likelihood"], strict=True):
            ids = torch.tensor([prompt + adapter.reader.tokenizer.encode(text, add_special_tokens=False)])
            labels = torch.cat([torch.full((1, len(prompt)), -100), ids[:, len(prompt) :]], 1)
            loss = adapter.reader.lm(input_ids=ids, labels=labels).loss.item()
            assert likelihood == pytest.approx(-loss * (ids.shape[1] - len(prompt)), abs=2e-3)


def test_captions_are_those_of_each_segment_in_order_and_a_repeated_one_is_told_once(captioned: Path) -> None:
    adapter = baseline(captioned)
    three = clips(1)
    asked = replace(QUESTIONS[0], text="What happens?")
    alone = [adapter.captioner.predict([asked], three[:, i : i + 1])[0].value for i in range(3)]
    told = adapter.predict(QUESTIONS[:1], torch.cat([three[:, :1], three], 1))[0].detail["captions"]
    assert told == ", ".join(one for one, before in zip(alone, ["", *alone], strict=False) if one and one != before)


def test_the_blind_control_is_told_nothing(captioned: Path) -> None:
    found = baseline(captioned).predict(QUESTIONS, None)
    assert all(one.detail["captions"] == "" for one in found)


def test_a_captioner_of_another_encoder_or_of_none_is_refused(captioned: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give adapter.captioner=FOLDER, which evalkit adapt adapter=captioner wrote"):
        make_adapter("segments_to_lm", seen(), TASK)
    with pytest.raises(UserError, match="wanted a folder that evalkit adapt adapter=captioner wrote"):
        baseline(tmp_path)
    other = encoder(Clip(frames=4, size=32), None, dim=24, depth=1, heads=3, hidden=48).eval()
    with pytest.raises(UserError, match="was trained with encoder"):
        make_adapter("segments_to_lm", other, TASK, captioner=captioned)
    with pytest.raises(UserError, match="segments_to_lm needs questions with options; this task has none"):
        make_adapter(
            "segments_to_lm", seen(), replace(TASK, test=[replace(QUESTIONS[0], choices=())]), captioner=captioned
        )
