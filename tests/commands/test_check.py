"""`evalkit check` on folders of real films of which some are missing, broken, or in two splits."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from evalkit.api import Example
from evalkit.cli import main
from evalkit.commands.runs.check import DataCheck, Split, _unseen, check, check_data, report, wanted_files
from evalkit.config.parse import resolve
from evalkit.features.duplicates import shared_videos
from evalkit.features.key import Identity, identify
from evalkit.pipeline.runner import run
from evalkit.pipeline.task_data import load_task
from evalkit.results import validate
from evalkit.results.run_folder import load
from evalkit.results.table import table as result_table
from evalkit.video import media
from tests.given import make, write
from tests.localization.test_segment_task import own
from tests.tasks.test_ava import BOX, ava

# All but the first test, which decodes in processes as the command does.
decoded_here = pytest.mark.usefixtures("decoded_here")


@pytest.fixture
def table(tmp_path: Path, films: Path) -> Path:
    """A csv of own videos: five to train on, four to test on, all sound."""
    for file in films.iterdir():
        shutil.copy(file, tmp_path)
    rows = [f"{i:02d}.mp4,{('left', 'right')[i % 2]},{'train' if i < 5 else 'test'}" for i in range(9)]
    file = tmp_path / "labels.csv"
    file.write_text("\n".join(["path,label,split", *rows]) + "\n")
    return file


def words(table: Path) -> list[str]:
    return ["task=folder", f"data.root={table}", "workers=1"]


def test_sound_data_are_counted_and_called_sound(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", *words(table)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "task  folder, version 1"
    assert lines[2].split() == ["examples", "published", "unlabeled", "videos", "parts", "missing", "undecodable"]
    assert lines[3].split() == ["train", "5", "-", "0", "5", "5", "0", "0"]
    assert lines[4].split() == ["test", "4", "-", "0", "4", "4", "0", "0"]
    assert lines[-1].startswith("fingerprint of the test examples: ")


@decoded_here
def test_what_is_missing_broken_or_in_two_splits_is_named(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = table.parent
    (folder / "00.mp4").unlink()
    (folder / "06.mp4").write_bytes((folder / "06.mp4").read_bytes()[:300])
    shutil.copy(folder / "01.mp4", folder / "07.mp4")
    assert main(["check", *words(table)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[3].split() == ["train", "5", "-", "0", "5", "5", "1", "0"]
    assert lines[4].split() == ["test", "4", "-", "0", "4", "4", "0", "1"]
    assert f"missing of train: {folder / '00.mp4'}" in lines
    assert any(line.startswith(f"undecodable of test: {folder / '06.mp4'}: ") for line in lines)
    assert f"the same video in train and test: {folder / '01.mp4'} and {folder / '07.mp4'}" in lines


@decoded_here
def test_the_paths_of_missing_and_undecodable_videos_are_listed_as_rsync_reads_them(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, wanted = table.parent, tmp_path / "lists" / "wanted.txt"
    for name in ("00.mp4", "05.mp4"):
        (folder / name).unlink()
    (folder / "06.mp4").write_bytes((folder / "06.mp4").read_bytes()[:300])
    assert main(["check", *words(table)]) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("out=missing.txt lists missing and undecodable videos")
    assert main(["check", *words(table), f"out={wanted}"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == f"missing and undecodable videos: 3 paths in {wanted}"
    assert wanted.read_text() == "00.mp4\n05.mp4\n06.mp4\n"
    table.write_text("path,label,split\n01.mp4,left,train\n02.mp4,right,test\n")
    assert main(["check", *words(table), f"out={wanted}"]) == 0
    assert wanted.read_text() == ""


@pytest.mark.parametrize("name", ["labels.csv", "00.mp4", "labels.txt", "missing"])
def test_a_list_replaces_no_file_of_the_data(table: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    if name.endswith(".txt"):
        table = table.rename(table.with_suffix(".txt"))
    place = table.with_name(name)
    before = place.read_bytes() if place.exists() else b""
    assert main(["check", *words(table), f"out={place}"]) == 2
    assert f"out={place}: wanted a file that ends in .txt and is none of the data" in capsys.readouterr().err
    assert (place.read_bytes() if place.exists() else b"") == before


def test_of_videos_in_a_tar_the_tar_is_listed_once_and_of_others_the_place(tmp_path: Path) -> None:
    tar = tmp_path / "train" / "000.tar"
    tar.parent.mkdir()
    tar.touch()
    broken = [(tar / name, "cut off") for name in ("a.mp4", "b.mp4")]
    url = media.path_of("https://host.org/c.mp4?token=secret")
    split = Split("test", 5, None, 0, 5, 5, [tmp_path / "d.mp4", Path("/elsewhere/e.mp4"), url], broken)
    listed = ["d.mp4", "/elsewhere/e.mp4", "https://host.org/c.mp4", "train/000.tar"]
    assert wanted_files(DataCheck([split]), [tmp_path]) == listed


@decoded_here
def test_spans_of_a_video_are_parts_and_not_videos(table: Path) -> None:
    config = resolve("check", words(table))
    task = load_task(config)
    first, second, *_ = task.test
    spans = (None, (0.0, 1.0), (0.5, 1.5), (0.5, 1.5))
    asked = [replace(first, id=str(i), span=span) for i, span in enumerate(spans)]
    found = check_data(replace(task, test=[*asked, second], train=()), config)
    (split,) = found.splits
    assert (split.examples, split.videos, split.parts) == (5, 2, 4)
    assert report(found).splitlines()[1].split() == ["test", "5", "-", "0", "2", "4", "0", "0"]


@decoded_here
def test_a_video_that_is_trained_on_and_tested_is_in_the_record_and_its_table(
    table: Path, tiny: Path, tmp_path: Path
) -> None:
    shutil.copy(table.parent / "01.mp4", table.parent / "07.mp4")
    common = [word for word in words(table) if not word.startswith("workers")] + [f"ckpt={tiny}", "adapter=knn"]
    common += ["adapter.k=1", "canary=false", "controls=false", f"out={tmp_path / 'out'}"]
    folder = run(resolve("run", common))
    record = load(folder)
    assert validate.validate(folder) == []
    first = [{"train": "01.mp4", "test": "07.mp4"}]
    assert record["data"]["shared_videos"] == {"videos": 1, "first": first}
    assert f"WARNING 1 test video is in train, too, the first {first[0]['test']}: " in " ".join(
        result_table(record).split()
    )
    assert "shared_videos" not in load(run(resolve("run", [*common, "cache=off"])))["data"]  # its bytes are not known


def test_the_same_path_in_two_splits_is_found_without_opening_it() -> None:
    def of(*names: str) -> list[Example]:
        return [Example(str(i), Path(name)) for i, name in enumerate(names)]

    splits = {"train": of("a.mp4", "b.mp4", "a.mp4"), "test": of("c.mp4", "a.mp4", "a.mp4")}
    assert shared_videos(splits, by_path=True) == [("train", Path("a.mp4"), "test", Path("a.mp4"))]
    assert shared_videos(splits) == []  # there are no such files


def test_of_a_file_in_two_splits_no_more_than_its_ends_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film, copy = tmp_path / "film.mp4", tmp_path / "copy.mp4"
    film.write_bytes(bytes(1 << 18))
    shutil.copy(film, copy)
    whole: list[Path] = []

    def noted(path: Path, full: bool = False) -> Identity:
        whole.extend([path] * full)
        return identify(path, full)

    monkeypatch.setattr("evalkit.features.duplicates.identify", noted)
    train, test = [Example("1", film)], [Example("2", film)]
    assert shared_videos({"train": train, "test": test}) == [("train", film, "test", film)] and not whole
    test.append(Example("3", copy))  # which may differ between its ends
    pairs = [("train", film, "test", film), ("train", film, "test", copy)]
    assert shared_videos({"train": train, "test": test}) == pairs and whole == [film, film, copy]


@decoded_here
def test_files_of_equal_size_and_ends_are_told_apart_by_all_their_bytes(table: Path) -> None:
    content = bytearray((table.parent / "01.mp4").read_bytes() + bytes(64 << 10))
    for name, middle in (("01.mp4", 0), ("07.mp4", 1)):
        content[40 << 10] = middle
        (table.parent / name).write_bytes(content)
    config = resolve("check", words(table))
    assert check_data(load_task(config), config).shared == []


@decoded_here
def test_a_class_that_is_never_trained_on_is_named(table: Path) -> None:
    table.write_text(table.read_text().replace("08.mp4,left", "08.mp4,up"))
    config = resolve("check", words(table))
    found = check_data(load_task(config), config)
    assert found.unseen == ["up"]
    assert "without a training example: 1 class of test, up" in report(found)
    assert found.sound  # it may be meant


@decoded_here
def test_the_fingerprint_is_the_one_of_results(table: Path, tiny: Path, tmp_path: Path) -> None:
    own = [word for word in words(table) if not word.startswith("workers")]
    more = [f"ckpt={tiny}", "adapter.head=linear", "adapter.epochs=1", f"out={tmp_path / 'out'}", "canary=false"]
    record = load(run(resolve("run", [*own, *more])))
    config = resolve("check", own)
    assert record["data"]["fingerprint"] == check_data(load_task(config), config).fingerprint
    assert record["data"]["published_size"] is None


def test_check_needs_no_encoder_and_takes_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "task=folder", "ckpt=demo"]) == 2
    assert "unknown key 'ckpt'" in capsys.readouterr().err


@pytest.mark.slow
@decoded_here
def test_the_miniature_is_filmed_before_it_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(resolve("check", ["task=folder", "mini=true"])) == 0
    assert "folder@mini" in capsys.readouterr().out


def test_a_label_of_segments_that_is_never_trained_on_is_named(tmp_path: Path) -> None:
    task = make("tal", own(tmp_path))  # whose swim of train lies past the end of its video
    assert _unseen(task) == ["swim"]


def test_actions_of_boxes_are_compared_with_those_of_persons(tmp_path: Path) -> None:
    task = make("ava", ava(tmp_path))
    assert _unseen(task) == []
    write(tmp_path / "ava_train_v2.2.csv", BOX.format("a,0902", 12, 0))
    assert _unseen(make("ava", tmp_path)) == ["talk to"]


def test_names_in_the_data_break_no_line() -> None:
    name = Path("one\ntwo\x1b[2J.mp4")
    split = Split("test", 4, None, 0, 4, 4, [name], [(name, "cut off")])
    found = DataCheck([split], [("train", name, "test", name)], ["up\ndown"], unused=[name])
    lines = report(found).splitlines()
    assert lines[3:] == [
        "missing of test: one\\ntwo\\x1b[2J.mp4",
        "undecodable of test: one\\ntwo\\x1b[2J.mp4: cut off",
        "the same video in train and test: one\\ntwo\\x1b[2J.mp4 and one\\ntwo\\x1b[2J.mp4",
        "left out, of no example: one\\ntwo\\x1b[2J.mp4",
        "without a training example: 1 class of test, up\\ndown",
        "fingerprint of the test examples: ",
    ]
