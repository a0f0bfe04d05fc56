"""One prediction per test example, and those of the controls, from clips that are decoded once."""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evalkit.api import Example, Prediction
from evalkit.features import extract
from evalkit.features.feature_cache import SourceFeatures
from evalkit.features.key import architecture, identify_ahead
from evalkit.features.sources import Source, parts
from evalkit.heads.adapter import Adapter, check_predictions
from evalkit.pipeline.controls import SEQUENCE_VARIANTS, cyclic, pixel_variants
from evalkit.pipeline.journal import Journal
from evalkit.pipeline.setup import Experiment, frozen_parts
from evalkit.results import run_folder, schema
from evalkit.results.provenance import packages
from evalkit.runtime.progress import track
from evalkit.weights import checkpoint, trained_adapter

logger = logging.getLogger("evalkit")


@dataclass(frozen=True)
class Predictions:
    """What was predicted for the test examples.

    Attributes:
        by_control: predictions by example id; under the empty name those that are scored, else a control's.
        failures: reason by example id.
        decoders: decoder by example id, where it was not the default.
        journal: of the predictions, as `predict` got them from the adapter; to be removed once they are written.
    """

    by_control: dict[str, dict[str, Prediction]]
    failures: dict[str, str]
    decoders: dict[str, str]
    journal: Journal

    @property
    def scored(self) -> dict[str, Prediction]:
        return self.by_control[""]

    def add(self, name: str, predictions: Mapping[str, Prediction]) -> None:
        """Takes in the predictions of one batch, by example id."""
        self.by_control[name] |= predictions
        self.journal.add(name, {key: [*prediction, self.decoders.get(key)] for key, prediction in predictions.items()})

    def tell_known(self, total: int) -> None:
        """Says how many of so many examples the journal has, if any."""
        if self.journal.known:
            done = len(self.journal.known.get("", {}))
            logger.info(f"predict: {done} of {total} are known from a run that was cut short")

    def finalize(self, name: str, adapter: Adapter, test: Sequence[Example]) -> None:
        """Puts what the adapter makes of all predictions of this name together in their place."""
        predictions = self.by_control[name]
        examples = [example for example in test if example.id in predictions]
        with torch.inference_mode():
            final = adapter.finalize(examples, [predictions[example.id] for example in examples])
        predictions |= {example.id: prediction for example, prediction in zip(examples, final, strict=True)}

    def recall(self, names: Sequence[str], examples: Sequence[Example]) -> bool:
        """Takes in what the journal has of these examples; nothing, and False, where it lacks any of it."""
        known = {name: self.journal.known.get(name, {}) for name in names}
        if not all(example.id in of_name for of_name in known.values() for example in examples):
            return False
        for name, of_name in known.items():
            for example in examples:
                value, detail, decoder = of_name[example.id]
                self.by_control[name][example.id] = Prediction(value, detail)
                if decoder:
                    self.decoders[example.id] = decoder
        return True


def predict(experiment: Experiment, controls: Sequence[str], seed: int) -> Predictions:
    """Predictions for all test examples; each video is decoded once for all examples and controls.

    What the same run predicted before it was killed is taken from its journal. Of several processes each decodes,
    encodes and predicts its share, in the batches in which one process would, and the first gets all.
    """
    task, reader, views, ranks = experiment.task, experiment.reader, experiment.extractor.views, experiment.ranks
    size = 1 if views.window else experiment.extractor.batch  # a sequence of windows is predicted by itself
    if task.prepare_videos:
        task.prepare_videos(task.test)
    variants = {"": extract.unchanged} | pixel_variants(controls, views)
    asking: dict[tuple[Source, ...], list[Example]] = {}
    for example in task.test:
        asking.setdefault(parts(example, views), []).append(example)
    videos = list(asking)
    batches = [range(start, min(start + size, len(videos))) for start in range(0, len(videos), size)]
    own = ranks.share(batches)
    keys: dict[int, list[bytes]] = {}
    if reader.cache:
        identify_ahead(source.video for places in own for place in places for source in videos[place])
        keys = {place: reader.cache.keys(videos[place], variants) for places in own for place in places}
    journal = _journal(experiment, keys, seed)
    predicted = Predictions({name: {} for name in ["", *controls]}, {}, {}, journal)
    left: list[int] = []
    for places in own:
        # What is predicted together is recalled as a whole or not at all: a kill changes no batch.
        examples = [example for place in places for example in asking[videos[place]]]
        if not predicted.recall([*predicted.by_control], examples):
            left += places
    predicted.tell_known(len(task.test))
    wanted = [source for place in left for source in videos[place]]
    own_keys = [key for place in left for key in keys[place]] if keys else []
    label = "encode windows" if views.window else ""  # of which a video may have thousands
    encodings = reader.extractor.encode(wanted, reader.keep, label, variants, reader.cache, own_keys)
    asking = {videos[place]: asking[videos[place]] for place in left}
    answered = _answered(experiment, encodings, asking, size, predicted)
    for _ in track(answered, "predict", sum(map(len, asking.values()))):
        continue
    next(encodings, None)  # lets it flush
    for by_control, failures, decoders in ranks.gather((predicted.by_control, predicted.failures, predicted.decoders)):
        for name, predictions in by_control.items():
            predicted.by_control[name] |= predictions
        predicted.failures.update(failures)
        predicted.decoders.update(decoders)
    if not ranks.first:
        return predicted
    for name in predicted.by_control:
        if name != "option_order":  # its values are lists, one per order
            predicted.finalize(name, experiment.adapter, task.test)
    return predicted


def _answered(
    experiment: Experiment,
    encodings: Iterator[SourceFeatures],
    asking: Mapping[tuple[Source, ...], Sequence[Example]],
    size: int,
    predicted: Predictions,
) -> Iterator[Example]:
    """Each example about these videos, once it has its predictions, or a failure; `size` videos at a time."""
    adapter, sequences = experiment.adapter, experiment.extractor.views.window is not None
    videos = iter(asking)
    while some_videos := list(itertools.islice(videos, size)):
        batch = [_joined([next(encodings) for _ in video], predicted.by_control, sequences) for video in some_videos]
        for video, encoding in zip(some_videos, batch, strict=True):
            for example in asking[video]:
                if encoding.failure:
                    predicted.failures[example.id] = encoding.failure
                    yield example
                elif encoding.decoder:
                    predicted.decoders[example.id] = encoding.decoder
        good = [encoding for encoding in batch if not encoding.failure]
        known = [video for video, encoding in zip(some_videos, batch, strict=True) if not encoding.failure]
        pairs = [(place, example) for place, video in enumerate(known) for example in asking[video]]
        variants = good[0].features if good else {}
        features = {name: torch.stack([encoding.features[name] for encoding in good]) for name in variants}
        # A video may be asked about many times: its features are not all there as often at once.
        for start in range(0, len(pairs), size):
            some = pairs[start : start + size]
            examples, places = [example for _, example in some], [place for place, _ in some]
            for name in predicted.by_control:
                if predicted.recall([name], examples):
                    continue
                with torch.inference_mode():
                    if name == "blind":
                        predictions = ask(adapter, examples, None)
                    elif name == "option_order":
                        predictions = cyclic(adapter, examples, features[""][places], predicted.scored)
                    else:
                        predictions = ask(adapter, examples, features[name][places])
                predicted.add(name, predictions)
            yield from examples


def _joined(encodings: Sequence[SourceFeatures], names: Iterable[str], sequences: bool) -> SourceFeatures:
    """What is known of a video from that of its parts, which is the one, or that of its windows in order."""
    if not sequences:
        (encoding,) = encodings
        return encoding
    failure = next((part.failure for part in encodings if part.failure), None)
    if failure:
        return SourceFeatures(encodings[0].source, failure=failure)
    features = {name: torch.stack([part.features[name] for part in encodings]) for name in encodings[0].features}
    features |= {name: SEQUENCE_VARIANTS[name](features[""]) for name in names if name in SEQUENCE_VARIANTS}
    decoder = next((part.decoder for part in encodings if part.decoder), None)
    return SourceFeatures(encodings[0].source, features, decoder=decoder)


def _journal(experiment: Experiment, keys: Mapping[int, Sequence[bytes]], seed: int) -> Journal:
    """The journal that is named by all that decides what this run predicts.

    There is none where features are not stored, nor of an adapter whose weights cannot be written, so that nothing
    tells what it learned.

    Args:
        keys: of the features of each part of a video, which hold the video, the encoder and the views; by the place of
            the video, of this process's share.
    """
    adapter, ranks = experiment.adapter, experiment.ranks
    everywhere = {place: of_video for share in ranks.gather(keys) for place, of_video in share.items()}
    learned = trained_adapter.adapter_state(adapter)
    if not experiment.reader.cache or (adapter.epochs and not learned):
        return Journal("")
    digest = hashlib.sha256(b" ".join(key for _, of_video in sorted(everywhere.items()) for key in of_video))
    identity = {
        "features": digest.hexdigest(),
        "task": [experiment.name, experiment.task.version, run_folder.fingerprint(experiment.task.test)],
        "adapter": [experiment.adapter_name, experiment.settings, architecture(adapter), checkpoint.digest(learned)],
        "frozen": {
            **adapter.frozen,
            **frozen_parts(adapter, experiment.task, experiment.encoder.sha256),
        },
        "run": [seed, experiment.extractor.batch, packages()],
    }
    return Journal(ranks.broadcast(schema.digest(identity)))


def ask(adapter: Adapter, examples: Sequence[Example], features: Tensor | None) -> dict[str, Prediction]:
    """The adapter's predictions for some examples by id; features as in `Adapter.predict`."""
    predictions = check_predictions(adapter, adapter.predict(examples, features), len(examples))
    return {example.id: prediction for example, prediction in zip(examples, predictions, strict=True)}
