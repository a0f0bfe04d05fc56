import csv
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from evalkit import load_encoder
from evalkit.language.models import check_prompt
from evalkit.mini import language
from evalkit.results.scores import headline
from tests.given import ANNOTATIONS, linked, make, make_adapter, real, refusal, wordnet_is_here, write

NEXT = ANNOTATIONS / "nextqa"


def table(name: str) -> list[dict[str, str]]:
    with (ANNOTATIONS / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# --- the real files --------------------------------------------------------------------------------------------------


@real
@pytest.mark.parametrize(
    ("name", "file", "settings", "questions", "videos"),
    [
        ("msrvtt_qa", "MSRVTT_QA", {"split": "val"}, 12_278, 497),
        ("msvd_qa", "MSVD_QA", {"split": "val"}, 6_415, 245),
        ("activitynet_qa", "ActivityNet_QA", {}, 8_000, 800),
        ("tgif_qa", "TGIF_FrameQA", {}, 13_691, 7_132),
    ],
)
def test_the_real_questions_are_read_whole(
    name: str, file: str, settings: dict[str, str], questions: int, videos: int, tmp_path: Path
) -> None:
    task = make(name, root=linked(tmp_path, "videoqa"), **settings)
    assert len(task.test) == questions == task.sizes["test"] and not task.train
    assert len({example.video for example in task.test}) == videos
    rows = [{key: text.strip() for key, text in row.items()} for row in table(f"videoqa/{file}.csv")]
    for example, row in zip(task.test, rows, strict=True):
        assert (example.text, example.target, example.video.stem) == (
            row["question"],
            (row["answer"],),
            row["video_name"],
        )
    said = [row["answer"].upper() for row in rows]
    assert headline(task.score, said, [example.target for example in task.test]) == 100


@real
def test_the_kinds_of_the_real_questions_are_those_of_the_papers(tmp_path: Path) -> None:
    root = linked(tmp_path, "videoqa")

    def kinds(name: str, **settings: Any) -> dict[str, int]:
        return dict(Counter(example.kind for example in make(name, root=root, **settings).test))

    assert kinds("msrvtt_qa", split="val") == {"what": 8337, "who": 3439, "how": 344, "when": 106, "where": 52}
    assert kinds("msvd_qa", split="val") == {"what": 3995, "who": 2168, "how": 185, "when": 51, "where": 16}
    assert kinds("tgif_qa") == {"object": 5586, "color": 3904, "number": 3148, "location": 1053}
    assert kinds("activitynet_qa") == {
        **{"motion": 800, "spatial": 800, "temporal": 800, "yes-no": 2094, "color": 697},
        **{"object": 318, "location": 386, "number": 606, "other": 1499},
    }


def next_open(folder: Path) -> Path:
    """The real files under the names that they are published with."""
    (folder / "dataset" / "nextqa").mkdir(parents=True)
    for split in ("train", "val", "test"):
        (folder / "dataset" / "nextqa" / f"{split}.csv").symlink_to(NEXT / f"oe_{split}.csv")
    more = "add_reference_answer_test.json"
    (folder / "dataset" / "nextqa" / more).symlink_to(NEXT / f"oe_{more}")
    return folder


@real
def test_the_real_open_questions_of_nextqa_have_their_second_answers(tmp_path: Path) -> None:
    root = next_open(tmp_path)
    val, test = (make("nextqa_open", root=root, split=split) for split in ("val", "test"))
    assert (len(val.train), len(val.test), len(test.test)) == (37_523, 5_343, 9_178)
    assert test.sizes == {"train": 37_523, "test": 9_178}
    assert len({example.id for example in val.train}) == 37_523, "three numbers stand there twice"
    second = json.loads((NEXT / "oe_add_reference_answer_test.json").read_text())
    assert sum(len(example.target["answers"]) == 2 for example in test.test) == sum(map(len, second.values())) == 4632
    assert {len(example.target["answers"]) for example in val.test} == {1}
    assert [e.id for e in test.val] == [e.id for e in val.test] and not val.val
    assert isinstance(test.val[0].target, tuple), "what the captioner takes for texts"
    assert Counter(example.kind for example in val.test) == {"causal": 2611, "temporal": 1612, "descriptive": 1120}
    assert (val.published, test.published["HGA"]) == ({"HGA": 21.48}, 25.18)
    assert test.published["VideoPrism-B + PaLM-2-8B"] == 27.4


@real
@pytest.mark.parametrize(
    ("split", "tagger", "known"), [("val", False, 21.642), ("val", True, 21.48), ("test", True, 25.18)]
)
def test_the_real_answers_of_the_published_model_get_its_score(
    split: str, tagger: bool, known: float, tmp_path: Path
) -> None:
    task = make("nextqa_open", root=next_open(tmp_path), split=split, tagger=tagger)
    said = json.loads((NEXT / "predictions" / f"oe_HGA-same-att-qns23ans7-{split}.json").read_text())
    predictions = [said[video][number] for video, number in (example.id.split("_") for example in task.test)]
    wordnet_is_here()
    if tagger:
        nltk = pytest.importorskip("nltk", reason="needs video-evalkit[wups]")
        try:
            nltk.pos_tag(["dog"])
        except LookupError:
            pytest.skip("needs the weights of nltk's tagger, which no package carries: nltk.download() has them")
    found = headline(task.score, predictions, [example.target for example in task.test])
    assert found == pytest.approx(known, abs=0.005)
    assert task.published.get("HGA") == (known if tagger else None)


@real
def test_the_files_of_multiple_choice_are_not_taken_for_open_questions(tmp_path: Path) -> None:
    (tmp_path / "val.csv").symlink_to(NEXT / "val.csv")
    assert "val.csv, line 2: not as published: a question of multiple choice" in refusal("nextqa_open", root=tmp_path)


# --- files of our own making, in the published layouts ----------------------------------------------------------------


def xu(folder: Path) -> Path:
    """What MSRVTT-QA and MSVD-QA are published as."""
    for split, n in (("train", 3), ("val", 2), ("test", 2)):
        rows = [
            {"id": 10 * n + k, "video_id": n, "question": f"who is {split} {k}?", "answer": "man", "category_id": 1}
            for k in range(n)
        ]
        write(folder / f"{split}_qa.json", rows)
    write(folder / "youtube_mapping.txt", "-4wsuPCjDBc_5_15 vid3\nabc_1_9 vid2\n")
    return folder


@pytest.mark.parametrize(
    ("name", "videos"), [("msrvtt_qa", ("video2", "video3")), ("msvd_qa", ("abc_1_9", "-4wsuPCjDBc_5_15"))]
)
def test_the_official_questions_name_their_videos_by_number(name: str, videos: tuple[str, str], tmp_path: Path) -> None:
    task = make(name, root=xu(tmp_path))
    assert [(e.id, e.text, e.target, e.kind) for e in task.test] == [
        (f"2{k}", f"who is test {k}?", ("man",), "who") for k in range(2)
    ]
    assert {e.video.stem for e in task.test} == {videos[0]} and {e.video.stem for e in task.train} == {videos[1]}
    assert (len(task.train), len(task.val), task.split) == (
        3,
        2,
        "test",
    ) and "VideoPrism-B + PaLM-2-8B" in task.published
    val = make(name, root=tmp_path, split="val")
    assert [e.text for e in val.test] == ["who is val 0?", "who is val 1?"]
    assert not val.val and val.train == task.train, "what is tested on is not chosen on"
    assert val.published == {}


def test_a_mapping_of_msvd_is_asked_for_only_where_videos_have_numbers(tmp_path: Path) -> None:
    (xu(tmp_path) / "youtube_mapping.txt").unlink()
    assert "has no youtube_mapping.txt" in refusal("msvd_qa", root=tmp_path)
    (tmp_path / "val_qa.json").unlink()
    (tmp_path / "train_qa.json").unlink()
    head = "video_name,question,answer,question_id,question_type"
    write(tmp_path / "MSVD_QA.csv", f"{head}\na_1_2,what plays?,music,7,0\n")
    assert [e.id for e in make("msvd_qa", root=tmp_path, split="val").test] == ["7"]


def activitynet_qa(folder: Path) -> Path:
    for split, names in (("train", "ab"), ("val", "c"), ("test", "d")):
        questions = [{"video_name": n, "question": "is it red", "question_id": f"v_{n}_1"} for n in names]
        known = [{"answer": "no", "type": 3, "question_id": f"v_{n}_1"} for n in reversed(names)]
        write(folder / f"{split}_q.json", questions)
        write(folder / f"{split}_a.json", known)
    return folder


def test_questions_and_answers_of_activitynet_are_joined_by_their_number(tmp_path: Path) -> None:
    task = make("activitynet_qa", root=activitynet_qa(tmp_path / "own"))
    (example,) = task.test
    assert (example.id, example.video.name, example.target, example.kind) == ("v_d_1", "v_d.mp4", ("no",), "yes-no")
    assert [e.id for e in (*task.train, *task.val)] == ["v_a_1", "v_b_1", "v_c_1"]
    head = "video_name,question,answer,question_id,question_type"
    write(tmp_path / "ActivityNet_QA.csv", f"{head}\nv_d,is it red,no,v_d_1,3\n")
    (same,) = make("activitynet_qa", root=tmp_path).test
    assert (same.id, same.text, same.target, same.kind) == (example.id, example.text, example.target, example.kind)


def tgif(folder: Path) -> Path:
    head = "gif_name\tquestion\tanswer\ttype\tvid_id\tkey\tdescription"
    for split in ("Train", "Test"):
        row = f'{split}_1\twhat is "it" ?\tcookie\t0\tFRAMEQA1\t27\ta cookie .'
        write(folder / f"{split}_frameqa_question.csv", f"{head}\n{row}\n")
    return folder


def test_the_gifs_of_tgif_are_found_by_name_and_their_official_table_has_tabs(tmp_path: Path) -> None:
    gif = write(tgif(tmp_path) / "all" / "Test_1.gif", "")
    task = make("tgif_qa", root=tmp_path)
    (example,) = task.test
    assert (example.id, example.video, example.text) == ("FRAMEQA1", gif, 'what is "it" ?')
    assert (example.target, example.kind) == (("cookie",), "object")
    assert task.train[0].video == tmp_path / "gifs" / "Train_1.gif"


def next_rows(folder: Path) -> Path:
    write(folder / "val.csv", "video,question,answer,qid,type\n1,why,because,0,CW\n1,is it,no,1,DB\n")
    return folder


QA = {"id": 1, "video_id": 2, "question": "who", "answer": "man"}
BROKEN: list[tuple[str, Any, str, Any, str]] = [
    ("msrvtt_qa", xu, "test_qa.json", [QA, {"id": 2}], "question 2: not as published: KeyError"),
    ("msrvtt_qa", xu, "test_qa.json", [{**QA, "answer": " "}], "question 1: .*answer ' ' is not text"),
    ("msrvtt_qa", xu, "test_qa.json", [{**QA, "question": ""}], "question 1: not as published: IndexError"),
    ("msrvtt_qa", xu, "train_qa.json", [QA, QA], "question 2: .*question 1 appears twice"),
    ("msrvtt_qa", xu, "test_qa.json", {}, "wanted a JSON list"),
    ("msvd_qa", xu, "test_qa.json", [{**QA, "video_id": 9}], "question 1: .*vid9"),
    ("msvd_qa", xu, "youtube_mapping.txt", "abc vid2\nabc\n", "youtube_mapping.txt, line 2: "),
    (
        "activitynet_qa",
        activitynet_qa,
        "test_a.json",
        [{"answer": "no", "type": 3, "question_id": "x"}],
        "question 1: .*v_d_1",
    ),
    (
        "activitynet_qa",
        activitynet_qa,
        "test_a.json",
        [{"answer": "no", "type": 9, "question_id": "v_d_1"}],
        "question 1: .*9",
    ),
    ("tgif_qa", tgif, "Test_frameqa_question.csv", "gif_name\tquestion\n", "no column 'answer'"),
    (
        "tgif_qa",
        tgif,
        "Test_frameqa_question.csv",
        "gif_name\tquestion\tanswer\ttype\tvid_id\na\tb\tc\t4\te\n",
        "line 2: .*4",
    ),
    ("nextqa_open", next_rows, "val.csv", "video,question,answer,qid,type\n1,why,because,0,XW\n", "line 2: .*'X'"),
    (
        "nextqa_open",
        next_rows,
        "val.csv",
        "video,question,answer,qid,type\n1,why,,0,CW\n",
        "line 2: .*answer '' is not text",
    ),
]


@pytest.mark.parametrize(("name", "whole", "file", "broken", "told"), BROKEN)
def test_a_malformed_question_is_told_with_its_place(
    name: str, whole: Any, file: str, broken: Any, told: str, tmp_path: Path
) -> None:
    root = whole(tmp_path)
    assert make(name, root=root).test
    write(tmp_path / file, broken)
    assert re.search(told, refusal(name, root=root))


def test_test_questions_of_nextqa_are_refused_without_their_second_answers(tmp_path: Path) -> None:
    write(tmp_path / "test.csv", "video,question,answer,qid,type\n1,why,because,0,CW\n")
    assert "has no add_reference_answer_test.json" in refusal("nextqa_open", root=tmp_path, split="test")


def test_fewer_second_answers_of_nextqa_than_published_are_refused(tmp_path: Path) -> None:
    rows = "".join(f"{i},why,because,0,CW\n" for i in range(9_178))
    write(tmp_path / "test.csv", f"video,question,answer,qid,type\n{rows}")
    file = write(tmp_path / "add_reference_answer_test.json", {str(i): {"0": "so"} for i in range(4_632)})
    assert len(make("nextqa_open", root=tmp_path, split="test").test) == 9_178
    write(file, {f"{i}": {"0": "so"} for i in range(4_631)} | {"other": {"0": "so"}})
    assert refusal("nextqa_open", root=tmp_path, split="test").startswith(
        f"{file}: second answers to 4631 questions of test.csv; published are 4632: "
    )


# --- how they are asked ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shots"),
    [("msrvtt_qa", ["family? answer: man.", "doing? answer: talk."]), ("msvd_qa", ["answer: man.", "answer: woman."])],
)
def test_videoprisms_questions_stand_after_two_of_training(name: str, shots: list[str], tmp_path: Path) -> None:
    settings = make(name, root=xu(tmp_path)).settings
    assert (settings["answers"], settings["vocabulary"]) == ("closed", 250)
    check_prompt(settings["prompt"], ["{question}"])
    asked = settings["prompt"].format(question="who plays?")
    assert [asked.count(shot) for shot in shots] == [1, 1] and asked.endswith("question: who plays? answer:")


def test_the_closed_answers_of_the_miniature_are_all_its_colors_and_shapes(tiny: Path) -> None:
    from evalkit.mini import world

    task = make("msvd_qa", mini=True)
    encoder: Any = load_encoder(tiny)
    adapter = make_adapter("captioner", encoder, task, latents=4, **task.settings).eval()
    assert set(adapter.vocabulary) == {*world.COLORS, *world.SHAPES}
    with torch.inference_mode():
        said = [one.value for one in adapter.predict(task.test[:3], torch.zeros(3, 1, 2, 3, encoder.dim))]
    assert set(said) <= set(adapter.vocabulary)


def test_the_questions_of_the_miniature_are_about_what_its_films_show() -> None:
    task = make("activitynet_qa", mini=True)
    stories = language.clips("kinetics400", 300)
    assert (len(task.train), len(task.test)) == (600, 300)
    for example in (*task.train, *task.test):
        asked = language.inquiries(stories[int(example.video.stem)].steps[0])
        assert (example.text, example.target[0]) in asked
    assert Counter(example.kind for example in task.test) == {"colour": 100, "shape": 100, "action": 100}


@pytest.mark.parametrize("untagged", [True, False])
def test_wups_is_also_of_answers_whose_kind_of_question_is_not_known(
    untagged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of training are; failed answers are 0, whatever WordNet says."""
    from evalkit.metrics.text import wups

    for name in ("wordnet", "_nltk"):  # neither is there everywhere, and neither is asked
        monkeypatch.setattr(wups, name, lambda: None)
    score = wups.wups_untagged if untagged else wups.wups
    found = score([None, None], [("two dogs",), {"kind": "DC", "answers": ("two",)}])
    assert [values for values in found.values()] == [[0.0, 0.0]] * 2
