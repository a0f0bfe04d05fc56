"""Kinetics-700, UCF101, HMDB51, Jester, Something-Something v1, COIN, ImageNet, MSVD, LSMDC and the multiple choices of
SSv2 and Charades: their readers take what is published, whole, and name what is not.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from evalkit import plugins
from evalkit.api import Views
from evalkit.datasets import protocols
from evalkit.datasets.videos import VIDEO_ENDINGS
from tests.given import ANNOTATIONS, make, real, refusal, refusal_of_row
from tests.tasks.test_classification import charades, something, write

MAPS = ANNOTATIONS / "label_maps"

# --- data sets as they lie on a disk, each with every class, as small as they can be ----------------------------------


def labels(kind: str, count: int) -> list[str]:
    """Names that are no published ones, in no alphabetical order."""
    return [f"{kind} {(count - c) % 7}{c:03d}" for c in range(count)]


def kinetics700(root: Path) -> Path:
    for split in ("train", "validate"):
        rows = [f"action {c:03d},{split}{c:03d}_x,{c},{c + 10},{split}" for c in range(700)]
        write(root, {f"{split}.csv": ["label,youtube_id,time_start,time_end,split", *rows]})
    return root


def ucf101(root: Path, names: Sequence[str] = ()) -> Path:
    """UCF101: a clip of each class in train, and in test another of each fold."""
    names = names or [f"Do{c:03d}Thing" for c in range(101)]
    files = {"classInd.txt": [f"{c + 1} {name}" for c, name in enumerate(names)]}
    for fold in (1, 2, 3):
        clips = {part: f"{{0}}/v_{{0}}_g0{part}_c01.avi" for part in (0, fold)}
        files[f"ucfTrainTestlist/trainlist0{fold}.txt"] = [
            f"{clips[0].format(name)} {c + 1}" for c, name in enumerate(names)
        ]
        files[f"ucfTrainTestlist/testlist0{fold}.txt"] = [clips[fold].format(name) for name in names]
    return write(root, files)


def hmdb51(root: Path, names: Sequence[str] = ()) -> Path:
    """HMDB51: of each class three clips, which are train, test and neither in turn."""
    for name in names or [f"do_{c:02d}" for c in range(51)]:
        for fold in (1, 2, 3):
            lines = [f"{name}_{clip}.avi {(clip + fold) % 3} " for clip in range(3)]
            write(root, {f"testTrainMulti_7030_splits/{name}_test_split{fold}.txt": lines})
    return root


def twentybn(name: str, count: int) -> Callable[..., Path]:
    """20BN's lists: a clip of each class in train, one in validation."""

    def layout(root: Path, names: Sequence[str] = ()) -> Path:
        names = names or labels("Doing", count)
        rows = {
            f"{name}-{split}.csv": [f"{first + c};{label}" for c, label in enumerate(names)]
            for split, first in (("train", 1), ("validation", 1001))
        }
        return write(root, {f"{name}-labels.csv": list(names), **rows})

    return layout


def coin(root: Path) -> Path:
    """COIN: two videos of each class, whose numbers run against the alphabet."""
    database = {
        f"{split[:5]}{c:03d}": {
            "duration": 131.0,
            "class": f"Make{c:03d}CDThings",
            "recipe_type": 179 - c,
            "subset": split,
            "start": 5.0,
            "end": 90.0,
            "annotation": [{"id": "1", "segment": [6.0, 9.0], "label": "take it"}],
        }
        for c in range(180)
        for split in ("training", "testing")
    }
    return write(root, {"COIN.json": {"database": database}})


def imagenet(root: Path, words: Callable[[int], str] = lambda c: f"thing {c}, stuff") -> Path:
    """ImageNet as Kaggle has it: an image of each class in train, two in val."""
    synsets = [f"n{c:08d}" for c in range(1000)]
    home = root / "ILSVRC" / "Data" / "CLS-LOC"
    for c, synset in enumerate(synsets):
        (home / "train" / synset).mkdir(parents=True)
        (home / "train" / synset / f"{synset}_{c}.JPEG").touch()
    (home / "val").mkdir()
    (home / "val" / "ILSVRC2012_val_00000001.JPEG").touch()
    solved = ["ImageId,PredictionString", *(f"ILSVRC2012_val_0000000{i},{synsets[7]} 1 2 3 4 " for i in (1, 2))]
    mapping = [f"{synset} {words(c)}" for c, synset in enumerate(synsets)]
    return write(root, {"LOC_synset_mapping.txt": mapping, "LOC_val_solution.csv": solved})


def msvd(root: Path) -> Path:
    described = [f"{name} a thing does {k}" for name in ("a_1_5", "-b_0_3", "c_2_9") for k in range(2)]
    return write(
        root,
        {
            "AllVideoDescriptions.txt": ["# name and description", "", *described],
            "train_list.txt": ["a_1_5"],
            "val_list.txt": ["c_2_9"],
            "test_list.txt": ["-b_0_3"],
        },
    )


def lsmdc(root: Path) -> Path:
    """LSMDC: a clip of train has two sentences, one of them with quotes."""

    def line(clip: str, sentence: str) -> str:
        return "\t".join([clip, "0:01", "0:03", "0:00", "0:04", sentence])

    return write(
        root,
        {
            "LSMDC16_challenge_1000_publictect.csv": [line("3009_A_FILM_00.03.07.170-00.03.09.675", 'He says "no.')],
            "LSMDC16_annos_training.csv": [line("1_FILM_00.1", "SOMEONE sits."), line("1_FILM_00.1", "He sits.")],
        },
    )


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "kinetics700": kinetics700,
    "ucf101": ucf101,
    "hmdb51": hmdb51,
    "jester": twentybn("jester-v1", 27),
    "sthv1": twentybn("something-something-v1", 174),
    "coin": coin,
    "imagenet": imagenet,
    "ssv2_mc": something,
    "charades_mc": charades,
    "msvd": msvd,
    "lsmdc": lsmdc,
}
CLASSES = {
    **{"kinetics700": 700, "ucf101": 101, "hmdb51": 51, "jester": 27, "sthv1": 174, "coin": 180},
    **{"imagenet": 1000, "ssv2_mc": 174, "charades_mc": 157, "msvd": 0, "lsmdc": 0},
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_files_as_published_become_a_task(name: str, tmp_path: Path) -> None:
    task = make(name, LAYOUTS[name](tmp_path))
    assert task.test and task.license and len(task.classes) == CLASSES[name]
    assert task.train or name == "ssv2_mc" or name == "charades_mc"
    if name in ("ucf101", "hmdb51", "jester", "sthv1", "coin", "kinetics700"):
        assert [example.target for example in task.test] == list(range(len(task.classes))) or name == "coin"
        assert {example.target for example in task.train} == set(range(len(task.classes)))


@real
@pytest.mark.parametrize(
    ("name", "map", "layout"),
    [
        ("ucf101", "ucf101", ucf101),
        ("hmdb51", "hmdb51", hmdb51),
        ("jester", "jester", LAYOUTS["jester"]),
        ("sthv1", "sthv1", LAYOUTS["sthv1"]),
    ],
)
def test_classes_are_in_the_published_order(name: str, map: str, layout: Callable[..., Path], tmp_path: Path) -> None:
    names = (MAPS / f"mmaction2_{map}_label_map.txt").read_text().splitlines()
    task = make(name, layout(tmp_path, names))
    assert task.classes == tuple(names)
    assert not task.class_texts or all(
        words.replace(" ", "") == name.replace("_", "") for words, name in zip(task.class_texts, names, strict=True)
    )
    if name == "ucf101":
        assert task.class_texts[:2] == ("Apply Eye Makeup", "Apply Lipstick") and "Tai Chi" in task.class_texts


@real
def test_the_real_names_of_kinetics700_are_its_classes_in_order(tmp_path: Path) -> None:
    names = (MAPS / "mmaction2_kinetics_label_map_k700.txt").read_text().splitlines()
    for split in ("train", "val"):
        rows = [f'"{name}",{split}{c}_x,1,11,{split}' for c, name in enumerate(reversed(names))]
        write(tmp_path, {f"{split}.csv": ["label,youtube_id,time_start,time_end,split", *rows]})
    assert make("kinetics700", tmp_path).classes == tuple(names)


@real
def test_the_first_something_something_has_the_classes_of_the_second_in_another_order() -> None:
    first, second = ((MAPS / f"mmaction2_{name}_label_map.txt").read_text().splitlines() for name in ("sthv1", "sthv2"))
    assert sorted(first) == sorted(second) and first != second


# --- official splits --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ucf101", "hmdb51"])
def test_each_fold_is_a_split_of_its_own(name: str, tmp_path: Path) -> None:
    LAYOUTS[name](tmp_path)
    tasks = [make(name, tmp_path, fold=fold) for fold in (1, 2, 3)]
    assert [task.fold for task in tasks] == [1, 2, 3] and [task.split for task in tasks] == ["test"] * 3
    tested = [{example.id for example in task.test} for task in tasks]
    assert not tested[0] & tested[1] and not tested[1] & tested[2]
    minis = [make(name, mini=True, fold=fold) for fold in (1, 2, 3)]
    assert len({example.video for task in minis for example in task.test}) == sum(len(task.test) for task in minis)
    assert all(not {e.video for e in task.test} & {e.video for e in task.train} for task in minis)


def test_each_split_of_ucf101_has_all_its_clips() -> None:
    sizes = plugins.module_and_factory("task", "ucf101")[0].SIZES
    assert sizes[1] == (9_537, 3_783) and {train + test for train, test in sizes.values()} == {13_320}


def test_a_clip_of_hmdb51_that_is_neither_is_in_no_split(tmp_path: Path) -> None:
    task = make("hmdb51", hmdb51(tmp_path))
    assert [e.id for e in task.train[:2]] == ["do_00_0", "do_01_0"] and task.test[0].id == "do_00_1"
    assert len(task.train) == len(task.test) == 51


# --- videos -----------------------------------------------------------------------------------------------------------


def test_folders_of_images_are_refused_with_what_to_make_of_them(tmp_path: Path) -> None:
    LAYOUTS["jester"](tmp_path)
    (tmp_path / "20bn-jester-v1" / "1001").mkdir(parents=True)
    assert refusal("jester", tmp_path).startswith(f"{tmp_path}/20bn-jester-v1/1001: no decoder reads it; convert all")
    made = tmp_path / "mine" / "1001.webm"
    made.parent.mkdir()
    made.touch()
    assert make("jester", tmp_path).test[0].video == made


def test_clips_of_lsmdc_lie_in_the_folder_of_their_film(tmp_path: Path) -> None:
    task = make("lsmdc", lsmdc(tmp_path))
    (clip,) = task.test
    assert clip.text == 'He says "no.'
    assert clip.video == tmp_path / "3009_A_FILM" / "3009_A_FILM_00.03.07.170-00.03.09.675.avi"
    assert [example.target for example in task.train] == [("1_FILM_00.1", 0), ("1_FILM_00.1", 1)]
    assert task.sizes == {"test": 1_000}


def test_all_captions_of_a_clip_of_msvd_search_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    task = make("msvd", msvd(tmp_path))
    assert [(e.target, e.text) for e in task.test] == [(("-b_0_3", k), f"a thing does {k}") for k in range(2)]
    assert len(task.train) == len(task.val) == 2 and task.test[0].video == tmp_path / "YouTubeClips" / "-b_0_3.avi"
    for split in ("train", "val"):
        (tmp_path / f"{split}_list.txt").unlink()
    assert not make("msvd", tmp_path).train


# --- imagenet ---------------------------------------------------------------------------------------------------------


def test_an_image_of_val_has_the_class_of_its_solution_and_is_expected_if_it_is_missing(tmp_path: Path) -> None:
    task = make("imagenet", imagenet(tmp_path))
    home = tmp_path / "ILSVRC" / "Data" / "CLS-LOC" / "val"
    assert [(e.id, e.video, e.target) for e in task.test] == [
        (f"ILSVRC2012_val_0000000{i}", home / f"ILSVRC2012_val_0000000{i}.JPEG", 7) for i in (1, 2)
    ]
    assert [e.target for e in task.train] == list(range(1000))
    assert task.classes[7] == "thing 7, stuff" and task.class_texts[7] == "thing 7"
    assert task.sizes == {"train": 1_281_167, "test": 50_000} and task.views == Views("uniform")


def test_two_classes_of_one_name_are_told_apart_by_their_synset(tmp_path: Path) -> None:
    task = make("imagenet", imagenet(tmp_path, lambda c: "crane" if c in (3, 5) else f"thing {c}"))
    assert task.classes[3] == "crane (n00000003)" and task.class_texts[3] == task.class_texts[5] == "crane"


def test_val_may_lie_in_folders_and_the_names_be_missing(tmp_path: Path) -> None:
    root = imagenet(tmp_path)
    home = root / "ILSVRC" / "Data" / "CLS-LOC"
    (home / "val" / "n00000004").mkdir()
    (home / "val" / "ILSVRC2012_val_00000001.JPEG").rename(home / "val" / "n00000004" / "x.JPEG")
    for name in ("LOC_synset_mapping.txt", "LOC_val_solution.csv"):
        (root / name).unlink()
    task = make("imagenet", home)
    assert [(e.id, e.target) for e in task.test] == [("x", 4)] and task.classes[4] == "n00000004"
    assert ".jpeg" not in VIDEO_ENDINGS, "an image is read here alone"


def test_a_still_is_shown_in_every_frame(tmp_path: Path) -> None:
    import av
    import numpy as np

    from evalkit.video.clips import read_clip

    file = tmp_path / "still.JPEG"
    with av.open(str(file), "w", format="image2", options={"update": "1"}) as container:
        stream = container.add_stream("mjpeg", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuvj420p")
        container.mux([*stream.encode(frame), *stream.encode()])
    pixels = read_clip(file, None, protocols.prescribed("vjepa2", "imagenet")["views"], 16, 32).pixels  # type: ignore[union-attr]
    assert pixels.shape == (1, 16, 3, 32, 32) and (pixels == pixels[:, :1]).all()


# --- what is wrong ----------------------------------------------------------------------------------------------------

BROKEN = [
    ("kinetics700", "train.csv", "action 001,x,one,11,train", "line 702: not as published: "),
    ("ucf101", "classInd.txt", "102 Nothing", "line 102: not as published: class 101"),
    ("ucf101", "ucfTrainTestlist/trainlist01.txt", "Do001Thing/v_x.avi 1", "line 102: not as published: "),
    ("ucf101", "ucfTrainTestlist/testlist01.txt", "Nothing/v_x.avi", "line 102: not as published: "),
    ("ucf101", "ucfTrainTestlist/testlist01.txt", "v_x.avi", "line 102: not as published: IndexError"),
    (
        "hmdb51",
        "testTrainMulti_7030_splits/do_03_test_split1.txt",
        "x.avi 3",
        "line 4: not as published: KeyError: '3'",
    ),
    ("jester", "jester-v1-train.csv", "9;Waving", "line 28: not as published: no class 'Waving'"),
    ("jester", "jester-v1-validation.csv", "9,Waving", "line 28: 1 values; wanted 2 (id,label)"),
    ("sthv1", "something-something-v1-train.csv", "9", "line 175: 1 values; wanted 2 (id,label)"),
    ("imagenet", "LOC_synset_mapping.txt", "tench", "line 1001: not as published: "),
    ("imagenet", "LOC_val_solution.csv", "ILSVRC2012_val_00000003,7 1 2 3 4", "line 4: not as published: "),
    ("msvd", "AllVideoDescriptions.txt", "c_2_9", "line 9: not as published: "),
    ("msvd", "test_list.txt", "d_0_1", "line 2: not as published: KeyError: 'd_0_1'"),
    (
        "lsmdc",
        "LSMDC16_challenge_1000_publictect.csv",
        "clip\tHe sits.",
        "line 2: not as published: 2 values",
    ),
]


@pytest.mark.parametrize(("name", "file", "row", "told"), BROKEN)
def test_a_malformed_row_is_told_with_file_and_line(name: str, file: str, row: str, told: str, tmp_path: Path) -> None:
    root = LAYOUTS[name](tmp_path)
    assert refusal_of_row(name, root, file, row).startswith(f"{root / file}, {told}")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"recipe_type": 180}, "class 180"),
        ({"recipe_type": 3}, "recipe_type 3 is "),
        ({"subset": "validation"}, "KeyError: 'validation'"),
        ({"class": ""}, "video ''"),
    ],
)
def test_a_malformed_video_of_coin_is_named(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    file = coin(tmp_path) / "COIN.json"
    database = json.loads(file.read_text())["database"]
    database["last"] = {**database["train000"], **change}
    write(tmp_path, {"COIN.json": {"database": database}})
    assert refusal("coin", tmp_path).startswith(f"{file}, video last: not as published: {told}")


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_missing_file_or_another_number_of_classes_is_told(name: str, tmp_path: Path) -> None:
    told = refusal(name, tmp_path)
    assert str(tmp_path) in told and ("has no " in told or "classes; wanted 1000" in told)
