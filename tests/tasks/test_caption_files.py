"""Tasks of retrieval from files of captions, the published ones and ones of our own making."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.given import ANNOTATIONS, linked, make, real, refusal, write
from tests.tasks.caption_files import activitynet, didemo, msrvtt, own, vatex, youcook2

pytestmark = pytest.mark.usefixtures("decoding_here")


@real
def test_the_real_1k_a_list_is_a_thousand_videos_with_a_caption_each(tmp_path: Path) -> None:
    task = make("msrvtt", root=linked(tmp_path, "msrvtt"))
    assert len(task.test) == 1000 == len({e.target for e in task.test}) == len({e.video for e in task.test})
    first = task.test[0]
    assert (first.id, first.text) == ("video9770", "a person is connecting something to system")
    assert first.video == tmp_path / "videos" / "video9770.mp4" and first.span is None
    assert task.chance == 0.1 and task.split == "1k-A" and not task.train


@real
def test_the_real_9000_training_videos_get_their_captions_from_the_json(tmp_path: Path) -> None:
    rows = (ANNOTATIONS / "msrvtt" / "MSRVTT_train.9k.csv").read_text().split()[1:]
    assert len(rows) == 9000
    write(
        linked(tmp_path, "msrvtt") / "MSRVTT_data.json",
        {
            "videos": [{"video_id": name, "split": "train"} for name in rows],
            "sentences": [{"video_id": name, "caption": f"{name} {k}"} for k in range(2) for name in rows],
        },
    )
    task = make("msrvtt", root=tmp_path)
    assert len(task.train) == 18_000 and len(task.test) == 1000
    assert [e.text for e in task.train[:3]] == ["video0 0", "video0 1", "video1 0"]
    assert task.train[1].target == ("video0", 1)


@real
@pytest.mark.parametrize(("split", "videos"), [("val_1", 4917), ("val_2", 4885)])
def test_the_real_paragraphs_of_activitynet_are_read_whole(tmp_path: Path, split: str, videos: int) -> None:
    task = make("activitynet", root=linked(tmp_path, "activitynet_captions"), split=split)
    assert (len(task.test), len(task.train)) == (videos, 10_009) == (task.sizes["test"], task.sizes["train"])
    raw = json.loads((ANNOTATIONS / "activitynet_captions" / f"{split}.json").read_text())
    assert [e.id for e in task.test] == list(raw)
    for example in task.test[:200]:
        assert example.text.split() == " ".join(raw[example.id]["sentences"]).split()


@real
def test_the_real_segments_of_youcook2_are_3492_clips(tmp_path: Path) -> None:
    task = make("youcook2_retrieval", root=linked(tmp_path, "youcook2"))
    assert (len(task.test), len(task.train)) == (3492, 10_337) == (task.sizes["test"], task.sizes["train"])
    first = task.test[0]
    assert (first.id, first.span) == ("xHr8X2Wpmno_0", (47.0, 60.0)) and first.text == "pick the ends off the verdalago"
    assert len({e.video for e in task.test}) == 457


def test_msrvtts_full_split_has_every_caption_of_its_videos(tmp_path: Path) -> None:
    task = make("msrvtt", root=msrvtt(tmp_path), split="full")
    assert [(e.id, e.target) for e in task.test[:4]] == [
        ("video7010#0", ("video7010", 0)),
        ("video7010#1", ("video7010", 1)),
        ("video7010#2", ("video7010", 2)),
        ("video7011#0", ("video7011", 0)),
    ]
    assert {e.target[0] for e in task.train} == {"video1"} and {e.target[0] for e in task.val} == {"video2"}
    assert task.chance == 50 and task.published["VideoPrism-B"] == 37.0


def test_1k_a_trains_on_the_listed_videos_whatever_split_they_have_in_the_json(tmp_path: Path) -> None:
    task = make("msrvtt", root=msrvtt(tmp_path))
    assert [e.text for e in task.test] == ["a, b"]
    assert list(dict.fromkeys(e.target[0] for e in task.train)) == ["video7010", "video1"] and len(task.train) == 6


def test_vatex_searches_the_public_test_or_the_clips_of_a_list(tmp_path: Path) -> None:
    task = make("vatex", root=vatex(tmp_path))
    assert len(task.test) == 20 and len(task.train) == 20 and len(task.val) == 20
    listed = make("vatex", root=tmp_path, test_list="list.txt")
    assert list(dict.fromkeys(e.target[0][0] for e in listed.test)) == ["d", "c"]
    assert not listed.val and len(listed.train) == 20, "what is searched is neither trained nor chosen on"
    assert listed.split == "list.txt"


def test_youcook2s_own_file_gives_the_same_clips_and_finds_either_name_of_a_video(tmp_path: Path) -> None:
    video = write(youcook2(tmp_path) / "val" / "v_-_9.mp4", "")
    task = make("youcook2_retrieval", root=tmp_path)
    assert [(e.id, e.span, e.text) for e in task.test] == [
        ("x_0", (0.0, 5.0), "validation 0"),
        ("x_1", (10.0, 15.0), "validation 1"),
        ("v_-_9_0", (0.0, 5.0), "validation 0"),
        ("v_-_9_1", (10.0, 15.0), "validation 1"),
    ]
    assert task.test[2].video == video and [e.text for e in task.train] == ["training 0", "training 1"]


def test_activitynets_sentences_are_one_paragraph_and_frames_uniform_or_the_first(tmp_path: Path) -> None:
    task = make("activitynet", root=activitynet(tmp_path))
    assert [e.text for e in task.test] == ["One. Two."] * 2 and task.views.sampling == "uniform"
    first = make("activitynet", root=tmp_path, frames="first")
    assert (first.views.sampling, first.views.fps) == ("fps", 1.0)
    assert first.published["ShortViViT-L"] == 21.3 and "ShortViViT-L" not in task.published


def test_didemo_joins_descriptions_and_sees_the_first_30_seconds_of_longer_files(tmp_path: Path) -> None:
    from evalkit.mini import film, world

    thing = world.Thing("red", "ring")
    for name, seconds in (("testa@N00_1.mp4", 40.0), ("testb@N00_2.mp4", 29.0)):
        film.write(world.Story((world.Step(thing, "grows", thing, seconds, 1, 0.5),), (9, 9, 9)), tmp_path / name, 2)
    task = make("didemo", root=didemo(tmp_path))
    assert [(e.id, e.text, e.span, e.video.name) for e in task.test] == [
        ("testa@N00_1.mov", "first second", (0.0, 30.0), "testa@N00_1.mp4"),
        ("testb@N00_2.mp4", "only", None, "testb@N00_2.mp4"),
    ]
    assert len(task.train) == len(task.val) == 2


def test_a_csv_of_ones_own_has_a_row_per_caption(tmp_path: Path) -> None:
    task = make("retrieval", root=own(tmp_path))
    assert [(e.target, e.text) for e in task.test] == [
        (("sub/a.mp4", 0), "one"),
        (("sub/a.mp4", 1), "three"),
        (("b.mp4", 0), "two"),
    ]
    assert task.test[0].video == tmp_path / "sub" / "a.mp4" and [e.text for e in task.train] == ["four"]
    plain = make("retrieval", root=write(tmp_path / "plain.csv", "caption,path\nx,a.mp4\n"))
    assert [(e.id, e.target) for e in plain.test] == [("a.mp4", "a.mp4")]


BROKEN: list[tuple[str, Callable[[Path], Path], str, Any, str]] = [
    (
        "msrvtt",
        msrvtt,
        "MSRVTT_JSFUSION_test.csv",
        "key,vid_key,video_id,sentence\nret0,m,v, \n",
        "line 2: .* not text",
    ),
    ("msrvtt", msrvtt, "MSRVTT_JSFUSION_test.csv", "key,video_id,sentence\nret0,v,x\n", "no column 'vid_key'"),
    ("msrvtt", msrvtt, "MSRVTT_train.9k.csv", "video_id\nvideo1\nvideo404\n", "line 3: .*video404"),
    ("msrvtt", msrvtt, "MSRVTT_data.json", {"videos": []}, "MSRVTT_data.json: not as published: KeyError: 'sentences'"),
    (
        "msrvtt",
        msrvtt,
        "MSRVTT_data.json",
        {"videos": [{"video_id": "a", "split": "dev"}], "sentences": []},
        "video 1: ",
    ),
    (
        "msrvtt",
        msrvtt,
        "MSRVTT_data.json",
        {"videos": [], "sentences": [{"video_id": "a", "caption": "x"}]},
        "sentence 1: ",
    ),
    (
        "msrvtt_caption",
        msrvtt,
        "MSRVTT_data.json",
        {
            "videos": [{"video_id": name, "split": "test"} for name in "abc"],
            "sentences": [{"video_id": "a", "caption": "x"}],
        },
        "MSRVTT_data.json: 2 of 3 videos without a caption, first b; ",
    ),
    (
        "msrvtt",
        msrvtt,
        "MSRVTT_data.json",
        {"videos": [{"video_id": "a", "split": "train"}], "sentences": []},
        "MSRVTT_data.json: 1 of 1 video without a caption, first a; ",
    ),
    (
        "msrvtt_caption",
        msrvtt,
        "MSRVTT_data.json",
        {"videos": [{"video_id": "a", "split": "test"}] * 2, "sentences": [{"video_id": "a", "caption": "x"}]},
        "video 2: .*video a appears twice",
    ),
    *[
        (
            name,
            vatex,
            f"vatex_{file}.json",
            [{"videoID": "a", "enCap": texts}],
            f"{file}.json, clip 1: .*clip a has enCap",
        )
        for name, file, texts in (
            ("vatex_caption", "public_test_english_v1.1", []),
            ("vatex_caption", "training_v1.0", []),
            ("vatex", "validation_v1.0", "a string"),
        )
    ],
    ("vatex", vatex, "vatex_public_test_english_v1.1.json", [{"videoID": "a", "enCap": [""]}], "clip 1: .* not text"),
    ("vatex", vatex, "vatex_training_v1.0.json", [{"videoID": "a"}], "clip 1: .*enCap"),
    ("vatex", vatex, "vatex_public_test_english_v1.1.json", {}, "wanted a JSON list"),
    ("activitynet", activitynet, "val_1.json", {"v_a": {"timestamps": [], "sentences": ["x"]}}, "video v_a: "),
    ("activitynet", activitynet, "val_1.json", {"v_a": {"timestamps": [[1]], "sentences": ["x"]}}, "video v_a: "),
    (
        "activitynet",
        activitynet,
        "val_1.json",
        {"v_a": {"timestamps": [], "sentences": []}},
        "video v_a: .*no sentence",
    ),
    ("youcook2_retrieval", youcook2, "youcookii_annotations_trainval.json", {"a": 1}, "KeyError: 'database'"),
    (
        "youcook2_retrieval",
        youcook2,
        "youcookii_annotations_trainval.json",
        {"database": {"abc": {"subset": "validation", "annotations": [{"segment": [0, "x"], "sentence": "y"}]}}},
        "video abc: .*could not convert",
    ),
    ("didemo", didemo, "test_data.json", [{"video": "a.mp4"}], "entry 1: .*description"),
    ("didemo", didemo, "test_data.json", [{"video": 7, "description": "a dog"}], "entry 1: .*video 7: wanted the name"),
    ("retrieval", own, "captions.csv", "path,caption\na.mp4,\n", "line 2: path or caption is empty"),
    ("retrieval", own, "captions.csv", "path,caption,split\na.mp4,x,dev\n", "line 2: .*'dev'; wanted"),
    ("retrieval", own, "captions.csv", "path,caption,split\na,x,test\na,y,train\n", "line 3: .*a is in test already"),
    ("retrieval", own, "captions.csv", "path,label\na,x\n", "no column 'caption'"),
]


@pytest.mark.parametrize(("name", "whole", "file", "broken", "told"), BROKEN)
def test_a_malformed_row_is_told_with_its_place(
    tmp_path: Path, name: str, whole: Callable[[Path], Path], file: str, broken: Any, told: str
) -> None:
    import re

    root = whole(tmp_path)
    assert make(name, root=root).test
    write(tmp_path / file, broken)
    assert re.search(told, refusal(name, root=root))


def test_a_clip_of_the_list_that_no_file_has_is_told_with_its_line(tmp_path: Path) -> None:
    write(vatex(tmp_path) / "list.txt", "c_000001_000011\nzz\n")
    assert "list.txt, line 2: no clip 'zz'" in refusal("vatex", root=tmp_path, test_list="list.txt")


@pytest.mark.parametrize("name", ["msrvtt", "vatex", "activitynet", "youcook2_retrieval", "didemo"])
def test_a_folder_without_the_files_says_which_are_wanted(tmp_path: Path, name: str) -> None:
    assert "json" in refusal(name, root=tmp_path) or "csv" in refusal(name, root=tmp_path)
