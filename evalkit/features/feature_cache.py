"""The stored features of one encoder: the keys of sources, and reading and writing their features."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from evalkit.api import FeatureSpec, Views
from evalkit.features.key import FeatureKey, Identity, identify, identify_ahead
from evalkit.features.sources import Source, seed
from evalkit.features.store import Store
from evalkit.features.writer import StoreWriter
from evalkit.runtime.progress import phase, track

MANY = 20_000  # sources whose keys take seconds to make


@dataclass(frozen=True)
class SourceFeatures:
    """One source, encoded.

    Attributes:
        features: per variant, what the adapter keeps: (V, ...) on the CPU. Empty where it failed.
        failure: why there are none, or None: it cannot be decoded, or the encoder gives NaN or infinity of it.
        decoder: how it was decoded, where that was not the default way; else None.
    """

    source: Source
    features: Mapping[str, Tensor] = field(default_factory=dict)
    failure: str | None = None
    decoder: str | None = None


@dataclass(frozen=True)
class FeatureCache:
    """The stored features of one encoder and one `FeatureSpec`.

    Attributes:
        key: everything that affects a feature except the video, the span and the variant.
    """

    store: Store
    key: FeatureKey

    def keeping(self, spec: FeatureSpec) -> FeatureCache:
        """The same store for another part of the encoder's output."""
        return replace(self, key=replace(self.key, feature_spec=spec))

    def keys(self, wanted: Iterable[Source], variants: Iterable[str]) -> list[bytes]:
        """The concatenated keys of each source: one per variant, and one for its decoder; empty if the file is missing.

        A file is looked at once for all its sources that follow one another.
        """
        names = list(variants)
        wanted = list(wanted)
        with phase("look at the files of the videos"):
            identify_ahead(source.video for source in wanted)
        keys: list[bytes] = []
        looked_up = track(wanted, "look up", len(wanted)) if len(wanted) >= MANY else wanted
        for video, of_video in itertools.groupby(looked_up, lambda source: source.video):
            try:
                identity = identify(video)
            except OSError:  # decoding will say why
                keys += [b""] * len([*of_video])
                continue
            keys += [self._keys(source, identity, names) for source in of_video]
        return keys

    def _keys(self, source: Source, video: Identity, variants: Sequence[str]) -> bytes:
        key, shown = self.key, ""
        if source.look:
            key = _with_views(key, source.look.cut(key.views))
            shown = f" of {source.look.of(source.video, source.span)}"
        texts = [f"{name} {seed(source)}{shown}" if name else f"unchanged{shown}" for name in variants]
        return b"".join(key.digest_of(video, source.span, text) for text in [*texts, f"decoder{shown}"])

    def holds(self, keys: bytes) -> bool:
        """Whether the store's index has all keys; only `find` can confirm that the features are intact."""
        return bool(keys) and all(key in self.store for key in _each(keys))

    def find(self, source: Source, variants: Iterable[str], keys: bytes) -> SourceFeatures | None:
        """The stored features of a source; None if any of them is missing or damaged."""
        *feature_keys, decoder = _each(keys)
        stored = self.store.find(_each(keys))
        if len(stored) <= len(feature_keys):
            return None
        features = {name: stored[key] for name, key in zip(variants, feature_keys, strict=True)}
        return SourceFeatures(source, features, decoder=bytes(stored[decoder].tolist()).decode() or None)

    def put(self, encoding: SourceFeatures, keys: bytes, writer: StoreWriter) -> SourceFeatures:
        """Stores encoded features, and returns them as `find` will."""
        *feature_keys, decoder = _each(keys)
        stored = {
            name: writer.put(key, feature, self.key.feature_spec.layout)
            for key, (name, feature) in zip(feature_keys, encoding.features.items(), strict=True)
        }
        writer.put(decoder, torch.tensor(list((encoding.decoder or "").encode()), dtype=torch.uint8))
        return replace(encoding, features=stored)


@functools.lru_cache(maxsize=64)
def _with_views(key: FeatureKey, views: Views) -> FeatureKey:
    """The key with other views; the same object for the same, which remembers what does not change."""
    return replace(key, views=views)


def _each(keys: bytes) -> list[bytes]:
    """Splits concatenated keys of 32 bytes."""
    return [keys[at : at + 32] for at in range(0, len(keys), 32)]
