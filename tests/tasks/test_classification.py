"""The readers of classification benchmarks take what is published, whole, and the protocols say what the papers say."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evalkit import plugins
from evalkit.api import Augment, Views
from evalkit.config.keys import adapter_defaults
from evalkit.metrics.average_precision import charades_map, pr_auc
from tests.given import ANNOTATIONS, make, real, refusal, refusal_of_row

MAPS = ANNOTATIONS / "label_maps"
BENCHMARKS = ["kinetics400", "kinetics600", "moments_in_time", "ssv2", "diving48", "charades"]


def write(root: Path, files: dict[str, Any]) -> Path:
    """Writes files by their names: lists of lines as text, all else as JSON."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        text = "\n".join(content) + "\n" if name.endswith((".csv", ".txt")) else json.dumps(content)
        (root / name).write_text(text, encoding="utf-8")
    return root


# --- data sets as they lie on a disk, each with every class, as small as they can be ----------------------------------


def kinetics_lists(root: Path) -> Path:
    """Kinetics-400 as lists of path and number; two clips a class in train, one in val."""
    lists = {
        f"kinetics400_{split}_list_videos.txt": [
            f"{split}/action_{c:03d}/{split}{c:03d}-{i}.mp4 {c}" for c in range(400) for i in range(n)
        ]
        for split, n in (("train", 2), ("val", 1))
    }
    return write(root, {**lists, "label_map_k400.txt": [f"action {c:03d}" for c in range(400)]})


def moments(root: Path) -> Path:
    """Moments in Time; the numbers of its categories run against the alphabet."""
    names = [f"event+{c:03d}" for c in range(339)]
    clips = {
        file: [f"{name}/{file[:5]}-{c}_1.mp4,{name},3,0" for c, name in enumerate(names)]
        for file in ("trainingSet.csv", "validationSet.csv")
    }
    return write(root, {"moments_categories.txt": [f"{name},{338 - c}" for c, name in enumerate(names)], **clips})


def something(root: Path) -> Path:
    """Something-Something v2, its templates with brackets as they are published."""
    names = [f"Doing {c:03d} to something with something" for c in range(174)]
    rows = [
        {"id": str(c), "label": f"doing {c}", "template": name.replace("something", "[something]"), "placeholders": []}
        for c, name in enumerate(names)
    ]
    labels = {name: str(c) for c, name in enumerate(names)}
    return write(root, {"labels/train.json": rows, "labels/validation.json": rows[:5], "labels/labels.json": labels})


def diving(root: Path) -> Path:
    """Diving48, version 2."""
    vocabulary = [["Back", f"{c}som", "NoTwis", "PIKE"] for c in range(48)]
    rows = [{"vid_name": f"dive_{c:05d}", "label": c, "start_frame": 0, "end_frame": 90} for c in range(48)]
    files = {"Diving48_V2_train.json": rows, "Diving48_V2_test.json": rows[:5], "Diving48_vocab.json": vocabulary}
    return write(root, files)


CHARADES = "id,subject,actions,length"


def charades(root: Path) -> Path:
    """Charades: a video of 60 s with three actions, one of them twice; one without any; one of 10 s."""
    rows = [
        CHARADES,
        "AAAAA,S,c003 1.0 5.0;c150 30.0 58.0;c003 50.0 70.0,60.00",
        "BBBBB,S,,30.0",
        "CCCCC,S,c001 9 2,10",
    ]
    names = [f"c{c:03d} Doing {c}" for c in range(157)]
    return write(root, {"Charades_v1_train.csv": rows, "Charades_v1_test.csv": rows, "Charades_v1_classes.txt": names})


ROOTS: dict[str, Callable[[Path], Path]] = {
    "kinetics400": kinetics_lists,
    "moments_in_time": moments,
    "ssv2": something,
    "diving48": diving,
    "charades": charades,
}


# --- the real files ---------------------------------------------------------------------------------------------------


@real
def test_every_row_of_the_real_kinetics600_list_is_expected(tmp_path: Path) -> None:
    content = (MAPS / "activitynet_crawler_kinetics-600_val.csv").read_bytes()
    (tmp_path / "train.csv").write_bytes(re.sub(rb",val\b", b",train", content))
    (tmp_path / "validate.csv").write_bytes(content)
    task = make("kinetics600", tmp_path)
    names = (MAPS / "mmaction2_kinetics_label_map_k600.txt").read_text().splitlines()
    assert len(task.test) == 30_000 and len({example.id for example in task.test}) == 30_000
    assert sorted(task.classes) == sorted(names) and task.chance == pytest.approx(100 / 600)
    assert task.test[0].id == "yq_M1PMw2hY_000038_000048" and task.classes[task.test[0].target] == "abseiling"


@real
def test_the_real_label_maps_are_read_as_the_classes_of_lists(tmp_path: Path) -> None:
    kinetics_lists(tmp_path)
    (tmp_path / "label_map_k400.txt").write_bytes((MAPS / "mmaction2_kinetics_label_map_k400.txt").read_bytes())
    task = make("kinetics400", tmp_path)
    assert task.classes[task.test[0].target] == "abseiling" and task.classes[task.test[399].target] == "zumba"


@real
def test_the_real_category_names_of_moments_ssv2_and_diving48_are_taken_whole(tmp_path: Path) -> None:
    names = {
        kind: (MAPS / f"mmaction2_{kind}_label_map.txt").read_text().splitlines()
        for kind in ("mit", "sthv2", "diving48")
    }
    moments(tmp_path)
    files = ("trainingSet.csv", "validationSet.csv")
    clips = {file: [f"{name}/x_1.mp4,{name},3,0" for name in names["mit"]] for file in files}
    write(tmp_path, {"moments_categories.txt": [f"{n},{c}" for c, n in enumerate(names["mit"])], **clips})
    assert make("moments_in_time", tmp_path).classes == tuple(names["mit"])
    rows = [{"id": n, "template": n.replace("something", "[something]")} for n in names["sthv2"]]
    labels = {name: str(c) for c, name in enumerate(names["sthv2"])}
    write(tmp_path, {"train.json": rows, "validation.json": rows, "labels.json": labels})
    task = make("ssv2", tmp_path)
    assert task.classes == tuple(names["sthv2"]) and [example.target for example in task.test] == list(range(174))
    diving(tmp_path)
    write(tmp_path, {"Diving48_vocab.json": [name.split("+") for name in names["diving48"]]})
    assert make("diving48", tmp_path).classes == tuple(names["diving48"])


@pytest.fixture
def real_charades(tmp_path: Path) -> Path:
    """The real rows of train, and 199 of test; the names of the classes are not there."""
    charades(tmp_path)
    for split, name in (("train", "train"), ("test", "test_200")):
        content = (ANNOTATIONS / "charades" / f"Charades_v1_{name}.csv").read_bytes()
        (tmp_path / f"Charades_v1_{split}.csv").write_bytes(content)
    return tmp_path


@real
def test_the_real_charades_rows_give_the_targets_that_its_scorer_was_given(real_charades: Path) -> None:
    import numpy as np

    task = make("charades", real_charades)
    with np.load(ANNOTATIONS.parent / "expected" / "charades" / "expected_test200.npz") as arrays:
        ids, truth = arrays["ids"].tolist(), arrays["gt"]
    expected = list(zip(ids, [tuple(np.flatnonzero(row).tolist()) for row in truth], strict=True))
    for same in (task, make("charades_mc", real_charades)):
        assert [(example.id, example.target) for example in same.test] == expected
    assert sum(not example.target for example in task.test) == 8


@real
def test_all_real_charades_videos_with_an_action_are_trained_on(real_charades: Path) -> None:
    from evalkit.datasets.files import read_table

    assert len(list(read_table(real_charades / "Charades_v1_train.csv", ("id",)))) == 7_985
    task = make("charades", real_charades)
    assert len(task.train) == task.sizes["train"] == 7_811 and all(example.target for example in task.train)


# --- what is made of them ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ROOTS)
def test_files_as_published_become_a_task(name: str, tmp_path: Path) -> None:
    task = make(name, ROOTS[name](tmp_path))
    assert task.train and task.test and task.license and task.sizes and task.published
    if name != "charades":
        assert {example.target for example in task.train} == set(range(len(task.classes)))


def test_clips_of_a_list_are_found_by_name_wherever_they_lie(tmp_path: Path) -> None:
    kinetics_lists(tmp_path)
    elsewhere = tmp_path / "val" / "val000-0.mkv"
    elsewhere.parent.mkdir()
    elsewhere.touch()
    task = make("kinetics400", tmp_path)
    assert task.test[0].video == elsewhere and task.test[0].id == "val000-0"
    assert task.test[1].video == tmp_path / "val" / "action_001" / "val001-0.mp4"  # expected although it is missing
    assert [example.target for example in task.train[:4]] == [0, 0, 1, 1]


def test_a_list_may_be_a_csv_with_commas_and_names_with_spaces(tmp_path: Path) -> None:
    kinetics_lists(tmp_path)
    rows = [f"val/do it {c}.mp4,{c}" for c in range(400)]
    task = make("kinetics400", write(tmp_path, {"val.csv": rows}))
    assert task.test[7].id == "do it 7" and task.test[7].target == 7


def test_the_classes_of_moments_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    task = make("moments_in_time", moments(tmp_path))
    assert task.classes[0] == "event+338" and task.classes[task.test[0].target] == "event+000"
    assert task.test[0].video == tmp_path / "validation" / "event+000" / "valid-0_1.mp4"


def test_videos_of_ssv2_are_webm_or_mp4(tmp_path: Path) -> None:
    something(tmp_path)
    places = [tmp_path / "20bn-something-something-v2" / name for name in ("0.webm", "1.mp4")]
    places[0].parent.mkdir()
    for place in places:
        place.touch()
    assert [example.video for example in make("ssv2", tmp_path).test[:2]] == places


def test_a_row_that_repeats_counts_once_and_a_video_with_two_labels_twice(tmp_path: Path) -> None:
    moments(tmp_path)
    with (tmp_path / "validationSet.csv").open("a") as file:
        file.write("event+000/valid-0_1.mp4,event+000,5,1\nevent+000/valid-0_1.mp4,event+002,2,2\n")
    task = make("moments_in_time", tmp_path)
    twice = [example for example in task.test if example.video.name == "valid-0_1.mp4"]
    assert [task.classes[example.target] for example in twice] == ["event+000", "event+002"]
    assert len(task.test) == 340 == len({example.id for example in task.test})


def test_two_clips_of_one_name_and_class_are_told_rather_than_one_dropped(tmp_path: Path) -> None:
    kinetics_lists(tmp_path)
    with (tmp_path / "kinetics400_val_list_videos.txt").open("a") as file:
        file.write("val/elsewhere/val000-0.mp4 0\n")
    assert refusal("kinetics400", tmp_path).startswith("two videos are named val000-0: ")


BROKEN = [
    (
        "kinetics400",
        "kinetics400_val_list_videos.txt",
        "val/x.mp4 400",
        "line 401: not as published: class",
    ),
    ("kinetics400", "kinetics400_val_list_videos.txt", "val/x.mp4", "line 401: not as published: "),
    ("kinetics400", "kinetics400_val_list_videos.txt", "val/x.mp4 -1", "line 401: not as published: "),
    ("moments_in_time", "trainingSet.csv", "x/y.mp4", "line 340: 1 values; wanted 2 (path,label)"),
    (
        "moments_in_time",
        "trainingSet.csv",
        "x/y.mp4,waltzing",
        "line 340: not as published: no class",
    ),
    ("charades", "Charades_v1_test.csv", "X,S,c157 1.0 2.0,9", "line 5: not as published: "),
    ("charades", "Charades_v1_test.csv", "X,S,c001 1.0,9", "line 5: not as published: "),
    ("charades", "Charades_v1_test.csv", "X,S,c001 1.0 2.0,long", "line 5: not as published: "),
    ("charades", "Charades_v1_test.csv", "X,S,c001 1.0 2.0,nan", "line 5: not as published: length nan s"),
]


@pytest.mark.parametrize(("name", "file", "row", "told"), BROKEN)
def test_a_malformed_row_is_told_with_file_and_line(name: str, file: str, row: str, told: str, tmp_path: Path) -> None:
    root = ROOTS[name](tmp_path)
    assert refusal_of_row(name, root, file, row).startswith(f"{root / file}, {told}")


@pytest.mark.parametrize(
    ("name", "file", "entry"),
    [
        ("ssv2", "labels/validation.json", {"id": "9", "template": "Doing [nothing]"}),
        ("ssv2", "labels/validation.json", {"id": "9"}),
        ("diving48", "Diving48_V2_test.json", {"vid_name": "x", "label": 48}),
        ("diving48", "Diving48_V2_test.json", {"vid_name": "x", "label": -1}),
        ("diving48", "Diving48_V2_test.json", {"label": 4}),
        ("diving48", "Diving48_V2_test.json", {"vid_name": 3.5, "label": 4}),
    ],
)
def test_a_malformed_entry_is_told_with_its_number(name: str, file: str, entry: dict[str, Any], tmp_path: Path) -> None:
    root = ROOTS[name](tmp_path)
    rows = json.loads((root / file).read_text())
    write(root, {file: [*rows, entry]})
    assert refusal(name, root).startswith(f"{root / file}, entry {len(rows) + 1}: not as published: ")


@pytest.mark.parametrize(
    ("name", "file", "wanted"),
    [
        ("kinetics400", "label_map_k400.txt", 400),
        ("moments_in_time", "moments_categories.txt", 339),
        ("diving48", "Diving48_vocab.json", 48),
        ("charades", "Charades_v1_classes.txt", 157),
    ],
)
def test_a_missing_file_or_another_number_of_classes_is_told(name: str, file: str, wanted: int, tmp_path: Path) -> None:
    root = ROOTS[name](tmp_path)
    if name != "kinetics400":
        write(root, {file: [["Back", "1som"]] if file.endswith("json") else ["a,0"]})
        assert refusal(name, root).startswith(f"data.root={root}: its files name 1 class; wanted {wanted}, as")
    (root / file).unlink()
    assert refusal(name, root).startswith(f"data.root={root} has no {file}")


# --- charades ---------------------------------------------------------------------------------------------------------


def test_a_charades_video_has_each_of_its_actions_once(tmp_path: Path) -> None:
    task = make("charades", charades(tmp_path))
    assert [(example.id, example.target) for example in task.test] == [
        ("AAAAA", (3, 150)),
        ("BBBBB", ()),
        ("CCCCC", (1,)),
    ]
    assert [example.id for example in task.train] == ["AAAAA", "CCCCC"] and task.score is charades_map
    assert task.classes[150] == "Doing 150" and {example.span for example in task.test} == {None}


def test_chunks_of_charades_have_the_actions_that_overlap_them(tmp_path: Path) -> None:
    task = make("charades", charades(tmp_path), protocol="videoglue_code")
    first, middle, last = task.test[:3]
    assert task.score is pr_auc and [one.id for one in (first, middle, last)] == ["AAAAA/0", "AAAAA/1", "AAAAA/2"]
    assert [one.span for one in (first, middle, last)] == [
        pytest.approx((start, start + 128 / 6)) for start in (0, 19.3333333, 38.6666667)
    ]
    assert (first.target, middle.target, last.target) == ((3,), (150,), (3, 150))
    assert task.test[-1].id == "CCCCC" and task.test[-1].span is None


# --- protocols --------------------------------------------------------------------------------------------------------


def test_v_jepa_2_joins_clips_in_training_and_test_as_its_configurations_say(tmp_path: Path) -> None:
    wanted = {"kinetics400": (16, 4, 8, 20, 256), "ssv2": (16, 4, 2, 20, 256), "diving48": (32, 2, 4, 100, 128)}
    known = adapter_defaults("attentive_classifier")
    for benchmark, (frames, stride, clips, epochs, batch) in wanted.items():
        task = make(benchmark, ROOTS[benchmark](tmp_path), protocol="vjepa2")
        assert task.views == Views("dense", frames, stride=stride, clips=clips, crops=3, resize="crop")
        assert task.augment == Augment(10, (0.08, 1), (3 / 4, 4 / 3), flip=False, all_clips=True)
        assert (task.protocol, task.adapter) == ("vjepa2", "attentive_classifier")
        assert (task.settings["epochs"], task.settings["batch_size"]) == (epochs, batch)
        assert task.settings.keys() <= known.keys()
        assert task.settings.get("layers", 1) == ((17, 19, 21, 23) if benchmark == "diving48" else 1)


def test_a_benchmark_that_v_jepa_2_has_not_is_told(tmp_path: Path) -> None:
    assert refusal("charades", charades(tmp_path), protocol="vjepa2") == (
        "data.protocol=vjepa2 does not cover charades, only kinetics400, ssv2, diving48, "
        "epic_kitchens_anticipation, imagenet, jester, coin; use another, such as videoglue"
    )


def test_a_miniature_has_terms_of_its_own() -> None:
    for name in BENCHMARKS:
        plain, other = (plugins.factory("task", name)(mini=True, protocol=p) for p in ("videoglue", "videoprism"))
        assert plain.views == other.views == Views("uniform") and plain.augment is None and not plain.sizes
        assert plain.score is other.score


def test_miniatures_share_their_films() -> None:
    videos = {name: {e.video for e in plugins.factory("task", name)(mini=True).test} for name in BENCHMARKS}
    assert videos["kinetics600"] == videos["moments_in_time"] < videos["kinetics400"] > videos["ssv2"]
    assert videos["charades"] == videos["diving48"]
