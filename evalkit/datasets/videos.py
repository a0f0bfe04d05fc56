"""The videos of a data set: what is one, which lie in a folder, a tar, a parquet file or at a URL, and which belongs to
a name.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from evalkit.api import Example
from evalkit.errors import UserError, in_line
from evalkit.video import media, places, remote

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
COMPRESSED = (".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2", ".zip")
LEFT_OUT_SHOWN = 5  # files of each reason, by name
MOST_LINKS = 10_000  # to folders, of one data set: more are links that point to one another

Videos = Mapping[str, Sequence[Path]]  # files by name without ending


def is_video(path: Path) -> bool:
    """Whether a file is a video, by its name; `._x.mp4` is a metadata file of macOS."""
    return path.suffix.lower() in VIDEO_ENDINGS and not path.name.startswith("._")


def is_hidden(folder: str) -> bool:
    """Whether a folder of this name is hidden, or one of `SYSTEM_FOLDERS`."""
    return folder.startswith(".") or folder in SYSTEM_FOLDERS


def files_under(folder: Path, hidden: bool = False) -> list[Path]:
    """The files in a folder and its subfolders, sorted by path; links are followed, except to parent folders.

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
                places.tell(f"cannot read the folder {place}: {error.strerror}")
        if links > MOST_LINKS:
            raise UserError(f"{folder}: more than {MOST_LINKS:,} links to folders, which point to one another")
    return sorted(files)


class Files(NamedTuple):
    """The files in a place.

    Attributes:
        whole: of a folder.
        packed: members of containers and objects at URLs, and the path that each would have if unpacked there.
    """

    whole: list[Path]
    packed: list[tuple[Path, Path]]


def files_in(place: Path, hidden: bool = False) -> Files:
    """The files in a folder, a container or at a URL, as `files_under` gives them; for a container its members.

    A container that is damaged or cannot be read is named by a warning.

    Args:
        place: where to look.
        hidden: enter folders that `is_hidden`, too.

    Raises:
        UserError: as `files_under`; or the server of a URL does not answer.
    """
    files = Files([], [])
    url = media.url_of(place)
    if media.is_container(place) and not place.is_dir():
        _add_members(files, place, hidden)
    elif url:
        try:
            listed = [*map(media.path_of, remote.list_files(url))]
        except OSError as error:
            raise UserError(f"data.videos={url}: {error}") from error
        media.index_together(listed)
        for path in listed:
            if media.is_container(path):
                _add_members(files, path, hidden)
            else:
                files.packed.append((path, path))
    else:
        for path in files_under(place, hidden):
            if media.is_container(path):
                _add_members(files, path, hidden)
            else:
                files.whole.append(path)
    return files


def _add_members(files: Files, container: Path, hidden: bool) -> None:
    # Tables may lie among a data set's files, of which only those that the user names should hold videos.
    meant = bool(places.named()) or container.suffix.lower() == ".tar"
    try:
        names, note = media.members(container)
    except OSError as error:
        places.tell(f"left out, cannot be read: {in_line(error)}")
        return
    except UserError:
        if meant:
            raise
        return
    if note and meant:
        places.tell(f"{media.shown(container)}: {note}")
    folder = container.parent
    shown = (name for name in names if hidden or not any(map(is_hidden, name.split("/")[:-1])))
    files.packed.extend((container / name, folder / name) for name in shown)


def find_videos(*folders: Path) -> Videos:
    """The videos in folders by name without ending; `video_file` chooses where there are several of a name.

    Tars and parquet files there are searched as if they were folders, for names that no file has. Where `data.videos=`
    says where the videos lie, they are looked for there in place of these folders.
    """
    videos: dict[str, list[Path]] = {}
    packed: dict[str, list[Path]] = {}
    for folder in places.named() or folders:
        files = _listed(folder) if places.named() else files_in(folder)
        for path in files.whole:
            if is_video(path) and path.is_file():
                videos.setdefault(path.stem, []).append(path)
        for path, _ in files.packed:
            if is_video(path):
                packed.setdefault(path.stem, []).append(path)
    return packed | videos


def files_by_path(root: Path) -> dict[Path, Path]:
    """The path of each file in a folder, hidden ones too, within it; of containers that of their members, unpacked.

    Where videos lie there as files, containers are files like others: perhaps what those were unpacked from. Where
    `data.videos=` says where the videos lie, that goes before the folder.
    """
    inside: dict[Path, Path] = {}
    for place in places.named() or (root,):
        base = folder_of(place)
        files = files_in(place, hidden=True)
        if any(map(is_video, files.whole)):
            inside |= {path: path.relative_to(base) for path in files_under(place, hidden=True)}
        else:
            inside |= {path: path.relative_to(base) for path in files.whole}
            inside |= {path: unpacked.relative_to(base) for path, unpacked in files.packed}
    return inside


def listed_video(folder: Path, name: str) -> Path:
    """The video that a list names by its path from the list's folder, or from any folder of `data.videos=`.

    Raises:
        UserError: there are two such videos in the places of `data.videos=`.
    """
    where = places.named()
    if url := media.url_of(folder / name):
        return media.path_of(url)
    if not where:
        return folder / name
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    of_name = _by_name(where).get(parts[-1] if parts else "", ())
    same = [path for path, unpacked in of_name if unpacked.parts[-len(parts) :] == parts]
    wanted = {folder_of(place).joinpath(*parts) for place in where}
    exact = [path for path, unpacked in of_name if unpacked in wanted]
    if len(same := exact or same) > 1:
        raise UserError(f"two videos are named {name}: {same[0]} and {same[1]}; keep one of them in data.videos=")
    return same[0] if same else places.expected("/".join(parts), where)


def folder_of(place: Path) -> Path:
    """The folder itself, or the folder of a container."""
    return place.parent if media.is_container(place) and not place.is_dir() else place


def _by_name(where: tuple[Path, ...]) -> dict[str, list[tuple[Path, Path]]]:
    """The files in the places of `data.videos=` by their names: path, and path as if unpacked."""
    by_name: dict[str, list[tuple[Path, Path]]] = places.listings().setdefault(_by_name, {})
    for place in () if by_name else where:
        files = _listed(place)
        for path, unpacked in [*((path, path) for path in files.whole), *files.packed]:
            by_name.setdefault(path.name, []).append((path, unpacked))
    return by_name


def _listed(place: Path) -> Files:
    """The files in a place of `data.videos=`, which is looked into once."""
    known: dict[Path, Files] = places.listings()
    if not known.keys() & {*places.named()}:
        media.index_together(places.named())
    if place not in known:
        known[place] = files_in(place)
    return known[place]


def relative_names(examples: Sequence[Example]) -> list[str]:
    """The name of each example's video, relative to their common folder.

    A member of a container is called as if that were unpacked, so that a data set has the same names in files and in
    tars; unless two videos would then have one name.
    """
    videos = {video: video.absolute() for video in {example.video for example in examples}}
    unpacked = {video: media.unpacked(path) for video, path in videos.items()}
    if len(set(unpacked.values())) == len(set(videos.values())):
        videos = unpacked
    root = os.path.commonpath([path.parent for path in videos.values()])
    names = {video: str(path.relative_to(root)) for video, path in videos.items()}
    names |= {video: name.partition("?")[0] for video, name in names.items() if "?" in name and media.url_of(video)}
    return [names[example.video] for example in examples]


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
        name = name if given else f"{name}{ending}"
        return places.expected(name, places.named()) if places.named() else folder / name
    if len(paths) == 1:
        return paths[0]
    for preferred in ([path for path in paths if path.parent == folder], [p for p in paths if folder in p.parents]):
        paths = preferred or paths
        if len({path.resolve() for path in paths}) == 1:
            return paths[0]
    raise UserError(f"two videos are named {name}: {paths[0]} and {paths[1]}; keep one of them under {folder}")


def unused_videos(root: Path, examples: Iterable[Example]) -> list[Path]:
    """The videos in a data set's folder that no example uses; of a list, those in the folders of its videos."""
    used = {os.path.abspath(example.video) for example in examples}
    listed = not (root.is_dir() or media.is_container(root) or media.url_of(root))
    files = files_in(root.parent if listed else root, hidden=True)
    unused = [path for path in files.whole if is_video(path) and os.path.abspath(path) not in used]
    if listed:  # what else lies below a folder that a list is in is no matter of the list
        folders = {os.path.dirname(path) for path in used}
        unused = [path for path in unused if os.path.dirname(os.path.abspath(path)) in folders]
    linked = {os.path.realpath(path) for path in used} if unused else set()
    names = {os.path.basename(path) for path in used}  # a tar may lie beside what was unpacked of it
    return [path for path in unused if os.path.realpath(path) not in linked] + [
        path for path, _ in files.packed if is_video(path) and path.name not in names
    ]


def describe_files(root: Path) -> str:
    """The contents of a folder by kind, for an error message: `3 videos (a.mp4), 240 images (v1/00001.jpg)`."""
    kinds: dict[str, list[Path]] = {"videos": [], "images": [], "other files": []}
    files = files_in(root)
    for path in [*files.whole, *(packed for packed, _ in files.packed)]:
        image = path.suffix.lower() in IMAGE_ENDINGS
        kinds["videos" if is_video(path) else "images" if image else "other files"].append(path)
    shown = [f"{len(paths):,} {kind} ({paths[0].relative_to(root)})" for kind, paths in kinds.items() if paths]
    packed = () if kinds["videos"] else (path for path in kinds["other files"] if path.name.endswith(COMPRESSED))
    unpack = next(map(places.how_to_unpack, packed), "")
    advice = (
        "; folders of images must be made videos: ffmpeg -framerate 25 -i FOLDER/%05d.jpg -c:v libx264 -crf 0 x.mp4"
    )
    return (", ".join(shown) or "no file") + (advice if kinds["images"] and not kinds["videos"] else "") + unpack


def report_left_out(reasons: Mapping[Path, str]) -> None:
    """Names files of a user's own folder that are no examples, the first of each reason, with their number."""
    for reason, count in Counter(reasons.values()).items():
        names = [str(path) for path, why in reasons.items() if why == reason]
        more = f" and {count - LEFT_OUT_SHOWN:,} more" if count > LEFT_OUT_SHOWN else ""
        logger.warning(f"left out, {reason}: {', '.join(names[:LEFT_OUT_SHOWN])}{more}")
