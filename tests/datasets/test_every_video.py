"""Every video on disk is an example or is named as left out, or there is one line on what is wrong."""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evalkit import plugins
from evalkit.api import Example, Task
from evalkit.datasets.videos import unused_videos
from evalkit.errors import UserError

BOUNDED = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
FOLDERS = st.sampled_from(["cat", "dog", "train", "Test", "val", "x.mp4", "a b", "ß", "videos", ".hidden", "@eaDir"])
FILES = st.sampled_from(
    ["a.mp4", "b.MKV", "c.3gp", "d.m2ts", "e.vob", "f.txt", "._g.mp4", "h.jpg", "i j.webm", "k.mts"]
)
PATHS = st.builds(lambda folders, file: "/".join([*folders, file]), st.lists(FOLDERS, max_size=3), FILES)


@contextlib.contextmanager
def folder(names: Sequence[str]) -> Iterator[Path]:
    """A folder with these empty files; names that need a file as a folder are left out."""
    root = Path(tempfile.mkdtemp())
    try:
        for name in names:
            with contextlib.suppress(FileExistsError, NotADirectoryError, IsADirectoryError):
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).touch()
        yield root
    finally:
        shutil.rmtree(root)


def examples(task: Task) -> list[Example]:
    return [*task.train, *task.val, *task.test]


def videos_on_disk(root: Path) -> set[Path]:
    endings = {".mp4", ".mkv", ".3gp", ".m2ts", ".vob", ".webm", ".mts"}
    files = [path for path in root.rglob("*") if path.is_file() and not path.name.startswith("._")]
    return {path for path in files if path.suffix.lower() in endings}


def accounted(root: Path, data: Path, task: Task) -> None:
    used = {example.video.resolve() for example in examples(task)}
    unused = {path.resolve() for path in unused_videos(data, examples(task))}
    on_disk = {path.resolve() for path in videos_on_disk(root)}
    assert on_disk == unused | (used & on_disk) and not used & unused


@BOUNDED
@given(st.lists(PATHS, max_size=12, unique=True))
def test_of_class_folders(names: list[str]) -> None:
    with folder(names) as root, contextlib.suppress(UserError):
        task = plugins.factory("task", "folder")(root)
        accounted(root, root, task)
        split = {"train", "val", "test", "Test"}
        assert not {*task.classes} & split or not all({*Path(n).parts[:1]} <= split for n in names if "/" in n)


@BOUNDED
@given(
    st.lists(PATHS, min_size=2, max_size=8, unique=True), st.integers(0, 400), st.sampled_from(['"', "\n", ",", "\r"])
)
def test_of_a_csv_with_a_stray_character(names: list[str], at: int, stray: str) -> None:
    """Each row is an example or an error: none is swallowed by a quote."""
    text = "path,label\n" + "".join(f"{name},{'ab'[i % 2]}\n" for i, name in enumerate(names))
    at = min(at, len(text))
    with folder(names) as root:
        file = root / "list.csv"
        file.write_text(text[:at] + stray + text[at:], newline="")
        with contextlib.suppress(UserError):
            task = plugins.factory("task", "folder")(file)
            accounted(root, file, task)
            assert len(examples(task)) == len(names)


@BOUNDED
@given(st.lists(PATHS, min_size=1, max_size=8, unique=True), st.integers(0, 400), st.booleans())
def test_of_json_that_is_cut_or_names_videos_twice(names: list[str], cut: int, twice: bool) -> None:
    """What is cut is an error; a name with two files is one that names both."""
    ids = [Path(name).name for name in names]
    text = json.dumps([{"videoID": name, "enCap": ["a cat"]} for name in ids])
    with folder([f"{'previews' if twice else 'videos'}/{name}" for name in names]) as root:
        file = root / "vatex_public_test_english_v1.1.json"
        file.write_text(text[: len(text) - cut] if cut < len(text) else text)
        with contextlib.suppress(UserError):
            task = plugins.factory("task", "vatex_caption")(root)
            accounted(root, root, task)
            assert cut in (0, *range(len(text), 401)) and {example.id for example in task.test} == {*ids}
