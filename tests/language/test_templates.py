"""Chat templates: what stands around a question, how an answer goes on, and templates that fail or never end."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers.processors import TemplateProcessing

from evalkit.api import Task
from evalkit.errors import UserError
from evalkit.language import templates
from evalkit.language.causal_lm import Continuation, LanguageModel
from evalkit.language.models import load
from evalkit.language.templates import PLAIN, choose_template
from evalkit.metrics.classification import accuracy
from tests.given import QUESTIONS, make_adapter, small

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Begins with the token that begins a text, and trims what is said, as Llama 3's does.
LLAMA = (
    "{{ bos_token }}{% for m in messages %}<h>{{ m.role }}</h>\n\n{{ m.content | trim }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<h>assistant</h>\n\n{% endif %}"
)
MISTRAL = "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %}"
MISTRAL += " {{ m.content }}</s>{% endif %}{% endfor %}"
THINKING = (
    "{% for m in messages %}<{{ m.role }}>\n{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}<end>\n{% endfor %}{% if add_generation_prompt %}<assistant>\n{% endif %}"
)


class Here:
    """A pool that renders in this process: another takes seconds to start."""

    def __init__(self, *_: Any) -> None:
        pass

    def __enter__(self) -> "Here":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, function: Any, arguments: Any, **_: Any) -> list[Any]:
        return [function(*these) for these in arguments]


@pytest.fixture
def rendered_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "ProcessPool", Here)


def model(source: str | None = None) -> LanguageModel:
    lm, tokenizer = load("")
    tokenizer.chat_template = source
    begins = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)])
    tokenizer.backend_tokenizer.post_processor = begins  # as Llama's, whose tokenizer begins a text by itself
    made = LanguageModel(lm, tokenizer).eval()
    made.prompts.template = choose_template("auto", tokenizer)
    return made


@pytest.mark.parametrize(
    ("source", "before", "after", "joint", "special", "end"),
    [
        (CHATML, "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n", "", True, "<|im_end|>"),
        (LLAMA, "<s><h>user</h>\n\n", "<|eot|><h>assistant</h>\n\n", "", False, "<|eot|>"),
        (MISTRAL, "<s>[INST] ", " [/INST]", " ", False, "</s>"),
        (THINKING, "<user>\n", "<end>\n<assistant>\n<think>\n\n</think>\n\n", "", True, "<end>"),
    ],
)
@pytest.mark.usefixtures("rendered_here")
def test_a_template_is_what_stands_around_the_question(
    source: str, before: str, after: str, joint: str, special: bool, end: str
) -> None:
    found = model(source).template
    assert found[:5] == (before, after, joint, special, end)
    assert found(" What? ") == f"{before}What?{after}" and found.name.startswith("chat ")


@pytest.mark.parametrize("date", ["{{ date_string }}", '{{ strftime_now("%d %b %Y") }}'])
@pytest.mark.usefixtures("rendered_here")
def test_a_template_with_a_date_is_the_same_every_day(date: str) -> None:
    """Llama 3's falls back to this day, where it does not know another."""
    assert model(f"Today: {date}\n{CHATML}").template.before == "Today: 26 Jul 2024\n<|im_start|>user\n"


@pytest.mark.parametrize("source", [CHATML, LLAMA, MISTRAL, THINKING])
@torch.no_grad()
@pytest.mark.usefixtures("rendered_here")
def test_an_option_is_joined_as_the_template_goes_on_and_a_text_begins_once(source: str) -> None:
    made = model(source)
    tokenizer = made.tokenizer
    said = [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "a red ring"}]
    whole = tokenizer.apply_chat_template(said, tokenize=False)
    whole = whole[: whole.index("a red ring") + len("a red ring")]
    ids = tokenizer.encode(whole, add_special_tokens=not whole.startswith("<s>"))
    assert ids.count(tokenizer.bos_token_id) == 1 and ids[0] == tokenizer.bos_token_id
    context, (text,) = made.prompts.split_options("What is it?", ["a red ring"])
    assert context + text == ids
    labels = torch.tensor([[-100] * len(context) + text])
    loss = made.lm(input_ids=torch.tensor([ids]), labels=labels).loss.item()
    ((logprob, count, _),) = made.loglikelihoods([Continuation(0, "What is it?", "a red ring")])
    assert count == len(text) and logprob == pytest.approx(-loss * len(text), abs=1e-4)


def test_plain_text_is_asked_where_there_is_no_template_or_none_is_wanted() -> None:
    made = model()
    assert made.template is PLAIN and made.template(" What? ") == " What? "
    made.tokenizer.chat_template = CHATML
    assert choose_template("none", made.tokenizer) is PLAIN
    made.tokenizer.chat_template = None
    with pytest.raises(UserError, match="template=chat: the language model's tokenizer has no chat template; use none"):
        choose_template("chat", made.tokenizer)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ raise_exception('no roles here') }}", "no roles here"),
        ("{% for", "TemplateSyntaxError"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError"),
        ("{{ messages[0].role }}", "the question stands 0 times in what it renders"),
        ("{{ messages[0].content }} {{ messages[0].content }}", "the question stands 2 times"),
        ("{{ 'x' * 1000000 }}{{ messages[0].content }}", "it renders 1,000,012 characters, at most 100,000"),
        ("x" * 1_000_001, "it has 1,000,001 characters, at most 1,000,000 are read"),
    ],
)
@pytest.mark.usefixtures("rendered_here")
def test_a_template_that_fails_is_told_in_one_line(source: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        model(source)
    said = str(caught.value)
    assert "\n" not in said and said.startswith("the language model's chat template fails: ") and told in said
    assert said.endswith("; adapter.template=none asks without it")


def test_a_template_that_never_ends_or_fills_the_memory_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "TIME_LIMIT_S", 1.0)
    endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}{{ messages[0].content }}"
    with pytest.raises(UserError, match="rendering took longer than 1 s"):
        model(endless)
    with pytest.raises(UserError, match="MemoryError|died|OverflowError"):
        model("{{ 'x' * 10**15 }}{{ messages[0].content }}")


@pytest.mark.usefixtures("rendered_here")
def test_letters_are_asked_with_their_options_in_the_template(tmp_path: Path) -> None:
    lm, tokenizer = load("")
    tokenizer.chat_template = CHATML
    lm.save_pretrained(tmp_path)  # type: ignore[operator]
    tokenizer.save_pretrained(tmp_path)
    task = Task(test=QUESTIONS, score=accuracy)
    made: dict[str, Any] = {
        scorer: make_adapter("multiple_choice", small(), task, lm=str(tmp_path), scorer=scorer, latents=3, depth=1)
        for scorer in ("letter", "letter_said")
    }
    asked = "Question: What happens? Options: A: a red ring grows B: a blue cross moves left, then a ring Answer:"
    for adapter in made.values():
        about = adapter.eval().describe_language_model(QUESTIONS[0])
        assert about["prompt"] == f"<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>assistant\n"
        assert about["template"] == adapter.frozen["template"] and about["template"].startswith("chat ")
        assert all(one.value in (0, 1, None) for one in adapter.predict(QUESTIONS, None))
    plain = make_adapter("multiple_choice", small(), task, lm=str(tmp_path), template="none", latents=3, depth=1)
    assert "template" not in plain.frozen and plain.describe_language_model(QUESTIONS[0])["prompt"] == (
        "Question: What happens? Answer:"
    )
    empty = replace(QUESTIONS[0], choices=("", "a red ring grows"))
    assert make_adapter(
        "multiple_choice", small(), replace(task, test=[empty]), lm=str(tmp_path), latents=3, depth=1
    ).eval().predict([empty], None)[0].value in (0, 1)


def test_a_text_ends_at_any_of_the_tokens_that_the_files_name(tmp_path: Path) -> None:
    lm, tokenizer = load("")
    generation: Any = lm.generation_config
    generation.eos_token_id = [7, 3]
    lm.save_pretrained(tmp_path)  # type: ignore[operator]
    tokenizer.save_pretrained(tmp_path)
    made = LanguageModel(*load(str(tmp_path))).eval()
    assert made.ends == [3, 7], "the tokenizer's is 3"
    long = LanguageModel(*load("")).eval()
    ((text, *_),) = long.generate(["Question: What happens? Answer:"], None, 1, 8)
    assert text is not None
    ids = long.tokenizer.encode(text, add_special_tokens=False)
    ending: Any = made.lm.generation_config
    ending.eos_token_id = [ids[2], 3]
    ((short, ended, _),) = made.generate(["Question: What happens? Answer:"], None, 1, 8)
    assert ended and short is not None and text.startswith(short) and len(short) < len(text)
