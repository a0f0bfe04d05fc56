"""`evalkit features`: the features of a task's examples, from the store of all runs, in files of docs/features.md."""

from __future__ import annotations

import base64
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import evalkit
from evalkit.api import Example, FeatureSpec, Task, has_text, pooled_dim
from evalkit.config.config import Config
from evalkit.config.options import FeatureOptions
from evalkit.errors import UserError, counted, install
from evalkit.features.exchange import tables
from evalkit.features.exchange.manifest import MANIFEST
from evalkit.features.exchange.module import FeatureFiles
from evalkit.features.extract import unchanged
from evalkit.features.feature_cache import SourceFeatures
from evalkit.features.reader import FeatureReader
from evalkit.features.sources import Source, parts
from evalkit.heads.adapter import Adapter
from evalkit.pipeline import preflight
from evalkit.pipeline.described import encoder_name
from evalkit.pipeline.settings import grid_points
from evalkit.pipeline.setup import adapter_builder, load_runner, make_extractor, stored_reader
from evalkit.pipeline.task_data import load_task
from evalkit.plugins import display_name
from evalkit.results.schema import plain
from evalkit.runtime.atomic import hidden_beside, rename
from evalkit.runtime.filesystem import check_writable
from evalkit.video.media import exists

logger = logging.getLogger("evalkit")

SHARD_BYTES = 256 << 20  # of features in one file, about
SPLITS = ("train", "val", "test")
FORMAT = 1


@dataclass
class _Split:
    """What is written of a split.

    Attributes:
        examples: how many there are.
        rows: features, a row for each view of each part of a video.
        files: names.
        failures: examples without features, as the manifest has them.
        vectors: of pooled features, the normalized mean over the views of each part, for the index; else none.
        ids: of the examples that ask about each of these.
    """

    examples: int
    rows: int
    files: list[str]
    failures: list[dict[str, Any]]
    vectors: list[Tensor]
    ids: list[list[str]]


def write_features(config: Config) -> list[str]:
    """Encodes what is not stored yet, writes the files, and says in lines what is in them.

    Raises:
        UserError: the folder is not empty, or something in the words, the data or the checkpoint can be mended.
    """
    options = config.options
    assert isinstance(options, FeatureOptions)
    if options.form == "faiss":
        _faiss()
        if options.part != "pooled":
            raise UserError(f"as=faiss searches one vector a video: part=pooled, not {options.part}")
    out = options.out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"out={out} exists and is not empty; nothing is overwritten: name another folder")
    check_writable(out.absolute().parent, f"out={out}")  # now rather than after hours
    runner = load_runner(config)
    if isinstance(runner.module, FeatureFiles):
        raise UserError(f"{runner.module} is in files already: evalkit features takes an encoder")
    random_state = base64.b64encode(bytes(torch.get_rng_state().tolist())).decode()
    task = load_task(config)
    extractor = make_extractor(config, task.views, runner)
    task = replace(task, views=extractor.views)
    spec = FeatureSpec(options.part, dtype="float32" if options.part == "pooled" else "float16")
    reader = stored_reader(config, extractor, runner, spec)
    name = display_name(options.task) + ("@mini" if options.mini else "")
    chosen = [split for split in SPLITS if options.split in (split, "all") and getattr(task, split)]
    if not chosen:
        raise UserError(f"split={options.split}: task {name} has no such examples")
    embedding = _text_adapter(config, task, reader) if options.adapter else None
    try:
        if options.canary:
            preflight.check_features(task, reader, config)
        with hidden_beside(out) as hidden:
            hidden.mkdir()
            written = {split: _write_split(hidden, split, task, reader, options) for split in chosen}
            texts = _write_texts(hidden, embedding, task, reader) if embedding else 0
            record = _manifest(config, task, name, reader, written)
            record["random"] = {"seed": options.seed, "state": random_state}
            (hidden / MANIFEST).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
            if out.exists():
                out.rmdir()
            rename(hidden, out)
    finally:
        extractor.close()
        assert reader.cache
        reader.cache.store.close()
    return [*_told(written, texts), str(out)]


def _write_split(folder: Path, split: str, task: Task, reader: FeatureReader, options: FeatureOptions) -> _Split:
    """Writes the files of a split, a part of it in memory at a time."""
    examples: Sequence[Example] = getattr(task, split)
    if task.prepare_videos:
        task.prepare_videos(examples)
    asking: dict[Source, list[Example]] = {}
    for example in examples:
        for source in parts(example, task.views):
            asking.setdefault(source, []).append(example)
    assert reader.cache
    keys = reader.cache.keys([*asking], [""])
    encodings = reader.extractor.encode([*asking], reader.keep, f"encode {split}", {"": unchanged}, reader.cache, keys)
    done = _Split(len(examples), 0, [], [], [], [])
    failed: dict[str, dict[str, Any]] = {}
    root = os.path.commonpath([example.video.absolute().parent for example in examples])
    held: list[tuple[SourceFeatures, bytes]] = []
    size = 0
    for encoding, key in zip(encodings, keys, strict=True):
        of_source = asking[encoding.source]
        if encoding.failure:
            missing = not task.prepare_videos and not exists(encoding.source.video)
            reason = encoding.failure.replace(f"{root}{os.sep}", "")
            for example in of_source:
                failed.setdefault(example.id, {"split": split, "id": example.id, "reason": reason, "missing": missing})
            continue
        held.append((encoding, key))
        size += encoding.features[""].nbytes
        if options.form == "faiss":
            done.vectors.append(F.normalize(encoding.features[""].float().mean(0), dim=0))
            done.ids.append([example.id for example in of_source])
        if size >= SHARD_BYTES:
            _write_shard(folder, split, done, held, asking, options)
            held, size = [], 0
    if held:
        _write_shard(folder, split, done, held, asking, options)
    done.failures += failed.values()
    if done.vectors:
        faiss = _faiss()
        index = faiss.IndexFlatIP(len(done.vectors[0]))
        index.add(torch.stack(done.vectors).numpy())
        faiss.write_index(index, str(folder / f"{split}.faiss"))
        (folder / f"{split}.ids.json").write_text(json.dumps(done.ids) + "\n", encoding="utf-8")
    return done


def _write_shard(
    folder: Path,
    split: str,
    done: _Split,
    held: Sequence[tuple[SourceFeatures, bytes]],
    asking: Mapping[Source, Sequence[Example]],
    options: FeatureOptions,
) -> None:
    """Writes one file: the features of some parts of videos, and an entry for each example that asks about them."""
    columns: dict[str, list[Any]] = {name: [] for name in tables.COLUMNS}
    arrays: list[Tensor] = []
    count = 0
    for encoding, key in held:
        features, source = encoding.features[""], encoding.source
        for example in asking[source]:
            target = json.dumps(plain(example.target))
            for view in range(len(features)):
                entry = (example.id, source.span or (np.nan, np.nan), view, count + view, target, key[:32].hex())
                for column, value in zip(columns.values(), entry, strict=True):
                    column.append(value)
        arrays.append(features)
        count += len(features)
    form = "npz" if options.form == "faiss" else options.form
    file = folder / f"{split}-{len(done.files):05d}.{form}"
    array, of_columns = torch.cat(arrays).numpy(), {name: np.array(values) for name, values in columns.items()}
    tables.write(file, form, options.part, array, of_columns)
    done.files.append(file.name)
    done.rows += count


def _text_adapter(config: Config, task: Task, reader: FeatureReader) -> Adapter:
    """The adapter whose texts are embedded.

    Raises:
        UserError: the encoder has no text tower, or the adapter re-ranks, or it is trained and so asks for what is not
            known before.
    """
    name = config.options.adapter
    if not has_text(reader.encoder.module):
        raise UserError(f"adapter={name}: this encoder embeds no text; leave adapter out")
    (point,) = grid_points(config, task, name, None)
    adapter = adapter_builder(name, reader.encoder.module, task)([point]).to(reader.encoder.device).eval()
    if adapter.feature_spec.what == "sequence":
        raise UserError(
            f"adapter={name} re-ranks by layers of the encoder, which no file of features has: leave adapter.rerank out"
        )
    if adapter.epochs or adapter.feature_spec.what != "pooled":
        raise UserError(f"adapter={name} is trained here, so that its texts are not known beforehand; leave it out")
    return adapter


def _write_texts(folder: Path, adapter: Adapter, task: Task, reader: FeatureReader) -> int:
    """Writes the vectors of all texts that the adapter embeds for the test examples; returns how many there are.

    It is asked about videos of zeros, in the batches of a run, while what it has embedded is noted.
    """
    module, known = reader.encoder.module, dict[str, Tensor]()
    embed = module.encode_text

    def noting(texts: Sequence[str]) -> Tensor:
        vectors: Tensor = embed(texts)
        for text, vector in zip(texts, vectors, strict=True):
            known.setdefault(text, vector.float().cpu())
        return vectors

    module.encode_text = noting
    try:
        with torch.inference_mode():
            for some in _batches(task, reader.extractor.batch):
                adapter.predict(some, torch.zeros(len(some), 1, pooled_dim(module)))
    finally:
        del module.encode_text
    if known:
        np.savez(folder / tables.TEXTS, texts=np.array([*known]), pooled=torch.stack([*known.values()]).numpy())
    return len(known)


def _batches(task: Task, size: int) -> Iterator[list[Example]]:
    """The test examples as a run predicts them: video by video, so many at a time."""
    of_video: dict[tuple[Source, ...], list[Example]] = {}
    for example in task.test:
        of_video.setdefault(parts(example, task.views), []).append(example)
    groups = [*of_video.values()]
    for start in range(0, len(groups), size):
        some = [example for group in groups[start : start + size] for example in group]
        yield from (some[at : at + size] for at in range(0, len(some), size))


def _manifest(
    config: Config, task: Task, name: str, reader: FeatureReader, written: Mapping[str, _Split]
) -> dict[str, Any]:
    """What is said of the files: task, encoder, clip, counts, and the examples without features."""
    runner, options = reader.encoder, config.options
    return {
        "format": FORMAT,
        "evalkit": evalkit.__version__,
        "task": {
            "name": name,
            "version": task.version,
            "protocol": task.protocol,
            "split": task.split,
            "fold": task.fold,
        },
        "encoder": {
            "name": encoder_name(options),
            "ckpt": options.ckpt,
            "sha256": runner.sha256,
            "architecture": type(runner.module).__name__,
            "clip": asdict(runner.module.clip),
            "precision": runner.precision,
        },
        "views": asdict(reader.extractor.views),
        "features": {"part": reader.spec.what, "dtype": reader.spec.dtype},
        "splits": {
            split: {
                "examples": done.examples,
                "rows": done.rows,
                "failed": len(done.failures),
                "files": done.files,
            }
            for split, done in written.items()
        },
        "failures": [failure for done in written.values() for failure in done.failures],
    }


def _told(written: Mapping[str, _Split], texts: int) -> list[str]:
    lines = []
    for split, done in written.items():
        failed = f", {len(done.failures):,} without features: {done.failures[0]['reason']}" if done.failures else ""
        lines.append(f"{split}: {counted(done.rows, 'row')} of {counted(done.examples, 'example')}{failed}")
    return [*lines, f"texts: {texts:,}"] if texts else lines


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise UserError(f"as=faiss needs faiss: {install('faiss')}") from error
    return faiss
