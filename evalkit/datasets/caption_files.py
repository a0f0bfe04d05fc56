"""The files that videos and what is said of them are published as: MSR-VTT, VATEX, YouCook2, ActivityNet Captions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evalkit.datasets.captions import CaptionedVideo, CaptionSplits, Part, SegmentedVideo, SegmentSplits, caption
from evalkit.datasets.files import error_context, find_videos, first_existing, read_json, read_lines, video_file
from evalkit.errors import UserError

Place = Callable[[str], tuple[str, Path]]  # a video's name in a file -> the name that it has here, and its path

YOUCOOK2 = "youcookii_annotations_trainval.json"
VATEX = ("vatex_training_v1.0.json", "vatex_validation_v1.0.json", "vatex_public_test_english_v1.1.json")


def msrvtt(root: Path) -> CaptionSplits:
    """The videos of MSRVTT_data.json, split as there, with all their captions.

    Args:
        root: folder with the file, and the videos as <video_id>.mp4 in any folder there.

    Raises:
        UserError: there is none, or an entry is not as published.
    """
    file = first_existing(root, "MSRVTT_data.json")
    found = read_json(file, dict)
    videos = find_videos(root)
    told_of: dict[str, list[str]] = {}
    splits: dict[str, list[CaptionedVideo]] = {"train": [], "validate": [], "test": []}
    with error_context(str(file)):
        entries = list(enumerate(found["videos"], 1))
        sentences = list(enumerate(found["sentences"], 1))
    for number, entry in entries:
        with error_context(f"{file}, video {number}"):
            name = entry["video_id"]
            own = told_of[name] = []
            splits[entry["split"]].append(CaptionedVideo(name, video_file(videos, root / "videos", name), own))
    for number, entry in sentences:
        with error_context(f"{file}, sentence {number}"):
            told_of[entry["video_id"]].append(caption(entry["caption"]))
    return CaptionSplits(splits["test"], splits["train"], splits["validate"])


def vatex(root: Path, test_list: str = "") -> CaptionSplits:
    """VATEX's public test, or the clips of a list; and of its training and validation what is not among them.

    Args:
        root: folder with the files, of which those of training and validation may be missing, and the clips as
            <videoID>.mp4 in any folder there.
        test_list: a text file there with the videoID of each clip to test on, from any of the three files.

    Raises:
        UserError: there is none, an entry is not as published, or a clip of the list is in none of the files.
    """
    train_file, val_file, test_file = VATEX
    if not test_list:
        first_existing(root, test_file)
    clips = find_videos(root) if root.is_dir() else {}
    train, val, test = (_clips(root / name, clips) if (root / name).is_file() else {} for name in VATEX)
    if test_list:
        listed: dict[str, CaptionedVideo] = {}
        for where, name in read_lines(first_existing(root, test_list)):
            if (clip := next((of[name] for of in (train, val, test) if name in of), None)) is None:
                raise UserError(f"{where}: no clip {name!r} in {train_file}, {val_file} or {test_file}")
            listed[name] = clip
        test = listed
    train, val = ({name: clip for name, clip in of.items() if name not in test} for of in (train, val))
    return CaptionSplits([*test.values()], [*train.values()], [*val.values()] if train else [])


def _clips(file: Path, clips: Mapping[str, Path]) -> dict[str, CaptionedVideo]:
    found: dict[str, CaptionedVideo] = {}
    for number, entry in enumerate(read_json(file, list), 1):
        with error_context(f"{file}, clip {number}"):
            name = entry["videoID"]
            texts = [caption(text) for text in entry["enCap"]]
            found[name] = CaptionedVideo(name, video_file(clips, file.parent / "videos", name), texts)
    return found


def youcook2(root: Path) -> SegmentSplits:
    """YouCook2's val to test on, its training videos to train on.

    Args:
        root: folder with its own youcookii_annotations_trainval.json, or yc2_val.json and yc2_train.json as dense
            captioning has them, and the videos as <id>.mp4 or v_<id>.mp4 in any folder there.

    Raises:
        UserError: there is none, or an entry is not as published.
    """
    file = first_existing(root, YOUCOOK2, "yc2_val.json")
    train = root / "yc2_train.json"
    videos = find_videos(root)

    def place(name: str) -> tuple[str, Path]:
        name = _file_name(name, videos)
        return name, video_file(videos, root / "videos", name)

    if file.name == YOUCOOK2:
        return SegmentSplits(_of_subset(file, "validation", place), _of_subset(file, "training", place))
    return SegmentSplits(_told(file, place), _told(train, place) if train.is_file() else [])


def _file_name(name: str, videos: Mapping[str, Path]) -> str:
    """A video's id, with the v_ of dense captioning where its file has it."""
    bare = name.removeprefix("v_")
    return f"v_{bare}" if f"v_{bare}" in videos else bare


def activitynet(root: Path, split: str, *others: str) -> SegmentSplits:
    """The videos of one file of ActivityNet Captions to test on, those of train.json to train on, where it is there.

    Args:
        root: folder with the files, and the videos as v_<id>.mp4 in any folder there.
        split: the file's name without .json.
        others: files in which other people tell the same videos.

    Raises:
        UserError: there is none of a split, or an entry is not as published.
    """
    videos = find_videos(root)
    train = next((root / name for name in ("train.json", "train_modified.json") if (root / name).is_file()), None)

    def place(name: str) -> tuple[str, Path]:
        return name, video_file(videos, root / "videos", name)

    more = [{one.name: one.parts for one in _told(first_existing(root, f"{other}.json"), place)} for other in others]
    test = [
        one._replace(others=[of[one.name] for of in more if one.name in of])
        for one in _told(first_existing(root, f"{split}.json"), place)
    ]
    return SegmentSplits(test, _told(train, place) if train else [])


def _told(file: Path, place: Place) -> list[SegmentedVideo]:
    """The videos of a file {name: {duration, timestamps: [[start, end], ...], sentences: [...]}}."""
    found: list[SegmentedVideo] = []
    for name, entry in read_json(file, dict).items():
        with error_context(f"{file}, video {name}"):
            pairs = zip(entry["timestamps"], entry["sentences"], strict=True)
            found.append(_video(place(name), [_part(times, sentence) for times, sentence in pairs], entry))
    return found


def _of_subset(file: Path, subset: str, place: Place) -> list[SegmentedVideo]:
    """The videos of one subset (training, validation) of YouCook2's own file."""
    with error_context(str(file)):
        database = read_json(file, dict)["database"].items()
    found = []
    for name, entry in database:
        with error_context(f"{file}, video {name}"):
            one = _video(place(name), [_part(one["segment"], one["sentence"]) for one in entry["annotations"]], entry)
            if entry["subset"] == subset:
                found.append(one)
    return found


def _video(place: tuple[str, Path], parts: Sequence[Part], entry: Mapping[str, Any]) -> SegmentedVideo:
    if not parts:
        raise ValueError("no sentence")
    return SegmentedVideo(*place, float(entry["duration"]), parts)


def _part(times: Any, sentence: Any) -> Part:
    start, end = times
    return float(start), float(end), caption(sentence)
