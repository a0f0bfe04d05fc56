"""Classification of the videos of a folder or a csv."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from evalkit.api import Example
from tests.given import make, refusal


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
        (
            ["path;label", "a.mp4;cat"],
            "{}: no column 'path'; wanted path,label, found 'path;label'"
            "; its values are separated by ';': save it with ',' between them",
        ),
        (["path,class", "a.mp4,cat"], "{}: no column 'label'; wanted path,label, found 'path,class'"),
        (["path,label", "a.mp4,cat", "b.mp4,"], "{}, line 3: path or label is empty"),
        (["path,label", "a.mp4,cat", "b.mp4"], "{}, line 3: 1 values; wanted 2 (path,label)"),
        (["path,label", ",cat"], "{}, line 2: path or label is empty"),
        (["path,label,split", "a.mp4,cat,dev"], "{}, line 2: split is 'dev'; wanted train, val or test"),
        (
            ["path,label,split", "a.mp4,cat,test", "b.mp4,dog,"],
            "{}: some rows have a split and some have none; give all or none",
        ),
        (
            ["path,label", "a.mp4,cat", "b.mp4,cat"],
            "data.root={}: found 1 class in 2 videos; wanted at least two",
        ),
        (["path,label,split", "a.mp4,cat,train", "a.mp4,cat,test"], "{}, line 3: a.mp4 appears twice"),
        (["path,label"], "{} has no rows below its header"),
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


def lay(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.mark.parametrize(
    "layout",
    [
        ("train/cat/a.mp4", "train/dog/b.mp4", "test/cat/c.mp4", "test/dog/d.mp4"),
        ("cat/train/a.mp4", "dog/train/b.mp4", "cat/test/c.mp4", "dog/test/d.mp4"),
        ("Training/cat/a.mp4", "Training/dog/b.mp4", "Testing/cat/c.mp4", "Testing/dog/deep/d.mp4"),
    ],
)
def test_folders_of_splits_are_splits_and_no_classes(tmp_path: Path, layout: tuple[str, ...]) -> None:
    task = make("folder", root=lay(tmp_path, *layout))
    assert task.classes == ("cat", "dog") and [e.target for e in task.test] == [0, 1]
    assert [e.video.name for e in task.train] == ["a.mp4", "b.mp4"] or layout[0].startswith("cat")
    assert {e.video.name for e in task.test} == {"c.mp4", "d.mp4"}


def test_a_folder_of_val_is_val_and_trains_are_a_class(tmp_path: Path) -> None:
    names = ("train/cat/a.mp4", "valid/cat/b.mp4", "test/dog/c.mp4")
    task = make("folder", root=lay(tmp_path / "splits", *names))
    assert [e.video.name for e in task.val] == ["b.mp4"] and task.classes == ("cat", "dog")
    vehicles = ("train/a.mp4", "train/b.mp4", "bus/c.mp4", "bus/d.mp4")
    assert make("folder", root=lay(tmp_path / "vehicles", *vehicles)).classes == ("bus", "train")


@pytest.mark.parametrize(
    ("layout", "told"),
    [
        (
            ("train/a.mp4", "test/b.mp4"),
            "found 0 classes in 0 videos; wanted at least two, CLASS/x.mp4 or train/CLASS",
        ),
        (
            ("train/cat/a.mp4", "train/dog/b.mp4"),
            "its folders are splits, of which test has no video in a class folder",
        ),
        (("train/cat/a.mp4", "val/dog/b.mp4"), "its folders are splits, of which test has no video in a class folder"),
        (
            ("train/cat/a.mp4", "test/cat/b.mp4", "dog/c.mp4"),
            "its folder test is named as a split is, and dog beside it",
        ),
        (
            ("cat/v1/1.jpg", "dog/v2/1.jpg"),
            "found 2 images (cat/v1/1.jpg); folders of images must be made videos: ffmpeg",
        ),
        (("a.mp4", "b.mp4"), "found 2 videos (a.mp4)"),
    ],
)
def test_folders_that_cannot_be_meant_are_refused_with_what_was_found(
    tmp_path: Path, layout: tuple[str, ...], told: str
) -> None:
    assert told in refusal("folder", root=lay(tmp_path, *layout))


@pytest.mark.parametrize(
    ("first", "second"),
    [("test_set", "train_set"), ("trn", "tst"), ("split1", "split2"), ("fold0", "fold1"), ("previews", "videos")],
)
def test_folders_that_hold_the_same_folders_are_no_classes(tmp_path: Path, first: str, second: str) -> None:
    root = lay(tmp_path, *(f"{top}/{label}/{top}.mp4" for top in (first, second) for label in ("cat", "dog")))
    told = (
        f"data.root={root}: its folders {first} and {second} both hold cat, dog, so they are no classes; wanted split "
        "folders called train, val and test (train/CLASS/x.mp4), or classes alone (CLASS/x.mp4)"
    )
    assert refusal("folder", root=root) == told
    lay(root, f"{first}/stray.mp4", f"{second}/stray.mp4")
    assert refusal("folder", root=root) == told


def test_splits_of_other_names_within_classes_are_no_videos_of_one_split(tmp_path: Path) -> None:
    root = lay(tmp_path, *(f"{label}/{split}/a.mp4" for label in ("cat", "dog") for split in ("trn", "tst")))
    assert "its folders cat and dog both hold trn, tst, so they are no classes" in refusal("folder", root=root)


def test_a_folder_of_the_same_name_beside_videos_of_each_class_is_part_of_it(tmp_path: Path) -> None:
    names = [f"{label}/{name}" for label in ("cat", "dog") for name in ("a.mp4", "more/b.mp4")]
    task = make("folder", root=lay(tmp_path, *names))
    assert sorted(e.id for e in [*task.train, *task.test]) == names and task.classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("layout", "told"),
    [
        (
            ("sport/run/a.mp4", "sport/swim/b.mp4", "cook/c.mp4"),
            "sport holds no video itself, only folders of videos (sport/run)",
        ),
        (
            ("sport/run/a.mp4", "sport/swim/b.mp4", "art/paint/c.mp4", "art/draw/d.mp4"),
            "art holds no video itself, only folders of videos (art/draw)",
        ),
        (
            ("train/yoga/a.mp4", "train/zumba/b.mp4", "test/yoga/c.mp4", "test/replacement/zumba/f.mp4"),
            "test/replacement holds no video itself, only folders of videos (test/replacement/zumba)",
        ),
        (
            ("yoga/train/a.mp4", "yoga/test/b.mp4", "sport/train/run/c.mp4", "sport/test/run/d.mp4"),
            "sport/test holds no video itself, only folders of videos (sport/test/run)",
        ),
    ],
)
def test_a_class_of_folders_alone_is_refused(tmp_path: Path, layout: tuple[str, ...], told: str) -> None:
    wanted = "; wanted each class as one folder of videos (CLASS/x.mp4, or train/CLASS/x.mp4)"
    assert refusal("folder", root=lay(tmp_path, *layout)) == f"data.root={tmp_path}: {told}{wanted}"


def test_what_is_left_out_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ("cat/a.mp4", "cat/b.m2ts", "dog/c.vob", "dog/._c.vob", "dog/n.txt", "stray.mp4", "__MACOSX/cat/x.mp4")
    task = make("folder", root=lay(tmp_path, *names))
    assert sorted(e.id for e in [*task.train, *task.test]) == ["cat/a.mp4", "cat/b.m2ts", "dog/c.vob"]
    assert "left out, not in a folder of its class: stray.mp4" in caplog.text
    assert "left out, no video by its ending: dog/n.txt" in caplog.text
    assert "left out, in a hidden or system folder: __MACOSX/cat/x.mp4" in caplog.text


def test_class_folders_may_be_links(tmp_path: Path) -> None:
    lay(tmp_path / "disk", "cat/a.mp4", "cat/b.mp4")
    lay(tmp_path / "root", "dog/c.mp4", "dog/d.mp4")
    (tmp_path / "root" / "cat").symlink_to(tmp_path / "disk" / "cat")
    task = make("folder", root=tmp_path / "root")
    assert task.classes == ("cat", "dog") and len(task.train) + len(task.test) == 4


def test_blanks_around_a_label_are_no_part_of_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = ["path,label", "a.mp4,cat ", " b.mp4 , cat", "c.mp4,dog", "d.mp4,Dog"]
    task = make("folder", root=table(tmp_path / "videos.csv", *rows))
    assert task.classes == ("Dog", "cat", "dog")
    assert "classes 'Dog' and 'dog' differ in case or blanks alone; are they one?" in caplog.text


@pytest.mark.parametrize(
    ("label", "other", "shown"),
    [
        ("caf\u00e9", "cafe\u0301", "'cafe\\u0301' and 'caf\\xe9'"),
        ("cat", "cat\u200b", "'cat' and 'cat\\u200b'"),
        ("cat", "Ca\u00adt", "'Ca\\xadt' and 'cat'"),
        ("\uff23at", "Cat", "'Cat' and '\\uff23at'"),
    ],
)
def test_labels_that_look_the_same_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, label: str, other: str, shown: str
) -> None:
    rows = ["path,label", f"a.mp4,{label}", f"b.mp4,{other}", "c.mp4,dog", "d.mp4,caf"]
    assert len(make("folder", root=table(tmp_path / "videos.csv", *rows)).classes) == 4
    assert f"classes {shown} differ in invisible characters or Unicode form alone; are they one?" in caplog.text


def test_a_row_that_names_a_folder_of_frames_says_what_is_wanted(tmp_path: Path) -> None:
    lay(tmp_path, "v1/0001.jpg", "v1/0002.jpg")
    told = refusal("folder", root=table(tmp_path / "videos.csv", "path,label", "v1,cat", "b.mp4,dog"))
    assert f"line 2: {tmp_path / 'v1'} is a folder; wanted a video file; in it: 2 images (0001.jpg)" in told


def test_one_file_by_two_paths_stands_there_twice(tmp_path: Path) -> None:
    told = refusal("folder", root=table(tmp_path / "videos.csv", "path,label", "a.mp4,cat", "./a.mp4,dog"))
    assert told.endswith("line 3: ./a.mp4 appears twice")


def test_a_split_may_be_written_as_the_name_of_a_folder_of_it(tmp_path: Path) -> None:
    rows = ["path,label,split", "a.mp4,cat,Train", "b.mp4,dog,training", "c.mp4,cat,VALIDATION", "d.mp4,dog,Test"]
    task = make("folder", root=table(tmp_path / "videos.csv", *rows))
    assert [names(split) for split in (task.train, task.val, task.test)] == [["a.mp4", "b.mp4"], ["c.mp4"], ["d.mp4"]]


@pytest.mark.parametrize("end", ["walk", "wal", "w"])
def test_a_last_label_that_is_cut_off_is_refused(tmp_path: Path, end: str) -> None:
    file = tmp_path / "videos.csv"
    file.write_text(f"path,label\na.mp4,walking\nb.mp4,run\nc.mp4,{end}")
    told = refusal("folder", root=file)
    assert told.startswith(f"{file}: it ends in '{end}', perhaps 'walking' cut off: get the file again; if it is whole")
    file.write_text(f"{file.read_text()}\n")  # as the advice says
    assert make("folder", root=file).classes == tuple(sorted(["walking", "run", end]))
    file.write_text("path,label\na.mp4,walking\nb.mp4,run\nc.mp4,run")
    assert make("folder", root=file).classes == ("run", "walking")


@pytest.mark.parametrize(
    ("labels", "warning"),
    [
        (("brush_hair", "brush hair"), "classes 'brush hair' and 'brush_hair' differ in case, blanks, hyphens or"),
        (("Brush-Hair", "brush_hair"), "classes 'Brush-Hair' and 'brush_hair' differ in case, blanks, hyphens or"),
        (("1", "1.0"), "classes '1' and '1.0' differ in how a number is written alone; are they one?"),
        (("01", "1"), "classes '01' and '1' differ in how a number is written alone; are they one?"),
    ],
)
def test_labels_that_are_probably_one_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, labels: tuple[str, str], warning: str
) -> None:
    rows = ["path,label", *(f"{i}.mp4,{label}" for i, label in enumerate((*labels, "10", "brush")))]
    assert len(make("folder", root=table(tmp_path / "videos.csv", *rows)).classes) == 4
    assert warning in caplog.text


@pytest.mark.parametrize(
    ("loose", "told"),
    [
        (
            ("cat/train/a.mp4", "cat/test/b.mp4", "dog/train/c.mp4", "dog/d.mp4"),
            "first dog/d.mp4; move them into CLASS/",
        ),
        (
            ("train/cat/a.mp4", "train/dog/b.mp4", "test/cat/c.mp4", "test/d.mp4"),
            "first test/d.mp4; move them into trai",
        ),
    ],
)
def test_videos_beside_the_folders_of_splits_are_refused(tmp_path: Path, loose: tuple[str, ...], told: str) -> None:
    assert told in refusal("folder", root=lay(tmp_path, *loose))


def test_a_path_that_no_file_has_is_an_error_at_its_row(tmp_path: Path) -> None:
    told = refusal("folder", root=table(tmp_path / "videos.csv", "path,label", f"{'a' * 300}.mp4,cat", "b.mp4,dog"))
    assert "videos.csv, line 2: 'aaa" in told and told.endswith("cannot be the path of a video: File name too long")
