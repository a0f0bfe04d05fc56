"""Which files are videos, which lie under a folder, and which belongs to a name."""

import logging
from pathlib import Path

import pytest

from evalkit.api import Example
from evalkit.datasets.videos import describe_files, files_under, find_videos, is_video, unused_videos, video_file
from evalkit.errors import UserError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def names(root: Path) -> list[str]:
    return [str(path.relative_to(root)) for path in files_under(root)]


@pytest.mark.parametrize("name", ["a.mp4", "b.MKV", "c.3gp", "d.m2ts", "e.vob", "f.mts", "g.mxf", ".hidden.mp4"])
def test_a_video_is_known_by_its_ending(name: str) -> None:
    assert is_video(Path(name))


@pytest.mark.parametrize("name", ["._a.mp4", "a.mp4.part", "a.jpg", "mp4", ".mp4", "a.srt"])
def test_other_files_are_no_videos(name: str) -> None:
    assert not is_video(Path(name))


def test_links_to_folders_are_followed_and_circles_are_not(tmp_path: Path) -> None:
    root, disk = tmp_path / "root", tmp_path / "disk"
    touch(disk, "x.mp4", "deep/y.mp4")
    touch(root, "own/z.mp4")
    (root / "linked").symlink_to(disk)
    (disk / "deep" / "up").symlink_to(disk)
    (root / "own" / "self").symlink_to(root)
    (root / "own" / "gone.mp4").symlink_to(tmp_path / "nothing.mp4")
    assert names(root) == ["linked/deep/y.mp4", "linked/x.mp4", "own/gone.mp4", "own/z.mp4"]
    assert sorted(find_videos(root)) == ["x", "y", "z"]


def test_folders_that_point_to_one_another_end(tmp_path: Path) -> None:
    for i in range(9):
        touch(tmp_path, f"{i}/v{i}.mp4")
    for i in range(9):
        for k in range(9):
            (tmp_path / str(i) / f"to{k}").symlink_to(tmp_path / str(k))
    with pytest.raises(UserError, match="more than 10,000 links to folders, which point to one another"):
        files_under(tmp_path)


def test_what_systems_leave_behind_and_folders_named_like_videos_are_no_videos(tmp_path: Path) -> None:
    touch(tmp_path, "__MACOSX/a.mp4", "@eaDir/b.mp4", ".Trash-1000/c.mp4", "._d.mp4", "folder.mp4/e.mp4", "f.mp4")
    assert {name: [str(p.relative_to(tmp_path)) for p in paths] for name, paths in find_videos(tmp_path).items()} == {
        "e": ["folder.mp4/e.mp4"],
        "f": ["f.mp4"],
    }
    examples = [Example(name, tmp_path / name) for name in ("f.mp4", "folder.mp4/e.mp4")]
    unused = [str(path.relative_to(tmp_path)) for path in unused_videos(tmp_path, examples)]
    assert unused == [".Trash-1000/c.mp4", "@eaDir/b.mp4", "__MACOSX/a.mp4"]


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "a/x.mp4", "b.mp4")
    (tmp_path / "a").chmod(0)
    with caplog.at_level(logging.WARNING, "evalkit"):
        found = names(tmp_path)
    (tmp_path / "a").chmod(0o700)
    if found != ["a/x.mp4", "b.mp4"]:  # as root all can be read
        assert found == ["b.mp4"] and f"cannot read the folder {tmp_path / 'a'}" in caplog.text


def test_the_documented_folder_goes_before_others(tmp_path: Path) -> None:
    touch(tmp_path, "previews/v.mp4", "videos/v.mp4", "videos/small/v.mp4", "a/w.mp4", "videos/deep/w.webm")
    videos = find_videos(tmp_path)
    assert video_file(videos, tmp_path / "videos", "v") == tmp_path / "videos/v.mp4"
    assert video_file(videos, tmp_path / "videos", "w") == tmp_path / "videos/deep/w.webm"


@pytest.mark.parametrize("pair", [("a/v.mp4", "b/v.mp4"), ("videos/v.mp4", "videos/v.webm"), ("v.mp4", "x/v.mkv")])
def test_two_files_of_one_name_are_an_error_that_names_both(tmp_path: Path, pair: tuple[str, str]) -> None:
    touch(tmp_path, *pair)
    with pytest.raises(UserError, match="two videos are named v: ") as caught:
        video_file(find_videos(tmp_path), tmp_path / "videos", "v")
    assert all(str(tmp_path / name) in str(caught.value) for name in pair)


def test_one_file_by_two_links_is_one(tmp_path: Path) -> None:
    touch(tmp_path, "disk/v.mp4")
    (tmp_path / "all").symlink_to(tmp_path / "disk")
    assert video_file(find_videos(tmp_path), tmp_path / "videos", "v").name == "v.mp4"


def test_a_name_may_have_its_ending_already(tmp_path: Path) -> None:
    touch(tmp_path, "videos/video1.mp4", "videos/clip.2.mp4", "videos/b.webm", "videos/b.mp4")
    videos, folder = find_videos(tmp_path), tmp_path / "videos"
    assert video_file(videos, folder, "video1.mp4") == video_file(videos, folder, "video1") == folder / "video1.mp4"
    assert video_file(videos, folder, "clip.2") == folder / "clip.2.mp4"
    assert video_file(videos, folder, "b.webm") == folder / "b.webm"
    assert video_file(videos, folder, "gone.mp4") == folder / "gone.mp4"
    assert video_file(videos, folder, "gone", ".gif") == folder / "gone.gif"


def test_unused_videos_are_those_of_no_example(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4", "deep/c.mkv", "notes.txt", "list.csv")
    (tmp_path / "again.mp4").symlink_to(tmp_path / "a.mp4")
    examples = [Example("a", tmp_path / "deep/../a.mp4")]
    assert unused_videos(tmp_path, examples) == [tmp_path / "b.mp4", tmp_path / "deep/c.mkv"]
    touch(tmp_path, "deep/list.csv")
    assert unused_videos(tmp_path / "deep/list.csv", [Example("c", tmp_path / "deep/c.mkv")]) == []


def test_of_a_list_the_unused_videos_are_those_beside_its_own(tmp_path: Path) -> None:
    """What lies below the folder of a list, and is of other data, is no matter of the list."""
    touch(tmp_path, "list.csv", "films/a.mp4", "films/b.mp4", "holiday/c.mp4", "d.mp4")
    assert unused_videos(tmp_path / "list.csv", [Example("a", tmp_path / "films/a.mp4")]) == [tmp_path / "films/b.mp4"]
    assert len(unused_videos(tmp_path, [Example("a", tmp_path / "films/a.mp4")])) == 3


def test_folders_of_images_are_described_with_what_to_do(tmp_path: Path) -> None:
    touch(tmp_path, "v1/00001.jpg", "v1/00002.jpg", "list.txt")
    described = describe_files(tmp_path)
    assert described.startswith("2 images (v1/00001.jpg), 1 other files (list.txt); folders of images must be made")
    assert describe_files(tmp_path / "none") == "no file"
