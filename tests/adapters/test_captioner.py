from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from evalkit.api import Batch, Clip, Example, Task
from evalkit.encoders.longvivit import encoder
from evalkit.errors import UserError
from evalkit.language.models import load
from evalkit.language.reader import Continuation, VideoLanguageModel
from evalkit.metrics.classification import accuracy
from evalkit.weights import trained_adapter
from tests.given import make_adapter

TEXTS = ("a red ring grows", "a blue cross moves left", "a white circle blinks", "a green square turns red")
FILMS = [Example(str(i), Path(str(i)), (text,), text="What happens?") for i, text in enumerate(TEXTS)]
TASK = Task(test=FILMS, train=FILMS, score=accuracy)


def tokens(n: int = 4) -> Tensor:
    """Of each video all alike, so that a few steps are enough to tell videos apart."""
    own = torch.randn(n, 1, 1, 1, 24, generator=torch.Generator().manual_seed(1))
    return own.expand(n, 1, 2, 4, 24).half()


def captioner(lm: Path | str, task: Task = TASK, **settings: Any) -> Any:
    torch.manual_seed(0)
    seen = encoder(Clip(frames=4, size=32), None, dim=24, depth=1, heads=3, hidden=48).eval()
    settings = {"latents": 4, "depth": 1, **settings}
    return make_adapter("captioner", seen, task, lm=str(lm), **settings).eval()


def learn(adapter: Any, steps: int, rate: float = 1e-2) -> None:
    optimizer = torch.optim.AdamW([p for p in adapter.parameters() if p.requires_grad], lr=rate)
    adapter.trainer = type("Trainer", (), {"current_epoch": 0})()
    for _ in range(steps):
        optimizer.zero_grad()
        adapter.training_step(Batch(FILMS, tokens()), 0).backward()
        optimizer.step()


@pytest.mark.parametrize("settings", [{}, {"gate": False}, {"join": "prefix"}])
def test_a_captioner_learns_what_it_is_shown_and_its_language_model_stays_as_it_was(settings: dict[str, Any]) -> None:
    """With the embedded model: a random one is never sure of a word.

    A word may be wrong: after so few steps, by how a processor rounds sums of floats, one color is taken for another.
    """
    adapter = captioner("", **settings)
    before = adapter.frozen["lm"]
    learn(adapter, 200, 3e-3)
    assert adapter.frozen["lm"] == before
    found = adapter.predict(FILMS, tokens())
    pairs = [zip(one.value.split(), text.split(), strict=False) for one, text in zip(found, TEXTS, strict=True)]
    right = sum(word == other for pair in pairs for word, other in pair)
    assert right >= 0.8 * sum(len(text.split()) for text in TEXTS), [one.value for one in found]
    assert all(one.detail == {"ended": True} for one in found)
    # What it learned depends on the video: without one it says the same of all.
    assert len({one.value for one in adapter.predict(FILMS, None)}) == 1


def test_a_decoder_from_scratch_learns_with_a_vocabulary_of_the_training_captions(tmp_path: Path) -> None:
    adapter = captioner("scratch", lr=3e-3)
    learn(adapter, 50, 1e-3)
    assert [one.value for one in adapter.predict(FILMS, tokens())] == list(TEXTS)
    trained_adapter.save_adapter(adapter, tmp_path / "learned", {"settings": {}})
    assert any(name.startswith("reader.lm.") for name in load_file(tmp_path / "learned" / "adapter.safetensors"))
    again = captioner("scratch")
    trained_adapter.restore_adapter(again, tmp_path / "learned")
    assert [one.value for one in again.predict(FILMS, tokens())] == list(TEXTS)
    other = replace(TASK, train=[replace(FILMS[0], target=("something else",))])
    with pytest.raises(UserError, match="was trained with vocabulary"):
        trained_adapter.restore_adapter(captioner("scratch", other), tmp_path / "learned")


def test_what_is_saved_of_a_captioner_is_without_its_language_model(lm: Path, tmp_path: Path) -> None:
    adapter = captioner(lm)
    learn(adapter, 3)
    trained_adapter.save_adapter(adapter, tmp_path / "learned", {"settings": {}})
    weights = load_file(tmp_path / "learned" / "adapter.safetensors")
    assert {name.split(".")[1] for name in weights} == {"resampler", "scale", "crossings"}
    again = captioner(lm)
    trained_adapter.restore_adapter(again, tmp_path / "learned")
    assert [one.value for one in again.half().float().predict(FILMS, tokens())] == [
        one.value for one in adapter.half().float().predict(FILMS, tokens())
    ]


@pytest.mark.parametrize("join", ["prefix", "cross_attention"])
@pytest.mark.parametrize("beams", [1, 3])
def test_captions_are_the_same_whatever_the_batch_holds(lm: Path, join: str, beams: int) -> None:
    """Prompts differ in length, too."""
    adapter = captioner(lm, join=join, gate=False, beams=beams, max_tokens=12)
    asked = [replace(one, text=f"{TEXTS[i]} " * i) for i, one in enumerate(FILMS)]
    alone = [adapter.predict([one], tokens()[i : i + 1])[0] for i, one in enumerate(asked)]
    assert adapter.predict(asked, tokens()) == alone
    assert len({one.value for one in alone}) > 1


def test_a_video_is_read_once_however_many_questions_are_asked_about_it(lm: Path) -> None:
    adapter = captioner(lm, join="prefix", max_tokens=6)
    asked = [replace(FILMS[0], text=f"{TEXTS[i % 4]} " * (i % 2)) for i in range(6)]
    shown = tokens()[[0, 0, 0, 1, 1, 0]]
    read: list[int] = []
    adapter.reader.resampler.register_forward_pre_hook(lambda _, args: read.append(len(args[0])))
    together = adapter.predict(asked, shown)
    assert read == [3]  # and of prompts of either length at once
    assert together == [adapter.predict([one], shown[i : i + 1])[0] for i, one in enumerate(asked)]
    resample = adapter.reader.visual_tokens
    assert torch.equal(resample(shown[:, 0]), torch.cat([resample(one) for one in shown]))
    read.clear()
    adapter.train().reader.visual_tokens(shown[:, 0])
    assert read == [6]  # what is learned stays as it was


def test_with_a_closed_gate_the_language_model_says_what_it_says_without_a_video(lm: Path) -> None:
    adapter = captioner(lm, max_tokens=8)
    assert adapter.predict(FILMS, tokens()) == adapter.predict(FILMS, None)
    for crossing in adapter.reader.crossings:
        crossing.get_parameter("gate").data.fill_(2.0)
    assert adapter.predict(FILMS, tokens()) != adapter.predict(FILMS, None)


def test_cross_attention_stands_before_each_layer_of_another_kind_of_model_too(lm: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=200, n_embd=32, n_layer=3, n_head=2, bos_token_id=2, eos_token_id=3)
    reader = VideoLanguageModel(
        24, GPT2LMHeadModel(config), load(str(lm))[1], latents=2, depth=1, join="cross_attention"
    )
    assert len(reader.crossings) == 3
    asked = [Continuation(0, "What happens?", "a red ring grows")]
    blind, gated = reader.eval().loglikelihoods(asked), reader.loglikelihoods(asked, tokens(1)[:, 0])
    assert blind == gated
    for crossing in reader.crossings:
        crossing.get_parameter("gate").data.fill_(1.0)
    assert abs(blind[0].logprob - reader.loglikelihoods(asked, tokens(1)[:, 0])[0].logprob) > 1e-3
    assert reader.generate(["What happens?"], tokens(1)[:, 0], 2, 5)


def test_a_closed_vocabulary_holds_the_most_frequent_answers_of_one_token(lm: Path) -> None:
    answers = ["red", "blue", "red", "grows", "moves left", "blue", "red", "ring"]
    train = [Example(str(i), Path(str(i)), (answer,), text="What?") for i, answer in enumerate(answers)]
    task = Task(test=train, train=train, score=accuracy)
    adapter = captioner(lm, task, answers="closed", vocabulary=2).requires_grad_(False)
    assert list(adapter.vocabulary) == ["red", "blue"]
    found = adapter.predict(train, tokens(8))
    assert {one.value for one in found} <= {"red", "blue"}
    prompt = adapter._asks(train[0])
    asked = [Continuation(0, prompt, answer) for answer in ("red", "blue")]
    sums = [likelihood.logprob for likelihood in adapter.reader.loglikelihoods(asked, tokens(8)[:1, 0])]
    assert found[0].value == ("red", "blue")[sums.index(max(sums))]
    assert found[0].detail["log_likelihood"] == pytest.approx(max(sums), abs=1e-4)
    with pytest.raises(UserError, match="answers=closed: no training answer is one token of the language model; use"):
        captioner(
            lm, Task(test=train, train=[replace(train[0], target=("moves left",))], score=accuracy), answers="closed"
        )


def test_each_epoch_learns_the_next_of_several_references(lm: Path) -> None:
    adapter = captioner(lm)
    several = [replace(FILMS[0], target=TEXTS[:2])]
    losses = []
    for epoch in range(3):
        adapter.trainer = type("Trainer", (), {"current_epoch": epoch})()
        losses.append(adapter.training_step(Batch(several, tokens(1)), 0).item())
    assert losses[0] == losses[2] != losses[1]


def test_what_a_captioner_cannot_learn_from_is_told() -> None:
    wrong = replace(TASK, train=[replace(FILMS[0], target=3)])
    with pytest.raises(
        UserError,
        match="this task asks for something else; example 0 has the target '3'",
    ):
        captioner("", wrong)
    with pytest.raises(UserError, match="lm=scratch learns its vocabulary from training captions; this task has none"):
        captioner("scratch", replace(TASK, train=()))
    with pytest.raises(UserError, match=r"adapter.prompt='What\?': wanted text with {question} and no other braces"):
        captioner("", prompt="What?")
