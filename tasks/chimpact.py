"""ChimpACT: behaviors of each chimpanzee of a group, in given boxes (https://arxiv.org/abs/2310.16447)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from annotated_types import Gt

from evalkit.api import Data, Example, Task
from evalkit.datasets import behavior
from evalkit.datasets.files import LabeledSplits, class_number, find_file, parsing_errors_at, read_json
from evalkit.datasets.videos import find_videos, video_file
from evalkit.errors import UserError, one_line
from evalkit.mini import classes

FPS = 25.0
FRAMES = 64
EACH = 10  # frames from one that is labeled by hand to the next
# In the order of their numbers. Locomotion, with objects, social, others.
NAMES = (
    *("moving", "climbing", "resting", "sleeping"),
    *("solitary object playing", "eating", "manipulating object"),
    *("grooming", "being groomed", "aggressing", "embracing", "begging", "being begged from", "taking object"),
    *("losing object", "carrying", "being carried", "nursing", "being nursed", "playing", "touching"),
    *("erection", "displaying"),
)
# The authors' division, which the files do not tell; all others are train. Names are without Azibo_Obs.
VAL = """
Chimp_2015_11_25_d_clip_23000_24000 Chimp_2015_11_26_a_clip_1000_2000 Chimp_2016_08_02_c_clip_32000_33000
Chimp_2017_02_27_a_clip_13000_14000 Chimp_2017_11_10_clip_7000_8000 Chimp_2017_11_10_clip_8000_9000
Chimp_2017_06_22_c_clip_46000_47000 Chimp_2017_06_22_c_clip_67000_68000 Chimp_2018_07_11_c_clip_0_1000
Chimp_2018_07_11_c_clip_1000_2000 Chimp_2018_07_11_c_clip_3000_4000 Chimp_2018_07_11_c_clip_6000_7000
Chimp_2018_07_11_c_clip_17000_18000 Chimp_2018_07_11_c_clip_18000_19000 Chimp_2018_08_06_a_clip_7000_8000
Natascha_2018_06_29_a_clip_15000_16000 Natascha_2018_06_29_a_clip_16000_17000
"""
TEST = """
Chimp_2015_11_25_d_clip_1000_2000 Chimp_2015_11_26_a_clip_0_1000 Chimp_2015_11_26_a_clip_2000_3000
Chimp_2016_08_02_c_clip_33000_34000 Chimp_2016_08_15_b_clip_2000_3000 Chimp_2016_10_27_c_clip_0_1000
Chimp_2017_02_27_a_clip_14000_15000 Chimp_2017_11_10_clip_6000_7000 Chimp_2017_06_22_c_clip_44000_45000
Chimp_2017_06_22_c_clip_68000_69000 Chimp_2018_07_06_d_clip_0_696 Chimp_2018_07_11_c_clip_2000_3000
Chimp_2018_07_11_c_clip_8000_9000 Chimp_2018_07_11_c_clip_16000_17000 Chimp_2018_07_11_c_clip_19000_20000
Chimp_2018_08_06_a_clip_6000_7000 Chimp_2018_08_06_a_clip_8000_9000 Natascha_2018_06_29_a_clip_14000_15000
Natascha_2018_06_29_a_clip_17000_17712
"""


DATA = Data(
    source="https://github.com/ShirleyMaxx/ChimpACT",
    license="CC BY-NC 4.0",
    files={
        "labels/NAME.json": "one of each clip: boxes and behaviors of every tenth frame",
        "videos_full/NAME.mp4": "the clips",
    },
)


def task(
    root: Path = Path("data/chimpact"),
    mini: bool = False,
    frames: Annotated[int, Gt(0)] = FRAMES,
    train_step: int = EACH,
    test_step: int = 1,
) -> Task:
    """Multi-label classification of 23 behaviors of each chimpanzee, in given boxes.

    Files as published: labels/NAME.json and videos_full/NAME.mp4, one of each for a clip. Every tenth frame is labeled
    by hand; between two of them a box and its behaviors are those of the authors' tools/create_coco_format.py
    (https://github.com/ShirleyMaxx/ChimpACT), as is the division into train, val and test. As in their evaluation, all
    boxes of a frame in which any has a behavior are scored, and those that have one are trained on. Their csv files
    count frames anew where some are not labeled, and then show others than they name; here a frame is its own number.

    VideoPrism prints the 64 frames and the learning rate (evalkit/datasets/behavior.py has the rest). That they lie
    around the box's frame, that every frame of test counts, and that train is the frames labeled by hand, is chosen
    here. Only the probe and finetune, with head=box, know of the boxes of a frame; any other adapter gives all the same
    answer.

    Args:
        root: folder with labels/ and videos_full/.
        mini: films of two things side by side, of which the box says which is meant; its color and its action.
        frames: of a clip; use this, not clip.frames, for an encoder that takes no 64, so that the box is in its middle.
        train_step: frames from one that is trained on to the next; 10 are those that are labeled by hand.
        test_step: frames from one that is tested to the next; only 1 counts all.
    """
    val: list[Example] = []
    if mini:
        splits = classes.side_by_side(lambda step: {step.thing.color, step.action})
    else:
        splits, val = _read(root, frames, train_step, test_step)
    return behavior.behavior_task(
        "chimpact",
        splits,
        mini,
        frames=frames,
        val=val,
        split="test",
        sizes=DATA.sizes,
        license=DATA.license,
        source=DATA.source,
    )


class Chimpanzee(NamedTuple):
    """One of those that a frame shows: who, where in pixels (left, top, width, height), and what it does."""

    who: int
    place: tuple[float, ...]
    behaviors: tuple[int, ...]


class Labels(NamedTuple):
    """What a file says of its video: width and height in pixels, 0 where it does not, and who is on each frame."""

    size: tuple[int, int]
    frames: list[list[Chimpanzee]]


def _read(root: Path, frames: int, train_step: int, test_step: int) -> tuple[LabeledSplits, list[Example]]:
    """The examples of train and test, and of val, which is divided as train is."""
    if frames < 1:
        raise UserError(f"data.frames={frames}: wanted at least 1")
    steps = {"train": train_step, "val": train_step, "test": test_step}
    behavior.check_steps(*steps.values())
    names = {split: [f"Azibo_Obs{name}" for name in text.split()] for split, text in (("val", VAL), ("test", TEST))}
    files = {split: [find_file(root, f"labels/{name}.json") for name in in_split] for split, in_split in names.items()}
    apart = {*files["val"], *files["test"]}
    files["train"] = [file for file in sorted((root / "labels").glob("*.json")) if file not in apart]
    videos = find_videos(root / "videos_full")
    train, val, test = (
        [
            example
            for file in files[split]
            for example in _examples(
                file, video_file(videos, root / "videos_full", file.stem), frames, step, split == "test"
            )
        ]
        for split, step in steps.items()
    )
    return LabeledSplits(train, test, NAMES, behavior.frame_rate_check(FPS)), val


def _examples(file: Path, film: Path, frames: int, step: int, idle: bool) -> Iterator[Example]:
    """An example per box of every so many frames where one has a behavior; also of those that have none, if `idle`."""
    labels = _labels(file)
    width, height = labels.size if all(labels.size) else _size(file, film)
    targets = [
        shown if frame % step == 0 and any(chimpanzee.behaviors for chimpanzee in shown) else None
        for frame, shown in enumerate(labels.frames)
    ]
    for example in behavior.frame_clips(file.stem, film, targets, FPS, 1, frames=frames):
        for number, chimpanzee in enumerate(example.target):
            if chimpanzee.behaviors or idle:
                left, top, wide, tall = chimpanzee.place
                edges = (left / width, top / height, (left + wide) / width, (top + tall) / height)
                x1, y1, x2, y2 = (min(max(edge, 0.0), 1.0) for edge in edges)
                yield replace(example, id=f"{example.id}/{number}", target=chimpanzee.behaviors, box=(x1, y1, x2, y2))


def _labels(file: Path) -> Labels:
    content = read_json(file, dict)
    by_hand: dict[int, list[Chimpanzee]] = {}
    place: dict[Any, int] = {}
    size = (0, 0)
    with parsing_errors_at(str(file)):
        start, end = file.stem.split("_")[-2:]
        length, images, annotations = int(end) - int(start), list(content["images"]), list(content["annotations"])
    for number, image in enumerate(images):
        with parsing_errors_at(f"{file}, image {number}"):
            key = place[image["id"]] = int(Path(image["file_name"]).stem)
            if not 0 <= key * EACH < length or key in by_hand:
                raise ValueError(f"frame {key * EACH} of {length}, for the first time or not")
            by_hand[key] = []
            size = (int(image.get("width", 0)), int(image.get("height", 0)))
    for number, annotation in enumerate(annotations):
        with parsing_errors_at(f"{file}, annotation {number}"):
            behaviors = tuple(sorted({class_number(n, len(NAMES)) for n in annotation["behaviors"]}))
            left, top, wide, tall = map(float, annotation["bbox"])
            if not (wide >= 0 and tall >= 0 and math.isfinite(left + top + wide + tall)):
                raise ValueError(f"bbox {annotation['bbox']}")
            if not annotation.get("iscrowd"):
                by_hand[place[annotation["image_id"]]].append(
                    Chimpanzee(annotation["bbox_id"], (left, top, wide, tall), behaviors)
                )
    return Labels(size, [_between(by_hand, frame, length) for frame in range(length)])


def _between(by_hand: Mapping[int, list[Chimpanzee]], frame: int, length: int) -> list[Chimpanzee]:
    """Who is on a frame, by the one that is labeled by hand at it or before it, and by the next one."""
    key, later = divmod(frame, EACH)
    now, part = by_hand.get(key, []), later / EACH
    following = now if (key + 1) * EACH >= length else by_hand.get(key + 1, [])
    interpolated = []
    for chimpanzee in now if part else ():
        after = next((other for other in following if other.who == chimpanzee.who), chimpanzee)
        place = tuple((1 - part) * a + part * b for a, b in zip(chimpanzee.place, after.place, strict=True))
        interpolated.append(Chimpanzee(chimpanzee.who, place, (chimpanzee if part <= 0.5 else after).behaviors))
    return interpolated if part else now


def _size(file: Path, film: Path) -> tuple[int, int]:
    """Width and height of a video, of which its labels do not tell them."""
    from av.error import FFmpegError

    from evalkit.video.media import open_container

    try:
        with open_container(film) as container:
            stream = container.streams.video[0]
            return stream.width, stream.height
    except (OSError, FFmpegError, IndexError) as error:
        raise UserError(f"{file} has no width and height of its frames, nor has {film}: {one_line(error)}") from error
