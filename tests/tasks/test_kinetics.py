"""The reader of the official csv of Kinetics-400."""

from pathlib import Path

import pytest

from tests.given import ANNOTATIONS, make, real, refusal

KINETICS = ANNOTATIONS / "label_maps" / "activitynet_crawler_kinetics-400_val.csv"
HEADER = "label,youtube_id,time_start,time_end,split,is_cc"


@pytest.fixture
def kinetics(tmp_path: Path) -> Path:
    """A root with both csv files: 400 classes, two clips each in train and one in val."""
    for split, n in (("train", 2), ("val", 1)):
        rows = [f"action {c:03d},{split}{c:03d}-{i}_x,{i},{i + 10},{split},0" for c in range(400) for i in range(n)]
        (tmp_path / f"{split}.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    return tmp_path


@real
def test_the_real_kinetics_csv_gives_every_row_a_class_and_a_file_name(tmp_path: Path) -> None:
    (tmp_path / "val.csv").write_bytes(KINETICS.read_bytes())
    (tmp_path / "train.csv").write_bytes(KINETICS.read_bytes().replace(b",val,", b",train,"))
    task = make("kinetics400", root=tmp_path)
    assert len(task.test) == len(task.train) == 19906 and len(task.classes) == 400 and task.chance == 0.25
    first = task.test[0]
    assert first.id == "0wR5jVB-WPk_000417_000427" and task.classes[first.target] == "abseiling"
    assert first.video == tmp_path / "val" / "0wR5jVB-WPk_000417_000427.mp4"
    assert len({example.id for example in task.test}) == 19906
    assert not [name for name in task.classes if '"' in name]


def test_clips_are_found_flat_and_in_class_folders(kinetics: Path) -> None:
    places = [
        kinetics / "val" / "val000-0_x_000000_000010.mp4",
        kinetics / "val" / "action 001" / "val001-0_x_000000_000010.mkv",
        kinetics / "train" / "action_000" / "train000-1_x_000001_000011.mp4",
    ]
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    task = make("kinetics400", root=kinetics)
    assert [example.video for example in task.test[:2]] == places[:2] and task.train[1].video == places[2]
    assert task.test[2].video == kinetics / "val" / "val002-0_x_000000_000010.mp4"  # expected although it is missing
    assert task.test[399].target == 399 and task.classes[399] == "action 399"


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("abseiling,x,1", "line 402: 3 values; wanted 6"),
        ("abseiling,x,one,11,val,0", "line 402: not as published: "),
        ("abseiling,x,inf,11,val,0", "line 402: not as published: no span from inf to 11 s"),
    ],
)
def test_a_malformed_row_is_told_with_file_and_line(kinetics: Path, row: str, told: str) -> None:
    with (kinetics / "val.csv").open("a") as file:
        file.write(row + "\n")
    assert refusal("kinetics400", root=kinetics).startswith(f"{kinetics / 'val.csv'}, {told}")


def test_a_kinetics_csv_without_its_columns_or_classes_is_told(kinetics: Path) -> None:
    (kinetics / "val.csv").write_text("youtube_id,time_start,time_end,split\nx,1,11,test\n")
    assert refusal("kinetics400", root=kinetics).startswith(f"{kinetics / 'val.csv'}: no column 'label'; wanted label,")
    for split in ("train", "val"):
        (kinetics / f"{split}.csv").write_text(f"{HEADER}\nabseiling,x,1,11,{split},0\n")
    assert refusal("kinetics400", root=kinetics).startswith(f"data.root={kinetics}: its files name 1 class; wanted 400")
    (kinetics / "train.csv").unlink()
    assert refusal("kinetics400", root=kinetics).startswith(
        f"data.root={kinetics} has no train.csv or annotations/train.csv or kinetics400_train_list_videos.txt; found"
    )


@pytest.mark.parametrize("column", ["label", "youtube_id", "time_start", "split"])
def test_a_column_of_another_name_is_told_and_not_taken_for_a_list_of_paths(kinetics: Path, column: str) -> None:
    file = kinetics / "val.csv"
    file.write_text(file.read_text().replace(column, "video_id", 1))
    found = HEADER.replace(column, "video_id")
    assert refusal("kinetics400", root=kinetics).startswith(
        f"{file}: no column {column!r}; wanted label,youtube_id,time_start,time_end,split, found {found!r}"
    )


@pytest.mark.parametrize(("name", "line"), [("val", 7), ("train", 12)])
def test_a_class_that_is_spelled_otherwise_in_one_list_is_told_with_its_place(
    kinetics: Path, name: str, line: int
) -> None:
    file = kinetics / f"{name}.csv"
    for split in ("train", "val"):
        of_split = kinetics / f"{split}.csv"
        of_split.write_text(of_split.read_text().replace("action 005,", "abseiling,"))
    file.write_text(file.read_text().replace("abseiling,", "absailing,", 1))
    assert refusal("kinetics400", root=kinetics) == (
        f"{file}, line {line}: class 'absailing' is in no other list. Did you mean 'abseiling'?"
    )


@pytest.mark.parametrize(("name", "other"), [("train", "val"), ("val", "train"), ("val", "test")])
def test_the_list_of_another_split_is_refused(kinetics: Path, name: str, other: str) -> None:
    file = kinetics / f"{name}.csv"
    file.write_text(file.read_text().replace(f",{name},", f",{other},"))
    assert refusal("kinetics400", root=kinetics).startswith(
        f"{file}, line 2: not as published: split {other!r}; wanted {name}"
    )


@pytest.mark.parametrize("name", ["validate", "Validation"])
def test_val_may_be_called_by_its_other_names(kinetics: Path, name: str) -> None:
    file = kinetics / "val.csv"
    file.write_text(file.read_text().replace(",val,", f",{name},"))
    assert len(make("kinetics400", root=kinetics).test) == 400
