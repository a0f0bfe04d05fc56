"""ImageNet-1K: 1,000 classes of images, each shown to a video encoder as a still clip."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from evalkit.api import Data, Task, Views
from evalkit.datasets import protocols, published
from evalkit.datasets.actions.classes import check_classes, labeled_examples
from evalkit.datasets.files import LabeledSplits, check_root, find_file, parsing_errors_at, read_lines, read_table
from evalkit.datasets.miniature import miniature
from evalkit.datasets.videos import IMAGE_ENDINGS, files_by_path
from evalkit.errors import UserError
from evalkit.metrics import top1_top5
from evalkit.mini import classes

HOMES = ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", ".")
SYNSET = re.compile(r"n\d{8}")


DATA = Data(
    source="https://www.image-net.org/challenges/LSVRC/2012",
    license="ImageNet's own, non-commercial",
    files={
        "LOC_synset_mapping.txt": "lines `synset name, other names`; without it classes are called by their synsets",
        "LOC_val_solution.csv": "columns ImageId, PredictionString; or val in folders by synset",
        "ILSVRC/Data/CLS-LOC/train/SYNSET/NAME.JPEG": "the images; also Data/CLS-LOC/train/ and train/",
        "ILSVRC/Data/CLS-LOC/val/NAME.JPEG": "the same",
    },
    sizes={"train": 1_281_167, "test": 50_000},
)


def task(
    root: Path = Path("data/imagenet"), mini: bool = False, protocol: Literal["still", "vjepa2"] = "still"
) -> Task:
    """Classifies an image, of 1,000 classes, from a clip that repeats it in each frame.

    Files as published: the images in ILSVRC/Data/CLS-LOC/train/<synset>/ and val/, or in train/<synset>/ and val/;
    LOC_synset_mapping.txt, without which classes are called by their synsets; LOC_val_solution.csv, or val in folders
    by synset, too. Classes are in the order of their synsets. Val is what the papers report. An encoder of single
    frames needs the photograph once: clip.frames=1.

    Args:
        root: folder with the files and the images.
        mini: a frame from the middle of the films of kinetics400's miniature, one class per color.
        protocol: still: as many frames as the encoder takes, an attentive probe of 20 epochs; vjepa2: V-JEPA 2's, 16
            frames of a crop of 224 / 256, adapter=attentive_classifier.
    """
    splits = _mini() if mini else _read(root)
    facts: dict[str, Any] = {
        "split": "val",
        "sizes": DATA.sizes,
        "license": DATA.license,
        "published": published.rows("imagenet", "top1", "frozen", protocol=protocol),
    }
    if mini:
        facts = miniature(facts) | protocols.MINI | {"controls": ()}
    elif protocol == "vjepa2":
        facts |= protocols.prescribed(protocol, "imagenet")
    else:
        facts |= {"protocol": "still", "views": Views("uniform"), "settings": {**protocols.PROBE, "epochs": 20}}
    return Task(
        train=splits.train,
        test=splits.test,
        classes=splits.classes,
        class_texts=splits.texts,
        prepare_videos=splits.prepare_videos,
        score=top1_top5,
        chance=100 / len(splits.classes),
        source=DATA.source,
        **facts,
    )


def _mini() -> LabeledSplits:
    return classes.still(lambda step: step.thing.color)


def _read(root: Path) -> LabeledSplits:
    check_root(root, "a folder with train/ and val/, or ILSVRC/")
    home = next(folder for place in HOMES if (folder := root / place).is_dir())
    images: dict[str, dict[Path, Path]] = {"train": {}, "val": {}}
    for path, inside in files_by_path(home).items():
        split = next((part for part in inside.parts[:-1] if part in images), "")
        if split and inside.suffix.lower() in IMAGE_ENDINGS:
            images[split][path] = inside
    in_folders = {split: list(_in_folders(of_split)) for split, of_split in images.items()}
    names, texts = _names(root, sorted({synset for _, _, synset in in_folders["train"]}))
    number = {synset: i for i, synset in enumerate(names)}
    test = in_folders["val"] or list(_solved(root, home, images["val"]))
    for split, rows in (("train", in_folders["train"]), ("val", test)):
        if unknown := next((row for row in rows if row[2] not in number), None):
            raise UserError(f"{split}: {unknown[0]} is of {unknown[2]}, which is none of the {len(names)} classes")
    train, tested = (
        labeled_examples((name, path, number[synset]) for name, path, synset in rows)
        for rows in (in_folders["train"], test)
    )
    return LabeledSplits(train, tested, tuple(names.values()), texts=texts)


def _in_folders(images: Mapping[Path, Path]) -> Iterator[tuple[str, Path, str]]:
    """Name, path and synset of each image that lies in a folder called by its synset."""
    for path, inside in images.items():
        if SYNSET.fullmatch(inside.parent.name):
            yield inside.stem, path, inside.parent.name


def _names(root: Path, synsets: list[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The name of each class by its synset, in the order of these, and its first words; synsets where none is named."""
    if not any((root / place / "LOC_synset_mapping.txt").is_file() for place in (".", "ILSVRC")):
        return dict(zip(synsets, check_classes(root, synsets, 1000), strict=True)), ()
    described = {}
    for where, line in read_lines(find_file(root, "LOC_synset_mapping.txt", "ILSVRC/LOC_synset_mapping.txt")):
        with parsing_errors_at(where):
            synset, words = line.split(maxsplit=1)
            if not SYNSET.fullmatch(synset):
                raise ValueError(f"{synset!r}: wanted a synset, as n01440764")
            described[synset] = words
    twice = {words for words, count in Counter(described.values()).items() if count > 1}  # two are `crane`
    names = {synset: f"{words} ({synset})" if words in twice else words for synset, words in sorted(described.items())}
    check_classes(root, list(names.values()), 1000)
    return names, tuple(described[synset].partition(",")[0] for synset in names)


def _solved(root: Path, home: Path, images: Mapping[Path, Path]) -> Iterator[tuple[str, Path, str]]:
    """Name, path and synset of each image of val, as LOC_val_solution.csv has them."""
    by_name = {inside.stem: path for path, inside in images.items()}
    file = find_file(root, "LOC_val_solution.csv", "ILSVRC/LOC_val_solution.csv")
    for where, row in read_table(file, ("ImageId", "PredictionString")):
        with parsing_errors_at(where):
            name, synset = row["ImageId"], row["PredictionString"].split()[0]
            if not SYNSET.fullmatch(synset):
                raise ValueError(f"PredictionString begins with {synset!r}: wanted a synset, as n01440764")
            yield name, by_name.get(name, home / "val" / f"{name}.JPEG"), synset
