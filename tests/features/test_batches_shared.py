"""Without a store, each of several processes encodes its share of the videos and hands it to the others."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
import torch

from evalkit.api import Augment
from evalkit.config.parse import resolve
from evalkit.features.batches import FeatureSet, InMemoryFeatures, gather
from evalkit.features.sources import sources
from evalkit.pipeline.setup import Experiment, prepare
from evalkit.runtime import machine
from evalkit.runtime.ranks import ALONE, Ranks
from evalkit.video.augment import AugmentedView, augmented_views
from tests.features.test_batches import words

__all__ = ["words"]

pytestmark = pytest.mark.usefixtures("decoded_here")

T = TypeVar("T")
EVERYTHING = 1 << 40


@dataclass(frozen=True)
class Thread(Ranks):
    """A place among threads, which meet as processes do."""

    barrier: threading.Barrier = field(default_factory=lambda: threading.Barrier(1))
    values: dict[int, Any] = field(default_factory=dict)

    def gather_all(self, value: T) -> list[T]:
        self.values[self.rank] = value
        self.barrier.wait(30)
        values = [self.values[rank] for rank in range(self.size)]
        self.barrier.wait(30)
        return values

    def broadcast(self, value: T) -> T:
        return self.gather_all(value)[0]


def read(
    words: list[str], place: Ranks, looks: Sequence[AugmentedView | None], divided: bool
) -> tuple[FeatureSet, Experiment]:
    with prepare(resolve("run", [*words, "cache=off"]), place) as experiment:
        wanted = sources(experiment.task.train)
        return gather(experiment.reader, wanted, looks, "encode train", False, place, divided), experiment


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("free", [EVERYTHING, 0])
@pytest.mark.parametrize("divided", [True, False])
def test_each_encodes_its_share_and_those_that_fit_have_all(
    size: int, free: int, divided: bool, words: list[str], tmp_path: Path, films: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of seven videos with two views each; one is broken."""
    own = tmp_path / "films"
    own.mkdir()
    for film in films.glob("*.mp4"):
        (own / film.name).write_bytes(b"no film" if film.stem == "02" else film.read_bytes())
    words = [f"data.root={own}" if word.startswith("data.root") else word for word in words]
    looks = augmented_views(Augment(views=2), 0)
    monkeypatch.setattr(machine, "free_memory", lambda: EVERYTHING)
    alone, _ = read(words, ALONE, looks, divided=True)
    (expected,) = alone.rows.read([range(12)])
    monkeypatch.setattr(machine, "free_memory", lambda: free)
    barrier, values = threading.Barrier(size), cast(dict[int, Any], {})
    places = [Thread(rank, size, rank, size, barrier, values) for rank in range(size)]
    with ThreadPoolExecutor(size) as threads:
        of_all = list(threads.map(lambda place: read(words, place, looks, divided), places))
    for place, (shared, _) in zip(places, of_all, strict=True):
        assert shared.first == alone.first
        assert [source.failure for source in shared.failed] == [source.failure for source in alone.failed] != []
        if place.first or (divided and free):
            assert isinstance(shared.rows, InMemoryFeatures) == bool(free)
            (rows,) = shared.rows.read([range(12)])
            torch.testing.assert_close(rows, expected, rtol=1e-5, atol=1e-6)
    forwards = [experiment.extractor.cost.encoder_forwards for _, experiment in of_all]
    if free:
        assert sum(forwards) == 6 * 2 and max(forwards) <= 2 * -(-7 // size)
