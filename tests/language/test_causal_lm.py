"""Likelihoods of texts: exact, of the same event, in passes with a bound, whatever else is asked."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from evalkit.errors import UserError
from evalkit.language import causal_lm
from evalkit.language.causal_lm import Continuation, LanguageModel
from evalkit.language.models import load

QUESTIONS = ("What happens?", "What is it? Answer:", "Which of these is it? Answer:")
OPTIONS = ("a red ring grows", "a blue square", "it moves left, then it turns green and blinks")
ASKED = [Continuation(k, question, option) for k, question in enumerate(QUESTIONS) for option in OPTIONS]


@pytest.fixture(scope="module")
def tokenizer(lm: Path) -> Any:
    return load(str(lm))[1]


def large(vocabulary: int = 49_152) -> Any:
    """A random model with a real vocabulary, as sure of its words as a trained one is."""
    torch.manual_seed(0)
    shape: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    model: Any = LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, num_attention_heads=2, **shape))
    model.lm_head.weight.data *= 60
    return model.eval()


@torch.no_grad()
def exact(reader: LanguageModel, asked: list[Continuation]) -> list[float]:
    """Log-likelihoods in float64, each text by itself, from the logits of its whole sequence."""
    model, values = copy.deepcopy(reader.lm).double(), []
    for k, context, text in asked:
        ids, texts = reader.prompts.split_options(context, [c.text for c in asked if c[:2] == (k, context)])
        rest = texts[[c.text for c in asked if c[:2] == (k, context)].index(text)]
        logprobs = model(input_ids=torch.tensor([ids + rest])).logits[0, len(ids) - 1 : -1].log_softmax(-1)
        values.append(float(logprobs[range(len(rest)), rest].sum()))
    return values


def logprobs(reader: LanguageModel, asked: list[Continuation] = ASKED, tokens: Tensor | None = None) -> list[float]:
    return [likelihood.logprob for likelihood in reader.loglikelihoods(asked, tokens)]


def test_a_large_vocabulary_costs_no_digits(tokenizer: Any) -> None:
    """Over a transposed layout the cross-entropy was off by up to 0.01 of 49,152 tokens."""
    reader = LanguageModel(large(), tokenizer)
    wanted = exact(reader, ASKED)
    assert logprobs(reader) == pytest.approx(wanted, abs=2e-4)
    assert min(wanted) < -100
    tokens = sum(likelihood.tokens for likelihood in reader.loglikelihoods(ASKED))
    assert float(reader.loss(ASKED, None)) == pytest.approx(-sum(wanted) / tokens, abs=1e-5)


def test_only_texts_are_projected_to_the_vocabulary_and_contexts_are_read_once(tokenizer: Any) -> None:
    reader = LanguageModel(large(500), tokenizer)
    projected, read = list[int](), list[int]()
    reader.lm.lm_head.register_forward_hook(lambda _, args, out: projected.append(out.shape[:-1].numel()))  # type: ignore
    reader.lm.model.embed_tokens.register_forward_pre_hook(lambda _, args: read.append(args[0].numel()))  # type: ignore
    likelihoods = reader.loglikelihoods(ASKED)
    texts = [likelihood.tokens for likelihood in likelihoods]
    assert sum(projected) == sum(texts) + len(QUESTIONS)  # one position of each context alone
    contexts = [len(reader.prompts.split_options(question, OPTIONS)[0]) for question in QUESTIONS]
    padded = sum(3 * max(texts[k : k + 3]) for k in range(0, 9, 3))
    assert sum(read) == sum(contexts) - len(contexts) + padded
    projected.clear()
    reader.loss(ASKED, None)
    assert projected == [sum(texts)]


@pytest.mark.parametrize(("positions", "logits"), [(60, 2**28), (8192, 4 * 500 * 5), (1, 1)])
def test_passes_keep_their_bounds_and_change_nothing(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch, positions: int, logits: int
) -> None:
    reader = LanguageModel(large(500), tokenizer)
    wanted = logprobs(reader)
    monkeypatch.setattr(causal_lm, "MOST_POSITIONS", positions)
    monkeypatch.setattr(causal_lm, "MOST_LOGITS", logits)
    sizes, held = list[int](), list[int]()
    reader.lm.lm_head.register_forward_hook(lambda _, args, out: sizes.append(4 * out.numel()))  # type: ignore
    reader.lm.register_forward_pre_hook(
        lambda _, args, kwargs: held.append(kwargs["attention_mask"].numel()), with_kwargs=True
    )
    assert logprobs(reader) == pytest.approx(wanted, abs=1e-4)
    longest = max(len(reader.prompts.encode(f"{c.context} {c.text}")) for c in ASKED)
    assert max(sizes) <= max(logits, 4 * 500) and max(held) <= max(positions, longest)


def test_likelihoods_are_those_of_each_text_alone_with_a_cache_and_without(tokenizer: Any) -> None:
    reader = LanguageModel(large(500), tokenizer)
    singly = [logprobs(reader, [one])[0] for one in ASKED]
    assert logprobs(reader) == pytest.approx(singly, abs=1e-4)
    assert logprobs(reader, ASKED[::-1]) == pytest.approx(singly[::-1], abs=1e-4)
    reader.traits = reader.traits._replace(cache=False, rows=False)
    assert logprobs(reader) == pytest.approx(singly, abs=1e-4)


def joining() -> Any:
    """A tokenizer whose token ": a" spans the end of a prompt and the start of an option."""
    from tokenizers import Tokenizer, models

    pieces = ["<s>", "</s>", *"QA?:abc ", " a", ": a"]
    bpe = models.BPE({piece: k for k, piece in enumerate(pieces)}, [(" ", "a"), (":", " a")])
    made: Any = PreTrainedTokenizerFast
    return made(tokenizer_object=Tokenizer(bpe), bos_token="<s>", eos_token="</s>")


def test_options_after_a_token_that_spans_the_prompt_are_cut_alike() -> None:
    """All are the same event: of the option that is not joined, the prompt's end counts, too."""
    spanning = joining()
    reader = LanguageModel(large(50), spanning)
    ids, (joined, other) = reader.prompts.split_options("Q? A:", ["a b", "c"])
    assert spanning.convert_ids_to_tokens(ids) == [*"Q? A"]
    assert [spanning.convert_ids_to_tokens(row) for row in (joined, other)] == [[": a", " ", "b"], [":", " ", "c"]]
    asked = [Continuation(0, "Q? A:", text) for text in ("a b", "c")]
    assert logprobs(reader, asked) == pytest.approx(exact(reader, asked), abs=1e-4)
    # An option of another question about the same prompt changes nothing.
    more = [*asked, Continuation(1, "Q? A:", "c")]
    assert logprobs(reader, more)[:2] == pytest.approx(logprobs(reader, asked), abs=1e-5)
    assert [likelihood.tokens for likelihood in reader.loglikelihoods(more)] == [3, 3, 2]


def test_an_empty_option_has_a_token_too(tokenizer: Any) -> None:
    """Otherwise its likelihood would be that of nothing, which is certain."""
    reader = LanguageModel(large(500), tokenizer)
    likelihoods = reader.loglikelihoods([Continuation(0, "What happens?", text) for text in ("", "a ring")])
    assert likelihoods[0].tokens > 0 and likelihoods[0].logprob < 0


def test_a_prompt_of_which_nothing_stays_is_told() -> None:
    with pytest.raises(UserError, match="prompt ':': nothing of it stands before the text; say more in adapter.prompt"):
        LanguageModel(large(50), joining()).prompts.split_options(":", ["a b", "c"])


def test_the_loss_of_a_batch_is_the_mean_over_the_tokens_of_its_texts_and_their_end(tokenizer: Any) -> None:
    model = large(500).requires_grad_(True)
    reader = LanguageModel(model, tokenizer, frozen=False)
    loss = reader(ASKED[:4], None, end=True)
    rows = [reader.prompts.split_options(c.context, [c.text]) for c in ASKED[:4]]
    total = torch.zeros(())
    for ids, (text,) in rows:
        labels = torch.tensor([[-100] * len(ids) + [*text, reader.eos]])
        total = total + model(input_ids=torch.tensor([[*ids, *text, reader.eos]]), labels=labels).loss * (len(text) + 1)
    mean = total / sum(len(text) + 1 for _, (text,) in rows)
    assert torch.allclose(loss, mean, atol=1e-4)
    wanted = torch.autograd.grad(mean, model.lm_head.weight)[0]
    assert torch.allclose(torch.autograd.grad(loss, model.lm_head.weight)[0], wanted, atol=1e-5)
