"""YouCook2: steps of recipes on video, found by their sentence (https://arxiv.org/abs/1703.09788)."""

from __future__ import annotations

from pathlib import Path

from evalkit.annotations import find_videos, the_file, video
from evalkit.api import Task, Views
from evalkit.captions import Captioned, Searched, Told, read_told, read_youcook2, search
from evalkit.mini import captions

ADAPTER = "retrieval"
OWN = "youcookii_annotations_trainval.json"


def task(root: Path = Path("data/youcook2"), mini: bool = False) -> Task:
    """Finds the clip of one step of a recipe by its sentence, and the sentence by the clip.

    Files: youcookii_annotations_trainval.json as published, or yc2_train.json and yc2_val.json as dense captioning has
    them, and the videos as <id>.mp4 or v_<id>.mp4 in any folder there. The clips are the annotated segments of val:
    3,492, of which the papers, whose lists are not published, have 3,300 to 3,500.

    Args:
        root: folder with the files and the videos.
        mini: the halves of three-minute films of the mini world, each told in a sentence.
    """
    return search(
        captions.parts() if mini else _read(root),
        views=Views("uniform"),
        split="mini" if mini else "val",
        sizes={} if mini else {"train": 10_337, "test": 3_492},
        licence="generated (Apache-2.0)" if mini else "University of Michigan, non-commercial",
        source="http://youcook2.eecs.umich.edu",
        # LongViViT (https://arxiv.org/abs/2312.07395), table 2: zero-shot, R@1 of texts that search clips.
        published={} if mini else {"VideoCoCa-L": 18.9, "ImageViT-L": 18.2, "ShortViViT-L": 20.4},
    )


def _read(root: Path) -> Searched:
    file = the_file(root, OWN, "yc2_val.json")
    videos = find_videos(root)

    def clips(of: list[Told]) -> list[Captioned]:
        return [
            Captioned(f"{name}_{k}", video(videos, root / "videos", name), [sentence], (start, end))
            for name, parts in ((_file_name(one.name, videos), one.parts) for one in of)
            for k, (start, end, sentence) in enumerate(parts)
        ]

    if file.name == OWN:
        return Searched(clips(read_youcook2(file, "validation")), clips(read_youcook2(file, "training")))
    train = root / "yc2_train.json"
    return Searched(clips(read_told(file)), clips(read_told(train)) if train.is_file() else [])


def _file_name(name: str, videos: dict[str, Path]) -> str:
    """A video's id, with the v_ of dense captioning where its file has it."""
    bare = name.removeprefix("v_")
    return f"v_{bare}" if f"v_{bare}" in videos else bare
