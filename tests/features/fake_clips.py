"""Clips by name in place of decoding."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from evalkit.api import Clip, Views
from evalkit.features import extract
from evalkit.features.extract import Cost, FeatureExtractor
from evalkit.features.feature_cache import SourceFeatures
from evalkit.features.sources import Source, resolve_views
from evalkit.pipeline import controls
from evalkit.video.clips import Decoded, Failure, Request
from evalkit.video.workers import DecodePool

VARIANTS = {"": extract.unchanged, "shuffled": controls.shuffled, "single_frame": controls.single_frame}


def pixels(name: str, views: int = 1, frames: int = 4) -> Tensor:
    """The clips (V, T, 3, 32, 32) that this video has in these tests; each name has its own."""
    generator = torch.Generator().manual_seed(sum(name.encode()))
    return torch.randint(0, 256, (views, frames, 3, 32, 32), generator=generator, dtype=torch.uint8)


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[Request]]:
    """Clips by name in place of decoding; a name with `bad` in it fails, one with `other` took another decoder.

    Gives what each pool of workers was asked for.
    """
    pools: list[list[Request]] = []

    def read(self: DecodePool, requests: Sequence[Request]) -> Iterator[Decoded | Failure]:
        pools.append(list(requests))
        for request in requests:
            name = request.video.name
            if "bad" in name:
                yield Failure(f"{name} is broken")
                continue
            clip = pixels(name, request.views.clips * request.views.crops, request.frames)
            if request.looks:
                clip = torch.cat([pixels(f"{name}{look.number}{look.seed}") for look in request.looks])
            times = ((0.0,),) * len(clip)
            yield Decoded(clip, times, "PyAV (why not)" if "other" in name else "decord", "other" not in name)

    monkeypatch.setattr(DecodePool, "read", read)
    return pools


def extractor(batch: int = 4, **views: Any) -> FeatureExtractor:
    resolved = resolve_views(Views(**views), Clip(frames=4, size=32), {})
    return FeatureExtractor(resolved, DecodePool(1, 10.0), batch, Cost())


def wanted(*names: str) -> list[Source]:
    return [Source(Path(name), None) for name in names]


def as_they_are(clips: Tensor) -> Tensor:
    return clips.float()


def encoded(one: FeatureExtractor, names: Sequence[str], variants: Any = None) -> list[SourceFeatures]:
    return list(one.encode(wanted(*names), as_they_are, "test", variants or {"": extract.unchanged}))
