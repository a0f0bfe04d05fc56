"""`evalkit run`: one encoder, one task, one record. Each step hands its result to the next; none reaches back."""

from __future__ import annotations

import hashlib
import inspect
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor

from evalkit import checkpoint, encode, encoders, plugins, provenance, result, trained
from evalkit.api import Adapter, Example, Prediction, Task, UserError
from evalkit.config import Config, own_adapter
from evalkit.decode import default_decoder
from evalkit.encode import Cost, Encoding, Reader, Source
from evalkit.fit import Examples, fit, headline, split_val

VARIANTS = {"shuffled": encode.shuffled, "single_frame": encode.single_frame}


@dataclass
class Parts:
    """The chosen task, encoder and adapter, ready to work.

    Attributes:
        name: of the task, with `@mini` where its miniature is used.
        settings: the adapter's, defaults included.
        fitted_from: folder that the adapter's weights came from; None where it is not trained yet.
    """

    name: str
    task: Task
    encoder: Any
    encoder_sha256: str
    adapter_name: str
    adapter: Any
    settings: dict[str, Any]
    fitted_from: Path | None
    reader: Reader
    device: torch.device


def run(config: Config) -> Path:
    """Scores an encoder on a task, prints the table and returns the run's folder.

    Raises:
        UserError: something in the configuration, the data or the checkpoint that the user can mend.
    """
    started, clock = datetime.now(UTC), time.monotonic()
    parts = prepare(config)
    task, cost = parts.task, parts.reader.cost
    score_reference = result.reference(task.score)  # fails now rather than after hours
    if not task.test:
        raise UserError(f"task {parts.name} has no test examples")
    out = config.options.out
    try:
        out.mkdir(parents=True, exist_ok=True)  # fails now rather than after hours
    except OSError as error:
        raise UserError(f"out={out}: cannot write there: {error.strerror}") from error
    needs_fit = parts.adapter.epochs > 0 and parts.fitted_from is None and not parts.adapter.trains_encoder
    if needs_fit and not task.train:
        raise UserError(
            f"adapter {parts.adapter_name} is untrained and task {parts.name} has no train split: train it with "
            f"`evalkit adapt task=... adapter={config.options.adapter or parts.adapter_name} "
            f"ckpt={config.options.ckpt} out=FOLDER`, then give adapter.from=FOLDER"
        )
    selection = None
    if needs_fit:
        selection, cost.fit_s = fit_adapter(parts, config)

    asked = _controls(parts) if config.options.controls else []
    names = [name for name in asked if name in VARIANTS]
    variants = {"": encode.unchanged} | {name: VARIANTS[name] for name in names}
    predicted, failures, decoders = _predict(parts, variants, asked, config)
    scoring = time.monotonic()
    root = _common_folder(task.test)
    rows = [_row(example, root, predicted[""].get(example.id), failures, decoders) for example in task.test]
    labelled = [row for row in rows if row.target is not None]
    scores = result.scores(task.score, rows, config.options.seed)
    controls = [_control(name, task, predicted[name], failures) for name in predicted if name] if labelled else []
    cost.score_s = time.monotonic() - scoring
    counts = result.tally(rows)
    encoder = parts.encoder
    encoder_name = _encoder_name(config.options.ckpt)
    record = {
        "schema": 1,
        "status": "complete" if not counts["n_failed"] else "partial" if counts["n_scored"] else "failed",
        "task": {
            "name": parts.name,
            "version": task.version,
            "split": task.split,
            "score": score_reference,
            "protocol": _protocol(parts),
            "published": dict(task.published),
        },
        "encoder": {
            "name": encoder_name,
            "ckpt": config.options.ckpt,
            "sha256": parts.encoder_sha256,
            "architecture": type(encoder).__name__,
            "clip": asdict(encoder.clip),
            "parameters": sum(p.numel() for p in encoder.parameters()),
        },
        "adapter": {
            "name": parts.adapter_name,
            "settings": {
                **parts.settings,
                "from": str(parts.fitted_from or ""),
                **getattr(parts.adapter, "frozen", {}),
            },
            "trainable_parameters": sum(value.numel() for value in trained.learned(parts.adapter).values()),
        },
        "data": {"fingerprint": _fingerprint(task.test), **counts},
        "scores": scores,
        "chance": task.chance,
        "controls": controls,
        "selection": selection,
        "cost": {
            **asdict(cost),
            "cache_hits": 0,
            "cache_misses": cost.encoder_forwards,
            "peak_memory_bytes": provenance.peak_memory_bytes(),
            "wall_s": time.monotonic() - clock,
        },
        "provenance": provenance.provenance(
            (config.command, *config.words),
            config.options.seed,
            str(parts.device),
            default_decoder(),
            started,
            datetime.now(UTC),
        ),
    }
    yaml = config.to_yaml()
    folder = out / encoder_name / parts.name / result.run_id(yaml, started)
    submission, answers = task.submission, _by_id(predicted[""], task.test)
    extra = (lambda hidden: submission(answers, hidden)) if submission else None
    folder = result.write(folder, record, rows, yaml, extra)
    print(result.table(result.load(folder)))
    print(folder / "result.json")
    return folder


def prepare(config: Config) -> Parts:
    """Task, encoder and adapter from their names, the adapter's trained weights in place where there are any."""
    options = config.options
    torch.manual_seed(options.seed)
    device = _device(options.device)
    encoder: Any = encoders.load_encoder(options.ckpt, seed=options.seed)  # before mini films are made
    digest = checkpoint.sha256(encoder)
    mini = {"mini": True} if options.mini else {}
    task = plugins.factory("task", options.task)(**config.data, **mini)
    if not isinstance(task, Task):
        raise UserError(f"task {options.task} returned a {type(task).__name__}; wanted an evalkit.api.Task")
    _check_ids(task)
    name = options.adapter or own_adapter(options.task)
    folder = options.adapter_from or encoders.folder_of(options.ckpt)
    home = trained.place(Path(folder), name) if folder else None
    if options.adapter_from and not (home and (home / "adapter.json").is_file()):
        raise UserError(f"adapter.from={options.adapter_from}: no trained adapter {name} there ({home})")
    fitted_from = home if home and (home / "adapter.json").is_file() else None
    make = plugins.factory("adapter", name)
    defaults = {
        key: parameter.default
        for key, parameter in inspect.signature(make).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    prescribed = task.settings if name == own_adapter(options.task) else {}  # by its protocol, which names its adapter
    settings = {**defaults, **(trained.settings(fitted_from) if fitted_from else prescribed), **config.adapter}
    if unknown := settings.keys() - defaults.keys():
        raise UserError(f"{fitted_from or f'task {options.task}'}: adapter {name} has no setting {min(unknown)!r}")
    adapter = make(encoder, task, **settings)
    if not isinstance(adapter, lightning.LightningModule) or not isinstance(adapter, Adapter):
        raise UserError(
            f"adapter {name} returned a {type(adapter).__name__}; wanted a LightningModule as in evalkit.api"
        )
    if fitted_from:
        trained.restore(adapter, fitted_from, frozen_parts(adapter, task, digest))
    encoder.to(device)
    adapter.to(device).eval()
    views = encode.resolve(task.views, encoder.clip, config.clip)
    reader = Reader(views, options.workers, options.batch, options.time_limit, Cost())
    display = plugins.display_name(options.task) + ("@mini" if options.mini else "")
    shown = plugins.display_name(name)
    return Parts(display, task, encoder, digest, shown, adapter, settings, fitted_from, reader, device)


def frozen_parts(adapter: Adapter, task: Task, encoder_sha256: str) -> dict[str, str]:
    """Hashes of what a trained adapter belongs to and does not hold itself: the frozen encoder, the task's classes."""
    if adapter.trains_encoder:  # it lies beside the adapter, and words stand for classes
        return {}
    return {"encoder": encoder_sha256} | ({"classes": result.digest(task.classes)} if task.classes else {})


def fit_adapter(parts: Parts, config: Config) -> tuple[dict[str, Any], float]:
    """Fits on train and keeps the epoch that is best on val; the record of the choice and the seconds it took."""
    train, val = list(parts.task.train), list(parts.task.val)
    if not val:
        train, val = split_val(train, config.options.seed)
    keep = _pixels if parts.adapter.trains_encoder else _keep(parts)
    unique = encode.sources([*train, *val])
    rows = torch.empty(0)
    index: dict[Source, int] = {}
    failed: list[Encoding] = []
    for one in parts.reader.encode(unique, keep, "encode train", {"": encode.unchanged}):
        if one.failure:
            failed.append(one)
            continue
        if not index:
            rows = torch.empty(len(unique), *one.features[""].shape, dtype=one.features[""].dtype)
        rows[len(index)] = one.features[""]
        index[one.source] = len(index)
    encode.report(failed, len(unique))
    started = time.monotonic()
    fitted = fit(
        parts.adapter,
        _at_hand(train, rows, index),
        _at_hand(val, rows, index),
        parts.task.score,
        keep=_keep(parts) if parts.adapter.trains_encoder else None,
        epochs=parts.adapter.epochs,
        seed=config.options.seed,
        device=parts.device,
        precision=config.trainer.precision,
        max_minutes=config.trainer.max_minutes,
    )
    settings = {key: value for key, value in parts.settings.items() if value != ""}
    best = fitted.val_scores[fitted.kept - 1]
    record = {
        "grid": [settings],
        "chosen": {"epoch": fitted.kept, "epochs": fitted.epochs},
        "val_score": best,
        "val_scores": fitted.val_scores,
        "n_train": len(train),
        "n_val": len(val),
        "undecodable": [{"video": str(one.source.video), "reason": one.failure} for one in failed],
    }
    return record, time.monotonic() - started


def _controls(parts: Parts) -> list[str]:
    """The task's controls, but for `blind` where the adapter has no answer without a video."""
    controls = list(parts.task.controls)
    if unknown := set(controls) - {*VARIANTS, "blind", "option_order"}:
        raise UserError(f"task {parts.name}: no control named {min(unknown)!r}")
    if "blind" in controls:
        try:
            with torch.inference_mode():
                parts.adapter.predict(parts.task.test[:1], None)
        except UserError as error:
            print(f"control blind left out: {error}", file=sys.stderr)
            controls.remove("blind")
    return controls


def _predict(
    parts: Parts, variants: Mapping[str, encode.Variant], controls: Sequence[str], config: Config
) -> tuple[dict[str, dict[str, Prediction]], dict[str, str], dict[str, str]]:
    """Predictions by variant and example id, failures by id, other decoders by id; test videos are seen once."""
    task, adapter = parts.task, parts.adapter
    asking: dict[Source, list[Example]] = {}
    for example in task.test:
        asking.setdefault(Source(example.video, example.span), []).append(example)
    predicted: dict[str, dict[str, Prediction]] = {name: {} for name in [*variants, *controls]}
    failures: dict[str, str] = {}
    decoders: dict[str, str] = {}
    waiting: list[Encoding] = []

    def answer() -> None:
        examples = [example for one in waiting for example in asking[one.source]]
        if not examples:
            return
        repeats = torch.tensor([len(asking[one.source]) for one in waiting])
        with torch.inference_mode():
            for name in variants:
                features = torch.stack([one.features[name] for one in waiting]).repeat_interleave(repeats, 0)
                predicted[name].update(_ask(adapter, examples, features))
            if "blind" in predicted:
                predicted["blind"].update(_ask(adapter, examples, None))
            if "option_order" in predicted:
                plain = torch.stack([one.features[""] for one in waiting]).repeat_interleave(repeats, 0)
                predicted["option_order"].update(_cyclic(adapter, examples, plain, predicted[""]))
        waiting.clear()

    for one in parts.reader.encode(list(asking), _keep(parts), "encode", variants):
        for example in asking[one.source]:
            if one.failure:
                failures[example.id] = one.failure
            elif one.decoder:
                decoders[example.id] = one.decoder
        if not one.failure:
            waiting.append(one)
        if len(waiting) >= config.options.batch:
            answer()
    answer()
    return predicted, failures, decoders


def _ask(adapter: Adapter, examples: Sequence[Example], features: Tensor | None) -> dict[str, Prediction]:
    return {e.id: p for e, p in zip(examples, adapter.predict(examples, features), strict=True)}


def _cyclic(
    adapter: Adapter, examples: Sequence[Example], features: Tensor, straight: Mapping[str, Prediction]
) -> dict[str, Prediction]:
    """Predictions under every cyclic order of the options, as a list of indices into the options as they stand."""
    orders = max(len(example.choices) for example in examples)
    values = {example.id: [straight[example.id].value] for example in examples}
    for shift in range(1, orders):
        shifts = [shift % len(e.choices) for e in examples]  # one with fewer options comes round again
        turned = [replace(e, choices=e.choices[n:] + e.choices[:n]) for e, n in zip(examples, shifts, strict=True)]
        for example, n, prediction in zip(examples, shifts, adapter.predict(turned, features), strict=True):
            values[example.id].append((prediction.value + n) % len(example.choices))
    return {key: Prediction(value) for key, value in values.items()}


def _control(name: str, task: Task, predicted: Mapping[str, Prediction], failures: Mapping[str, str]) -> dict[str, Any]:
    """A control's headline over the labelled test examples, failed ones wrong as in the score itself."""
    labelled = [example for example in task.test if example.target is not None]
    targets = [example.target for example in labelled]
    values = [predicted[e.id].value if e.id in predicted else None for e in labelled]
    metric = next(iter(task.score(targets, targets)))
    if name != "option_order":
        return {"name": name, "metric": metric, "value": headline(task.score, values, targets)}
    orders = max((len(value) for value in values if value is not None), default=1)
    turns = [[None if value is None else value[k % len(value)] for value in values] for k in range(orders)]
    return {"name": name, "metric": metric, "value": sum(headline(task.score, t, targets) for t in turns) / orders}


def _row(
    example: Example,
    root: Path,
    prediction: Prediction | None,
    failures: Mapping[str, str],
    decoders: Mapping[str, str],
) -> result.Row:
    return result.Row(
        id=example.id,
        video=str(example.video.absolute().relative_to(root)),
        kind=example.kind,
        target=example.target,
        prediction=None if prediction is None else prediction.value,
        failure=failures.get(example.id),
        decoder=decoders.get(example.id),
        detail=None if prediction is None else prediction.detail,
    )


def _common_folder(examples: Sequence[Example]) -> Path:
    """The folder that holds all videos: rows name their video within it, not where it lies on this machine."""
    return Path(os.path.commonpath([example.video.absolute().parent for example in examples]))


def _by_id(predicted: Mapping[str, Prediction], examples: Sequence[Example]) -> dict[str, Any]:
    return {e.id: predicted[e.id].value if e.id in predicted else None for e in examples}


def _keep(parts: Parts) -> Any:
    """From uint8 clips (N, T, C, H, W) to what the adapter keeps of the encoder's output, (N, ...) on the CPU."""

    def keep(pixels: Tensor) -> Tensor:
        with torch.inference_mode():
            video = parts.encoder.clip.normalise(pixels.to(parts.device))
            try:
                encoded = parts.encoder(video)
            except ValueError as error:  # a shape that it does not take: clip.frames, clip.size
                raise UserError(f"the encoder cannot take these clips: {error}") from error
            kept: Tensor = parts.adapter.features(encoded).cpu()
            if not torch.isfinite(kept).all():
                raise UserError(
                    "the encoder gives NaN or infinity: its weights are damaged, or too large for half floats"
                )
        return kept.clone()  # an inference tensor could not be trained on

    return keep


def _pixels(pixels: Tensor) -> Tensor:
    return pixels


def _at_hand(examples: Sequence[Example], rows: Tensor, index: dict[Source, int]) -> Examples:
    known = [e for e in examples if Source(e.video, e.span) in index]
    return Examples(known, rows, index)


def _protocol(parts: Parts) -> dict[str, Any]:
    """All that decides what the number means: views, adapter and its settings, controls."""
    settings = {key: value for key, value in parts.settings.items() if key != "lm"}
    return {"views": asdict(parts.reader.views), "adapter": parts.adapter_name, "settings": settings}


def _fingerprint(examples: Sequence[Example]) -> str:
    """Hash of what is asked and where: ids, file names, spans, texts, options and targets; not of the pixels."""
    digest = hashlib.sha256()
    for e in examples:
        digest.update(repr((e.id, e.video.name, e.span, e.text, e.choices, e.target, e.kind)).encode())
    return digest.hexdigest()


def _check_ids(task: Task) -> None:
    for split in ("train", "val", "test"):
        ids = [example.id for example in getattr(task, split)]
        if len(ids) != len(set(ids)):
            twice = next(one for one in ids if ids.count(one) > 1)
            raise UserError(f"example id {twice!r} stands more than once in {split}")


def _encoder_name(ckpt: str) -> str:
    """A folder name for a checkpoint: its last part, as letters that any file system takes."""
    path = Path(ckpt)
    last = path.parent.name if path.is_file() else path.name or ckpt
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in last).strip(".") or "encoder"


def _device(word: str) -> torch.device:
    if word == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if word == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda: torch sees no GPU here; use device=cpu or auto")
    if word == "mps" and not torch.backends.mps.is_available():
        raise UserError("device=mps: torch sees no Metal device here; use device=cpu or auto")
    return torch.device(word)
