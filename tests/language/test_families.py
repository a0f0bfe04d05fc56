"""Families of causal language models, tiny: right with text, a prefix and cross-attention, or refused in one line.

`python bench/language.py families` tries all that transformers can build.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from evalkit.errors import UserError
from evalkit.language.causal_lm import Continuation, LanguageModel
from evalkit.language.examine import traits
from evalkit.language.models import load
from evalkit.language.reader import VideoLanguageModel
from tests.language.families import ASKED, CONTEXTS, conformance, tiny

pytestmark = pytest.mark.slow


def _tokenizer(lm: Path) -> Any:
    return load(str(lm))[1]


# Learned positions, none, other widths of embeddings, scaled ones, nested configurations, windows, states, experts,
# decoders of translation models; ctrl, openai-gpt and gemma3 generate from no embeddings by themselves.
@pytest.mark.parametrize(
    "kind",
    ["bart", "bloom", "ctrl", "gemma", "gemma3", "gpt_oss", "llama", "mamba", "openai-gpt", "opt", "qwen3_5_text"],
)
def test_a_family_reads_words_and_videos_as_its_whole_sequences_say(kind: str, lm: Path) -> None:
    for join, measured in conformance(tiny(kind), _tokenizer(lm)).items():
        assert not measured.refusal, (join, measured.refusal)
        assert measured.reference < 1e-4 and measured.batch < 1e-4 and measured.generated, (join, measured)
        assert join == "text" or measured.seen > 1e-6, (join, measured)


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlnet", "xlm"])
def test_a_model_that_sees_what_comes_later_is_refused(kind: str, lm: Path) -> None:
    model, tokenizer = tiny(kind), _tokenizer(lm)
    with pytest.raises(UserError, match="is not causal: a change of the last token moved the logits before it") as told:
        LanguageModel(model, tokenizer)
    assert "\n" not in str(told.value)


def test_a_model_whose_answers_depend_on_padding_is_refused(lm: Path) -> None:
    """Reformer hashes what it reads into chunks of a batch's length."""
    with pytest.raises(UserError, match="ReformerModelWithLMHead reads a text otherwise where a batch pads it") as told:
        LanguageModel(tiny("reformer"), _tokenizer(lm))
    assert "\n" not in str(told.value)


def test_a_model_that_transformers_does_not_generate_with_is_told_in_one_line(lm: Path) -> None:
    """Of layers with a state alone: its cache has no length."""
    reader = LanguageModel(tiny("bamba", attn_layer_indices=[]), _tokenizer(lm)).eval()
    with pytest.raises(UserError, match="transformers generates no texts with BambaForCausalLM: ValueError: ") as told:
        reader.generate(["What happens?"])
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("kind", ["gemma3n_text", "gemma4_text"])
def test_embeddings_of_each_layer_are_not_lost(kind: str, lm: Path) -> None:
    """A model that looks its tokens up in every layer reads no embeddings alone."""
    model = tiny(kind)
    for name, value in model.named_parameters():
        if "altup.correct_output_scale" in name or "per_layer" in name:
            torch.nn.init.normal_(value, std=1.0)  # which random weights leave at zero
    measured = conformance(model, _tokenizer(lm))
    assert not measured["text"].refusal and measured["text"].reference < 1e-3 and measured["text"].generated
    assert (
        "adapter.join=prefix" in measured["prefix"].refusal
        and "reads embeddings otherwise" in measured["prefix"].refusal
    )
    crossed = measured["cross_attention"]
    assert "has no list of" in crossed.refusal if crossed.refusal else crossed.reference < 1e-3 and crossed.generated


def test_visual_tokens_have_the_scale_of_words_as_the_model_scales_them(lm: Path) -> None:
    """Gemma multiplies embedded words by the root of its width, which here is 32."""
    for kind, factor in (("gemma", 32**0.5), ("llama", 1.0), ("bart", 1.0)):
        reader = VideoLanguageModel(24, tiny(kind), _tokenizer(lm), latents=3, depth=1, join="prefix")
        words = reader.words(torch.arange(200)).std()
        assert reader.scale.item() == pytest.approx(words.item(), rel=1e-3)
        assert reader.scale.item() == pytest.approx(factor * reader.words.weight.std().item(), rel=1e-3)


def test_a_prefix_has_the_width_of_words_and_cross_attention_that_of_layers(lm: Path) -> None:
    """OPT-350m embeds words in half the width of its layers."""
    prefix, crossed = (
        VideoLanguageModel(24, tiny("opt"), _tokenizer(lm), latents=3, depth=1, join=join)
        for join in ("prefix", "cross_attention")
    )
    assert (prefix.resampler.latents.shape, crossed.resampler.latents.shape) == ((3, 16), (3, 32))


# Windows in each layer and in every other, chunks, another name for it. Texts are longer than the windows of 8 tokens.
@pytest.mark.parametrize("kind", ["gemma2", "inkling_text", "llama4_text", "mistral", "phi3", "qwen2"])
def test_texts_longer_than_attention_windows_are_read_the_same_with_a_cache(kind: str, lm: Path) -> None:
    model, tokenizer = tiny(kind), _tokenizer(lm)
    before = model.config.to_dict()
    assert [finding.outcome for finding in traits(model).findings if finding.check == "window"] == ["ok"]
    assert traits(model).window is None and model.config.to_dict() == before
    for join, measured in conformance(model, tokenizer).items():
        assert not measured.refusal, (join, measured.refusal)
        assert measured.reference < 1e-4 and measured.batch < 1e-4 and measured.generated, (join, measured)


# Layers of Moshi, and of a Llama whose configuration states a window, attend to all that came before; the caches keep
# what is in the window.
@pytest.mark.parametrize("kind", ["moshi", "llama"])
def test_a_model_whose_cache_forgets_what_its_layers_see_reads_what_is_in_its_window(kind: str, lm: Path) -> None:
    model, tokenizer = tiny(kind, sliding_window=24), _tokenizer(lm)
    model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]  # as a loaded one's is
    reader = LanguageModel(model, tokenizer).eval()
    assert (reader.traits.window, model.config.sliding_window) == (24, 24)
    prompt, options = "What happens with the ring?", ("it grows", "it turns green")
    asked = [Continuation(0, prompt, text) for text in options]
    ids, texts = reader.prompts.split_options(prompt, options)
    assert 8 < len(ids) + max(map(len, texts)) <= 24
    for likelihood, text in zip(reader.loglikelihoods(asked), texts, strict=True):
        with torch.no_grad():
            logprobs = model(torch.tensor([ids + text]), use_cache=False).logits[0, len(ids) - 1 : -1].log_softmax(-1)
        assert likelihood.logprob == pytest.approx(float(logprobs[range(len(text)), text].sum()), abs=1e-4)
    assert reader.generate([prompt], most=2)[0].text is not None
    longer = f"{prompt} {prompt} {prompt}"
    failure = "the language model reads 24 tokens, and prompt and text have "
    assert reader.loglikelihoods([Continuation(0, longer, options[0])])[0].failure.startswith(failure)
    assert reader.generate([longer, prompt], most=2)[0].failure.startswith(failure)
    logprobs, failures = reader.next_token_logprobs([longer, prompt])
    assert logprobs.isnan().all(1).tolist() == [True, False]
    assert failures[0].startswith(failure) and not failures[1]
    with pytest.raises(UserError, match=failure):
        reader.loss([Continuation(0, longer, options[0])], None)


@pytest.mark.parametrize("kind", ["llama", "phi3"])
def test_a_text_is_read_alike_beside_one_beyond_which_the_rotary_embedding_changes(kind: str, lm: Path) -> None:
    """Some of the texts, and some contexts without their texts, are of at most 14 tokens."""
    factors = {"short_factor": [1.0] * 4, "long_factor": [64.0] * 4, "factor": 4.0, "rope_theta": 10_000.0}
    rope = {"rope_type": "longrope", "original_max_position_embeddings": 14, **factors}
    model = tiny(kind, rope_parameters=rope, original_max_position_embeddings=14, sliding_window=None)
    tokenizer = _tokenizer(lm)
    for value in model.parameters():
        value.data *= 3  # so that positions are seen
    reader = LanguageModel(model, tokenizer)
    lengths = [row.length - 1 for row in reader.prompts.rows(ASKED, False)]
    assert reader.context_length.original == 14 and min(lengths) <= 14 < max(lengths)
    for join, measured in conformance(model, tokenizer).items():
        assert measured.reference < 1e-3 and measured.batch < 1e-3, (join, measured)
    model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]  # as a loaded one's is
    short, long = (text.failure for text in reader.generate(["What happens in it?", " ".join(CONTEXTS)], most=14))
    assert short.startswith("the language model changes its rotary embedding beyond 14 tokens, and a text after ")
    assert not long
