"""The clip of a sample as its encoder saw it, read as the run read it, and the file that it was cut from."""

from __future__ import annotations

import base64
import mimetypes
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints
from urllib.parse import quote

from evalkit.api import Clip, Example, Views
from evalkit.config.values import convert
from evalkit.errors import UserError
from evalkit.features.extract import Cost, FeatureExtractor
from evalkit.features.sources import parts, resolve_views
from evalkit.results.schema import plain
from evalkit.show.opened import Opened
from evalkit.video import media
from evalkit.video.clips import Decoded, Failure
from evalkit.video.workers import DecodePool

MOST_BYTES = 1_000_000_000  # of pixels
MOST_WINDOWS = 16
MOST_EMBEDDED = 8_000_000  # bytes of a video that is put into the page


@dataclass(frozen=True)
class Seen:
    """What the encoder saw of a sample.

    Attributes:
        clips: of each part of the video: one, or its first windows.
        views: which frames and crops, resolved.
        windows: how many there are of the video; 0 where it is one clip.
    """

    clips: list[Decoded]
    views: Views
    windows: int = 0


def seen(opened: Opened, id: str, pool: DecodePool) -> Seen:
    """The clips of a sample, uint8, before they are normalized; they are what the run gave to the encoder.

    Args:
        opened: the run.
        id: of the sample.
        pool: decodes them.

    Raises:
        UserError: they cannot be shown: the task or the video is not here, or the run read it otherwise.
    """
    task, config = opened.task, opened.config
    if task is None or config is None:
        raise UserError("the task's files are not here, which say where the videos lie")
    protocol = opened.record["task"]["protocol"].get("views")
    if not isinstance(protocol, dict) or not opened.record["encoder"]["clip"]:
        raise UserError("this run read no video")
    clip = clip_of(opened.record["encoder"]["clip"])
    views = resolve_views(task.views, clip, config.clip)
    now = plain(asdict(views))
    if apart := [key for key in protocol if protocol[key] != now.get(key)]:
        key = apart[0]
        raise UserError(f"clip.{key} is {now.get(key)} here, and the run had {str(protocol[key])[:40]}")
    example = opened.examples[id]
    sources = parts(example, views)
    frames, size = views.frames or 0, views.size or 0
    shown = sources[:MOST_WINDOWS]
    needed = len(shown) * views.clips * views.crops * frames * 3 * size**2
    if needed > MOST_BYTES:
        raise UserError(f"its clips have {needed / 1e9:.1f} GB of pixels; at most {MOST_BYTES / 1e9:.0f} GB are shown")
    if task.prepare_videos:
        task.prepare_videos([example])
    extractor = FeatureExtractor(views, pool, 1, Cost(), config.options.decoder, clip)
    clips = list(extractor.read(shown))
    if failed := next((clip for clip in clips if isinstance(clip, Failure)), None):
        raise UserError(failed.reason)
    return Seen([clip for clip in clips if isinstance(clip, Decoded)], views, len(sources) if views.window else 0)


def clip_of(stated: dict[str, Any]) -> Clip:
    """What an encoder sees, from a record, which may come from anywhere.

    Raises:
        UserError: it is not as a run writes it.
    """
    kinds = get_type_hints(Clip)
    known = {field.name for field in fields(Clip)} & stated.keys()
    try:
        clip = Clip(**{name: convert(stated[name], kinds[name]) for name in known})
    except ValueError:
        raise UserError("encoder.clip of result.json is not as a run writes it") from None
    if not (0 < clip.frames <= 10_000 and 0 < clip.size <= 10_000 and 0 < clip.share <= 1):
        raise UserError("encoder.clip of result.json is out of all bounds")
    return clip


@dataclass(frozen=True)
class Player:
    """A video for a page.

    Attributes:
        source: its address, with the span in it; empty where it cannot be played from there.
        note: where it lies, and what to know of it.
    """

    source: str
    note: str


def player(example: Example, page: Path) -> Player:
    """The video of a sample for a page that will lie at `page`: within the page where it is small, else by its path.

    Raises:
        UserError: the video is not here.
    """
    path, span = example.video, example.span
    fragment = f"#t={span[0]:g},{span[1]:g}" if span and span[1] > span[0] else f"#t={span[0]:g}" if span else ""
    if media.url_of(path) and not path.exists():
        return Player("", f"{media.shown(path)}, which is not fetched for a page")
    try:
        found = media.locate(path)
        if found.size is not None and found.size <= MOST_EMBEDDED:
            with found.open() as file:
                content = file.read()
            kind = mimetypes.guess_type(path.name)[0] or "video/mp4"
            return Player(f"data:{kind};base64,{base64.b64encode(content).decode()}{fragment}", media.shown(path))
    except OSError as error:
        raise UserError(f"the video is not here: {error.strerror or error}") from error
    if found.inside:
        return Player("", f"{media.shown(path)}, {found.inside}, from which a browser plays nothing")
    try:
        relative = os.path.relpath(path, page.absolute().parent)
    except ValueError:  # on another drive
        return Player(f"{path.absolute().as_uri()}{fragment}", media.shown(path))
    address = quote(os.fsencode(Path(relative).as_posix()))
    return Player(f"{address if '/' in address else f'./{address}'}{fragment}", f"{media.shown(path)}, by its path")
