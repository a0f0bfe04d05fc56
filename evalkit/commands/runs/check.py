"""`evalkit check`: what is there of a task's data, against what its files name and what was published."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from evalkit.api import Clip, Example, Task
from evalkit.config.config import Config
from evalkit.datasets.videos import unused_videos
from evalkit.errors import UserError, counted, printable
from evalkit.features.duplicates import shared_videos
from evalkit.features.extract import Cost, FeatureExtractor
from evalkit.features.sources import resolve_views, sources
from evalkit.pipeline.task_data import load_task, meant_size, video_places
from evalkit.plugins import display_name
from evalkit.results.run_folder import fingerprint
from evalkit.results.sizes import SPLITS, published_size, size_differences
from evalkit.results.table import columns, first
from evalkit.runtime import atomic
from evalkit.runtime.filesystem import check_writable
from evalkit.runtime.machine import cores
from evalkit.video.media import container_of, exists, shown, url_of
from evalkit.video.workers import DecodePool

# Height and width that checked frames are scaled to: the same frames are decoded, and little is handed over.
SIZE = 32


@dataclass(frozen=True)
class Split:
    """What was found of one split.

    Attributes:
        examples: how many its files name.
        published: how many the benchmark has; None where the task does not say.
        unlabeled: examples without a public answer.
        videos: distinct files that the examples ask about.
        parts: distinct spans of them, a whole video for one; each is decoded.
        missing: paths of files that are not there.
        broken: path and reason of each part of a video that is there and does not decode.
    """

    name: str
    examples: int
    published: int | None
    unlabeled: int
    videos: int
    parts: int
    missing: list[Path]
    broken: list[tuple[Path, str]]


@dataclass(frozen=True)
class DataCheck:
    """What was found of a task's data.

    Attributes:
        splits: those that have examples.
        shared: two splits, and a file of each that hold the same video, byte by byte.
        unseen: classes of test without a training example, where there is a train split.
        fingerprint: of the test examples, as results have it.
        sizes: splits with another number of examples than published, as `size_differences` gives them.
        meant: whether the user said how many test examples are meant.
        unused: videos that lie among the data and are of no example.
    """

    splits: list[Split]
    shared: list[tuple[str, Path, str, Path]] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    fingerprint: str = ""
    sizes: list[dict[str, Any]] = field(default_factory=list)
    meant: bool = False
    unused: list[Path] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether every video is there, decodes, and belongs to one split, and the splits have the published sizes."""
        if (self.sizes and not self.meant) or not any(split.name == "test" for split in self.splits):
            return False
        return not self.shared and not any(split.missing or split.broken for split in self.splits)


def check_data(task: Task, config: Config) -> DataCheck:
    """Reads every part of a video once, as a run would decode it, and compares the files of the splits."""
    examples = {name: getattr(task, name) for name in SPLITS if getattr(task, name)}
    if task.prepare_videos:
        task.prepare_videos([example for split in examples.values() for example in split])
    splits = [_split(name, split, task, config) for name, split in examples.items()]
    meant, every = meant_size(config) is not None, [e for split in examples.values() for e in split]
    unused = [path for place in video_places(config) for path in unused_videos(place, every)]
    return DataCheck(
        splits, shared_videos(examples), _unseen(task), fingerprint(task.test), size_differences(task), meant, unused
    )


def main(config: Config) -> int:
    """1 where data are missing, broken or of another size than published, else 0."""
    return check(config)


def check(config: Config) -> int:
    """Prints what is there of a task's data; the exit code, 1 where something would be scored wrongly.

    Raises:
        UserError: the data cannot be read, or the list of `out=` cannot be written.
    """
    task, out = load_task(config), config.options.out
    if out != Path():  # before hours of decoding
        if out.is_dir():
            raise UserError(f"out={out} is a folder; name a file for the list, such as out={out / 'missing.txt'}")
        if out.suffix != ".txt" or out.resolve() in [place.resolve() for place in video_places(config)]:
            raise UserError(f"out={out}: wanted a file that ends in .txt and is none of the data, such as missing.txt")
        check_writable(out.parent, f"out={out}")
    data = check_data(task, config)
    name = display_name(config.options.task) + ("@mini" if config.options.mini else "")
    print(f"task  {name}, version {task.version}\n")
    print(report(data))
    wanted = wanted_files(data, video_places(config))
    if out != Path():  # an empty list, too: that of a former check no longer holds
        atomic.write(out, b"".join(os.fsencode(path) + b"\n" for path in wanted))
        print(f"missing and undecodable videos: {len(wanted):,} paths in {out}")
    elif wanted:
        print(
            "out=missing.txt lists missing and undecodable videos, one path per line, as rsync --files-from= reads it"
        )
    return 0 if data.sound else 1


def wanted_files(data: DataCheck, places: Sequence[Path]) -> list[str]:
    """Paths of the files to fetch: those that are missing, and those that hold a part that does not decode.

    A path is relative to the first of the places that it lies in, such as `data.root`, so that the list applies to a
    copy of the data elsewhere, and else absolute. Of a video in a container it is the container's.
    """
    videos = [video for s in data.splits for video in (*s.missing, *(path for path, _ in s.broken))]
    folders = [
        Path(os.path.abspath(place if place.is_dir() else place.parent)) for place in places if not url_of(place)
    ]
    paths: dict[str, None] = {}
    for video in videos:
        container, _ = container_of(video) or (video, "")
        path = container if url_of(container) else Path(os.path.abspath(container))
        folder = next((folder for folder in folders if path.is_relative_to(folder)), None)
        paths[str(path.relative_to(folder)) if folder else shown(path)] = None
    return [*paths]


def report(data: DataCheck) -> str:
    """The findings as text: a row per split, then what is wrong, the first of each kind by name."""
    head = ("", "examples", "published", "unlabeled", "videos", "parts", "missing", "undecodable")
    rows: list[tuple[str, ...]] = [head]
    for s in data.splits:
        published = "-" if s.published is None else f"{s.published:,}"
        counts = (s.unlabeled, s.videos, s.parts, len(s.missing), len(s.broken))
        rows.append((s.name, f"{s.examples:,}", published, *(f"{n:,}" for n in counts)))
    lines: list[str] = []
    for s in data.splits:
        if s.missing:
            lines.append(f"missing of {s.name}: {first([shown(path) for path in s.missing])}")
        lines += [f"undecodable of {s.name}: {shown(path)}: {reason}" for path, reason in s.broken[:5]]
        if len(s.broken) > 5:
            lines.append(f"undecodable of {s.name}: {len(s.broken) - 5:,} more")
    lines += [
        f"the same video in {a} and {b}: {shown(left)} and {shown(right)}" for a, left, b, right in data.shared[:5]
    ]
    if len(data.shared) > 5:
        lines.append(f"the same video in two splits: {len(data.shared) - 5:,} more")
    for split in data.sizes:
        lines.append(f"{split['split']} has {counted(split['examples'], 'example')}, published: {split['published']:,}")
    if any(split["split"] == "test" for split in data.sizes) and not data.meant:
        count = next((s.examples for s in data.splits if s.name == "test"), 0)
        lines.append(f"a list may be cut off, or of another version; data.expect={count} says that the number is meant")
    if not any(s.name == "test" for s in data.splits):
        lines.append("no test example")
    lines += [f"left out, of no example: {shown(path)}" for path in data.unused[:20]]
    if len(data.unused) > 20:
        lines.append(f"left out, of no example: {len(data.unused) - 20:,} more")
    if data.unseen:
        lines.append(f"without a training example: {counted(len(data.unseen), 'class')} of test, {first(data.unseen)}")
    lines.append(f"fingerprint of the test examples: {data.fingerprint}")
    return "\n".join([columns(rows), "", *map(printable, lines)])  # names in data may hold anything


def _split(name: str, examples: Sequence[Example], task: Task, config: Config) -> Split:
    options = config.options
    views = replace(resolve_views(task.views, Clip(), config.clip, config.words), size=SIZE)
    pool = DecodePool(options.workers or cores(), options.time_limit)
    parts = sources(examples, views)
    missing = [video for video in dict.fromkeys(part.video for part in parts) if not exists(video)]
    absent = {*missing}
    there = [part for part in parts if part.video not in absent]
    with contextlib.closing(FeatureExtractor(views, pool, 1, Cost(), options.decoder)) as extractor:
        read = list(extractor.check(there, f"decode {name}"))
    return Split(
        name,
        len(examples),
        published_size(task, name),
        sum(example.target is None for example in examples),
        len({part.video for part in parts}),
        len(parts),
        missing,
        [(features.source.video, features.failure) for features in read if features.failure],
    )


def _unseen(task: Task) -> list[str]:
    if not task.train:
        return []
    number = {name: k for k, name in enumerate(task.classes)}
    known = set(_labels(task.train, number))
    return [task.classes[k] for k in sorted(set(_labels(task.test, number)) - known)] if task.classes else []


def _labels(examples: Iterable[Example], number: Mapping[str, int]) -> list[int]:
    """Class indices of all targets, of which an example may have several; `number` has those of names in regions."""
    targets = [
        e.target if isinstance(e.target, tuple | list) else (e.target,) for e in examples if e.target is not None
    ]
    labels = [
        label[-1] if isinstance(label, tuple | list) and label else label for target in targets for label in target
    ]
    numbers = [number.get(label, label) if isinstance(label, str) else label for label in labels]
    return [label for label in numbers if isinstance(label, int)]
