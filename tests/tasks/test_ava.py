"""AVA's and AVA-Kinetics' files become key frames with boxes; what is wrong with them is told."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evalkit.api import Example, Views
from evalkit.config.keys import adapter_defaults
from evalkit.datasets import published
from evalkit.errors import UserError
from evalkit.features.sources import sources
from evalkit.heads import boxes
from evalkit.localization import ava_files, spatiotemporal
from evalkit.metrics import ava_map
from evalkit.mini import film, world
from evalkit.pipeline.foreign.files import read_predictions
from evalkit.pipeline.foreign.record import score_predictions
from evalkit.results import run_folder
from evalkit.results.validate import validate
from tests.given import ANNOTATIONS, make, make_adapter, real, refusal, run_of, write
from tests.heads.test_boxes import tiny_encoder

BOX = "{},0.1,0.2,0.5,0.9,{},{}\n"
MAP = 'item {\n  name: "stand"\n  id: 12\n}\nitem {\n  name: "talk to"\n  id: 80\n}\n'
LIST = "ava_action_list_v2.2_for_activitynet_2019.pbtxt"
ANNOTATED = (0.1, 0.2, 0.5, 0.9, 1.0)


def ava(root: Path) -> Path:
    """Two films of train and two of val, as published."""
    write(root / LIST, MAP)
    train = BOX.format("a,0902", 12, 0) + BOX.format("a,0902", 80, 0) + "a,0902,0.6,0.2,0.9,0.9,79,1\n"
    write(root / "ava_train_v2.2.csv", train + BOX.format("b,1798", 80, 0))
    val = BOX.format("v,0902", 12, 0) + BOX.format("v,0903", 79, 0) + "v,0903,0.6,0.2,0.9,0.9,12,1\n"
    write(root / "ava_val_v2.2.csv", val + BOX.format("w,0904", 80, 0))
    write(root / "ava_val_excluded_timestamps_v2.2.csv", "v,0905\n")
    return root


def ava_kinetics(root: Path) -> Path:
    """The same, and two clips of Kinetics; the second has no box."""
    ava(root)
    for split in ("train", "val"):
        write(root / f"kinetics_{split}_v1.0.csv", BOX.format(f"-k_{split},84.4", 12, 0) + f"none_{split},7.0,,,,,,\n")
    return root


def persons(root: Path, *rows: str) -> Path:
    return write(root / ava_files.PERSONS, "".join(f"{row}\n" for row in rows))


# --- published files --------------------------------------------------------------------------------------------------


@real
def test_ava_s_csv_scores_as_the_official_scorer_says(tmp_path: Path) -> None:
    for name, source in (
        ("ava_val_v2.2.csv", "synthetic_gt.csv"),
        ("ava_action_list_v2.1_for_activitynet_2018.pbtxt", "ava_action_list_v2.1_for_activitynet_2018.pbtxt.txt"),
    ):
        (tmp_path / name).symlink_to(ANNOTATIONS / "ava" / source)
    task = make("ava", tmp_path)
    given = read_predictions(task, ANNOTATIONS / "ava/synthetic_pred.csv")
    score = task.score([given.values.get(e.id) for e in task.test], [e.target for e in task.test])["mAP"]
    assert score == pytest.approx(60.92304625175013, abs=1e-9)
    assert len(task.classes) == 80 and len(given.others) == 7


@real
def test_ava_s_own_sample_of_the_annotations_is_read(tmp_path: Path) -> None:
    (tmp_path / "ava_val_v2.2.csv").symlink_to(ANNOTATIONS / "ava/mmaction2_ava_dataset_ava_sample.csv")
    listed = "ava_action_list_v2.1_for_activitynet_2018.pbtxt.txt"
    (tmp_path / listed).symlink_to(ANNOTATIONS / "ava" / listed)
    task = make("ava", tmp_path, boxes="truth")
    assert sum(bool(name) for name in task.classes) == 60
    assert {box[4] for e in task.test for box in e.target} <= {*task.classes} - {""}
    assert all(e.boxes for e in task.test)


def test_excluded_key_frames_are_left_out_and_unscored_ones_stay(tmp_path: Path) -> None:
    rows = f"{BOX.format('v,0902', 12, 0)}{BOX.format('v,0902', 79, 0)}v,0903,0.1,0.2,0.5,0.9,79,0\n"
    write(ava(tmp_path) / "ava_val_v2.2.csv", f"{rows}v,0904,0.1,0.2,0.5,0.9,12,0\n")
    write(tmp_path / "ava_val_excluded_timestamps_v2.2.csv", "v,0904\n")
    write(tmp_path / "videos" / "v.mkv", "")
    task = make("ava", tmp_path)
    assert [(e.id, e.video.name, e.target) for e in task.test] == [
        ("v_0902", "v.mkv", [[0.1, 0.2, 0.5, 0.9, "stand"]]),
        ("v_0903", "v.mkv", []),
    ]
    assert task.classes[11] == "stand" and {*task.classes} == {"", "stand", "talk to"} and len(task.classes) == 80
    write(tmp_path / "ava_val_v2.2.csv", "v,0904\n")
    with pytest.raises(UserError, match="no key frame in it"):
        make("ava", tmp_path)


def test_a_person_is_a_training_example_with_all_its_actions(tmp_path: Path) -> None:
    """Those that are not scored, too: the head has all 80 classes."""
    task = make("ava", ava(tmp_path))
    assert [(e.id, e.video.name, e.target, e.span, e.box, e.boxes) for e in task.train] == [
        ("a_0902/0", "a.mp4", (11, 79), (902.0, 902.0), (0.1, 0.2, 0.5, 0.9), None),
        ("a_0902/1", "a.mp4", (78,), (902.0, 902.0), (0.6, 0.2, 0.9, 0.9), None),
        ("b_1798/0", "b.mp4", (79,), (1798.0, 1798.0), (0.1, 0.2, 0.5, 0.9), None),
    ]
    assert len(sources(task.train)) == 2
    two = BOX.format("a,0902", 12, 0) + BOX.format("a,0902", 80, 1)  # two persons in one box
    write(tmp_path / "ava_train_v2.2.csv", two)
    assert [e.target for e in make("ava", tmp_path).train] == [(11,), (79,)]


def test_a_tenth_of_the_films_that_are_there_is_held_out_with_its_boxes(tmp_path: Path) -> None:
    rows = [BOX.format(f"f{n},0902", 12, 0) + BOX.format(f"f{n},0902", 79, 0) for n in range(20)]
    write(ava(tmp_path) / "ava_train_v2.2.csv", "".join(rows))
    assert not make("ava", tmp_path).val  # no film is there to be looked at
    for n in range(1, 20, 2):
        write(tmp_path / "videos" / f"f{n}.webm", "")
    task = make("ava", tmp_path)
    assert len(task.val) == 2 and len(task.train) == 18
    assert all(e.video.suffix == ".webm" and e.boxes == (ANNOTATED,) for e in task.val)
    assert [e.target for e in task.val] == [[[0.1, 0.2, 0.5, 0.9, "stand"]]] * 2
    assert not {e.video for e in task.val} & {e.video for e in task.train}
    assert [e.id for e in task.val] == [e.id for e in make("ava", tmp_path).val]


def test_detected_persons_are_asked_about_from_the_threshold_on(tmp_path: Path) -> None:
    rows = ("v,0902,0.1,0.2,0.5,0.8,,0.9", "v,0902,0,0,1,1,,0.7", "v,0903,0,0,1,1,,0.1", "z,0902,0,0,1,1,,0.9")
    persons(ava(tmp_path), *rows)
    assert [e.boxes for e in make("ava", tmp_path).test] == [((0.1, 0.2, 0.5, 0.8, 0.9),), (), ()]
    (first, *_) = make("ava", tmp_path, threshold=0.5).test
    assert first.boxes == ((0.1, 0.2, 0.5, 0.8, 0.9), (0.0, 0.0, 1.0, 1.0, 0.7))
    elsewhere = write(tmp_path / "others.csv", "v,903,0,0,1,1,,0.95\n")
    assert [e.boxes for e in make("ava", tmp_path, detections=elsewhere).test] == [
        (),
        ((0.0, 0.0, 1.0, 1.0, 0.95),),
        (),
    ]


def test_annotated_boxes_are_a_protocol_of_their_own_without_published_numbers(tmp_path: Path) -> None:
    task = make("ava", ava(tmp_path), boxes="truth")
    assert task.protocol == "videoglue_truth" and not task.published
    assert [e.boxes for e in task.test] == [(ANNOTATED,), (ANNOTATED, (0.6, 0.2, 0.9, 0.9, 1.0)), (ANNOTATED,)]
    detected = make("ava", tmp_path)
    assert detected.protocol == "videoglue" and detected.published["VideoPrism-B"] == 30.6
    assert make("ava", mini=True, boxes="truth").protocol == "truth" and make("ava", mini=True).protocol == ""


def test_clips_of_kinetics_have_a_zero_of_their_own(tmp_path: Path) -> None:
    write(ava_kinetics(tmp_path) / "clips/-k_val_000080_000090.mp4", "")
    write(tmp_path / "clips/-k_val_000070_000080.mp4", "")
    task = make("ava_kinetics", tmp_path, start=900.0)
    shown: dict[str, Any] = {e.id: (e.video.name, e.span, e.target) for e in task.test}
    assert shown["-k_val_84.4"] == (
        "-k_val_000080_000090.mp4",
        pytest.approx((4.4, 4.4)),
        [[0.1, 0.2, 0.5, 0.9, "stand"]],
    )
    assert shown["none_val_0007"] == ("none_val.mp4", (7.0, 7.0), [])
    assert shown["v_0902"] == ("v.mp4", (2.0, 2.0), [[0.1, 0.2, 0.5, 0.9, "stand"]])
    assert [e.id for e in task.train][-1] == "-k_train_84.4/0" and task.published["CLIP-B"] == 25.9
    folder = tmp_path / "archive" / "ava_kinetics_v1_0"
    ava_kinetics(folder)
    assert len(make("ava_kinetics", folder.parent).test) == len(task.test)


def test_the_papers_number_of_key_frames_counts_those_without_a_person(tmp_path: Path) -> None:
    assert make("ava", ava(tmp_path)).sizes == {"test": 57_371}
    count = 2 * 897 - 1  # two films, one key frame excluded
    splits = ava_files.read(tmp_path, False, "truth", None, 0.8, "v2.2", 0.0)
    assert splits.counted == count
    whole = spatiotemporal.task("ava", splits, False, "videoglue", "truth", count)
    assert whole.sizes == {"test": len(whole.test)}
    assert spatiotemporal.task("ava", splits, False, "videoglue", "truth", 0).sizes == {}
    kinetics = ava_files.read(ava_kinetics(tmp_path), True, "truth", None, 0.2, "v2.2", 0.0)
    assert kinetics.counted == count + 2


def test_the_older_annotations_have_names_of_their_own(tmp_path: Path) -> None:
    ava(tmp_path)
    for name in ("ava_val", "ava_train"):
        (tmp_path / f"{name}_v2.2.csv").rename(tmp_path / f"{name}_v2.1.csv")
    assert "ava_val_v2.2.csv" in refusal("ava", tmp_path)
    task = make("ava", tmp_path, version="v2.1")
    assert len(task.test) == 3 and len(task.train) == 3 and task.sizes == {}


@pytest.mark.parametrize("name", ["ava", "ava_kinetics"])
@pytest.mark.parametrize(
    ("protocol", "frames", "size"),
    [("videoglue", 16, 256), ("videoglue_finetune", 16, 256), ("videoprism", 16, 288), ("videoprism_8x288", 8, 288)],
)
def test_the_protocols_are_the_papers(tmp_path: Path, name: str, protocol: str, frames: int, size: int) -> None:
    task = make(name, ava_kinetics(tmp_path), protocol=protocol)
    assert task.views == Views("dense", frames=frames, stride=4, resize="squash", size=size)
    assert task.settings == {
        **{"head": "box", "batch_size": 256, "epochs": 50, "lr": 1e-4, "weight_decay": 1e-5, "dropout": 0.5}
    }
    assert task.adapter == ("finetune" if protocol.endswith("finetune") else "")
    assert {*task.settings} <= {*adapter_defaults(task.adapter or "probe")}
    boxes.check(task, task.views, task.augment)


@pytest.mark.parametrize("name", ["ava", "ava_kinetics"])
@pytest.mark.parametrize(
    ("protocol", "how", "most"), [("videoglue", "frozen", 15), ("videoglue_finetune", "finetune", 8)]
)
def test_every_printed_number_of_an_adaptation_is_beside_the_task(
    tmp_path: Path, name: str, protocol: str, how: str, most: int
) -> None:
    task = make(name, ava_kinetics(tmp_path), protocol=protocol)
    printed = {n.row for n in published.published_numbers() if (n.task, n.adaptation) == (name, how)}
    assert {*task.published} == printed and len(printed) > most
    metrics = {n.metric for n in published.published_numbers() if n.task == name}
    assert metrics == {next(iter(ava_map([], [])))}


# --- what is wrong ----------------------------------------------------------------------------------------------------


def test_malformed_annotations_are_told_with_file_and_line(tmp_path: Path) -> None:
    file = ava(tmp_path) / "ava_val_v2.2.csv"
    good = file.read_text()
    for row, why in (
        ("v,0902,0.1,0.2,1.5,0.9,12,0", "box 0.1, 0.2, 1.5, 0.9; wanted shares of width and height, 0 to 1"),
        ("v,0902,0.1,0.2,0.5,0.9,81,0", "action '81'; wanted a number from 1 to 80"),
        ("v,0901,0.1,0.2,0.5,0.9,12,0", "second 0901; wanted 902 to 1798"),
        ("v,0902,0.1,0.2,0.5", "5 values; wanted 8 as above"),
    ):
        write(file, f"{good}{row}\n")
        assert refusal("ava", tmp_path).startswith(f"{file}, line 5: {why}")
    write(file, good)
    write(tmp_path / "ava_train_v2.2.csv", "a,0902,0.5,0.2,0.1,0.9,12,0\n")
    assert "ava_train_v2.2.csv, line 1: box 0.5, 0.2, 0.1, 0.9; wanted left <= right" in refusal("ava", tmp_path)
    (tmp_path / LIST).unlink()
    assert LIST in refusal("ava", tmp_path)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("v,0902,0.1,0.2,0.5,0.9,,", "score ''; wanted a number"),
        ("v,0902,0.1,0.2,0.5,0.9,,nan", "score 'nan'; wanted a number"),
        ("v,0902,0.1,0.2,0.5,0.9,,1.2", "score 1.2; wanted a share of 1"),
        ("v,0902,0.1,0.2,0.5,0.9,", "wanted video,second,left,top,right,bottom,,score"),
        ("v,0902,0.1,0.2,0.5,0.9,12,0.9", "wanted video,second,left,top,right,bottom,,score"),
        ("v,0902,0.1,0.2,0.5,1.9,,0.9", "wanted shares of width and height"),
    ],
)
def test_malformed_detections_are_told_with_file_and_line(tmp_path: Path, row: str, why: str) -> None:
    file = persons(ava(tmp_path), row)
    message = refusal("ava", tmp_path)
    assert message.startswith(f"{file}, line 1: ") and why in message


def test_settings_that_do_not_fit_are_told(tmp_path: Path) -> None:
    other = write(ava(tmp_path) / "others.csv", "z,902,0,0,1,1,,0.95\n")
    assert "none of its 1 key frames is one of the 3 of the task" in refusal("ava", tmp_path, detections=other)
    missing = tmp_path / "none.csv"
    assert refusal("ava", tmp_path, detections=missing) == f"data.detections={missing}: there is no such file"
    assert "no effect with data.boxes=truth" in refusal("ava", tmp_path, detections=other, boxes="truth")
    assert "data.start=903 is after the first key frame, second 902" in refusal("ava", tmp_path, start=903.0)


def test_repeated_detections_count_once_and_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = "v,0902,0.1,0.2,0.5,0.9,,0.95"
    persons(ava(tmp_path), row, row)
    assert [len(e.boxes or ()) for e in make("ava", tmp_path).test] == [1, 0, 0]
    told = capsys.readouterr().err
    assert "1 boxes stand there more than once, and count once" in told
    assert "2 of 3 key frames have no box" in told


def test_a_run_without_a_file_of_detections_is_told_what_to_give(tmp_path: Path) -> None:
    task = make("ava", ava(tmp_path))
    with pytest.raises(UserError, match=r"^example 'v_0902' has no box.* data.detections=FILE, or say data.boxes="):
        make_adapter("probe", tiny_encoder(), task, head="box")


@pytest.mark.parametrize(("name", "settings"), [("knn", {}), ("ridge", {}), ("probe", {"head": "mlap"})])
def test_adapters_that_have_no_answer_for_a_box_are_refused(name: str, settings: dict[str, Any]) -> None:
    with pytest.raises(
        UserError, match="asks about each box of a key frame.* use adapter=probe adapter.head=box .adapter.layers=4"
    ):
        make_adapter(name, tiny_encoder(), make("ava", mini=True), **settings)


def test_films_that_are_cut_are_told_from_whole_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    thing = world.Thing("red", "circle")
    film.write(world.Story((world.Step(thing, "grows", thing, 2.0, 1, 0.5),), (40, 40, 40)), tmp_path / "v.mp4", fps=4)
    task = make("ava", ava(tmp_path))
    assert task.prepare_videos
    with pytest.raises(UserError, match=r"v.mp4 lasts 2 s, .* data.start= is the second at which they start"):
        task.prepare_videos(task.test)
    cut = make("ava", tmp_path, start=902.0)
    assert cut.prepare_videos
    cut.prepare_videos(cut.test)
    assert cut.test[0].span == (0.0, 0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ava_files, "_seconds", lambda path: 5_400.0 if path.is_file() else None)
        cut.prepare_videos(cut.test)
    assert "1 files last longer than files that are cut from there" in capsys.readouterr().err


# --- predictions made elsewhere ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ava", "ava_kinetics"])
def test_a_file_of_predictions_is_scored_without_videos_and_detections(tmp_path: Path, name: str) -> None:
    root = ava_kinetics(tmp_path / "data")
    rows = "v,0902,0.1,0.2,0.5,0.9,12,0.9\nw,904,0.1,0.2,0.5,0.9,80,0.9\n-k_val,84.4,0.1,0.2,0.5,0.9,12,0.8\n"
    file = write(tmp_path / "theirs.csv", f"{rows}v,0903,0.6,0.2,0.9,0.9,12,0.7\n")
    folder = score_predictions([f"task={name}", f"data.root={root}", f"predictions={file}", f"out={tmp_path / 'out'}"])
    record = run_folder.load(folder)
    assert record["scores"][0]["metric"] == "mAP" and record["scores"][0]["value"] == 100.0
    assert validate(folder) == []


# --- the miniatures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ava", "ava_kinetics"])
def test_a_miniatures_detections_are_imperfect_and_good_enough(name: str) -> None:
    task = make(name, mini=True)
    assert (len(task.train), len(task.val), len(task.test)) == (360, 20, 100)
    number = [len(e.boxes or ()) for e in task.test]
    assert 0 < sum(n < 2 for n in number) < 20 and 5 < sum(n > 2 for n in number) < 40
    assert all(0.2 <= box[4] <= 1 for e in task.test for box in e.boxes or ())

    def right(example: Example) -> list[Any]:  # whoever knows what is in a box
        return [
            [*box[:4], name, box[4]]
            for box in example.boxes or ()
            for left, top, wide, tall, name in example.target
            if abs(left - box[0]) + abs(top - box[1]) + abs(wide - box[2]) + abs(tall - box[3]) < 0.3
        ]

    known = ava_map([right(e) for e in task.test], [e.target for e in task.test])["mAP"]
    assert 88 < known < 100
    truth = make(name, mini=True, boxes="truth")
    assert all({box[4] for box in e.boxes or ()} == {1.0} for e in truth.test)
    assert ava_map([right(e) for e in truth.test], [e.target for e in truth.test])["mAP"] == 100
    assert [replace(e, boxes=None) for e in truth.test] == [replace(e, boxes=None) for e in task.test]


CUT = """
from dataclasses import replace
from evalkit.mini import world
from evalkit.tasks import ava

def mirrored(example):
    boxes = tuple((1 - right, top, 1 - left, bottom, score) for left, top, right, bottom, score in example.boxes)
    target = [[1 - right, top, 1 - left, bottom, name] for left, top, right, bottom, name in example.target]
    return replace(example, id=f"{example.id}/wrong", boxes=boxes, target=target)

def task(mini=False):
    whole = ava.task(mini=True)
    colors = [replace(e, target=tuple(c for c in e.target if whole.classes[c] in world.COLORS)) for e in whole.train]
    val, test = (
        [replace(e, target=[box for box in e.target if box[4] in world.COLORS]) for e in split]
        for split in (whole.val[:4], whole.test[:20])
    )
    return replace(whole, train=colors[:80], val=val, test=[*test, *map(mirrored, test)], controls=())
"""


@pytest.mark.usefixtures("decoding_here")
def test_the_demo_knows_what_is_in_a_box_and_with_wrong_boxes_it_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong ones are mirrored, with what is said to be in them: whoever looks there sees the other thing's color."""
    rows = run_folder.load_rows(run_of(CUT, tmp_path, monkeypatch))
    assert all(len(row.prediction) <= 50 and all(len(box) == 6 for box in row.prediction) for row in rows)
    right, wrong = (
        ava_map([row.prediction for row in of], [row.target for row in of])["mAP"]
        for of in ([r for r in rows if "wrong" not in r.id], [r for r in rows if "wrong" in r.id])
    )
    assert right > 60 and wrong < 25  # one of six colors is right 17 times of 100
