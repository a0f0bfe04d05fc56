"""Checks before a run encodes anything: whether it can end well, and whether its encoder is fed as it was trained."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

import evalkit
from evalkit import encoders
from evalkit.api import Example, FeatureSpec, Task
from evalkit.canary import checks, reference
from evalkit.canary.finding import Finding
from evalkit.config.config import Config
from evalkit.config.options import Options, Trainer
from evalkit.datasets.videos import describe_files
from evalkit.errors import CanaryError, UserError, counted
from evalkit.features.extract import FeatureExtractor
from evalkit.features.feature_cache import FeatureCache
from evalkit.features.forward import EncoderRunner
from evalkit.features.reader import FeatureReader
from evalkit.features.sources import Source, parts
from evalkit.pipeline.setup import Experiment
from evalkit.pipeline.training.fit import training_examples
from evalkit.results.provenance import packages
from evalkit.runtime import atomic, cache
from evalkit.runtime.filesystem import check_writable
from evalkit.runtime.progress import phase
from evalkit.video.media import is_container, shown

logger = logging.getLogger("evalkit")

# Clips that the canary looks at, and videos that may fail to decode before drawn films stand in.
CLIPS, TRIES = 2, 8
DRAWN = (2, 3)  # the canary draws films 0 and 1 itself


def check_run(experiment: Experiment, options: Options, trainer: Trainer, places: Sequence[Path] = ()) -> None:
    """Raises UserError if a run could not end well: nothing to test or to train on, no video, or nowhere to write.

    Args:
        experiment: that is to be run.
        options: of the run; the folder `out` is made.
        trainer: how an adapter is fitted.
        places: where the task's videos lie; none where that is unknown.
    """
    task = experiment.task
    if not task.test:
        raise UserError(f"task {experiment.name} has no test examples")
    there = experiment.extractor.pool.exists
    if not task.prepare_videos and not any(there(example.video) for example in task.test):
        looked = next((place for place in places if place.is_dir() or is_container(place)), None)
        found = f"; found there: {describe_files(looked)}" if looked else ""
        wanted = f"the first would be {shown(task.test[0].video)}{found}; data.videos=FOLDER says where they lie"
        raise UserError(f"none of the videos of {counted(len(task.test), 'test example')} is there, {wanted}")
    check_out(options.out)
    if experiment.needs_fit and not task.train:
        raise UserError(
            f"adapter {experiment.adapter_name} is untrained and task {experiment.name} has no train split: mark some "
            f"of its data as train, or train it on a task that has one, with `evalkit adapt task=... "
            f"adapter={options.adapter or experiment.adapter_name} ckpt={options.ckpt} out=FOLDER`, and give "
            "adapter.from=FOLDER"
        )
    if experiment.needs_fit:
        training_examples(experiment, trainer, options.seed)  # too few of them are told now
    for key in ("shots", "share"):
        value = getattr(trainer, key)
        if value != getattr(Trainer(), key) and not experiment.needs_fit:
            raise UserError(f"trainer.{key}={value:g} has no effect: nothing is fitted; leave it out")


def check_out(out: Path) -> None:
    """Makes the folder of results; raises UserError if it cannot be written into."""
    if out.is_file():
        raise UserError(f"out={out} is a file; name a folder for the results, such as out={out.with_name('results')}")
    check_writable(out, f"out={out}")


def check_encoder(experiment: Experiment, config: Config) -> list[Finding]:
    """The canary's findings with clips of the task; warnings are shown on stderr.

    What was found of the same weights and videos before, where nothing failed, is taken from the cache folder, with no
    video decoded; not of an encoder of the user's own, whose code may do what no look at the module shows, nor with
    cache=off.

    Raises:
        CanaryError: the encoder is not fed, or does not answer, as its clip says; all reasons in one line.
    """
    if experiment.stored:  # there is nothing to look into
        return []
    return check_features(experiment.task, experiment.reader, config)


def check_features(task: Task, reader: FeatureReader, config: Config) -> list[Finding]:
    """As `check_encoder`, of the encoder and the clips of a reader."""
    ckpt, extractor = config.options.ckpt, reader.extractor
    sampled = sample_sources(extractor, task)
    folder = encoders.folder_of(ckpt)

    def examine() -> list[Finding]:
        return examine_clips(reader.encoder, clips_of(extractor, sampled), folder)

    own = config.module is not None or bool(config.built_by)
    feature_cache = None if own else reader.cache
    with phase("canary: running two clips"):
        findings = _remembered(_identity(feature_cache, sampled, folder), examine) if feature_cache else examine()
    if failed := [f"{finding.check}: {finding.detail}" for finding in findings if finding.outcome == "failed"]:
        raise CanaryError("; ".join(failed))
    for finding in findings:
        if finding.outcome == "warning":
            logger.warning(f"canary: {finding.check}: {finding.detail}")
    return findings


def _identity(feature_cache: FeatureCache, sampled: Sequence[Source], folder: Path | None) -> str:
    """A hash of all that the canary's findings depend on, its own code included.

    Encoder, videos, and the way from one to the other are those of a stored feature, whatever part an adapter reads.
    """
    code = sorted((Path(evalkit.__file__).parent / "canary").glob("*.py"))
    record = [folder / reference.REFERENCE] if folder and (folder / reference.REFERENCE).is_file() else []
    hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in [*code, *record]]
    of_encoder = feature_cache.keeping(FeatureSpec())
    keys = of_encoder.key.digest(), *of_encoder.keys(sampled, [""])  # a video that is not there has an empty one
    return hashlib.sha256(repr((hashes, packages(), keys)).encode()).hexdigest()


def _remembered(name: str, examine: Callable[[], list[Finding]]) -> list[Finding]:
    """The findings saved under this name, or new ones, which are saved unless a check failed."""
    file = cache.folder() / "canary" / f"{name}.json"
    with contextlib.suppress(OSError, ValueError, TypeError):  # not there, or damaged
        return [Finding(*fields) for fields in json.loads(file.read_text(encoding="utf-8"))]
    findings = examine()
    if not any(finding.outcome == "failed" for finding in findings):
        with contextlib.suppress(OSError):  # it is found again the next time
            atomic.write(file, json.dumps(findings).encode())
    return findings


def examine_clips(runner: EncoderRunner, clips: Tensor, folder: Path | None) -> list[Finding]:
    """The canary's findings on uint8 clips (N, T, C, H, W), at the run's own precision."""
    with runner.autocast():
        return checks.examine(runner.module, clips, folder=folder)


def sample_clips(extractor: FeatureExtractor, task: Task) -> Tensor:
    """The first clips of the task that decode, uint8 (2, T, C, H, W); films that are drawn where too few do."""
    return clips_of(extractor, sample_sources(extractor, task))


def sample_sources(extractor: FeatureExtractor, task: Task) -> list[Source]:
    """The first parts of videos of the task, 8 at most, of the split that is nearest to training."""
    examples: Sequence[Example] = next((split for split in (task.train, task.val, task.test) if split), ())
    wanted: dict[Source, Example] = {}
    for example in examples:
        if len(wanted) >= TRIES:
            break
        wanted |= dict.fromkeys(parts(example, extractor.views)[:TRIES], example)
    if task.prepare_videos:
        task.prepare_videos([*wanted.values()])
    return [*wanted][:TRIES]


def clips_of(extractor: FeatureExtractor, sampled: Sequence[Source]) -> Tensor:
    """The first clips of these that decode, uint8 (2, T, C, H, W); films that are drawn where too few do."""
    clips = extractor.sample(sampled, CLIPS)
    assert extractor.views.frames and extractor.views.size  # resolve() filled them in
    for index in DRAWN[len(clips) :]:
        clips.append(reference.film(extractor.views.frames, extractor.views.size, index))
    return torch.stack(clips)
