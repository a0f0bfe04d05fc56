import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from evalkit import load_encoder
from evalkit.metrics.bootstrap import AdditiveScore
from evalkit.metrics.text.captions import captions
from evalkit.metrics.text.dense import dense, dense_by_video
from evalkit.metrics.text.paragraph import letters
from evalkit.mini import world
from evalkit.results.rows import Row
from evalkit.results.scores import scores
from tests.given import ANNOTATIONS, DATA, linked, make, make_adapter, real, refusal, write
from tests.tasks.caption_files import activitynet, msrvtt, vatex, youcook2

# --- the real files --------------------------------------------------------------------------------------------------


@real
def test_the_real_segments_of_youcook2_have_one_reference_each(tmp_path: Path) -> None:
    task = make("youcook2", root=linked(tmp_path, "youcook2"))
    assert (len(task.test), len(task.train)) == (3492, 10_337) == (task.sizes["test"], task.sizes["train"])
    first = task.test[0]
    assert (first.id, first.span) == ("xHr8X2Wpmno_0", (47.0, 60.0))
    assert first.target == ("pick the ends off the verdalago",)
    assert {len(one.target) for one in (*task.test, *task.train)} == {1}
    fine_tuned = {"ImageViT-L": 95.9, "ShortViViT-L": 131.9, "EffShortViViT-L": 127.1}
    assert fine_tuned.items() <= task.published.items() and "Flamingo-3B" not in task.published


@real
def test_the_real_paragraphs_of_youcook2_are_those_of_the_field(tmp_path: Path) -> None:
    task = make("youcook2_paragraph", root=linked(tmp_path, "youcook2"))
    assert (len(task.test), len(task.train)) == (457, 1333) == (task.sizes["test"], task.sizes["train"])
    theirs = json.loads((ANNOTATIONS / "youcook2" / "para_yc2_val.json").read_text())
    for example in task.test:
        (paragraph,) = example.target
        assert letters(paragraph) == letters(theirs[f"v_{example.id}"]) and paragraph.endswith(".")
        assert example.span is None
    assert task.published["LongViViT"] == 30.6
    assert next(iter(task.score(["add salt"], [("add salt",)]))) == "ROUGE-L"


@real
def test_the_real_captions_of_activitynet_have_the_second_persons_words_as_well(tmp_path: Path) -> None:
    root = linked(tmp_path, "activitynet_captions")
    one, two = (json.loads((root / f"val_{k}.json").read_text()) for k in (1, 2))
    segments = make("activitynet_captions", root=root)
    assert (len(segments.test), len(segments.train)) == (17_505, 37_421)
    assert len({example.video for example in segments.train}) == 10_009
    (root / "train_modified.json").unlink()  # read once
    whole = make("activitynet_captions", root=root, what="paragraph")
    assert len(whole.test) == 4917 == whole.sizes["test"]
    assert sum(len(example.target) == 2 for example in whole.test) == 4885
    for example in whole.test[::50]:
        told = [" ".join(of[example.id]["sentences"]).split() for of in (one, two) if example.id in of]
        assert [text.split() for text in example.target] == told
    dense_task = make("activitynet_captions", root=root, what="dense")
    assert [e.id for e in dense_task.test] == [e.id for e in segments.test]
    target = dense_task.test[0].target
    assert [len(events) for events in target["references"]] == [
        len(of[target["video"]]["sentences"]) for of in (one, two)
    ]
    assert segments.published["ShortViViT-L"] == 44.8 and whole.published["LongViViT"] == 24.0
    assert dense_task.published == {}


@real
def test_the_real_dense_captions_of_youcook2_are_given_or_eight_even_parts(tmp_path: Path) -> None:
    root = linked(tmp_path, "youcook2")
    given, even = (make("youcook2_dense", root=root, segments=how) for how in ("given", "even"))
    segments = make("youcook2", root=root)
    assert [(e.id, e.span) for e in given.test] == [(e.id, e.span) for e in segments.test]
    assert given.train == even.train == segments.train
    assert len(even.test) == 8 * 457  # training videos have 7.75 segments on average
    seconds = json.loads((root / "yc2_val.json").read_text())["v_xHr8X2Wpmno"]["duration"]
    spans = [example.span for example in even.test[:8] if example.span]
    assert spans[0][0] == 0 and spans[-1][1] == pytest.approx(seconds)
    assert [end for _, end in spans[:-1]] == [start for start, _ in spans[1:]]
    assert (given.protocol, even.protocol) == ("given", "even")


@real
def test_proposed_segments_score_as_the_events_of_their_videos(tmp_path: Path) -> None:
    """The proposals, sentences and numbers of densevid_eval itself: 48 of 50 videos have a prediction."""
    folder = DATA / "expected" / "dense_caption"
    known = json.loads((folder / "yc2_val50_gt.json").read_text())
    file = folder / "yc2_val50_pred.json"
    predicted = json.loads(file.read_text())["results"]
    write(tmp_path / "yc2_val.json", known)
    assert "no proposal for 2 of 50 videos, first " in refusal("youcook2_dense", root=tmp_path, segments=str(file))
    write(tmp_path / "yc2_val.json", {name: entry for name, entry in known.items() if name in predicted})
    task = make("youcook2_dense", root=tmp_path, segments=str(file))
    said = [event["sentence"] for name in known if name in predicted for event in predicted[name]]
    assert len(said) == len(task.test) and task.protocol == "proposed"
    found = task.score(said, [example.target for example in task.test])
    assert [48 / 50 * float(found[name]) for name in ("CIDEr", "Recall", "Precision")] == pytest.approx(  # type: ignore[arg-type]
        [209.6512, 50.6066, 65.3921], abs=1e-3
    )


# --- files of our own making -----------------------------------------------------------------------------------------


def test_msrvtt_and_vatex_tell_a_video_once_with_all_its_captions_as_references(tmp_path: Path) -> None:
    task = make("msrvtt_caption", root=msrvtt(tmp_path / "msrvtt"))
    assert [(e.id, e.target) for e in task.test] == [
        (name, tuple(f"{name} caption {k}" for k in range(3))) for name in ("video7010", "video7011")
    ]
    assert [e.id for e in (*task.train, *task.val)] == ["video1", "video2"]
    clips = make("vatex_caption", root=vatex(tmp_path / "vatex"))
    assert [(e.id[0], len(e.target)) for e in clips.test] == [("e", 10), ("f", 10)]
    assert len(clips.train) == len(clips.val) == 2
    assert task.published["ShortViViT-L"] == 63.1 and clips.published["ShortViViT-L"] == 67.5


def test_the_frames_of_a_summary_are_the_first_256_seconds_or_spread_over_the_video(tmp_path: Path) -> None:
    root = youcook2(tmp_path)
    first, uniform = (make("youcook2_paragraph", root=root, frames=frames).views for frames in ("first", "uniform"))
    assert (first.sampling, first.frames, first.fps) == ("fps", 256, 1.0)
    assert (uniform.sampling, uniform.frames) == ("uniform", 256)


def test_a_paragraph_has_a_full_stop_after_each_sentence_that_has_none(tmp_path: Path) -> None:
    task = make("youcook2_paragraph", root=youcook2(tmp_path))
    assert task.test[0].target == ("validation 0. validation 1.",)
    (tmp_path / "val_2.json").write_text((activitynet(tmp_path) / "val_1.json").read_text())
    assert make("activitynet_captions", root=tmp_path, what="paragraph").test[0].target == ("One. Two.",) * 2


@pytest.mark.parametrize("what", ["paragraph", "dense"])
def test_second_references_of_fewer_videos_than_published_are_refused(tmp_path: Path, what: str) -> None:
    entry = {"duration": 9.0, "timestamps": [[0, 3]], "sentences": ["One."]}
    write(tmp_path / "val_1.json", {f"v_{i}": entry for i in range(40)})
    write(tmp_path / "val_2.json", {f"v_{i}": entry for i in range(8)})  # as published, 32 are missing
    assert len(make("activitynet_captions", root=tmp_path, what=what).test) == 40
    file = write(tmp_path / "val_2.json", {f"v_{i}": entry for i in range(7)})
    assert refusal("activitynet_captions", root=tmp_path, what=what).startswith(
        f"{file}: 33 of the 40 videos of val_1.json are missing, first v_7; "
    )
    assert len(make("activitynet_captions", root=tmp_path).test) == 40, "segments are compared with val_1 alone"


def test_a_setting_that_changes_nothing_is_refused(tmp_path: Path) -> None:
    for what, setting in (("segments", {"segments": "even"}), ("dense", {"frames": "uniform"})):
        told = refusal("activitynet_captions", root=tmp_path, what=what, **setting)
        assert f"has no effect with data.what={what}" in told


def test_segments_that_are_no_way_to_cut_are_refused(tmp_path: Path) -> None:
    root = youcook2(tmp_path)
    assert "segments=evn: wanted given, even, or a json file" in refusal("youcook2_dense", root=root, segments="evn")
    write(tmp_path / "alone" / "yc2_val.json", {"v_a": {"duration": 9, "timestamps": [[0, 3]], "sentences": ["x"]}})
    assert "add their file" in refusal("youcook2_dense", root=tmp_path / "alone", segments="even")
    file = tmp_path / "proposed.json"
    for content, told in (
        ({"videos": {}}, "proposed.json: not as published: KeyError: 'results'"),
        ({"results": {"x": [{"segment": [0, 1]}]}}, "video x: not as published: KeyError: 'timestamp'"),
        (
            {"results": {"x": [{"timestamp": [4, 4]}]}},
            "video x: not as published: no segment from 4 to 4 s",
        ),
        ({"results": {"v_x": [{"timestamp": [0, 9]}], "-_9": []}}, "no proposal for 1 of 2 videos, first -_9"),
    ):
        assert told in refusal("youcook2_dense", root=root, segments=str(write(file, content)))


# --- the score of dense captions -------------------------------------------------------------------------------------


def target(video: str, k: int, sentences: list[str]) -> dict[str, Any]:
    events = [{"segment": [10.0 * i, 10.0 * i + 10], "sentence": text} for i, text in enumerate(sentences)]
    return {"video": video, "segment": events[k]["segment"], "references": [events]}


TOLD = {
    "a": ["crack two eggs into a bowl", "beat them with a fork", "fry them in hot butter"],
    "b": ["slice a ripe red tomato", "add salt and olive oil"],
    "c": ["boil water in a large pot", "add the dry pasta and stir"],
}
TARGETS = [target(video, k, said) for video, said in TOLD.items() for k in range(len(said))]


def test_segments_are_put_together_by_video_whatever_their_order() -> None:
    said = [TOLD[one["video"]][0] for one in TARGETS]
    together = dense(
        [
            [{"segment": one["segment"], "sentence": own[0]} for one in TARGETS if one["video"] == v]
            for v, own in TOLD.items()
        ],
        [next(one["references"] for one in TARGETS if one["video"] == video) for video in TOLD],
    )
    assert dense_by_video(said, TARGETS) == pytest.approx(together)
    order = [4, 0, 6, 3, 1, 5, 2]
    assert dense_by_video([said[i] for i in order], [TARGETS[i] for i in order]) == pytest.approx(together)


def test_a_target_in_place_of_a_prediction_is_right_and_a_failed_segment_is_one_of_which_nothing_is_said() -> None:
    right = [text for said in TOLD.values() for text in said]
    assert dense_by_video(TARGETS, TARGETS) == pytest.approx(dense_by_video(right, TARGETS))
    assert dense_by_video([None, *right[1:]], TARGETS) == pytest.approx(dense_by_video(["", *right[1:]], TARGETS))
    worse = dense_by_video([None, *right[1:]], TARGETS)["CIDEr"]
    assert 0 < worse < dense_by_video(right, TARGETS)["CIDEr"]


def test_a_segment_that_nobody_annotated_counts_as_right_with_the_sentence_nearest_in_time() -> None:
    moved = [{**one, "segment": [one["segment"][0] + 1, one["segment"][1] + 2]} for one in TARGETS]
    right = [text for said in TOLD.values() for text in said]
    assert dense_by_video(moved, moved) == pytest.approx(dense_by_video(right, moved))


def test_intervals_draw_whole_videos_and_bounds_count_what_failed() -> None:
    right = [text for said in TOLD.values() for text in said]
    rows = [
        Row(id=str(i), video=one["video"], kind="", target=one, prediction=None if i == 1 else text)
        for i, (text, one) in enumerate(zip(right, TARGETS, strict=True))
    ]
    found = {one["metric"]: one for one in scores(dense_by_video, rows, seed=0)}
    (cider,) = (one for name, one in found.items() if name == "CIDEr")
    assert (cider["n"], cider["n_clusters"]) == (7, 3)
    assert (
        cider["bounds"][0]
        == cider["value"]
        < cider["bounds"][1]
        == pytest.approx(dense_by_video(right, TARGETS)["CIDEr"])
    )
    per_video = [dense_by_video([None if i == 1 else t for i, t in enumerate(right)], TARGETS)["CIDEr"]]
    assert isinstance(per_video[0], AdditiveScore)
    adds = 100 * per_video[0].parts[:, 0][[0, 3, 5]]  # at each video's first example
    assert adds.mean() == pytest.approx(cider["value"])
    assert cider["ci95"] == pytest.approx([adds.min(), adds.max()])  # of three videos a draw may hold one alone


def test_what_is_chosen_on_has_captions_alone_and_is_scored_as_captions() -> None:
    said, told = ["beat two eggs", "add salt"], [("beat the eggs",), ("add salt",)]
    assert dense_by_video(said, told) == captions(said, told)


# --- the miniatures --------------------------------------------------------------------------------------------------


def test_the_parts_of_a_mini_film_cover_it_and_the_story_tells_them_in_order() -> None:
    steps, stories = make("youcook2", mini=True), make("youcook2_paragraph", mini=True)
    assert (len(steps.train), len(steps.test)) == (600, 300) and (len(stories.train), len(stories.test)) == (300, 100)
    for i, example in enumerate(stories.test[:50]):
        parts = steps.test[6 * i : 6 * i + 6]
        assert {part.video for part in parts} == {example.video}
        spans = [part.span for part in parts if part.span]
        assert spans[0][0] == 0 and spans[-1][1] == pytest.approx(180)
        assert all(before[1] == after[0] for before, after in zip(spans, spans[1:], strict=False))
        ordered = zip(world.ORDINALS, parts, strict=True)
        assert example.target == (", ".join(f"{nth} {part.target[0]}" for nth, part in ordered),)


def test_even_parts_of_a_mini_film_are_its_sixths() -> None:
    task = make("activitynet_captions", mini=True, what="dense", segments="even")
    spans = [one.span for one in task.test[:6] if one.span]
    assert [edge for span in spans for edge in span] == pytest.approx(
        [0, 30, 30, 60, 60, 90, 90, 120, 120, 150, 150, 180]
    )


SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("youcook2", {}),
    ("youcook2_paragraph", {}),
    ("youcook2_dense", {"segments": "even"}),
    ("activitynet_captions", {"what": "dense"}),
    ("msrvtt_caption", {}),
]


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_the_captioner_learns_from_what_a_task_trains_on_and_its_words_are_scored(
    name: str, settings: dict[str, Any], tiny: Path, lm: Path
) -> None:
    task = make(name, mini=True, **settings)
    encoder: Any = load_encoder(tiny)
    adapter = make_adapter("captioner", encoder, task, lm=str(lm), latents=4, **task.settings).eval()
    tokens = torch.randn(4, 1, 2, 3, encoder.dim, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        said = [one.value for one in adapter.predict(task.test[:4], tokens)]
    found = task.score(said, [example.target for example in task.test[:4]])
    assert all(isinstance(text, str) for text in said)
    assert all(math.isfinite(sum(value) if isinstance(value, list) else value) for value in found.values())  # type: ignore[arg-type]
