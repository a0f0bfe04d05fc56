"""`ckpt=none`: a language model alone on a task; no encoder, no video, and its line on the board."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from evalkit.api import Example, Prediction, Task
from evalkit.cli import main
from evalkit.config.parse import resolve
from evalkit.errors import UserError
from evalkit.language.causal_lm import LanguageModel
from evalkit.language.models import load
from evalkit.pipeline import text_only
from evalkit.pipeline.task_data import load_task
from evalkit.results import compare, run_folder, validate
from evalkit.video.workers import DecodePool
from tests.given import make, make_adapter, write

COLUMNS = ("q_uid", "question", *(f"option {i}" for i in range(5)))
TEXTS = ("C washes a cup", "C reads a book", "C opens a door", "C cuts a tree", "C plays a game")


@pytest.fixture(scope="module")
def ego(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """EgoSchema's files with 40 questions, and no video."""
    root = tmp_path_factory.mktemp("ego")
    uids = [f"uid-{i:02d}" for i in range(40)]
    turned = [TEXTS[i % 5 :] + TEXTS[: i % 5] for i in range(40)]
    rows = [dict(zip(COLUMNS, (uid, "What does C do?", *turned[i]), strict=True)) for i, uid in enumerate(uids)]
    write(root / "questions.json", rows)
    write(root / "subset_answers.json", {uid: i % 5 for i, uid in enumerate(uids)})
    return root


def words(ego: Path, out: Path, *more: str) -> list[str]:
    return ["task=egoschema", "ckpt=none", f"data.root={ego}", f"out={out}", "data.expect=40", "threads=1", *more]


def run(ego: Path, out: Path, *more: str) -> Path:
    return text_only.run(resolve("run", words(ego, out, *more)))


@pytest.fixture(scope="module")
def blind(tmp_path_factory: pytest.TempPathFactory, ego: Path) -> Path:
    """A run of the embedded language model; decoding anything fails."""

    def never(*_: Any) -> Any:
        raise AssertionError("a video was opened")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DecodePool, "read", never)
        return run(ego, tmp_path_factory.mktemp("blind"))


def test_all_questions_are_answered_by_the_language_model_without_any_video(blind: Path, ego: Path) -> None:
    record = run_folder.load(blind)
    assert validate.validate(blind) == []
    data = record["data"]
    assert (record["status"], data["n_expected"], data["n_scored"], data["n_failed"]) == ("complete", 40, 40, 0)
    assert (record["encoder"]["ckpt"], record["encoder"]["sha256"], record["cost"]["encoder_forwards"]) == (
        "none",
        None,
        0,
    )
    assert record["controls"] == [] and record["selection"] is None and record["adapter"]["trainable_parameters"] == 0
    task = make("egoschema", ego)
    alone = make_adapter("multiple_choice", text_only.NoEncoder(), task).eval()
    rows = run_folder.load_rows(blind)
    for row, wanted in zip(rows, alone.predict(task.test, None), strict=True):
        assert row.prediction == wanted.value
        assert row.detail and row.detail["log_likelihood"] == pytest.approx(wanted.detail["log_likelihood"], abs=1e-4)
    model = record["adapter"]["language_model"]
    assert model["name"] == "demo" and model["sha256"] == alone.reader.sha256 == record["task"]["protocol"]["lm"]
    assert model["prompt"] == "Question: What does C do? Answer:" and model["template"] == "none"
    assert set(record["task"]["protocol"]["settings"]) == {"scorer", "prompt"}


def test_its_record_is_scored_again_and_stands_on_board_and_page(
    blind: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", str(blind)]) == 0
    out = capsys.readouterr().out
    digest = run_folder.load(blind)["adapter"]["language_model"]["sha256"][:8]
    assert "encoder         none" in out and f"language model  demo {digest}, 0.5 M parameters" in out
    results = blind.parents[2]
    for ending in ("md", "html", "csv"):
        assert main(["leaderboard", f"results={results}", f"out={tmp_path / f'board.{ending}'}"]) == 0
        assert f"demo {digest} (text only)" in (tmp_path / f"board.{ending}").read_text()
    assert f"multiple_choice, demo {digest} |" in (tmp_path / "board.md").read_text()
    for form in ("lm_eval", "hf", "eee", "csv"):
        assert main(["export", f"to={form}", f"results={results}", f"out={tmp_path / form}"]) == 0
    assert compare.compare(blind, blind).n == 40


def test_a_changed_language_model_is_found_by_validation(blind: Path, tmp_path: Path) -> None:
    shutil.copytree(blind, tmp_path / blind.name)
    file = tmp_path / blind.name / "result.json"
    record = json.loads(file.read_text())
    record["adapter"]["language_model"]["sha256"] = "0" * 64
    file.write_text(json.dumps(record))
    assert any("language_model.sha256 is 0000" in problem for problem in validate.validate(tmp_path / blind.name))


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["adapter=probe"], "adapter probe needs an encoder's features. A language model alone answers questions"),
        (["adapter=zero_shot"], "adapter zero_shot needs an encoder's features"),
        (["adapter=segments_to_lm"], "adapter segments_to_lm needs an encoder's features"),
        (["clip.frames=8"], "clip.frames has no effect with ckpt=none: no video is read"),
        (["adapter.latents=8"], "adapter.latents has no effect with ckpt=none"),
        (["adapter.epochs=3"], "adapter.epochs has no effect with ckpt=none"),
        (["adapter.from=somewhere"], "adapter.from has no effect with ckpt=none"),
        (["trainer.shots=3"], "trainer.shots has no effect with ckpt=none"),
        (["devices=2"], "devices has no effect with ckpt=none"),
        (["data.videos=/somewhere"], "data.videos has no effect with ckpt=none"),
        (["encoder.prefix=model"], "encoder.prefix has no effect with ckpt=none"),
        (["controls=true"], "controls=true has no effect with ckpt=none: no video is read, nothing is trained and no"),
        (["adapter.stop=line"], "adapter.stop=line has no effect with adapter.scorer=likelihood"),
        (["trust=true"], "trust has no effect with ckpt=none"),
        (["adapter=captioner", "lm=scratch"], "lm=scratch is trained on videos, and ckpt=none has none"),
        (["lm=no/such/folder"], "lm=no/such/folder: no such folder"),
    ],
)
def test_what_has_no_sense_without_an_encoder_is_told_in_one_line(
    more: Sequence[str], told: str, ego: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *words(ego, tmp_path, *more)]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("evalkit: ") and "\n" not in said and told in said


def test_other_commands_say_who_takes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("canary", "adapt"):
        given = [] if command == "canary" else ["task=egoschema", "mini=true", f"out={tmp_path / 'a'}"]
        assert main([command, "ckpt=none", *given]) == 2
        assert "ckpt=none has no encoder: only evalkit run and sweep accept it" in capsys.readouterr().err


def test_a_task_of_classes_has_no_answer_in_words(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="adapter probe needs an encoder's features"):
        text_only.run(resolve("run", ["task=folder", "mini=true", "ckpt=none", f"out={tmp_path}"]))


def test_captions_and_open_questions_are_said_blind(tmp_path: Path) -> None:
    for name, settings in (("youcook2", []), ("msvd_qa", ["adapter.answers=open"])):
        given = [f"task={name}", "mini=true", "ckpt=none", f"out={tmp_path}", "threads=1", "adapter.max_tokens=4"]
        folder = text_only.run(resolve("run", [*given, *settings, "adapter.template=none", "adapter.stop=none"]))
        record = run_folder.load(folder)
        assert record["status"] == "complete" and validate.validate(folder) == []
        assert {type(row.prediction) for row in run_folder.load_rows(folder)} == {str}


def test_a_killed_run_goes_on_from_what_it_has_answered(
    ego: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    kind = type(make_adapter("multiple_choice", text_only.NoEncoder(), make("egoschema", ego)))
    predict, asked = kind.predict, list[str]()

    def counted(self: Any, examples: Sequence[Example], features: Any) -> list[Prediction]:
        asked.extend(example.id for example in examples)
        if len(asked) == 16:
            raise KeyboardInterrupt
        predictions: list[Prediction] = predict(self, examples, features)
        return predictions

    monkeypatch.setattr(kind, "predict", counted)
    with pytest.raises(KeyboardInterrupt):
        run(ego, tmp_path, "batch=8")
    folder = run(ego, tmp_path, "batch=8")
    assert asked == [f"uid-{i:02d}" for i in [*range(16), *range(8, 40)]]
    assert run_folder.load(folder)["status"] == "complete"
    assert not [*(tmp_path / "cache" / "journals").glob("*.jsonl")]


@pytest.mark.parametrize("scorer", ["likelihood", "likelihood_per_token", "pmi", "letter", "yes", "letter_said"])
def test_a_language_model_that_gives_nan_fails_each_example_with_its_reason(scorer: str) -> None:
    example = Example("1", Path("1"), 1, text="What?", choices=TEXTS)
    task = Task(test=[example], score=make("egoschema", mini=True).score)
    adapter = make_adapter("multiple_choice", text_only.NoEncoder(), task, scorer=scorer).eval()
    break_it(adapter.reader.lm)
    (prediction,) = adapter.predict([example], None)
    assert prediction.value is None and "the language model gives" in prediction.detail["failure"]
    json.dumps(prediction.detail, allow_nan=False)


@pytest.mark.parametrize("settings", [{}, {"beams": 2}, {"answers": "closed"}])
def test_captions_and_answers_of_a_language_model_that_gives_nan_fail(settings: dict[str, Any]) -> None:
    examples = [Example(str(i), Path("1"), ("yes", "no"), text="Is it?") for i in range(2)]
    task = Task(test=examples, train=examples, score=make("msvd_qa", mini=True).score)
    adapter = make_adapter("captioner", text_only.NoEncoder(), task, max_tokens=4, **settings).eval()
    assert all(one.value is not None for one in adapter.predict(examples, None))
    break_it(adapter.reader.lm)
    for prediction in adapter.predict(examples, None):
        assert prediction.value is None and "the language model gives" in prediction.detail["failure"]


@pytest.mark.parametrize("scorer", ["likelihood", "likelihood_per_token", "pmi", "letter", "yes", "letter_said"])
def test_a_question_longer_than_the_language_model_reads_fails_alone(scorer: str) -> None:
    """The others are answered as if it were not there."""
    long = Example("long", Path("1"), 1, text="What? " * 2000, choices=TEXTS)
    short = Example("short", Path("1"), 1, text="What?", choices=TEXTS)
    task = Task(test=[long, short], score=make("egoschema", mini=True).score)
    adapter = make_adapter("multiple_choice", text_only.NoEncoder(), task, scorer=scorer).eval()
    failed, answered = adapter.predict([long, short], None)
    assert failed.value is None
    assert "the language model reads 512 tokens, and prompt and text have" in failed.detail["failure"]
    json.dumps(failed.detail, allow_nan=False)
    assert answered == adapter.predict([short], None)[0] and "failure" not in answered.detail or scorer == "letter_said"


@pytest.mark.parametrize("settings", [{}, {"beams": 2}, {"answers": "closed"}])
def test_a_prompt_longer_than_the_language_model_reads_is_a_failed_text(settings: dict[str, Any]) -> None:
    examples = [Example(str(i), Path("1"), ("yes", "no"), text="Is it? " * 2000**i) for i in range(2)]
    task = Task(test=examples, train=examples, score=make("msvd_qa", mini=True).score)
    adapter = make_adapter("captioner", text_only.NoEncoder(), task, max_tokens=4, **settings).eval()
    answered, failed = adapter.predict(examples, None)
    assert answered.value is not None and failed.value is None and failed.detail["failure"]


def test_a_run_in_which_nothing_is_answered_is_an_error(tmp_path: Path, ego: Path) -> None:
    with pytest.raises(UserError, match=r"none of 40 test examples was answered; uid-00: the language model reads"):
        run(ego, tmp_path, f"adapter.prompt={'x ' * 4000}{{question}}", "adapter.template=none")


def test_an_adapter_that_writes_texts_is_refused_before_a_task_of_options_is_asked(tmp_path: Path, ego: Path) -> None:
    with pytest.raises(UserError, match="adapter=captioner writes texts, and this task asks for something else"):
        run(ego, tmp_path, "adapter=captioner")


@pytest.mark.parametrize("place", ["question", "option 3"])
def test_half_of_a_character_is_one_line_that_names_the_question(tmp_path: Path, ego: Path, place: str) -> None:
    rows = json.loads((ego / "questions.json").read_text())
    rows[7][place] = "bad \ud800"
    write(tmp_path / "questions.json", rows)
    shutil.copy(ego / "subset_answers.json", tmp_path)
    with pytest.raises(UserError, match=r"'bad \\ud800' of example 'uid-07' in test holds half of a character"):
        run(tmp_path, tmp_path / "out")


def test_options_without_text_are_told(tmp_path: Path, ego: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = json.loads((ego / "questions.json").read_text())
    rows[7]["option 3"] = " "
    write(tmp_path / "questions.json", rows)
    shutil.copy(ego / "subset_answers.json", tmp_path)
    load_task(resolve("run", words(tmp_path, tmp_path / "out")))
    assert "1 of 40 examples in test have an option without text, as 'uid-07'" in caplog.text


def test_the_embedded_model_has_a_name() -> None:
    named, embedded = (LanguageModel(*load(name)).sha256 for name in ("demo", ""))
    assert named == embedded
    with pytest.raises(UserError, match="lm=none: this adapter asks a language model"):
        load("none")


def break_it(lm: Any) -> None:
    """Makes a language model give NaN, as one does whose numbers overflow."""
    with torch.no_grad():
        lm.get_input_embeddings().weight.fill_(torch.nan)


def test_an_adapter_s_file_names_no_server(tmp_path: Path, ego: Path, tiny: Path) -> None:
    from evalkit.pipeline.setup import prepare

    folder = tmp_path / "adapters" / "multiple_choice"
    write(folder / "adapter.json", {"settings": {"lm": "http://127.0.0.1:9/v1#m"}, "frozen": {}})
    given = ["task=egoschema", f"data.root={ego}", f"ckpt={tiny}", f"adapter.from={tmp_path}", "data.expect=40"]
    with pytest.raises(UserError, match="adapter.json names a server as lm, which only your own words may"):
        prepare(resolve("run", given))


def test_an_adapter_of_another_language_model_beside_the_encoder_is_told_how_to_leave_it_out(
    tmp_path: Path, lm: Path, ego: Path
) -> None:
    from evalkit.pipeline.setup import prepare

    model, tokenizer = load(str(lm))
    with torch.no_grad():
        model.get_input_embeddings().weight.add_(1)  # type: ignore[operator]
    model.save_pretrained(tmp_path)  # type: ignore[operator]
    tokenizer.save_pretrained(tmp_path)
    given = ["task=egoschema", f"data.root={ego}", "ckpt=demo", f"lm={tmp_path}", "data.expect=40"]
    with pytest.raises(UserError, match="was trained with lm .*: train it again, or adapter.from=none fits a new one"):
        prepare(resolve("run", given))
