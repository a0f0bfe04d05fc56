"""Readers of caption annotations: MSR-VTT, VATEX, YouCook2, ActivityNet Captions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evalkit.api import Data
from evalkit.datasets.captions import CaptionedVideo, CaptionSplits, Segment, SegmentedVideo, SegmentSplits, clean_text
from evalkit.datasets.files import find_file, parsing_errors_at, read_json, read_lines, same_split, time_span
from evalkit.datasets.videos import Videos, find_videos, is_video, video_file
from evalkit.errors import UserError, counted

FindVideo = Callable[[str], tuple[str, Path]]  # a video's name in the annotations -> its name here, and its path

YOUCOOK2 = "youcookii_annotations_trainval.json"
VATEX = ("vatex_training_v1.0.json", "vatex_validation_v1.0.json", "vatex_public_test_english_v1.1.json")
MSRVTT_DATA = Data(
    source="https://www.microsoft.com/en-us/research/publication/msr-vtt-a-large-video-description-dataset-for-bridging-video-and-language/",
    license="none stated; research use",
    files={
        "MSRVTT_data.json": "videos: [{video_id, split: train, validate or test}]; sentences: [{video_id, caption}]",
        "videos/VIDEO_ID.mp4": "the videos, in any folder there, as video0.mp4 to video9999.mp4",
    },
)
VATEX_DATA = Data(
    source="https://eric-xw.github.io/vatex-website",
    license="CC BY 4.0 (annotations)",
    files={
        "vatex_training_v1.0.json": "[{videoID, enCap: [ten captions]}]; may be missing, then nothing is trained",
        "vatex_validation_v1.0.json": "the same; may be missing, then a tenth of training is chosen on",
        "vatex_public_test_english_v1.1.json": "the same; the test",
        "videos/VIDEO_ID.mp4": "the videos, in any folder there, VIDEO_ID as in the files, <YouTube id>_<start>_<end>",
    },
    vanished="the clips are YouTube's, and the files do not say how many of them are left",
)
YOUCOOK2_DATA = Data(
    source="http://youcook2.eecs.umich.edu",
    license="University of Michigan, non-commercial",
    files={
        "youcookii_annotations_trainval.json": "database: {ID: {duration, subset: training or validation, "
        "annotations: [{segment: [start, end], sentence}]}}",
        "yc2_train.json, yc2_val.json": "in its place, as dense captioning has them: {ID: {duration, timestamps: "
        "[[start, end]], sentences}}",
        "videos/VIDEO.mp4": "the videos, in any folder there, as <id>.mp4 or v_<id>.mp4",
    },
    vanished="of val's 3,492 segments, copies on the Hugging Face hub hold 3,105 to 3,473",
)
ACTIVITYNET_CAPTIONS_DATA = Data(
    source="https://cs.stanford.edu/people/ranjaykrishna/densevid",
    license="MIT (annotations)",
    files={
        "train.json": "{v_ID: {duration, timestamps: [[start, end]], sentences}}; also train_modified.json; may "
        "be missing, then nothing is trained",
        "val_1.json": "the same, of one annotator",
        "val_2.json": "the same videos, of another annotator",
        "videos/v_ID.mp4": "the videos, in any folder there",
    },
    vanished="the videos are YouTube's; which are left is not published with the captions",
)


def msrvtt(root: Path) -> CaptionSplits:
    """Reads the videos of MSRVTT_data.json, split as there, with all their captions.

    Args:
        root: folder with the file, and the videos as <video_id>.mp4 in any folder there.

    Raises:
        UserError: there is none, an entry is not as published, or a video has no caption.
    """
    file = find_file(root, "MSRVTT_data.json")
    annotations = read_json(file, dict)
    videos = find_videos(root)
    captions: dict[str, list[str]] = {}
    splits: dict[str, list[CaptionedVideo]] = {"train": [], "validate": [], "test": []}
    with parsing_errors_at(str(file)):
        entries = list(enumerate(annotations["videos"], 1))
        sentences = list(enumerate(annotations["sentences"], 1))
    for number, entry in entries:
        with parsing_errors_at(f"{file}, video {number}"):
            name = entry["video_id"]
            if name in captions:
                raise ValueError(f"video {name} appears twice")
            captions[name] = []  # filled below
            video = video_file(videos, root / "videos", name)
            splits[entry["split"]].append(CaptionedVideo(name, video, captions[name]))
    for number, entry in sentences:
        with parsing_errors_at(f"{file}, sentence {number}"):
            captions[entry["video_id"]].append(clean_text(entry["caption"]))
    if bare := [name for name, texts in captions.items() if not texts]:
        raise UserError(
            f"{file}: {len(bare)} of {counted(len(captions), 'video')} without a caption, first {bare[0]}; its list "
            "of sentences is perhaps cut off: download the file again"
        )
    return CaptionSplits(splits["test"], splits["train"], splits["validate"])


def vatex(root: Path, test_list: str = "") -> CaptionSplits:
    """Reads VATEX's public test, or the clips of a list; the other clips of training and validation are train and val.

    Args:
        root: folder with the files (training and validation are optional), and the clips as <videoID>.mp4 in any
            folder there.
        test_list: a text file there with the videoID of each clip to test on, from any of the three files.

    Raises:
        UserError: there is none, an entry is not as published, or a clip of the list is in none of the files.
    """
    train_file, val_file, test_file = VATEX
    if not test_list:
        find_file(root, test_file)
    videos = find_videos(root) if root.is_dir() else {}
    train, val, test = (_clips(root / name, videos) if (root / name).is_file() else {} for name in VATEX)
    if test_list:
        listed: dict[str, CaptionedVideo] = {}
        for where, name in read_lines(find_file(root, test_list)):
            if (clip := next((split[name] for split in (train, val, test) if name in split), None)) is None:
                raise UserError(f"{where}: no clip {name!r} in {train_file}, {val_file} or {test_file}")
            listed[name] = clip
        test = listed
    train, val = ({name: clip for name, clip in split.items() if name not in test} for split in (train, val))
    return CaptionSplits([*test.values()], [*train.values()], [*val.values()] if train else [])


def _clips(file: Path, videos: Videos) -> dict[str, CaptionedVideo]:
    clips: dict[str, CaptionedVideo] = {}
    for number, entry in enumerate(read_json(file, list), 1):
        with parsing_errors_at(f"{file}, clip {number}"):
            name = entry["videoID"]
            if name in clips:
                raise ValueError(f"clip {name} appears twice")
            if not (isinstance(entry["enCap"], list) and entry["enCap"]):
                raise ValueError(f"clip {name} has enCap={entry['enCap']!r:.60}; wanted a list of captions")
            texts = [clean_text(text) for text in entry["enCap"]]
            clips[name] = CaptionedVideo(name, video_file(videos, file.parent / "videos", name), texts)
    return clips


def youcook2(root: Path) -> SegmentSplits:
    """Reads YouCook2: val is test, training is train.

    Args:
        root: folder with youcookii_annotations_trainval.json, or yc2_val.json and yc2_train.json as dense
            captioning has them, and the videos as <id>.mp4 or v_<id>.mp4 in any folder there.

    Raises:
        UserError: there is none, or an entry is not as published.
    """
    file = find_file(root, YOUCOOK2, "yc2_val.json")
    train = root / "yc2_train.json"
    videos = find_videos(root)

    def find(name: str) -> tuple[str, Path]:
        name = _file_name(name, videos)
        return name, video_file(videos, root / "videos", name)

    if file.name == YOUCOOK2:
        return SegmentSplits(_of_subset(file, "validation", find), _of_subset(file, "training", find))
    return SegmentSplits(_read(file, find), _read(train, find) if train.is_file() else [])


def _file_name(name: str, videos: Videos) -> str:
    """A video's id, with the prefix v_ of dense captioning if its file has it."""
    bare = name.removeprefix("v_")
    bare = Path(bare).stem if is_video(Path(bare)) else bare
    return f"v_{bare}" if f"v_{bare}" in videos else bare


def activitynet(root: Path, split: str, *others: str) -> SegmentSplits:
    """Reads ActivityNet Captions: one file is test, train.json, if it exists, is train.

    Args:
        root: folder with the files, and the videos as v_<id>.mp4 in any folder there.
        split: the file's name without .json.
        others: names of files with other annotators' segments of the same videos.

    Raises:
        UserError: a file is missing, or an entry is not as published.
    """
    videos = find_videos(root)
    train = next((root / name for name in ("train.json", "train_modified.json") if (root / name).is_file()), None)

    def find(name: str) -> tuple[str, Path]:
        return name, video_file(videos, root / "videos", name)

    annotators = [{v.name: v.segments for v in _read(find_file(root, f"{other}.json"), find)} for other in others]
    test = [
        video._replace(others=[segments[video.name] for segments in annotators if video.name in segments])
        for video in _read(find_file(root, f"{split}.json"), find)
    ]
    return SegmentSplits(test, _read(train, find) if train else [])


def _read(file: Path, find: FindVideo) -> list[SegmentedVideo]:
    """The videos of a file {name: {duration, timestamps: [[start, end], ...], sentences: [...]}}."""
    videos: list[SegmentedVideo] = []
    for name, entry in read_json(file, dict).items():
        with parsing_errors_at(f"{file}, video {name}"):
            pairs = zip(entry["timestamps"], entry["sentences"], strict=True)
            videos.append(_video(find(name), [_segment(times, sentence) for times, sentence in pairs], entry))
    return videos


def _of_subset(file: Path, subset: str, find: FindVideo) -> list[SegmentedVideo]:
    """The videos of one subset (training, validation) of YouCook2's own file."""
    with parsing_errors_at(str(file)):
        database = read_json(file, dict)["database"].items()
    videos = []
    for name, entry in database:
        with parsing_errors_at(f"{file}, video {name}"):
            segments = [_segment(step["segment"], step["sentence"]) for step in entry["annotations"]]
            video = _video(find(name), segments, entry)
            if same_split(str(entry["subset"]), subset):
                videos.append(video)
    return videos


def _video(name_and_path: tuple[str, Path], segments: Sequence[Segment], entry: Mapping[str, Any]) -> SegmentedVideo:
    if not segments:
        raise ValueError("no sentence")
    return SegmentedVideo(*name_and_path, time_span(0, entry["duration"])[1], segments)


def _segment(times: Any, sentence: Any) -> Segment:
    start, end = times
    return *time_span(start, end), clean_text(sentence)
