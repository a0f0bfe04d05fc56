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
