"""What lies inside of a run: its stored features, and where its head looks; for which its encoder is opened again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evalkit.api import Example
from evalkit.config.config import Config
from evalkit.errors import UserError
from evalkit.features.extract import unchanged
from evalkit.features.feature_cache import SourceFeatures
from evalkit.features.sources import Source, parts
from evalkit.heads.adapter import Adapter
from evalkit.pipeline.predict import ask
from evalkit.pipeline.setup import Experiment, prepare
from evalkit.results.schema import plain
from evalkit.show.opened import Opened
from evalkit.show.rebuilt import config_of

VARIANT = {"": unchanged}  # of the pixels: that which is scored


@dataclass(frozen=True)
class Encoded:
    """A run's encoder and adapter, opened again.

    Attributes:
        experiment: as the run had it; the adapter is untrained where its weights were not kept.
        encode: whether what is not stored is encoded now.
    """

    experiment: Experiment
    encode: bool

    def features(self, examples: Sequence[Example]) -> Iterator[tuple[Example, Tensor]]:
        """What the adapter reads of each example, (V, ...), of windows (windows, V, ...); each video is read once.

        Those that are not stored are left out unless they are to be encoded, and those that fail always.
        """
        reader, task = self.experiment.reader, self.experiment.task
        views, cache = reader.extractor.views, reader.cache
        asking: dict[tuple[Source, ...], list[Example]] = {}
        for example in examples:
            asking.setdefault(parts(example, views), []).append(example)
        wanted = [source for sources in asking for source in sources]
        if self.encode and task.prepare_videos:
            task.prepare_videos(examples)
        keys = cache.keys(wanted, VARIANT) if cache else [b""] * len(wanted)
        found: Iterator[SourceFeatures | None]
        if self.encode:
            found = reader.extractor.encode(wanted, reader.keep, "encode", VARIANT, cache, keys)
        else:
            pairs = zip(wanted, keys, strict=True)
            found = (cache.find(source, VARIANT, key) if cache and key else None for source, key in pairs)
        for sources, about in asking.items():
            each = [part.features[""] for part in (next(found, None) for _ in sources) if part and part.features]
            if len(each) == len(sources):
                features = torch.stack(each) if views.window else each[0]
                yield from ((example, features) for example in about)
        next(found, None)  # lets it flush

    def attention(self, example: Example) -> tuple[Tensor, Any]:
        """Where the head looks for an example: weights (V, layers, T', S); and what it predicts, as a row holds it.

        Raises:
            UserError: there is no trained head, it has no attention to show, or the tokens are not stored.
        """
        experiment = self.experiment
        if experiment.extractor.views.window:
            raise UserError(f"adapter {experiment.adapter_name} reads a sequence of windows")
        own = type(experiment.adapter).attention is not Adapter.attention
        if not own or experiment.adapter.feature_spec.what != "tokens":
            raise UserError(f"adapter {experiment.adapter_name} has no attention over tokens to show")
        if experiment.needs_fit:
            raise UserError(
                "the head that this run trained was not kept. `evalkit adapt config=RUN/config.yaml out=FOLDER` trains "
                "it again; then add adapter.from=FOLDER"
            )
        found = list(self.features([example]))
        if not found:
            raise UserError("the tokens of this sample are not stored; encode=true encodes it")
        features = found[0][1][None]
        weights = experiment.adapter.attention([example], features)
        if weights is None:
            raise UserError(f"adapter {experiment.adapter_name} shows no attention for such a sample")
        with torch.inference_mode():
            predicted = ask(experiment.adapter, [example], features)
        return weights[0].float().cpu(), plain(predicted[example.id].value)


def open_encoded(opened: Opened, words: Sequence[str], files: Sequence[Path], encode: bool) -> Encoded:
    """The encoder of a run, with its adapter, on this machine.

    Args:
        opened: the run.
        words: key=value of the user's, in place of the run's own: adapter.from=, ckpt=, device=.
        files: of tasks of the user's own.
        encode: encode what is not stored.

    Raises:
        UserError: it cannot be opened here, or has other weights than the run's.
    """
    if not opened.record["encoder"]["clip"]:
        raise UserError("this run has no encoder")
    if opened.task is None:
        raise UserError("the task's files are not here")
    return Encoded(experiment_of(config_of(opened.folder, words, files), opened.record), encode)


def experiment_of(config: Config, record: Mapping[str, Any]) -> Experiment:
    """Task, encoder and adapter as the run had them; the adapter untrained where its weights were not kept.

    Raises:
        UserError: a part cannot be made here, or the encoder's weights are not those of the run.
    """
    # Not as a run: an adapter that was trained for it comes from a folder now, and settings of training mean nothing.
    experiment = prepare(replace(config, command="canary"))
    ours, theirs = experiment.encoder.sha256, record["encoder"]["sha256"]
    if ours != theirs:
        with experiment:
            raise UserError(
                f"ckpt={config.options.ckpt} has other weights here ({ours[:12]}) than in the run ({str(theirs)[:12]})"
            )
    return experiment
