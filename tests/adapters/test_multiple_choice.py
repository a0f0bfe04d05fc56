"""Multiple choice by a language model: its scorers, what it reads, and what it learns."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, LlamaTokenizer

from evalkit import load_encoder, plugins
from evalkit.api import Batch, EncoderOutput, Task
from evalkit.config.parse import resolve
from evalkit.errors import UserError
from evalkit.language import models
from evalkit.mini import world
from evalkit.pipeline.setup import prepare
from evalkit.weights import checkpoint, trained_adapter
from tests.given import QUESTIONS, TASK, make_adapter, small


def choice(lm: Path | str, task: Task = TASK, **settings: Any) -> Any:
    """An untrained adapter; with an empty lm the embedded one, since a random one is never sure of a word."""
    torch.manual_seed(0)
    return make_adapter("multiple_choice", small(), task, lm=str(lm), latents=3, depth=1, **settings).eval()


def tokens(n: int, steps: int = 2) -> Tensor:
    return torch.randn(n, 1, steps, 4, 24, generator=torch.Generator().manual_seed(1)).half()


def test_option_likelihoods_equal_those_of_one_option_at_a_time(lm: Path) -> None:
    """Padding and batching change nothing: transformers' own loss on each sequence alone is the reference."""
    adapter = choice(lm)
    features = tokens(2)
    predictions = adapter.predict(QUESTIONS, features)
    for example, prediction, feature in zip(QUESTIONS, predictions, features, strict=True):
        visual = adapter.reader.resampler(feature.float()) * adapter.reader.scale
        for text, found in zip(example.choices, prediction.detail["log_likelihood"], strict=True):
            prompt = adapter.reader.tokenizer.encode(f"Question: {example.text} Answer:")
            option = adapter.reader.tokenizer.encode(text, add_special_tokens=False)
            ids = torch.tensor([prompt + option])
            embedded = torch.cat([visual, adapter.reader.words(ids)], 1)
            labels = torch.cat([torch.full((1, 3 + len(prompt)), -100), ids[:, len(prompt) :]], 1)
            loss = adapter.reader.lm(inputs_embeds=embedded, labels=labels).loss
            assert found == pytest.approx(-loss.item() * len(option), abs=2e-4)


def test_options_are_told_as_running_text_by_a_byte_level_tokenizer_too(tmp_path: Path) -> None:
    """GPT-2's tokens carry the space before a word; an option that is encoded alone would lose it."""
    from tokenizers.implementations.byte_level_bpe import ByteLevelBPETokenizer
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    from evalkit.mini.language import documents

    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(documents(0, 200), vocab_size=400, show_progress=False)
    PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer).save_pretrained(tmp_path)  # type: ignore[no-untyped-call]
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=bpe.get_vocab_size(), n_embd=32, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    adapter = choice(tmp_path)
    found = adapter.predict(QUESTIONS[1:], tokens(1))[0].detail
    visual = adapter.reader.resampler(tokens(1)[0].float()) * adapter.reader.scale
    prompt = adapter.reader.tokenizer.encode("Question: What? Answer:")
    option = adapter.reader.tokenizer.encode(" a white circle blinks")
    ids = torch.tensor([prompt + option])
    labels = torch.cat([torch.full((1, 3 + len(prompt)), -100), ids[:, len(prompt) :]], 1)
    loss = adapter.reader.lm(inputs_embeds=torch.cat([visual, adapter.reader.words(ids)], 1), labels=labels).loss
    assert found["tokens"][0] == len(option)
    assert found["log_likelihood"][0] == pytest.approx(-loss.item() * len(option), abs=2e-4)


def test_the_two_likelihood_scorers_are_the_sum_and_the_mean(lm: Path) -> None:
    plain, mean = choice(lm), choice(lm, scorer="likelihood_per_token")
    for one, other in zip(plain.predict(QUESTIONS, tokens(2)), mean.predict(QUESTIONS, tokens(2)), strict=True):
        sums, counts = one.detail["log_likelihood"], one.detail["tokens"]
        assert one.value == sums.index(max(sums))
        means = [s / n for s, n in zip(sums, counts, strict=True)]
        assert other.value == means.index(max(means))


def test_the_order_of_options_does_not_change_their_likelihood(lm: Path) -> None:
    adapter = choice(lm)
    turned = [replace(example, choices=example.choices[::-1]) for example in QUESTIONS]
    for one, other in zip(adapter.predict(QUESTIONS, tokens(2)), adapter.predict(turned, tokens(2)), strict=True):
        assert one.detail["log_likelihood"] == pytest.approx(other.detail["log_likelihood"][::-1], abs=1e-4)


def test_the_blind_control_sees_no_video(lm: Path) -> None:
    adapter = choice(lm)
    blind = adapter.predict(QUESTIONS, None)
    assert blind[0].detail["log_likelihood"] != adapter.predict(QUESTIONS, tokens(2))[0].detail["log_likelihood"]


@pytest.mark.parametrize(("temporal", "steps"), [("none", 8), ("strided", 2), ("mean", 1)])
def test_temporal_pooling_keeps_the_named_steps(lm: Path, temporal: str, steps: int) -> None:
    encoded = EncoderOutput(torch.randn(2, 8, 4, 24), torch.randn(2, 24))
    kept = choice(lm, temporal=temporal).feature_spec.take(encoded)
    assert kept.shape == (2, steps, 4, 24)
    wanted = {"none": encoded.tokens, "strided": encoded.tokens[:, 2::4], "mean": encoded.tokens.mean(1, keepdim=True)}
    assert torch.equal(kept, wanted[temporal].half())


def test_the_resampler_tells_the_order_of_steps(lm: Path) -> None:
    adapter = choice(lm)
    features = tokens(1, steps=6).float()[:, 0]
    assert not torch.allclose(adapter.reader.resampler(features), adapter.reader.resampler(features.flip(1)), atol=1e-5)


def test_training_multiple_choice_leaves_the_language_model_as_it_was() -> None:
    adapter = choice("")
    before = adapter.frozen["lm"]
    start = adapter.training_step(Batch(QUESTIONS, tokens(2)), 0)
    optimizer = torch.optim.AdamW([p for p in adapter.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        loss = adapter.training_step(Batch(QUESTIONS, tokens(2)), 0)
        loss.backward()
        optimizer.step()
    assert loss < start - 0.05
    assert adapter.frozen["lm"] == before


def test_a_language_model_that_transformers_cannot_load_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lm=.*: no config.json there, so it is no model that transformers saved"):
        choice(tmp_path)


def test_what_an_adapter_learned_comes_back_from_disk(tmp_path: Path, lm: Path) -> None:
    adapter = choice(lm)
    trained_adapter.save_adapter(adapter, tmp_path / "a", {"settings": {"latents": 3}})
    torch.manual_seed(random.randrange(1000) + 1)
    other = choice(lm)
    other.reader.resampler.latents.data.zero_()
    trained_adapter.restore_adapter(other, tmp_path / "a")
    for one, two in zip(
        trained_adapter.adapter_state(adapter).values(), trained_adapter.adapter_state(other).values(), strict=True
    ):
        assert torch.allclose(one, two, atol=1e-3)
    assert not any(name.startswith("lm.") for name in trained_adapter.adapter_state(adapter))
    assert trained_adapter.adapter_settings(tmp_path / "a") == {"latents": 3}


def test_an_adapter_is_not_restored_over_another_language_model(tmp_path: Path, lm: Path) -> None:
    adapter = choice(lm)
    trained_adapter.save_adapter(adapter, tmp_path / "a", {"settings": {}})
    adapter.reader.lm.get_input_embeddings().weight.data.add_(1)
    with pytest.raises(UserError, match="was trained with lm .* train it again"):
        trained_adapter.restore_adapter(adapter, tmp_path / "a")


@pytest.mark.parametrize("scorer", ["letter", "letter_said"])
def test_letters_that_the_language_model_does_not_know_are_refused(scorer: str, tmp_path: Path) -> None:
    texts = [str(world.story(random.Random(i), 6, 180.0, 15.0)) for i in range(300)]
    (tmp_path / "tokenizer.model").write_bytes(models.vocabulary(texts, 200))
    tokenizer = LlamaTokenizer.from_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    shape: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), num_attention_heads=2, bos_token_id=2, eos_token_id=3, **shape)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=f"scorer={scorer}: the language model's vocabulary has no 'A'; use another lm"):
        choice(tmp_path, scorer=scorer, task=replace(TASK, test=QUESTIONS))


@pytest.mark.parametrize("scorer", ["likelihood", "letter", "letter_said", "yes"])
def test_every_scorer_learns_what_is_right_in_its_own_words(scorer: str) -> None:
    """Those that only weigh likelihoods otherwise are trained as `likelihood` is."""
    adapter = choice("", scorer=scorer)
    optimizer = torch.optim.AdamW([p for p in adapter.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        losses.append(adapter.training_step(Batch(QUESTIONS, tokens(2)), 0))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]
    assert all(one.value in (0, 1, None) for one in adapter.predict(QUESTIONS, tokens(2)))


def test_pointwise_mutual_information_is_what_question_and_video_add(lm: Path) -> None:
    plain, pmi = choice(lm), choice(lm, scorer="pmi")
    asked = [replace(example, text="") for example in QUESTIONS]
    alone = plain.predict(asked, None)
    for one, bare, other in zip(
        plain.predict(QUESTIONS, tokens(2)), alone, pmi.predict(QUESTIONS, tokens(2)), strict=True
    ):
        added = [a - b for a, b in zip(one.detail["log_likelihood"], bare.detail["log_likelihood"], strict=True)]
        assert other.value == added.index(max(added))
        assert other.detail["pmi"] == pytest.approx(added, abs=1e-4)
        assert other.detail == {**one.detail, "pmi": other.detail["pmi"]}


@pytest.mark.parametrize(
    ("place", "answers"),
    [
        (0, ["A", "A.", "A: a red ring", "(a) red", "A because", "A is right", "The answer is A", "A, because"]),
        (
            1,
            ["B", "b.", "B\nQuestion", "B\n\nQuestion: A", "B because", "Answer: B", "The answer is B.", "(B)", "\n B"],
        ),
        (
            1,
            ["the answer is (B)", "the answer is b", "**B**", "Answer: **B**", "\\boxed{B}", "[B]", "B - a ring", "B)"],
        ),
        (
            1,
            ["E.g. (B)", "Option B", "I think B", "I think it's B", "\uff22", "\uff08B\uff09", "B, a ring", "Answer:B"],
        ),
        (
            1,
            ["B</s>", "Answer:\nB", "The answer is\nB", "Sure!\nB", "<think>A or C</think>\nB", "assistant\nB", "B, B"],
        ),
        (1, ["Therefore, B", "So B.", "I would choose B.", "B.opening", "(A) is wrong, (B) is right", "B is correct"]),
        (1, ["C is cooking, so the answer is B", "B. C opens the door", "B) C picks", "B: C opens", "B, C opens it"]),
        (1, ["The answer is B: C opens the door", "B<|im_end|>", "Answer: option B", "The correct option is B"]),
        (0, ["answer: a", "A - opening", "So A."]),
        (2, ["(C) a ring", "C. A red ring", "answer: C because", "c", "not B but C", "C because"]),
        (4, ["Answer: E. C cleans", "I'd guess E"]),
    ],
)
def test_a_letter_that_is_said_names_its_option(place: int, answers: list[str]) -> None:
    named = plugins.module_and_factory("adapter", "multiple_choice")[0].named
    assert {answer: named(answer, 5).value for answer in answers} == dict.fromkeys(answers, place)


# EgoSchema calls whoever wears the camera C.
WEARER = ["C opens the door", "C is opening the drawer", "C picks a book", "The person in the video is C opening"]
NO_OPTION = ["", "a red ring", "D", "Both", "7", "a.m.", "A.M.", "U.S.", "A man runs", "I am", "B-roll", "T-shirt"]
SEVERAL = ["B, C", "b, c", "B/C", "A or B", "Both A and B", "(B) or (C)", "Answer: B, C", "neither A nor B", "not B"]
OTHERS = ["B, maybe C", "A as in", "a red ring\nB", "Options: (A) x (B) y"]


@pytest.mark.parametrize("said", [*NO_OPTION, *SEVERAL, *WEARER, *OTHERS, "The answer is a", "The answer is A man"])
def test_what_names_no_option_is_a_failure_with_its_words(said: str) -> None:
    found = plugins.module_and_factory("adapter", "multiple_choice")[0].named(said, 3)
    assert found.value is None
    assert found.detail == {"said": said, "failure": f"the answer {said!r} names none of 3 options"}


def test_a_captioner_s_weights_answer_multiple_choice_and_the_other_way_round(tmp_path: Path, tiny: Path) -> None:
    """As LongViViT's do: EgoSchema has nothing to train on."""
    encoder = load_encoder(tiny)
    assert isinstance(encoder, nn.Module)
    for one, other in (("captioner", "multiple_choice"), ("multiple_choice", "captioner")):
        settings = {"join": "prefix", "latents": 3, "depth": 1, "lr": 0.5}
        learned = make_adapter(one, encoder, TASK, **settings)
        record = {"settings": settings, "frozen": {"encoder": checkpoint.sha256(encoder)}}
        trained_adapter.save_adapter(learned, trained_adapter.adapter_folder(tmp_path / one, one), record)
        words = ["task=egoschema", "mini=true", f"ckpt={tiny}", f"adapter={other}", f"adapter.from={tmp_path / one}"]
        if other == "captioner":
            words[0] = "task=youcook2"
        with prepare(resolve("run", words)) as parts:
            assert parts.fitted_from == tmp_path / one / "adapters" / one
            assert (parts.settings["latents"], parts.settings["depth"], parts.settings["lr"]) == (3, 1, 3e-3)
            for name, value in trained_adapter.adapter_state(parts.adapter).items():
                assert torch.equal(value.half(), trained_adapter.adapter_state(learned)[name].half())
