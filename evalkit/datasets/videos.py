"""The video files of a data set: what is one, which lie under a folder, and which belongs to a name."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from evalkit.api import Example
from evalkit.errors import UserError

logger = logging.getLogger("evalkit")

VIDEO_ENDINGS = frozenset(
    [
        ".3g2",
        ".3gp",
        ".amv",
        ".asf",
        ".avi",
        ".divx",
        ".dv",
        ".f4v",
        ".flv",
        ".gif",
        ".h264",
        ".h265",
        ".hevc",
        ".ivf",
        ".m1v",
        ".m2t",
        ".m2ts",
        ".m2v",
        ".m4v",
        ".mj2",
        ".mjpeg",
        ".mkv",
        ".mov",
        ".mp4",
        ".mpe",
        ".mpeg",
        ".mpg",
        ".mts",
        ".mxf",
        ".nut",
        ".ogm",
        ".ogv",
        ".qt",
        ".rm",
        ".rmvb",
        ".ts",
        ".vob",
        ".webm",
        ".wmv",
        ".wtv",
        ".y4m",
    ]
)
IMAGE_ENDINGS = frozenset([".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"])
# What operating systems and network disks leave in every folder.
SYSTEM_FOLDERS = frozenset(
    ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found")
)
MOST_LINKS = 10_000  # to folders, of one data set: more are links that point to one another

Videos = Mapping[str, Sequence[Path]]  # files by name without ending


def is_video(path: Path) -> bool:
    """Whether a file is a video by its name; `._x.mp4` is what macOS keeps beside x.mp4."""
    return path.suffix.lower() in VIDEO_ENDINGS and not path.name.startswith("._")


def is_hidden(folder: str) -> bool:
    """Whether a folder of this name is hidden, or one of `SYSTEM_FOLDERS`."""
    return folder.startswith(".") or folder in SYSTEM_FOLDERS


def files_under(folder: Path, hidden: bool = False) -> list[Path]:
    """The files under a folder in order of paths; links to folders are followed, but into no folder they lie in.

    A folder that cannot be read is named by a warning.

    Args:
        folder: where to look.
        hidden: enter folders that `is_hidden`, too.

    Raises:
        UserError: there are more than `MOST_LINKS` links to folders.
    """
    files: list[Path] = []
    links = 0
    open_folders: list[tuple[str, frozenset[tuple[int, int]]]] = [(str(folder), frozenset())]
    while open_folders:
        place, above = open_folders.pop()
        try:
            status = os.stat(place)
            if (identity := (status.st_dev, status.st_ino)) in above:
                continue
            with os.scandir(place) as entries:
                for entry in entries:
                    if not entry.is_dir():
                        files.append(Path(entry.path))
                    elif hidden or not is_hidden(entry.name):
                        links += entry.is_symlink()
                        open_folders.append((entry.path, above | {identity}))
        except OSError as error:
            if place != str(folder) or folder.exists():
                logger.warning(f"cannot read the folder {place}: {error.strerror}")
        if links > MOST_LINKS:
            raise UserError(f"{folder}: more than {MOST_LINKS:,} links to folders, which point to one another")
    return sorted(files)


def find_videos(*folders: Path) -> Videos:
    """The video files under folders by name without ending; `video_file` chooses where there are several of a name."""
    videos: dict[str, list[Path]] = {}
    for folder in folders:
        for path in files_under(folder):
            if is_video(path) and path.is_file():
                videos.setdefault(path.stem, []).append(path)
    return videos


def video_file(videos: Videos, folder: Path, name: str, ending: str = ".mp4") -> Path:
    """The file of a video; if it is missing, its expected path, so that decoding counts it as failed.

    Args:
        videos: existing files.
        folder: where the benchmark's documentation has the videos; it goes before other folders.
        name: of the video, with or without its ending.
        ending: of the expected path.

    Raises:
        UserError: there are two such files, in that folder or in others.
    """
    given = Path(name).suffix.lower() in VIDEO_ENDINGS
    paths = videos.get(name) or (videos.get(Path(name).stem, ()) if given else ())
    paths = [path for path in paths if path.name == name] or paths
    if not paths:
        return folder / (name if given else f"{name}{ending}")
    if len(paths) == 1:
        return paths[0]
    for preferred in ([path for path in paths if path.parent == folder], [p for p in paths if folder in p.parents]):
        paths = preferred or paths
        if len({path.resolve() for path in paths}) == 1:
            return paths[0]
    raise UserError(f"two videos are named {name}: {paths[0]} and {paths[1]}; keep one of them under {folder}")


def unused_videos(root: Path, examples: Iterable[Example]) -> list[Path]:
    """The video files under a data set's root, or beside it where it is a file, that no example is about."""
    used = {os.path.abspath(example.video) for example in examples}
    folder = root if root.is_dir() else root.parent
    unused = [path for path in files_under(folder, hidden=True) if is_video(path) and os.path.abspath(path) not in used]
    linked = {os.path.realpath(path) for path in used} if unused else set()
    return [path for path in unused if os.path.realpath(path) not in linked]


def describe_files(root: Path) -> str:
    """What lies under a folder, by kind, in words for an error: `3 videos (a.mp4), 240 images (v1/00001.jpg)`."""
    kinds: dict[str, list[Path]] = {"videos": [], "images": [], "other files": []}
    for path in files_under(root):
        image = path.suffix.lower() in IMAGE_ENDINGS
        kinds["videos" if is_video(path) else "images" if image else "other files"].append(path)
    shown = [f"{len(paths):,} {kind} ({paths[0].relative_to(root)})" for kind, paths in kinds.items() if paths]
    advice = (
        "; folders of images must be made videos: ffmpeg -framerate 25 -i FOLDER/%05d.jpg -c:v libx264 -crf 0 x.mp4"
    )
    return (", ".join(shown) or "no file") + (advice if kinds["images"] and not kinds["videos"] else "")


def report_left_out(root: Path, reasons: Mapping[Path, str], most: int = 5) -> None:
    """Names files of a user's own folder that are no examples, the first of each reason, with their number."""
    for reason, count in Counter(reasons.values()).items():
        names = [str(path.relative_to(root)) for path, why in reasons.items() if why == reason]
        more = f" and {count - most:,} more" if count > most else ""
        logger.warning(f"left out, {reason}: {', '.join(names[:most])}{more}")
