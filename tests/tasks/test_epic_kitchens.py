"""EPIC-KITCHENS-100: what is read, and when what is anticipated is seen."""

from pathlib import Path

import pytest

from evalkit.api import Views
from evalkit.metrics import class_mean_recall5, mini_verb_noun_accuracy, verb_noun_accuracy
from tests.given import make, refusal
from tests.tasks.test_classification import write

HEADER = (
    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,stop_frame,"
    "narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes"
)


def row(name: str, start: str, stop: str, verb: int, noun: int) -> str:
    return f"P01_11_{name},P01,P01_11,00:00:00.560,{start},{stop},1,113,take plate,take,{verb},plate,{noun},['x'],[2]"


def epic_kitchens(root: Path) -> Path:
    """Two actions of train; in validation the first again, and one of a verb and a noun that train has not together."""
    verbs = [f"{c},verb{c},\"['a', 'b']\",group" for c in range(97)]
    nouns = [f"{c},{'verb7' if c == 7 else f'noun{c}'},['a'],group" for c in range(300)]
    known = row("0", "00:00:10.50", "00:00:13.00", 3, 299)
    train = [known, row("1", "00:00:00.00", "00:00:00.50", 96, 2)]
    validation = [known, row("2", "01:01:10.50", "01:01:12.25", 3, 2)]
    return write(
        root,
        {
            "EPIC_100_train.csv": [HEADER, *train],
            "EPIC_100_validation.csv": [HEADER, *validation],
            "EPIC_100_verb_classes.csv": ["id,key,instances,category", *verbs],
            "EPIC_100_noun_classes.csv": ["id,key,instances,category", *nouns],
        },
    )


def test_an_action_is_a_verb_and_a_noun(tmp_path: Path) -> None:
    task = make("epic_kitchens", epic_kitchens(tmp_path))
    assert [(e.id, e.target, e.span) for e in task.test] == [
        ("P01_11_0", (3, 97 + 299), (10.5, 13.0)),
        ("P01_11_2", (3, 97 + 2), (3670.5, 3672.25)),
    ]
    assert task.test[0].video == tmp_path / "P01" / "videos" / "P01_11.MP4"
    assert task.classes[3] == "verb3" and task.classes[-1] == "noun299" and task.classes[97 + 7] == "verb7 (noun)"
    assert len(set(task.classes)) == 397 and task.sizes == {"train": 67_217, "test": 9_668}
    assert task.score is verb_noun_accuracy and task.views.sampling == "segments"


@pytest.mark.parametrize(
    ("protocol", "spans"),
    [("official", [(5.5, 9.5), (3665.5, 3669.5)]), ("vjepa2", [(8.0, 12.0)])],
)
def test_a_clip_ends_a_second_before_the_start_or_before_the_end(
    protocol: str, spans: list[tuple[float, float]], tmp_path: Path
) -> None:
    task = make("epic_kitchens_anticipation", epic_kitchens(tmp_path), protocol=protocol)
    assert [e.span for e in task.test] == spans
    assert task.train[1].span == (0.0, 0.125), "nothing lies before: the first frame"
    assert (task.protocol, task.adapter) == (protocol, "attentive_classifier" if protocol == "vjepa2" else "")
    assert task.views == Views("fps", 32, fps=8.0, resize="crop") and task.score is class_mean_recall5
    names = ("verb3 noun2", "verb3 noun299", "verb96 noun2")
    assert task.classes == (names if protocol == "official" else names[1:])
    assert task.version == (1 if protocol == "official" else 2)
    assert [task.classes[e.target] for e in task.train] == ["verb3 noun299", "verb96 noun2"]
    assert task.sizes.get("test") == (9_668 if protocol == "official" else None)


def test_classes_of_vjepa2_have_the_order_of_its_released_classifiers(tmp_path: Path) -> None:
    file = epic_kitchens(tmp_path) / "EPIC_100_train.csv"
    pairs = [(3, 299), (96, 2), (3, 2), (0, 0), (1, 1), (2, 5), (10, 20), (4, 7), (0, 11)]
    rows = [row(str(i), "00:00:10.50", "00:00:13.00", verb, noun) for i, (verb, noun) in enumerate([*pairs, *pairs])]
    write(tmp_path, {file.name: [HEADER, *rows]})
    task = make("epic_kitchens_anticipation", tmp_path, protocol="vjepa2")
    # What the authors' `set([(v, n) for v, n in zip(...)])` gives, whatever the names are.
    order = [(0, 0), (1, 1), (10, 20), (3, 299), (3, 2), (2, 5), (96, 2), (4, 7), (0, 11)]
    nouns = {7: "verb7"}
    assert task.classes == tuple(f"verb{verb} {nouns.get(noun, f'noun{noun}')}" for verb, noun in order)
    assert [e.target for e in task.train[: len(pairs)]] == [order.index(pair) for pair in pairs]
    assert task.settings["test_classes"] is True
    verbs = make("epic_kitchens_anticipation", tmp_path, protocol="vjepa2", what="verb")
    assert verbs.classes == tuple(f"verb{number}" for number in sorted({verb for verb, _ in pairs}))


def test_verbs_and_nouns_are_anticipated_by_themselves(tmp_path: Path) -> None:
    epic_kitchens(tmp_path)
    verb, noun = (make("epic_kitchens_anticipation", tmp_path, what=what) for what in ("verb", "noun"))
    assert verb.classes == ("verb3", "verb96") and [e.target for e in verb.test] == [0, 0]
    assert noun.classes == ("noun2", "noun299") and [e.target for e in noun.test] == [1, 0]
    assert (verb.protocol, noun.protocol) == ("official, verb", "official, noun")


def test_what_is_anticipated_of_the_miniature_is_not_seen_or_is() -> None:
    official, other = (make("epic_kitchens_anticipation", mini=True, protocol=name) for name in ("official", "vjepa2"))
    assert [e.target for e in official.test] == [e.target for e in other.test]
    assert all(a.span and b.span and a.span[1] < b.span[1] for a, b in zip(official.test, other.test, strict=True))
    assert official.classes == other.classes and official.protocol == "official"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (row("9", "00:00:10", "00:00:09", 3, 2), "no span from 10 to 9 s"),
        (row("9", "00:00:10", "00:00:10", 3, 2), "no action from 00:00:10 to 00:00:10"),
        (row("9", "10", "11", 3, 2), ""),
        (row("9", "00:00:10", "00:00:12", 97, 2), "class '97'"),
        (row("9", "00:00:10", "00:00:12", 3, 300), "class '300'"),
    ],
)
def test_a_malformed_row_is_told_with_file_and_line(line: str, told: str, tmp_path: Path) -> None:
    file = epic_kitchens(tmp_path) / "EPIC_100_validation.csv"
    with file.open("a") as lines:
        lines.write(line + "\n")
    for name in ("epic_kitchens", "epic_kitchens_anticipation"):
        assert refusal(name, tmp_path).startswith(f"{file}, line 4: not as published: {told}")


def test_recall_at_5_is_the_mean_over_classes_of_what_is_among_five() -> None:
    ranked = [[1, 2, 3, 4, 5], [2, 3, 4, 5, 6], [9, 8, 7, 6, 5], None]
    scored = class_mean_recall5(ranked, [1, 1, 9, 1])
    assert scored["recall@5"] == pytest.approx((100 / 3 + 100) / 2) and scored["top1"] == [1.0, 0.0, 1.0, 0.0]
    assert scored["top5"] == [1.0, 0.0, 1.0, 0.0]


def test_an_action_is_right_where_verb_and_noun_are_the_likeliest_of_theirs() -> None:
    scores = [0.0] * 397
    scores[3], scores[97 + 2] = 0.2, 0.9
    found = verb_noun_accuracy([scores, scores, scores, None, (5, 99)], [(3, 99), (3, 98), (4, 99), (3, 99), (5, 99)])
    assert found == {"action": [1, 0, 0, 0, 1], "verb": [1, 1, 0, 0, 1], "noun": [1, 0, 1, 0, 1]}
    assert mini_verb_noun_accuracy([[0, 1, *[0] * 7, 0.5, 0.1]], [[1, 9]])["action"] == [1.0]
