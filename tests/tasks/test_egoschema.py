"""The reader of EgoSchema's files, and what is written for its server."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evalkit.api import Task
from evalkit.results.scores import headline
from evalkit.results.sizes import size_differences
from tests.given import ANNOTATIONS, make, real, refusal

EGO = ANNOTATIONS / "egoschema"


def question(uid: str, **changed: Any) -> dict[str, Any]:
    row = {"q_uid": uid, "question": f"What of {uid}?", **{f"option {i}": f"answer {i}" for i in range(5)}, **changed}
    return {key: value for key, value in row.items() if value is not ...}


@pytest.fixture
def ego(tmp_path: Path) -> Callable[..., Path]:
    """Writes a root of three questions, two of them answered; what is given takes the place of a file's content."""

    def write(questions: Any = None, answers: Any = None) -> Path:
        for name, given, usual in (
            ("questions.json", questions, [question(uid) for uid in "abc"]),
            ("subset_answers.json", answers, {"a": 3, "c": 0}),
        ):
            content = usual if given is None else given
            text = content if isinstance(content, str) else json.dumps(content)
            (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path

    return write


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """A root with the real 500 questions and answers."""
    (tmp_path / "questions.json").write_bytes((EGO / "questions_500.rebuilt.json").read_bytes())
    (tmp_path / "subset_answers.json").write_bytes((EGO / "subset_answers.json").read_bytes())
    return tmp_path


@real
def test_the_real_egoschema_subset_has_the_known_answers(official: Path) -> None:
    task = make("egoschema", root=official)
    assert len(task.test) == 500 and task.split == "subset" and not task.train
    assert task.test[0].id == "0074f737-11cb-497d-8d07-77c3a8127391" and task.test[0].target == 3
    assert task.test[0].choices[3] == "C is cleaning dishes."
    assert task.test[0].video == official / "videos" / "0074f737-11cb-497d-8d07-77c3a8127391.mp4"
    targets = [example.target for example in task.test]
    assert [Counter(targets)[i] for i in range(5)] == [101, 108, 91, 83, 117]
    constant = [headline(task.score, [i] * 500, targets) for i in range(5)]
    assert constant == pytest.approx([20.2, 21.6, 18.2, 16.6, 23.4])


@real
def test_the_csv_of_questions_is_read_like_the_json(official: Path) -> None:
    from_json = make("egoschema", root=official)
    (official / "questions.json").unlink()
    (official / "igvlm.csv").write_bytes((EGO / "igvlm_EgoSchema_500.csv").read_bytes())
    assert make("egoschema", root=official).test == from_json.test
    text = (official / "igvlm.csv").read_text(encoding="utf-8")
    (official / "igvlm.csv").write_text("\ufeff" + text, encoding="utf-8")  # as spreadsheets save it
    assert make("egoschema", root=official).test == from_json.test


@real
def test_the_question_with_two_equal_options_is_kept_and_scored_by_index(official: Path) -> None:
    task = make("egoschema", root=official)
    [twin] = [example for example in task.test if len(set(example.choices)) < 5]
    twins = [i for i, text in enumerate(twin.choices) if twin.choices.count(text) == 2]
    assert len(twins) == 2
    for i in range(5):
        assert task.score([i], [twin.target])["accuracy"] == [float(i == twin.target)]


@real
def test_all_5031_questions_get_predictions_and_500_a_score(official: Path) -> None:
    known = {row["q_uid"]: row for row in json.loads((official / "questions.json").read_text(encoding="utf-8"))}
    uids = (EGO / "uids_5031.txt").read_text().split()
    (official / "questions.json").write_text(json.dumps([known.get(uid, question(uid)) for uid in uids]))
    task = make("egoschema", root=official, subset=False)
    assert task.split == "full" and [example.id for example in task.test] == uids
    assert sum(example.target is None for example in task.test) == 4531
    subset = make("egoschema", root=official)
    labeled = {example.id: example for example in task.test if example.target is not None}
    assert [labeled[example.id] for example in subset.test] == list(subset.test)


BROKEN_QUESTIONS = [
    ([question("a"), question("b", question=...)], "question 2: no 'question'; wanted q_uid, question, option 0, "),
    ([question("a", **{"option 4": ...})], "question 1: no 'option 4'; wanted q_uid, question, option 0, "),
    ([question("a", q_uid=...)], "question 1: no 'q_uid'; wanted q_uid, question, option 0, "),
    ([question("a", **{"option 2": 7})], "question 1: no 'option 2'; wanted q_uid, question, option 0, "),
    ([question("a"), "b"], "question 2: no 'q_uid'; wanted q_uid, question, option 0, "),
    ([question("a"), question("a")], "question 2: a appears twice"),
]


@pytest.mark.parametrize(("questions", "told"), BROKEN_QUESTIONS)
def test_a_malformed_question_is_told_with_its_number(ego: Callable[..., Path], questions: Any, told: str) -> None:
    root = ego(questions)
    assert refusal("egoschema", root=root).startswith(f"{root / 'questions.json'}, {told}")


@pytest.mark.parametrize("answer", [7, -1, True, 2.0, "3", None])
def test_an_answer_that_is_no_option_is_refused(ego: Callable[..., Path], answer: Any) -> None:
    root = ego(answers={"a": answer})
    file = root / "subset_answers.json"
    assert refusal("egoschema", root=root) == f"{file}: the answer of a is {answer!r}; wanted a number from 0 to 4"


def test_a_file_that_is_not_the_json_it_should_be_is_refused(ego: Callable[..., Path]) -> None:
    root = ego(questions="[{")
    assert refusal("egoschema", root=root).startswith(
        f"cannot read {root / 'questions.json'} as JSON: JSONDecodeError: Expecting property name"
    )
    root = ego(questions={})
    assert refusal("egoschema", root=root) == f"cannot read {root / 'questions.json'}: wanted a JSON list, found a dict"
    root = ego(answers=[3])
    assert refusal("egoschema", root=root) == (
        f"cannot read {root / 'subset_answers.json'}: wanted a JSON dict, found a list"
    )


@pytest.mark.parametrize("subset", [True, False])
def test_an_answered_question_that_is_missing_is_told(ego: Callable[..., Path], subset: bool) -> None:
    root = ego(answers={"a": 1, "z": 2})
    assert refusal("egoschema", root=root, subset=subset) == f"{root}: 1 of 2 answered questions are missing, first z"


def test_files_that_are_missing_are_told(ego: Callable[..., Path], tmp_path: Path) -> None:
    root = ego()
    (root / "subset_answers.json").unlink()
    assert refusal("egoschema", root=root) == f"{root} has no subset_answers.json: add it, or say data.subset=false"
    assert [example.target for example in make("egoschema", root=root, subset=False).test] == [None] * 3
    (root / "questions.json").unlink()
    assert refusal("egoschema", root=root) == f"data.root={root} has neither questions.json nor a csv of the questions"
    (root / "questions.csv").write_bytes(b"video_name\xff\n")
    assert refusal("egoschema", root=root).startswith(f"cannot read {root / 'questions.csv'} as a table: ")


def submit(task: Task, answers: dict[str, Any], folder: Path) -> list[str]:
    assert task.submission is not None
    return [path.name for path in task.submission(answers, folder)]


def test_both_submission_forms_hold_every_answer(ego: Callable[..., Path], tmp_path: Path) -> None:
    task = make("egoschema", root=ego(), subset=False)
    assert submit(task, {"a": 3, "b": 0, "c": 4}, tmp_path) == ["submission.json", "submission.csv"]
    assert (tmp_path / "submission.json").read_text() == '{\n "a": 3,\n "b": 0,\n "c": 4\n}\n'
    assert json.loads((tmp_path / "submission.json").read_text()) == {"a": 3, "b": 0, "c": 4}
    assert (tmp_path / "submission.csv").read_bytes() == b"q_uid,answer\r\na,3\r\nb,0\r\nc,4\r\n"


def test_a_submission_with_holes_is_refused_unless_allowed(
    ego: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, answers = ego(), {"a": 3, "b": None, "c": 0}
    assert submit(make("egoschema", root=root), answers, tmp_path) == []
    assert not list(tmp_path.glob("submission*"))
    assert capsys.readouterr().err == (
        "no submission written: 1 of 3 questions without an answer; data.allow_holes=true writes one without them\n"
    )
    submit(make("egoschema", root=root, allow_holes=True), answers, tmp_path)
    assert json.loads((tmp_path / "submission.json").read_text()) == {"a": 3, "c": 0}
    assert (tmp_path / "submission.csv").read_bytes() == b"q_uid,answer\r\na,3\r\nc,0\r\n"


@pytest.mark.parametrize("count", [5, 499, 501])
def test_another_number_of_answers_than_published_is_refused(ego: Callable[..., Path], count: int) -> None:
    root = ego([question(f"u{i}") for i in range(5031)], {f"u{i}": 1 for i in range(count)})
    assert refusal("egoschema", root=root, subset=False).startswith(
        f"{root / 'subset_answers.json'}: answers to {count} questions; published are 500: "
    )
    subset = make("egoschema", root=root)
    assert size_differences(subset) == [{"split": "test", "examples": count, "published": 500}]


@pytest.mark.parametrize("count", [0, 500, 5031])
def test_the_published_number_of_answers_or_none_is_read(ego: Callable[..., Path], count: int) -> None:
    root = ego([question(f"u{i}") for i in range(5031)], {f"u{i}": 1 for i in range(count)})
    task = make("egoschema", root=root, subset=False)
    assert sum(example.target is not None for example in task.test) == count and size_differences(task) == []
