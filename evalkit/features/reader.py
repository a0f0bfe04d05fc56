"""Reads the features that one adapter needs, from the cache if possible."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from evalkit.api import FeatureSpec
from evalkit.features.codec import as_stored
from evalkit.features.extract import FeatureExtractor, Variant
from evalkit.features.feature_cache import FeatureCache
from evalkit.features.forward import EncoderRunner
from evalkit.features.key import FeatureKey, Identity, architecture
from evalkit.features.sources import Source
from evalkit.features.store import open_default
from evalkit.runtime.ranks import Ranks
from evalkit.video.decode import PYAV, default_decoder


@dataclass(frozen=True)
class FeatureReader:
    """Reads the features of videos.

    Attributes:
        extractor: decodes, and counts the cost.
        encoder: on its device.
        spec: which part of the encoder's output is kept.
        cache: where features are stored; None where they are not.
        saving: the adapter's settings by which features can take less, `stored` and `token_grid`, if it has them.
    """

    extractor: FeatureExtractor
    encoder: EncoderRunner
    spec: FeatureSpec
    cache: FeatureCache | None = None
    saving: Collection[str] = ()

    def reads(self, spec: FeatureSpec) -> FeatureReader:
        """The reader of another part of the same encoder's output."""
        return replace(self, spec=spec, cache=self.cache and self.cache.keeping(spec))

    def keep(self, pixels: Tensor) -> Tensor:
        """The kept part of the encoder's output, (N, ...) on its device, of uint8 clips (N, T, C, H, W)."""
        self.encoder.module.eval()  # an adapter that holds it may be in the middle of its training
        features = self.encoder(pixels, self.spec)
        if self.cache or self.spec.layout == "given":  # a cache rounds what it stores
            return features
        features = features.cpu()
        finite = torch.isfinite(features).flatten(1).all(1)  # others have no such layout, and fail as examples
        features[finite] = as_stored(features[finite], self.spec.layout)
        return features

    def store_share(self, wanted: Sequence[Source], variants: Mapping[str, Variant], ranks: Ranks, label: str) -> None:
        """Encodes this process's share of the sources that are not stored yet, and waits for the others.

        Args:
            wanted: the same in all processes.
            variants: as of `FeatureExtractor.encode`.
            ranks: this process's place.
            label: of the progress.
        """
        assert self.cache
        own = [source for group in ranks.share(self.extractor.groups(wanted)) for source in group]
        keys = self.cache.keys(own, variants)
        missing = [place for place, key in enumerate(keys) if not self.cache.holds(key)]
        self.extractor.cost.cache_hits += len(own) - len(missing)
        own, keys = [own[place] for place in missing], [keys[place] for place in missing]
        for _ in self.extractor.encode(own, self.keep, label, variants, self.cache, keys):
            continue
        ranks.wait()
        self.cache.store.refresh()


def open_feature_cache(
    encoder: EncoderRunner,
    extractor: FeatureExtractor,
    spec: FeatureSpec,
    *,
    compiled: bool = False,
    made_by: str = "",
    also: str = "",
) -> FeatureCache:
    """The default store, under a key of everything that changes the features.

    Args:
        encoder: on its device.
        extractor: how clips are read.
        spec: which part of the output is kept.
        compiled: whether torch compiles the encoder.
        made_by: the call that made an encoder of the user's own, whose effect the module may not show.
        also: cache folders of others, with commas between them, whose features are read.
    """
    key = FeatureKey(
        video=Identity(0, ""),  # of each source in its turn, as are the span and the variant
        span=None,
        views=replace(extractor.views, window=None, window_stride=None),  # a window is known by its span
        clip=encoder.module.clip,
        decoder=", ".join(dict.fromkeys((default_decoder(extractor.decoder), PYAV))),
        weights=encoder.sha256,
        architecture=architecture(encoder.module) + made_by,
        feature_spec=spec,
        precision=f"{encoder.precision} on {encoder.device.type}{', compiled' if compiled else ''}",
    )
    return FeatureCache(open_default(also), key)
