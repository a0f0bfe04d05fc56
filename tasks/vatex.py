"""VATEX: ten-second clips of Kinetics-600 with ten English captions each (https://arxiv.org/abs/1904.03493)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from evalkit.annotations import find_videos, read_json, read_lines, the_file, told, video
from evalkit.api import Task, UserError, Views
from evalkit.captions import Captioned, Searched, caption, search
from evalkit.mini import captions

ADAPTER = "retrieval"
TRAIN, VAL, TEST = (f"vatex_{name}.json" for name in ("training_v1.0", "validation_v1.0", "public_test_english_v1.1"))


def task(root: Path = Path("data/vatex"), mini: bool = False, test_list: str = "") -> Task:
    """Finds clips by their English captions, of which each has ten, and captions by their clips.

    Files as published: vatex_training_v1.0.json, vatex_validation_v1.0.json, vatex_public_test_english_v1.1.json (lists
    of {videoID, enCap}), and the clips as <videoID>.mp4 in any folder there; without a file of training there is no
    train split, without one of validation a tenth of train is chosen on. Neither VideoPrism nor LongViViT says which
    clips it searches: the whole public test is what this does, and the 1,500 clips that text-video papers share are
    named by `test_list`.

    Args:
        root: folder with the files and the clips.
        mini: three-minute films of the mini world, with two captions each.
        test_list: a text file in that folder with the videoID of each clip that is searched, from any of the three
            files; empty means the whole public test.
    """
    return search(
        captions.several() if mini else _read(root, test_list),
        views=Views("uniform"),
        split="mini" if mini else test_list or "test",
        sizes={} if mini or test_list else {"test": 60_000},
        licence="generated (Apache-2.0)" if mini else "CC BY 4.0 (annotations)",
        source="https://eric-xw.github.io/vatex-website",
        published={} if mini else {"CLIP-L": 45.2, "InternVideo-L": 49.5, "VideoPrism-B": 57.7, "VideoPrism-g": 62.5},
    )


def _read(root: Path, test_list: str) -> Searched:
    files = [root / name for name in (TRAIN, VAL, TEST)]
    if not test_list:
        the_file(root, TEST)
    clips = find_videos(root) if root.is_dir() else {}
    train, val, test = (_clips(file, clips) if file.is_file() else {} for file in files)
    if test_list:
        listed: dict[str, Captioned] = {}
        for where, name in read_lines(the_file(root, test_list)):
            if (clip := next((of[name] for of in (train, val, test) if name in of), None)) is None:
                raise UserError(f"{where}: no clip {name!r} in {TRAIN}, {VAL} or {TEST}")
            listed[name] = clip
        test = listed
    train, val = ({name: clip for name, clip in of.items() if name not in test} for of in (train, val))
    return Searched([*test.values()], [*train.values()], [*val.values()] if train else [])


def _clips(file: Path, clips: Mapping[str, Path]) -> dict[str, Captioned]:
    found: dict[str, Captioned] = {}
    for number, entry in enumerate(read_json(file, list), 1):
        with told(f"{file}, clip {number}"):
            name = entry["videoID"]
            texts = [caption(text) for text in entry["enCap"]]
            found[name] = Captioned(name, video(clips, file.parent / "videos", name), texts)
    return found
