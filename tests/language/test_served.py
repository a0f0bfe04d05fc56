"""Language models that a server holds, asked through a small server in this process."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evalkit.api import Task
from evalkit.errors import UserError
from evalkit.language import served
from evalkit.language.causal_lm import Continuation, LanguageModel
from evalkit.language.models import load
from evalkit.language.served import ServedModel
from evalkit.metrics.classification import accuracy
from evalkit.pipeline.text_only import NoEncoder
from tests.given import QUESTIONS, make_adapter
from tests.language.completions import Completions, Reply, serving

TASK = Task(test=QUESTIONS, score=accuracy)
CONTINUATIONS = [
    Continuation(i, f"Question: {example.text} Answer:", option)
    for i, example in enumerate(QUESTIONS)
    for option in example.choices
]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(served, "LONGEST_WAIT_S", 0.02)


def choice(address: str, **settings: Any) -> Any:
    return make_adapter("multiple_choice", NoEncoder(), TASK, lm=address, **settings)


def refusal(say: Any) -> str:
    """Why a server that says this is no language model."""
    with serving(say) as server, pytest.raises(UserError) as caught:
        ServedModel(server.address)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700
    return str(caught.value)


def test_likelihoods_and_texts_of_a_server_are_those_of_the_model_that_it_holds() -> None:
    local = LanguageModel(*load("")).eval()
    with serving(Completions()) as server:
        model = ServedModel(server.address)
        assert model.tells == "echo" and model.name == "tiny"
        found, wanted = model.loglikelihoods(CONTINUATIONS), local.loglikelihoods(CONTINUATIONS)
        assert [tokens for _, tokens, _ in found] == [tokens for _, tokens, _ in wanted]
        assert [logprob for logprob, *_ in found] == pytest.approx([logprob for logprob, *_ in wanted], abs=1e-4)
        prompts = [continuation.context for continuation in CONTINUATIONS]
        assert model.generate(prompts, None, 1, 6) == local.generate(prompts, None, 1, 6)
        assert {request["path"] for request in server.requests} == {"/v1/completions"}


@pytest.mark.parametrize("scorer", ["likelihood", "likelihood_per_token", "pmi", "yes", "letter", "letter_said"])
def test_every_scorer_answers_through_a_server_as_without_one(scorer: str) -> None:
    alone = choice("", scorer=scorer).eval().predict(QUESTIONS, None)
    with serving(Completions()) as server:
        found = choice(server.address, scorer=scorer).predict(QUESTIONS, None)
    for one, other in zip(found, alone, strict=True):
        assert one.value == other.value
        assert one.detail.get("said") == other.detail.get("said")
        assert one.detail.get("log_likelihood") == pytest.approx(other.detail.get("log_likelihood"), abs=1e-4)


def test_a_server_without_echo_weighs_letters_and_one_without_log_probabilities_says_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for says in (Completions(echo=False), Completions(as_chat=True)):
        with serving(says) as server:
            adapter = choice(server.address)
            told = capsys.readouterr().err
            assert "gives only the likeliest next tokens, so that adapter.scorer=letter is used" in told
            assert adapter.frozen["scored_by"] == "letter" and "Options: A: a red ring grows B:" in adapter._asks(
                QUESTIONS[0]
            )
            letters = choice("", scorer="letter").eval().predict(QUESTIONS, None)
            for one, other in zip(adapter.predict(QUESTIONS, None), letters, strict=True):
                assert one.value == other.value
                assert one.detail["log_likelihood"] == pytest.approx(other.detail["log_likelihood"], abs=1e-4)
    with serving(Completions(echo=False, logprobs=False)) as server:
        adapter = choice(server.address)
        assert adapter.frozen["scored_by"] == "letter_said"
        said = choice("", scorer="letter_said").eval().predict(QUESTIONS, None)
        assert [one.value for one in adapter.predict(QUESTIONS, None)] == [one.value for one in said]


def test_options_whose_first_token_spans_the_prompt_are_cut_at_the_same_place() -> None:
    """`:x` is one token of the second option; the first is cut before the colon, too."""
    tokens = {"Q: x y": ["Q", ":", " x", " y"], "Q: x z": ["Q", ": x", " z"]}

    def say(body: dict[str, Any]) -> Reply:
        listed = tokens.get(body["prompt"]) or list(body["prompt"])
        values = [None, *(-float(k) for k in range(1, len(listed)))]
        return 200, {"choices": [{"text": body["prompt"], "logprobs": {"tokens": listed, "token_logprobs": values}}]}

    with serving(say) as server:
        model = ServedModel(server.address)
        found = model.loglikelihoods([Continuation(0, "Q:", "x y"), Continuation(0, "Q:", "x z")])
    assert [likelihood[:2] for likelihood in found] == [(-1.0 - 2.0 - 3.0, 3), (-1.0 - 2.0, 2)]


def test_a_server_that_is_busy_or_stumbles_is_asked_again() -> None:
    good = Completions()
    troubles: list[Reply] = [(429, b"", {"Retry-After": "0"}), (500, b"oops"), (503, {"error": "loading"})]

    def say(body: dict[str, Any]) -> Reply:
        return troubles.pop() if troubles else good(body)

    with serving(say) as server:
        assert ServedModel(server.address).tells == "echo"
        assert len(server.requests) == 4
    assert "does not answer, asked 6 times: HTTP 500: oops" in refusal(lambda body: (500, b"oops"))


def test_a_server_that_is_slow_or_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "TIMEOUT_S", 0.1)
    monkeypatch.setattr(served, "TRIES", 2)

    def say(body: dict[str, Any]) -> Reply:
        time.sleep(0.3)
        return 200, {}

    assert "does not answer, asked 2 times: no whole reply within 0.1 s" in refusal(say)

    def drip() -> Iterator[bytes]:
        for _ in range(100):
            time.sleep(0.02)
            yield b" "

    assert "does not answer, asked 2 times: no whole reply within 0.1 s" in refusal(lambda body: (200, drip()))
    with pytest.raises(UserError, match="does not answer, asked 2 times: ConnectionRefusedError"):
        ServedModel("http://127.0.0.1:9/v1#tiny")


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>", b"[1]", b"null", b'{"choices": []}', b'{"choices": [3]}', b'{"choices": {"a": 1}}', b"[" * 99_999],
)
def test_replies_that_are_no_completions_are_told(content: bytes) -> None:
    assert "the reply is no completion as OpenAI's interface gives it" in refusal(lambda body: (200, content))


@pytest.mark.parametrize(
    "logprobs",
    [
        None,
        [],
        {"tokens": 3},
        {"tokens": ["Q"], "token_logprobs": []},
        {"tokens": [1, 2, 3], "token_logprobs": [None, -1, -1]},
        {"tokens": ["Q", "u", "x"], "token_logprobs": [None, "low", {}]},
        {"tokens": ["Q", "u", "x"], "token_logprobs": [None, -1.0, -1.0]},
    ],
)
def test_an_echo_that_is_not_as_it_should_be_counts_as_none(logprobs: Any) -> None:
    with serving(lambda body: (200, {"choices": [{"text": "x", "logprobs": logprobs}]})) as server:
        assert ServedModel(server.address).tells == "nothing"


def test_a_hostile_server_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "MAX_REPLY_BYTES", 100_000)
    assert "a reply of more than 100,000 bytes" in refusal(lambda body: (200, b"x" * 5_000_000))
    for place in ("file:///etc/passwd", "http://169.254.169.254/"):
        said = refusal(lambda body, place=place: (302, b"", {"Location": place}))
        assert f"the server redirects to '{place}', which is not followed" in said
    assert "HTTP 404: no such model" in refusal(lambda body: (404, {"error": {"message": "no such\nmodel"}}))


def test_the_key_comes_from_the_environment_and_is_told_to_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(served.KEY, "secret-123")
    with serving(Completions()) as server:
        adapter = choice(server.address)
        adapter.predict(QUESTIONS, None)
        assert {request["key"] for request in server.requests} == {"Bearer secret-123"}
        assert "secret" not in repr([adapter.frozen, adapter.describe_language_model(QUESTIONS[0])])
    assert "HTTP 401: bad key ***;" in refusal(lambda body: (401, {"error": {"message": "bad key secret-123"}}))


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("http://127.0.0.1:1/v1", "wanted the address of a served model, as http://127.0.0.1:8000/v1#MODEL"),
        ("http:///v1#m", "wanted the address of a served model"),
        ("http://127.0.0.1:99999/v1#m", "Port out of range"),
        ("http://user:word@127.0.0.1/v1#m", "give a key as EVALKIT_LM_KEY=... in the environment"),
        ("https://127.0.0.1/v1?key=1#m", "wanted the address of a served model"),
    ],
)
def test_addresses_that_are_none_are_told_without_their_secrets(address: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        ServedModel(address)
    assert told in str(caught.value) and "word@" not in str(caught.value)


def test_a_prompt_that_a_server_refuses_is_a_failed_example() -> None:
    good = Completions()

    def say(body: dict[str, Any]) -> Reply:
        too_long = "What happens?" in body["prompt"]
        return (400, {"message": "it has too many tokens"}) if too_long else good(body)

    with serving(say) as server:
        refused, answered = choice(server.address).predict(QUESTIONS, None)
    assert refused.value is None and "the server refuses the prompt, or gives no" in refused.detail["failure"]
    assert answered.value in (0, 1)


def test_what_a_server_cannot_do_is_refused_before_it_is_asked(tiny: Path) -> None:
    from evalkit import load_encoder

    address = "http://127.0.0.1:9/v1#m"
    with pytest.raises(UserError, match="a server reads text alone, and no encoder's tokens: give ckpt=none"):
        make_adapter("multiple_choice", load_encoder(tiny), TASK, lm=address)
    with pytest.raises(UserError, match="template=chat: a server's completions have no chat template"):
        choice(address, template="chat")


@pytest.mark.parametrize("begins", ["", "<s>"])
@pytest.mark.parametrize("blank", ["", " "])
@pytest.mark.parametrize("counts", [True, False])
def test_tokens_that_a_server_puts_before_the_prompt_move_nothing(begins: str, blank: str, counts: bool) -> None:
    listed = [*([begins] if begins else []), f"{blank}Q", ":", " x", " y"]
    offsets = [len("".join(listed[:i])) for i in range(len(listed))]
    more = {"text_offset": offsets} if counts else {}
    values = [None, *(-float(k) for k in range(1, len(listed)))]

    def say(body: dict[str, Any]) -> Reply:
        if body["prompt"] == "Q: x y":
            return 200, {"choices": [{"text": "", "logprobs": {"tokens": listed, "token_logprobs": values, **more}}]}
        letters = list(body["prompt"])
        logprobs = {"tokens": letters, "token_logprobs": [None, *[-1.0] * (len(letters) - 1)]}
        return 200, {"choices": [{"text": "", "logprobs": logprobs}]}

    with serving(say) as server:
        found = ServedModel(server.address).loglikelihoods([Continuation(0, "Q:", "x y")])
    assert [likelihood[:2] for likelihood in found] == [(sum(values[-2:]), 2)]  # type: ignore[arg-type]
