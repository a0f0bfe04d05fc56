"""`data.videos=`: folders, tars, parquet files and URLs in place of where a task looks itself."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from evalkit.api import Example, Task
from evalkit.cli import main
from evalkit.config.parse import resolve
from evalkit.datasets.videos import find_videos, listed_video, relative_names, video_file
from evalkit.errors import UserError
from evalkit.metrics import top1_top5
from evalkit.pipeline.task_data import load_task
from evalkit.video import media, places
from tests.video.packed import member, pack, served

ROWS = [f"{i:02d}.mp4,{('left', 'right')[i % 2]},{'train' if i < 5 else 'test'}" for i in range(9)]


def write_csv(folder: Path, rows: list[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "labels.csv").write_text("\n".join(["path,label,split", *rows]) + "\n")
    return folder / "labels.csv"


@pytest.fixture
def shards(tmp_path: Path, films: Path) -> Path:
    """Three tars of four films each."""
    videos = sorted(films.iterdir())
    for k in range(3):
        pack(tmp_path / f"shards/{k:03d}.tar", videos[4 * k : 4 * k + 4])
    return tmp_path / "shards"


def load(*words: str) -> Task:
    return load_task(resolve("check", ["task=folder", *words]))


def test_words_name_places(shards: Path, tmp_path: Path) -> None:
    tars = [shards / f"{k:03d}.tar" for k in range(3)]
    assert places.read_places(str(shards)) == (shards,)
    for word in ("*.tar", "{000..002}.tar", "{000,001,002}.tar", "00[0-2].tar", "{000..001}.tar"):
        assert list(places.read_places(f"{shards}/{word}")) == tars[: 2 if word == "{000..001}.tar" else 3]
    assert places.read_places("https://host/videos/") == (Path("/https:/host/videos"),)
    assert places.read_places("HTTPS://host/{01..02}.tar") == (Path("/https:/host/01.tar"), Path("/https:/host/02.tar"))
    (tmp_path / "videos.tar.gz").touch()
    assert places.read_places("http://[::1]:80/v") == (Path("/http:/[::1]:80/v"),)
    with pytest.raises(UserError, match="data.videos= is empty"):
        places.read_places("")
    for word, reason in {
        "none": "there is no",
        "none/*.tar": "there is no",
        "{shards/*.tar,none.tar}": "none.tar",
        "{shards/*.tar,none/*.tar}": "none/*.tar",
        "{shards/000.tar,videos.tar.gz}": "gunzip videos.tar.gz first",
        "shards/{000..003}.tar": "there is no",
        "shards/{x}.tar": "{x} is neither {a,b} nor {000..012}",
        "shards/{0..999999999}.tar": "more than 100,000 places",
        "videos.tar.gz": "gunzip videos.tar.gz first",
        "file:///etc": "none of the schemes",
        "https://host/../x": "a URL without .. is wanted",
    }.items():
        with pytest.raises(UserError) as error:
            places.read_places(word if "://" in word else f"{tmp_path}/{word}")
        assert reason in str(error.value) and str(error.value).count("\n") == 0


@pytest.mark.parametrize("word", ["", "/*.tar", "/{000..002}.tar"])
def test_a_csv_finds_its_videos_in_tars(shards: Path, tmp_path: Path, word: str) -> None:
    csv = write_csv(tmp_path / "lists", ROWS)
    task = load(f"data.root={csv}", f"data.videos={shards}{word}")
    assert [example.video for example in task.test] == [shards / f"{i // 4:03d}.tar/{i:02d}.mp4" for i in range(5, 9)]
    assert relative_names(task.test) == [f"{i:02d}.mp4" for i in range(5, 9)]


@pytest.mark.usefixtures("decoding_here")
def test_check_reads_tars_and_counts_what_is_missing_or_broken(
    shards: Path, tmp_path: Path, films: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = (films / "08.mp4").read_bytes()
    (shards / "002.tar").write_bytes(
        member("08.mp4", content[:200]) + member("07.mp4") + member("../x.mp4") + bytes(1024)
    )
    (shards / "001.tar").write_bytes(b"no tar" * 100)
    csv = write_csv(tmp_path / "lists", ROWS)
    assert main(["check", "task=folder", f"data.root={csv}", f"data.videos={shards}", "workers=1"]) == 1
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[3].split() == ["train", "5", "-", "0", "5", "5", "1", "0"]  # 04.mp4 was in the broken one
    assert lines[4].split() == ["test", "4", "-", "0", "4", "4", "2", "2"]
    assert any(line.startswith(f"undecodable of test: {shards}/002.tar/08.mp4: ") for line in lines)
    assert f"undecodable of test: {shards}/002.tar/07.mp4: the file is empty" in lines
    assert printed.err.count(f"left out, cannot be read: {shards}/001.tar: it is no tar") >= 1
    assert f"{shards}/002.tar: 1 members whose names are no paths in it cannot be read" in printed.err


def test_class_folders_in_tars_have_the_classes_of_folders(tmp_path: Path, films: Path) -> None:
    for i, name in enumerate(("left", "right")):
        pack(tmp_path / f"tars/{i}.tar", sorted(films.iterdir())[i::2], f"train/{name}/")
        pack(tmp_path / f"tars/{i + 2}.tar", sorted(films.iterdir())[i:2], f"test/{name}/")
    for words in ([f"data.root={tmp_path / 'tars'}"], [f"data.videos={tmp_path / 'tars/*.tar'}"]):
        task = load(*words)
        assert task.classes == ("left", "right") and len(task.train) == 12 and len(task.test) == 3
        assert task.train[0].id == "train/left/00.mp4"


def test_a_tar_beside_what_was_unpacked_of_it_changes_nothing(tmp_path: Path, films: Path) -> None:
    for i, name in enumerate(("left", "right")):
        for video in sorted(films.iterdir())[i:4:2]:
            (tmp_path / name).mkdir(exist_ok=True)
            shutil.copy(video, tmp_path / name)
    before = load(f"data.root={tmp_path}")
    pack(tmp_path / "all.tar", sorted(films.iterdir()), "data/left/")
    assert load(f"data.root={tmp_path}") == before
    assert video_file(find_videos(tmp_path), tmp_path, "00") == tmp_path / "left/00.mp4"
    assert video_file(find_videos(tmp_path), tmp_path, "11") == tmp_path / "all.tar/data/left/11.mp4"


def test_a_list_tells_videos_of_one_name_by_their_folders(tmp_path: Path, films: Path) -> None:
    pack(tmp_path / "a.tar", [films / "00.mp4"], "run/")
    pack(tmp_path / "b.tar", [films / "00.mp4"], "walk/")
    with places.searched((tmp_path / "a.tar", tmp_path / "b.tar")):
        assert listed_video(tmp_path / "lists", "walk/00.mp4") == tmp_path / "b.tar/walk/00.mp4"
        assert listed_video(tmp_path / "lists", "./run/00.mp4") == tmp_path / "a.tar/run/00.mp4"
        assert listed_video(tmp_path / "lists", "swim/00.mp4") == tmp_path / "swim/00.mp4"
        with pytest.raises(UserError, match=r"two videos are named 00.mp4: .*a\.tar/run/00.mp4 and .*b\.tar/walk"):
            listed_video(tmp_path / "lists", "00.mp4")


@pytest.mark.parametrize(
    "url", ["s3://bucket/x.mp4", "http://169.254.169.254/x.mp4", "HTTPS://host/a/x.mp4", "abc::s3://b/x"]
)
def test_a_url_in_a_list_is_refused(tmp_path: Path, films: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    csv = write_csv(tmp_path, [*ROWS, f"{url},left,test"])
    for words in ([], [f"data.videos={films}"]):
        assert main(["check", "task=folder", f"data.root={csv}", *words]) == 2
        message = capsys.readouterr().err.splitlines()[-1]
        assert "which only its annotations name; URLs are read where data.videos= names what they begin with" in message


def test_a_url_in_a_list_is_read_below_what_the_user_named(tmp_path: Path, films: Path) -> None:
    pytest.importorskip("aiohttp", reason="needs aiohttp: pip install 'video-evalkit[url]'")
    with served(films) as (url, asked):
        csv = write_csv(tmp_path, [*ROWS, f"{url}/09.mp4,right,test"])
        task = load(f"data.root={csv}", f"data.videos={url}")
        assert [media.url_of(example.video) for example in task.test] == [f"{url}/{i:02d}.mp4" for i in range(5, 10)]
        for bad in (f"{url}/../../x.mp4", "http://localhost:1/x.mp4", f"/{url.replace('//', '/')}1/x.mp4"):
            with pytest.raises(UserError, match="which only its annotations name"):
                load(f"data.root={write_csv(tmp_path, [*ROWS, f'{bad},left,test'])}", f"data.videos={url}")
    assert not [path for path in asked if "x.mp4" in path]


@pytest.mark.usefixtures("decoding_here")
def test_a_server_without_listings_is_asked_for_each_video(
    tmp_path: Path, films: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("aiohttp", reason="needs aiohttp: pip install 'video-evalkit[url]'")
    csv = write_csv(tmp_path, ROWS)
    with served(films, listing=False) as (url, _):
        assert main(["check", "task=folder", f"data.root={csv}", f"data.videos={url}", "workers=1"]) == 0
    assert capsys.readouterr().out.splitlines()[4].split() == ["test", "4", "-", "0", "4", "4", "0", "0"]


def test_tables_among_a_tasks_files_are_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'video-evalkit[parquet]'")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"label": [1]}), tmp_path / "labels.parquet")
    assert find_videos(tmp_path) == {} and not caplog.records
    with places.searched((tmp_path / "labels.parquet",)):
        assert find_videos(tmp_path) == {}
    assert "labels.parquet: no column of videos" in caplog.text


def test_a_task_that_does_not_look_there_is_told(
    tmp_path: Path, films: Path, module_here: Callable[[str], str]
) -> None:
    task = Task(test=[Example("a", films / "00.mp4", 0)], score=top1_top5, classes=("a", "b"))
    places.check_used(task, "t", "films", (films,))
    with pytest.raises(UserError, match="data.videos=elsewhere: task t does not look there, its first video is "):
        places.check_used(task, "t", "elsewhere", (tmp_path,))


def test_a_miniature_has_its_own_videos(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "task=folder", "mini=true", "data.videos=x"]) == 2
    assert "data.videos=x has no effect with mini=true" in capsys.readouterr().err


def test_what_is_wrong_with_a_tar_is_told_once_for_all_splits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "x.tar").write_bytes(member("a.mp4", b"a" * 5000)[:-3000])
    with places.searched(()):
        for _split in ("train", "test"):
            assert find_videos(tmp_path) == {"a": [tmp_path / "x.tar" / "a.mp4"]}
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
        "1 members past its end cannot be read"
    ]
    find_videos(tmp_path)  # of another task
    assert len(caplog.records) == 2
