"""ChimpACT's files become boxes with behaviors, as its authors' own tools make them; what is wrong is told."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalkit import plugins
from evalkit.api import Example, Views
from evalkit.config.keys import adapter_defaults
from evalkit.metrics.average_precision import box_map, multilabel_map
from evalkit.mini import film, world
from tests.given import make, refusal, write

CHIMPACT: Any = plugins.module_and_factory("task", "chimpact")[0]
TRAIN, VAL, TEST = (
    "Azibo_ObsChimp_2016_01_01_a_clip_0_100",
    "Azibo_ObsChimp_2018_07_11_c_clip_0_1000",
    "Azibo_ObsChimp_2018_07_06_d_clip_0_696",
)
ALL = [f"Azibo_Obs{name}" for name in (CHIMPACT.VAL + CHIMPACT.TEST).split()]

Box = tuple[int, int, list[float], list[int]]  # frame by hand, who, bbox, behaviors


def labels(images: list[int], *found: Box, size: bool = True) -> dict[str, Any]:
    """A file of labels, of frames of 200 x 100 pixels."""
    of_frame = {"width": 200, "height": 100} if size else {}
    return {
        "info": {},
        "licenses": [],
        "categories": [{"id": 1, "name": "chimpanzee"}],
        "images": [{"id": 7 + n, "file_name": f"x/images/{n:06d}.jpg", **of_frame} for n in images],
        "annotations": [
            {"id": i, "image_id": 7 + n, "category_id": 1, "bbox": box, "area": 1, "iscrowd": 0, "bbox_id": who}
            | {"bbox_vis": 0, "behaviors": behaviors, "keypoints": []}
            for i, (n, who, box, behaviors) in enumerate(found, 1)
        ],
    }


ONE: Box = (0, 3, [20.0, 10.0, 40.0, 20.0], [2])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in [*ALL, TRAIN]:
        write(tmp_path / "labels" / f"{name}.json", labels([0], ONE))
    return tmp_path


def of(root: Path, name: str, content: dict[str, Any], **settings: Any) -> list[Example]:
    """The examples of one video, with these labels."""
    write(root / "labels" / f"{name}.json", content)
    task = make("chimpact", root, **settings)
    return [e for split in (task.train, task.val, task.test) for e in split if e.video.stem == name]


# --- published files --------------------------------------------------------------------------------------------------


def test_files_as_published_become_videoprisms_task(root: Path) -> None:
    task = make("chimpact", root)
    assert len(CHIMPACT.VAL.split()) == 17 and len(CHIMPACT.TEST.split()) == 19 and len(set(ALL)) == 36
    assert task.published["VideoPrism-g"] == 31.5 and task.published["domain experts"] == 24.4
    assert task.views == Views("dense", frames=64, resize="squash") and task.augment is None
    assert (task.settings["lr"], task.settings["dropout"], task.settings["head"]) == (5e-5, 0.5, "box")
    assert set(task.settings) <= set(adapter_defaults("probe"))
    assert len(task.classes) == 23 and task.classes[0] == "moving" and task.classes[22] == "displaying"
    assert task.score is box_map and task.split == "test"
    assert {e.video.stem for e in task.val} | {e.video.stem for e in task.test} == set(ALL)
    assert {e.video for e in task.train} == {root / "videos_full" / f"{TRAIN}.mp4"}
    # ten frames of each video are labeled, by the one that is labeled by hand; of train that one alone
    assert [len(task.train), len(task.val), len(task.test)] == [1, 17, 190]
    assert [e.id for e in task.train] == [f"{TRAIN}/0/0"] and task.train[0].target == (2,)
    assert task.train[0].box == (0.1, 0.1, 0.3, 0.3) and task.train[0].span == (0, 64 / 25)


def test_a_clip_lies_around_its_frame_with_as_many_frames_as_wanted(root: Path) -> None:
    content = labels([30], (30, 1, [0, 0, 10, 10], [0]))
    assert of(root, TEST, content)[0].span == ((300 - 32) / 25, (300 + 32) / 25)
    assert of(root, TEST, content, frames=16)[0].span == ((300 - 8) / 25, (300 + 8) / 25)
    assert make("chimpact", root, frames=16).views.frames == 16


def test_boxes_and_behaviors_between_two_frames_are_those_of_the_authors_tool(root: Path) -> None:
    content = labels(
        [0, 1, 2, 4],
        (0, 1, [0, 0, 20, 20], [0]),
        (0, 2, [100, 50, 10, 10], [2, 5]),
        (1, 1, [100, 40, 40, 30], [1]),
        (2, 1, [0, 0, 20, 20], [19]),
        (4, 1, [0, 0, 20, 20], [19]),
    )
    found = {e.id.partition("/")[2]: e for e in of(root, TEST, content)}
    assert found["0/0"].box == (0, 0, 0.1, 0.2) and found["10/0"].box == (0.5, 0.4, 0.7, 0.7)
    assert found["3/0"].box == pytest.approx((0.15, 0.12, 0.15 + 0.13, 0.12 + 0.23))
    assert [found[f"{frame}/0"].target for frame in (0, 5, 6, 10, 16)] == [(0,), (0,), (1,), (1,), (19,)]
    # who is gone in the next stays as they were; so do all where the next is not labeled, and none is there after it
    assert {found[f"{frame}/1"].box for frame in range(10)} == {(0.5, 0.5, 0.55, 0.6)}
    assert {found[f"{frame}/1"].target for frame in range(10)} == {(2, 5)} and "10/1" not in found
    assert found["29/0"].box == (0, 0, 0.1, 0.2) and "30/0" not in found and "40/0" in found and "50/0" not in found


def test_the_last_frames_of_a_video_are_those_of_the_last_that_is_labeled(root: Path) -> None:
    content = labels([9], (9, 1, [0, 0, 20, 20], [0]))
    assert [e.id.split("/")[1] for e in of(root, TRAIN, content, train_step=1)] == [str(f) for f in range(90, 100)]


def test_of_two_that_are_one_by_their_number_the_first_is_followed_as_the_authors_do(root: Path) -> None:
    """Those that nobody recognized all have number 23."""
    two = [(9, 23, [0.0, 0.0, 20.0, 20.0], [0]), (9, 23, [40.0, 40.0, 20.0, 20.0], [1])]
    found = {e.id.partition("/")[2]: e for e in of(root, TRAIN, labels([9], *two), train_step=1)}
    assert found["90/1"].box == (0.2, 0.4, 0.3, 0.6) and found["95/0"].box == (0, 0, 0.1, 0.2)
    assert found["95/1"].box == pytest.approx((0.1, 0.2, 0.2, 0.4)) and found["96/1"].target == (0,)


def test_a_box_without_a_behavior_is_tested_beside_one_that_has_some_and_not_trained_on(root: Path) -> None:
    content = labels([0, 1], ONE, (0, 4, [0, 0, 5, 5], []), (1, 4, [0, 0, 5, 5], []))
    test = of(root, TEST, content, test_step=10)
    assert [(e.id.partition("/")[2], e.target) for e in test] == [("0/0", (2,)), ("0/1", ())]
    assert [e.target for e in of(root, TRAIN, content)] == [(2,)]


def test_a_box_beyond_the_frame_ends_with_it_and_a_crowd_is_no_box(root: Path) -> None:
    content = labels([0], (0, 1, [-20, 50, 40, 60], [0]), (0, 2, [0, 0, 9, 9], [1]))
    content["annotations"][1]["iscrowd"] = 1
    assert [e.box for e in of(root, TRAIN, content)] == [(0, 0.5, 0.1, 1)]


def test_the_size_of_frames_is_the_videos_where_the_labels_do_not_tell_it(root: Path) -> None:
    content = labels([0], (0, 1, [32, 64, 32, 32], [0]), size=False)
    told = refusal("chimpact", write(root / "labels" / f"{TRAIN}.json", content).parents[1])
    assert told.startswith(f"{root}/labels/{TRAIN}.json has no width and height of its frames, nor has {root}/videos_")
    video = root / "videos_full" / f"{TRAIN}.mp4"
    thing = world.Thing("red", "square")
    film.write(world.Story((world.Step(thing, "moves left", thing, 4.0, 1, 0.5),), (40, 40, 40)), video, 25)
    assert [e.box for e in make("chimpact", root).train] == [(0.25, 0.5, 0.5, 0.75)]


# --- what is wrong with them ------------------------------------------------------------------------------------------

BROKEN: list[tuple[Any, str]] = [
    (lambda c: c.pop("annotations"), ": not as published: KeyError: 'annotations'"),
    (lambda c: c["images"][0].pop("id"), ", image 0: not as published: KeyError: 'id'"),
    (lambda c: c["images"][0].update(file_name="x/a.jpg"), ", image 0: not as published: "),
    (
        lambda c: c["images"][0].update(file_name="x/000010.jpg"),
        ", image 0: not as published: frame 100 of 100",
    ),
    (lambda c: c["images"].append(c["images"][0]), ", image 1: not as published: frame 0 of 100"),
    (lambda c: c["annotations"][0].update(image_id=1), ", annotation 0: not as published: KeyError: 1"),
    (
        lambda c: c["annotations"][0].update(behaviors=[23]),
        ", annotation 0: not as published: class 23: wanted",
    ),
    (lambda c: c["annotations"][0].update(behaviors="moving"), ", annotation 0: not as published: "),
    (lambda c: c["annotations"][0].pop("behaviors"), ", annotation 0: not as published: KeyError: 'behaviors'"),
    (lambda c: c["annotations"][0].update(bbox=[0, 0, 1]), ", annotation 0: not as published: "),
    (
        lambda c: c["annotations"][0].update(bbox=[0, 0, -1, 1]),
        ", annotation 0: not as published: bbox [0, 0",
    ),
    (lambda c: c["annotations"][0].update(bbox=[0, 0, "nan", 1]), ", annotation 0: not as published: bbox"),
]


@pytest.mark.parametrize(("spoil", "told"), BROKEN)
def test_a_malformed_entry_is_told_with_its_file_and_place(spoil: Any, told: str, root: Path) -> None:
    content = labels([0], ONE)
    spoil(content)
    file = write(root / "labels" / f"{TRAIN}.json", content)
    assert refusal("chimpact", root).startswith(f"{file}{told}")


def test_files_that_are_missing_or_no_json_or_named_otherwise_are_told(root: Path) -> None:
    file = root / "labels" / f"{TEST}.json"
    text = file.read_text()
    write(file, text[:50])
    assert refusal("chimpact", root).startswith(f"cannot read {file} as JSON: ")
    file.unlink()
    assert refusal("chimpact", root).startswith(f"data.root={root} has no labels/{TEST}.json")
    write(file, text)
    other = write(root / "labels" / "chimps.json", text)
    assert refusal("chimpact", root).startswith(f"{other}: not as published: ")
    other.unlink()
    (root / "labels" / f"{TRAIN}.json").unlink()
    assert refusal("chimpact", root) == "chimpact: its files have no labeled frame of train"


@pytest.mark.parametrize("key", ["frames", "train_step", "test_step"])
def test_a_clip_or_a_step_of_no_frame_is_refused(key: str, root: Path) -> None:
    assert "at least 1" in refusal("chimpact", root, **{key: 0})


# --- the miniature ----------------------------------------------------------------------------------------------------


def test_the_miniature_asks_with_boxes_in_the_whole_frame_and_has_no_numbers_of_papers() -> None:
    task = make("chimpact", mini=True)
    assert task.views == Views("uniform", resize="squash") and task.settings["head"] == "box"
    assert task.score is box_map and task.split == "mini" and not task.val and not task.published
    assert all(example.box and len(example.target) == 2 for example in [*task.train, *task.test])


# --- scores -----------------------------------------------------------------------------------------------------------


def pascal(scores: np.ndarray, truth: np.ndarray) -> float:
    """The area below the precision that is highest at a recall or a higher one, point by point, of one class."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(truth[order])
    recall, precision = hits / truth.sum(), hits / np.arange(1, len(scores) + 1)
    return float(
        sum(precision[recall >= (n + 1) / truth.sum() - 1e-9].max() for n in range(int(truth.sum()))) / truth.sum()
    )


def test_box_map_is_the_area_that_pascal_voc_has() -> None:
    rng = np.random.default_rng(0)
    truth, given = rng.random((300, 4)) < [0.1, 0.3, 0.02, 0.0], rng.random((300, 4))
    targets = [tuple(np.flatnonzero(row).tolist()) for row in truth]
    wanted = 100 * np.mean([pascal(given[:, c], truth[:, c]) for c in range(3)])  # no box has the fourth
    found = box_map(given.tolist(), targets)["mAP"]
    assert found == pytest.approx(wanted, abs=1e-9)
    assert found > multilabel_map(given.tolist(), targets)["mAP"] + 0.5


def test_box_map_takes_the_best_precision_at_a_recall_or_a_higher_one() -> None:
    targets: list[tuple[int, ...]] = [(), (0,), (0,)]
    assert box_map([[0.9], [0.8], [0.7]], targets)["mAP"] == pytest.approx(100 * 2 / 3)
    assert multilabel_map([[0.9], [0.8], [0.7]], targets)["mAP"] == pytest.approx(100 * (1 / 2 + 2 / 3) / 2)
    assert box_map([[0.5]] * 3, targets)["mAP"] == pytest.approx(100 * 2 / 3)
    assert box_map([None] * 3, targets)["mAP"] == 0 and box_map(targets, targets)["mAP"] == 100
