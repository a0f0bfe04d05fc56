"""The locations in `data.videos=`: folders, tars, parquet files, URLs.

Only these words may name a URL. A task does not see them: `evalkit.datasets.videos` looks there while the task is made.
"""

from __future__ import annotations

import glob
import itertools
import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from evalkit.api import Task
from evalkit.errors import UserError
from evalkit.video import media, remote

MOST_PLACES = 100_000
_BRACES = re.compile(r"\{([^{}]*)\}")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")

_NOWHERE: tuple[tuple[Path, ...], dict[Any, Any]] = ((), {})  # while no task is made by `searched`
_search: ContextVar[tuple[tuple[Path, ...], dict[Any, Any]]] = ContextVar("search", default=_NOWHERE)

logger = logging.getLogger("evalkit")


def named() -> tuple[Path, ...]:
    """The places that `data.videos=` names while a task is made; none where it was not given."""
    return _search.get()[0]


def listings() -> dict[Any, Any]:
    """The listings of these locations so far, so that each is listed once."""
    return _search.get()[1]


def tell(message: str) -> None:
    """Warns, and while one task is made only once, however many of its splits list the same place."""
    told: set[str] = set() if _search.get() is _NOWHERE else _search.get()[1].setdefault("told", set())
    if message not in told:
        logger.warning(message)
    told.add(message)


@contextmanager
def searched(places: tuple[Path, ...]) -> Iterator[None]:
    """Lets the tasks that are made inside the block find their videos in these places, and in no others."""
    token = _search.set((places, {}))
    try:
        yield
    finally:
        _search.reset(token)


def read_places(word: str) -> tuple[Path, ...]:
    """The places that `data.videos=` names.

    Args:
        word: a folder, a tar, a parquet file, or the URL of one or of what is common to the videos' URLs; several by
            `*`, `?` and `[0-9]`, or by `{a,b}` and `{000..012}`.

    Raises:
        UserError: there is no such place, or it cannot be read here.
    """
    if not word.strip():
        raise UserError("data.videos= is empty; wanted a folder, a tar, a parquet file or a URL, or leave it out")
    found: list[Path] = []
    for text in _without_braces(word):
        if _URL.match(text):
            found += [media.path_of(url) for url in _urls(text)]
        else:
            text = os.path.expanduser(text)
            paths = [text] if os.path.exists(text) else sorted(glob.glob(text, recursive=True))
            chosen = [Path(path) for path in paths if os.path.isdir(path) or media.is_container(Path(path))]
            if paths and not chosen:
                raise UserError(
                    f"data.videos={word}: {paths[0]} is not a folder, .tar or .parquet" + how_to_unpack(Path(paths[0]))
                )
            if not paths:
                raise UserError(f"data.videos={word}: there is no {text}")
            found += chosen
    return tuple(dict.fromkeys(found))


def check_urls(task: Task, name: str, places: Iterable[Path]) -> None:
    """Check that no video of a task is at a URL but below those that the user named.

    A list of annotations comes from a stranger, who could else have any address asked, and from inside a network.

    Raises:
        UserError: one is.
    """
    below = tuple(url for url in map(media.url_of, places) if url)
    for split in ("train", "val", "test"):
        for example in getattr(task, split):
            url = media.url_of(example.video)
            if url and not remote.is_below(url, below):
                url = url.partition("?")[0]
                raise UserError(
                    f"task {name}: the video of {example.id!a:.100} in {split} is {url!a:.200}, which only its "
                    "annotations name; URLs are read where data.videos= names what they begin with: "
                    f"data.videos={url.rpartition('/')[0]}"
                )


def check_used(task: Task, name: str, word: str, places: tuple[Path, ...]) -> None:
    """Check that a task looks for its videos in the places of `data.videos=`.

    Raises:
        UserError: it takes them from elsewhere.
    """
    homes = {str(place.absolute()) for place in places} | {str(expected("", places).absolute())}
    videos = [example.video.absolute() for example in task.test]
    if videos and not any(str(parent) in homes for video in videos for parent in video.parents):
        raise UserError(
            f"data.videos={word}: task {name} does not look there, its first video is {media.shown(videos[0])}; a task "
            "finds its videos by find_videos and video_file of evalkit.datasets.videos"
        )


def expected(name: str, places: tuple[Path, ...]) -> Path:
    """The path of a video that is in none of the places."""
    first = next((place for place in places if not media.is_container(place)), None)
    if first is None:
        first = places[0] if len(places) == 1 else places[0].parent
    return first / name


def _without_braces(word: str) -> list[str]:
    """Expands `{a,b}` and `{000..012}` as a shell does."""
    match = _BRACES.search(word)
    if not match:
        return [word]
    inside, span = match[1], re.fullmatch(r"(\d{1,9})\.\.(\d{1,9})", match[1])
    if span:
        first, last = int(span[1]), int(span[2])
        width = len(span[1]) if span[1].startswith("0") or span[2].startswith("0") else 0
        numbers = range(first, last + 1) if first <= last else range(first, last - 1, -1)
        parts: Iterable[str] = (f"{number:0{width}d}" for number in numbers)
    elif "," in inside:
        parts = inside.split(",")
    else:
        raise UserError(f"data.videos={word}: {match[0]} is neither {{a,b}} nor {{000..012}}")
    words = (f"{word[: match.start()]}{part}{rest}" for part in parts for rest in _without_braces(word[match.end() :]))
    expanded = list(itertools.islice(words, MOST_PLACES + 1))
    if len(expanded) > MOST_PLACES:
        raise UserError(f"data.videos={word}: more than {MOST_PLACES:,} places")
    return expanded


def _urls(text: str) -> list[str]:
    scheme, _, rest = text.partition("://")
    text = f"{scheme.lower()}://{rest}"
    remote.check(text)
    if ".." in rest.split("/"):
        raise UserError(f"data.videos={text}: a URL without .. is wanted")
    if not any(letter in rest.partition("/")[2] for letter in "*["):  # a host may be [::1]
        return [text.rstrip("/")]
    try:
        urls = remote.expand(text)
    except OSError as error:
        raise UserError(f"data.videos={text}: {error}") from error
    if not urls:
        raise UserError(f"data.videos={text}: there is nothing of this name")
    return urls


def how_to_unpack(path: Path) -> str:
    """What to do with a compressed file before it can be read in place; empty for others."""
    packed = {".gz": "gunzip", ".tgz": "gunzip", ".zst": "unzstd", ".xz": "unxz", ".bz2": "bunzip2", ".zip": "unzip"}
    tool = packed.get(path.suffix.lower())
    return f": no part of what is compressed can be read by itself; {tool} {path.name} first" if tool else ""
