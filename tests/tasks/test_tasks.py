"""Every task and adapter keeps its contract; the readers of official files take what is published and nothing else."""

import inspect
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from evalkit import plugins
from evalkit.api import Example, Task
from evalkit.config.keys import REQUIRED, _keys, adapter_defaults, default_adapter, known_keys, settings_class
from evalkit.pipeline.trainer import headline
from evalkit.results.scores import reference, resolve
from tests.given import ANNOTATIONS, make, real, refusal

TASKS, ADAPTERS = list(plugins.names("task")), list(plugins.names("adapter"))
CONTROLS = {"blind", "shuffled", "single_frame", "option_order"}


# --- every task ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def minis() -> dict[str, Task]:
    """The miniature of every task; making it films nothing."""
    return {name: make(name, mini=True) for name in TASKS}


@pytest.mark.parametrize("name", TASKS)
def test_every_parameter_of_a_task_has_a_type_a_default_and_a_meaning(name: str) -> None:
    function = plugins.factory("task", name)
    parameters = inspect.signature(function).parameters
    assert "mini" in parameters and parameters["mini"].default is False
    for parameter in parameters.values():
        assert parameter.annotation is not parameter.empty and parameter.default is not parameter.empty, parameter
        assert f"\n        {parameter.name}: " in (function.__doc__ or ""), parameter
    assert all(key.meaning for key in known_keys("run", name).values())


@pytest.mark.parametrize("name", TASKS)
def test_the_miniature_of_a_task_is_whole(name: str, minis: dict[str, Task]) -> None:
    task = minis[name]
    assert task.test and task.train and task.prepare_videos
    for split in (task.train, task.val, task.test):
        assert len({example.id for example in split}) == len(split)
    assert not {e.video for e in task.test} & {e.video for e in [*task.train, *task.val]}
    for example in [*task.train, *task.val, *task.test]:
        assert example.target is not None
        if example.choices:
            assert 0 <= example.target < len(example.choices) == len(set(example.choices))
        elif task.classes:
            held = example.target if isinstance(example.target, tuple) else (example.target,)
            assert list(held) == sorted(set(held)) and all(0 <= one < len(task.classes) for one in held)
    assert task.published == {}, "numbers of papers are not about generated videos"
    assert task.submission is None


# A task of each set of films; which set a task's films are of, their paths say.
FILM_SETS = {
    "folder": "folder",
    "kinetics400": "kinetics400",
    "charades": "three-steps",
    "chimpact": "side-by-side",
    "egoschema": "three-minutes-",
}


def test_every_miniature_is_of_one_of_the_sets_of_films(minis: dict[str, Task]) -> None:
    for task in minis.values():
        for example in [*task.train, *task.val, *task.test]:
            assert example.video.parent.name.startswith(tuple(FILM_SETS.values()))


@pytest.mark.slow
@pytest.mark.parametrize("name", FILM_SETS)
def test_the_videos_of_a_miniature_are_made_when_they_are_wanted(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path))
    task = make(name, mini=True)
    assert task.prepare_videos and not any(tmp_path.iterdir())
    wanted = [task.test[0], task.train[-1]]
    assert all(example.video.parent.name.startswith(FILM_SETS[name]) for example in wanted)
    task.prepare_videos(wanted)
    assert {path for path in tmp_path.rglob("*.mp4")} == {example.video for example in wanted}


@pytest.mark.parametrize("name", TASKS)
def test_a_task_states_what_its_numbers_mean(name: str, minis: dict[str, Task]) -> None:
    task = minis[name]
    assert set(task.controls) <= CONTROLS and len(set(task.controls)) == len(task.controls)
    assert task.license and task.source and task.split and task.version >= 1
    adapter = default_adapter(name)
    assert adapter in ADAPTERS
    assert set(task.settings) <= set(adapter_defaults(adapter))


@pytest.mark.parametrize("name", TASKS)
def test_a_score_is_100_for_the_targets_0_for_nothing_and_chance_for_guesses(name: str, minis: dict[str, Task]) -> None:
    task = minis[name]
    targets = [example.target for example in task.test]
    for metric, value in task.score(targets, targets).items():
        assert isinstance(value, float | int) or set(value) == {1.0}, metric
    first = next(iter(task.score(targets, targets)))
    perfect = headline(task.score, targets, targets)
    assert perfect == 100 or (first == "CIDEr" and perfect > 100)  # captions that are equal have 1000 at best
    assert headline(task.score, [None] * len(targets), targets) == 0
    if not (task.classes or task.test[0].choices):
        return  # what a guess is, the task's own tests know
    rng = random.Random(0)
    guesses = []
    for _ in range(50):
        drawn = [[rng.random() for _ in task.classes or e.choices] for e in task.test]
        guesses.append(
            headline(task.score, [said(task, row, t) for row, t in zip(drawn, targets, strict=True)], targets)
        )
    assert sum(guesses) / len(guesses) == pytest.approx(task.chance, abs=3)


def said(task: Task, scores: list[float], target: Any) -> Any:
    """Scores of classes, or of options, as the task's adapter says them."""
    ranked = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)
    return scores if isinstance(target, tuple) else ranked if task.classes else ranked[0]


@pytest.mark.parametrize("name", TASKS)
def test_a_score_function_is_found_again_by_its_name(name: str, minis: dict[str, Task]) -> None:
    assert resolve(reference(minis[name].score)) is minis[name].score


@pytest.mark.parametrize("name", TASKS)
def test_a_missing_root_is_told_with_its_path(name: str, tmp_path: Path) -> None:
    told = refusal(name, root=tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in told and "wanted" in told


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_setting_of_an_adapter_has_a_type_a_default_and_a_meaning(name: str) -> None:
    function = plugins.factory("adapter", name)
    assert list(inspect.signature(function).parameters) == ["encoder", "task", "points"]
    assert (function.__doc__ or "").splitlines()[0].endswith(".")
    keys = _keys("adapter", settings_class(name))
    assert keys and set(settings_class(name).STACKABLE) <= adapter_defaults(name).keys()
    for key in keys.values():
        assert key.type is not Any and key.default is not REQUIRED and key.meaning, key


# --- egoschema -------------------------------------------------------------------------------------------------------

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
    ([question("a"), question("a")], "question 2: a stands there twice"),
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


def test_an_answered_question_that_is_missing_is_told(ego: Callable[..., Path]) -> None:
    root = ego(answers={"a": 1, "z": 2})
    assert refusal("egoschema", root=root) == f"{root}: 1 of 2 answered questions are missing, first z"


def test_files_that_are_missing_are_told(ego: Callable[..., Path], tmp_path: Path) -> None:
    root = ego()
    (root / "subset_answers.json").unlink()
    assert refusal("egoschema", root=root) == f"{root} has no subset_answers.json: add it, or say data.subset=false"
    assert [example.target for example in make("egoschema", root=root, subset=False).test] == [None] * 3
    (root / "questions.json").unlink()
    assert refusal("egoschema", root=root) == f"{root} has neither questions.json nor a csv of the questions"
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
        "no submission written: 1 of 3 questions have no answer; data.allow_holes=true writes one without them\n"
    )
    submit(make("egoschema", root=root, allow_holes=True), answers, tmp_path)
    assert json.loads((tmp_path / "submission.json").read_text()) == {"a": 3, "c": 0}
    assert (tmp_path / "submission.csv").read_bytes() == b"q_uid,answer\r\na,3\r\nc,0\r\n"


# --- kinetics400 -----------------------------------------------------------------------------------------------------

KINETICS = ANNOTATIONS / "label_maps" / "activitynet_crawler_kinetics-400_val.csv"
HEADER = "label,youtube_id,time_start,time_end,split,is_cc"


@pytest.fixture
def kinetics(tmp_path: Path) -> Path:
    """A root with both csv files: 400 classes, two clips each in train and one in val."""
    for split, n in (("train", 2), ("val", 1)):
        rows = [f"action {c:03d},{split}{c:03d}-{i}_x,{i},{i + 10},{split},0" for c in range(400) for i in range(n)]
        (tmp_path / f"{split}.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    return tmp_path


@real
def test_the_real_kinetics_csv_gives_every_row_a_class_and_a_file_name(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / f"{split}.csv").write_bytes(KINETICS.read_bytes())
    task = make("kinetics400", root=tmp_path)
    assert len(task.test) == len(task.train) == 19906 and len(task.classes) == 400 and task.chance == 0.25
    first = task.test[0]
    assert first.id == "0wR5jVB-WPk_000417_000427" and task.classes[first.target] == "abseiling"
    assert first.video == tmp_path / "val" / "0wR5jVB-WPk_000417_000427.mp4"
    assert len({example.id for example in task.test}) == 19906
    assert not [name for name in task.classes if '"' in name]


def test_clips_are_found_flat_and_in_class_folders(kinetics: Path) -> None:
    places = [
        kinetics / "val" / "val000-0_x_000000_000010.mp4",
        kinetics / "val" / "action 001" / "val001-0_x_000000_000010.mkv",
        kinetics / "train" / "action_000" / "train000-1_x_000001_000011.mp4",
    ]
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    task = make("kinetics400", root=kinetics)
    assert [example.video for example in task.test[:2]] == places[:2] and task.train[1].video == places[2]
    assert task.test[2].video == kinetics / "val" / "val002-0_x_000000_000010.mp4"  # expected although it is missing
    assert task.test[399].target == 399 and task.classes[399] == "action 399"


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("abseiling,x,1", "line 402: 3 values; wanted 6"),
        ("abseiling,x,one,11,val,0", "line 402: not as published: ValueError: "),
        ("abseiling,x,inf,11,val,0", "line 402: not as published: OverflowError: "),
    ],
)
def test_a_malformed_row_is_told_with_file_and_line(kinetics: Path, row: str, told: str) -> None:
    with (kinetics / "val.csv").open("a") as file:
        file.write(row + "\n")
    assert refusal("kinetics400", root=kinetics).startswith(f"{kinetics / 'val.csv'}, {told}")


def test_a_kinetics_csv_without_its_columns_or_classes_is_told(kinetics: Path) -> None:
    (kinetics / "val.csv").write_text("youtube_id,time_start,time_end,split\nx,1,11,test\n")
    assert refusal("kinetics400", root=kinetics).startswith(f"{kinetics / 'val.csv'}: no column 'label'; wanted label,")
    for split in ("train", "val"):
        (kinetics / f"{split}.csv").write_text(f"{HEADER}\nabseiling,x,1,11,{split},0\n")
    assert refusal("kinetics400", root=kinetics) == (f"data.root={kinetics}: its files name 1 classes; wanted 400")
    (kinetics / "train.csv").unlink()
    assert refusal("kinetics400", root=kinetics) == (
        f"data.root={kinetics} has no train.csv or annotations/train.csv or kinetics400_train_list_videos.txt"
    )


# --- folder ----------------------------------------------------------------------------------------------------------


def table(path: Path, *rows: str, encoding: str = "utf-8") -> Path:
    path.write_text("\n".join(rows) + "\n", encoding=encoding)
    return path


def names(examples: Iterable[Example]) -> list[str]:
    return [example.id for example in examples]


def test_a_csv_with_splits_is_taken_as_it_says(tmp_path: Path) -> None:
    rows = ["path,label,split", "a.mp4,cat,train", "b.mp4,dog,val", "sub/c.mp4,cat, test", "/d.mp4,dog,train"]
    task = make("folder", root=table(tmp_path / "videos.csv", *rows))
    assert (names(task.train), names(task.val), names(task.test)) == (
        ["a.mp4", "/d.mp4"],
        ["b.mp4"],
        ["sub/c.mp4"],
    )
    assert task.classes == ("cat", "dog") and task.chance == 50
    assert task.test[0].video == tmp_path / "sub" / "c.mp4" and task.test[0].target == 0
    assert task.train[1].video == Path("/d.mp4") and task.train[1].target == 1


def test_a_csv_with_a_byte_order_mark_and_other_columns_is_read(tmp_path: Path) -> None:
    rows = ["label,note,path", 'cat,"x, y",a.mp4', "cat,,b.mp4", "dog,,c.mp4", "dog,,d.mp4"]
    task = make("folder", root=table(tmp_path / "videos.csv", *rows, encoding="utf-8-sig"))
    assert sorted(names([*task.train, *task.test])) == ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]


def test_class_folders_give_every_video_its_folders_name(tmp_path: Path) -> None:
    for name in ("cat/a.mp4", "cat/deep/b.MKV", "dog/c.webm", "dog/d.3GP", "dog/notes.txt", "stray.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    task = make("folder", root=tmp_path)
    found = {example.id: task.classes[example.target] for example in [*task.train, *task.test]}
    assert found == {"cat/a.mp4": "cat", "cat/deep/b.MKV": "cat", "dog/c.webm": "dog", "dog/d.3GP": "dog"}


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (["path;label", "a.mp4;cat"], "{}: no column 'path'; wanted path,label, found 'path;label'"),
        (["path,class", "a.mp4,cat"], "{}: no column 'label'; wanted path,label, found 'path,class'"),
        (["path,label", "a.mp4,cat", "b.mp4,"], "{}, line 3: path or label is empty"),
        (["path,label", "a.mp4,cat", "b.mp4"], "{}, line 3: 1 values; wanted 2 (path,label)"),
        (["path,label", ",cat"], "{}, line 2: path or label is empty"),
        (["path,label,split", "a.mp4,cat,Test"], "{}, line 2: split is 'Test'; wanted train, val or test"),
        (
            ["path,label,split", "a.mp4,cat,test", "b.mp4,dog,"],
            "{}: some rows have a split and some have none; give all or none",
        ),
        (
            ["path,label", "a.mp4,cat", "b.mp4,cat"],
            "data.root={}: found 1 class(es) in 2 videos; wanted at least two",
        ),
        (["path,label,split", "a.mp4,cat,train", "a.mp4,cat,test"], "{}, line 3: a.mp4 stands there twice"),
        (["path,label"], "data.root={}: found 0 class(es) in 0 videos; wanted at least two"),
    ],
)
def test_a_csv_that_cannot_be_meant_is_refused(tmp_path: Path, rows: list[str], told: str) -> None:
    file = table(tmp_path / "videos.csv", *rows)
    assert refusal("folder", root=file) == told.format(file)


def test_a_video_in_place_of_the_csv_is_refused(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(bytes(range(256)))
    assert refusal("folder", root=tmp_path / "film.mp4").startswith(f"cannot read {tmp_path / 'film.mp4'} as a table: ")


def test_the_split_is_seeded_and_of_each_class(tmp_path: Path) -> None:
    rows = ["path,label", *(f"{label}{i}.mp4,{label}" for label, n in (("cat", 20), ("dog", 10)) for i in range(n))]
    file = table(tmp_path / "videos.csv", *rows)
    task = make("folder", root=file)
    assert Counter(task.classes[example.target] for example in task.test) == {"cat": 6, "dog": 3}
    assert len(task.train) == 21 and not set(names(task.train)) & set(names(task.test))
    assert names(make("folder", root=file).test) == names(task.test)
    assert names(make("folder", root=file, split_seed=1).test) != names(task.test)
    # one more class, or other rows in between, leave the videos of the others where they were
    more = table(tmp_path / "more.csv", *rows, *(f"owl{i}.mp4,owl" for i in range(5)))
    assert set(names(task.test)) < set(names(make("folder", root=more).test))
    assert refusal("folder", root=file, test_share=1.5) == "data.test_share=1.5: wanted a number between 0 and 1"
