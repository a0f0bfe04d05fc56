"""A language model alone, and with an encoder's tokens joined to its words in either way."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from evalkit import demo
from evalkit.language.causal_lm import Continuation, LanguageModel
from evalkit.language.models import load
from evalkit.language.reader import Join, VideoLanguageModel

ASKED = [Continuation(0, "What happens?", "a red ring grows"), Continuation(1, "What is it? Answer:", "a blue square")]
PROMPTS = [one.context for one in ASKED]


def made(join: Join, **settings: Any) -> VideoLanguageModel:
    torch.manual_seed(0)
    settings = {"latents": 3, "depth": 1, "gate": False, **settings}
    return VideoLanguageModel(24, *load(""), join=join, **settings).eval()


def tokens() -> Tensor:
    return torch.randn(2, 4, 5, 24, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("join", ["prefix", "cross_attention"])
def test_without_tokens_the_words_alone_are_read(join: Join) -> None:
    reader, alone = made(join), LanguageModel(*load("")).eval()
    with torch.no_grad():
        seen, blind = reader.loglikelihoods(ASKED, tokens()), reader.loglikelihoods(ASKED)
        assert blind == alone.loglikelihoods(ASKED)
        assert all(abs(one.logprob - other.logprob) > 1e-3 for one, other in zip(seen, blind, strict=True))
        assert torch.equal(reader.next_token_logprobs(PROMPTS, None)[0], alone.next_token_logprobs(PROMPTS, None)[0])
    assert reader.generate(PROMPTS, None, 1, 5) == alone.generate(PROMPTS, None, 1, 5)


def test_a_prefix_is_embeddings_before_the_words() -> None:
    reader, alone = made("prefix"), LanguageModel(*load("")).eval()
    with torch.no_grad():
        visual = reader.visual_tokens(tokens())
        assert reader.loglikelihoods(ASKED, tokens()) == alone.loglikelihoods(ASKED, visual)


def test_the_weights_have_the_names_that_the_embedded_captioner_was_saved_with() -> None:
    saved = load_file(Path(demo.FOLDER) / "adapters" / "captioner" / "adapter.safetensors")
    trained = {name for name, value in made("prefix", depth=2).named_parameters() if value.requires_grad}
    assert {f"reader.{name}" for name in trained} == set(saved)
    crossing = {name for name, _ in made("cross_attention", gate=True).named_parameters() if name.startswith("cross")}
    assert {name.split(".", 2)[2] for name in crossing} == {
        *("norm.weight", "norm.bias", "gate", "attention.in_proj_weight", "attention.in_proj_bias"),
        *("attention.out_proj.weight", "attention.out_proj.bias"),
    }


@torch.no_grad()
def test_a_copy_of_a_reader_attends_to_its_own_tokens() -> None:
    reader = made("cross_attention")
    before, other = reader.next_token_logprobs(PROMPTS, tokens())[0], copy.deepcopy(reader)
    for weight in other.crossings.parameters():
        weight.zero_()
    assert torch.equal(reader.next_token_logprobs(PROMPTS, tokens())[0], before)
    blind = other.next_token_logprobs(PROMPTS, None)[0]
    assert torch.allclose(other.next_token_logprobs(PROMPTS, tokens())[0], blind, atol=1e-6)
    assert not torch.allclose(before, blind, atol=1e-3)
