"""Examples with their features, as training, val and test batches read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from evalkit.api import Batch, Example, Prediction, Views
from evalkit.features.batches import FeatureSource
from evalkit.features.sources import Source, parts
from evalkit.heads.adapter import Adapter, check_predictions
from evalkit.pipeline.training.divided import part
from evalkit.runtime.ranks import ALONE, Ranks

PREDICT_BATCH = 64


@dataclass(frozen=True)
class Examples:
    """Examples together with their features.

    Attributes:
        examples: those that could be decoded.
        rows: features (V, ...), or uint8 video while the encoder is trained, of each augmented view of each source.
        index: first row of each source.
        views: augmented views, and so rows, of each source; 1 where there are only plain ones.
        sampling: how the videos are read, for their windows.
        mixture: weights by kind, as `evalkit.api.Task` has them.
    """

    examples: Sequence[Example]
    rows: FeatureSource
    index: dict[Source, int]
    views: int = 1
    sampling: Views = Views()
    mixture: Mapping[str, float] = field(default_factory=dict)

    def batches(self, chosen: Sequence[Sequence[int]], view: int = 0) -> Iterator[Batch]:
        """For each list of positions, the examples there with the features of one of the augmented views."""
        first = [[self._rows(i) for i in positions] for positions in chosen]
        rows = self.rows.read([[row + view for of_one in of_batch for row in of_one] for of_batch in first])
        for positions, of_batch, features in zip(chosen, first, rows, strict=True):
            examples = [self.examples[i] for i in positions]
            if self.sampling.window is None:
                yield Batch(examples, features)
            else:
                windows = [*map(len, of_batch)]
                yield Batch(examples, pad_sequence([*torch.split(features, windows)], batch_first=True), windows)

    def whole(self) -> Batch:
        """All examples, with the features of all views (n, V, ...) of each."""
        rows = [self._rows(i)[0] + view for i in range(len(self.examples)) for view in range(self.views)]
        (features,) = self.rows.read([rows])
        return Batch(self.examples, features.view(-1, self.views * features.shape[1], *features.shape[2:]))

    def _rows(self, position: int) -> list[int]:
        """The first row of each part of an example's video."""
        return [self.index[source] for source in parts(self.examples[position], self.sampling)]


class Alternating:
    """Batches of places of examples, each of one kind: alternating gradient descent over data sets.

    As many batches an epoch as there were of all examples. Each is of a kind drawn by the weights; a kind's examples
    come in an order of their own, from one epoch into the next, and in another one once too few are left of it to fill
    a batch. A kind with fewer examples than a batch gives all of them.

    Args:
        kinds: of each example.
        weights: by kind; there are examples of each.
        size: of a batch.
        generator: of the kinds and the orders.
    """

    def __init__(
        self, kinds: Sequence[str], weights: Mapping[str, float], size: int, generator: torch.Generator
    ) -> None:
        self.places = {name: [i for i, kind in enumerate(kinds) if kind == name] for name in weights}
        self.weights = torch.tensor([*weights.values()], dtype=torch.float64)
        self.size, self.generator, self.count = size, generator, -(-len(kinds) // size)
        self.coming: dict[str, list[int]] = {name: [] for name in weights}

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[list[int]]:
        names = [*self.places]
        for drawn in torch.multinomial(self.weights, self.count, replacement=True, generator=self.generator).tolist():
            name = names[drawn]
            places = self.places[name]
            size = min(self.size, len(places))
            if len(self.coming[name]) < size:
                order = torch.randperm(len(places), generator=self.generator).tolist()
                self.coming[name] = [places[i] for i in order]
            batch, self.coming[name] = self.coming[name][:size], self.coming[name][size:]
            yield batch


class TrainingBatches:
    """The training batches, or this process's part of each; another order and the next augmented view an epoch."""

    def __init__(self, data: Examples, size: int, seed: int, ranks: Ranks = ALONE) -> None:
        self.data, self.ranks = data, ranks
        generator = torch.Generator().manual_seed(seed)
        kinds = [example.kind for example in data.examples]
        self.order: Any = (
            Alternating(kinds, data.mixture, size, generator)
            if data.mixture
            else torch.utils.data.DataLoader(
                range(len(data.examples)),  # type: ignore[arg-type]
                batch_size=size,
                shuffle=True,
                generator=generator,
                collate_fn=list,
            )
        )
        self.epoch = 0
        self.running: Iterator[Batch] | None = None

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Batch]:
        self.running = self._epoch()
        return self.running

    def _epoch(self) -> Iterator[Batch]:
        view = self.epoch % self.data.views
        self.epoch += 1
        divided = [part(batch, self.ranks) for batch in self.order]
        batches = self.data.batches([own for own, _ in divided], view)
        for batch, (_, share) in zip(batches, divided, strict=True):
            yield replace(batch, share=share)

    def close(self) -> None:
        """Ends what still reads ahead, where an epoch was not finished."""
        if self.running:
            self.running.close()  # type: ignore[attr-defined]


def predict(
    adapter: Adapter, data: Examples, keep: Callable[[Tensor], Tensor] | None, ranks: Ranks = ALONE
) -> list[list[Any]]:
    """The predictions of each grid point of the adapter, finalized; as `predict_apart`."""
    predictions = predict_apart(adapter, data, keep, ranks)
    with torch.inference_mode():
        return [
            [prediction.value for prediction in adapter.finalize(data.examples, of_point)] for of_point in predictions
        ]


def predict_apart(
    adapter: Adapter, data: Examples, keep: Callable[[Tensor], Tensor] | None, ranks: Ranks = ALONE
) -> list[list[Prediction]]:
    """The predictions of each grid point of the adapter, as they are before `finalize`; `keep` as in `fit`.

    Of several processes each predicts its share, and all get all.
    """
    predictions: list[list[Prediction]] = [[] for _ in range(adapter.points)]
    places = range(len(data.examples))
    size = 1 if data.sampling.window else PREDICT_BATCH  # a sequence of windows by itself, without padding
    batches = [places[i : i + size] for i in places[::size]]
    of_batches: list[list[Sequence[Prediction]]] = []
    for batch in data.batches(ranks.share(batches)):
        features = batch.features
        if keep:
            kept = keep(features.flatten(0, 1))
            features = kept.view(*features.shape[:2], *kept.shape[1:])
        with torch.inference_mode():
            of_batch = adapter.predict_all(batch.examples, features)
        of_batches.append([check_predictions(adapter, some, len(batch.examples)) for some in of_batch])
    shares = ranks.gather_all(of_batches)
    for place in range(len(batches)):
        for of_point, some in zip(predictions, shares[place % ranks.size][place // ranks.size], strict=True):
            of_point += some
    return predictions


def val_score(adapter: Adapter, data: Examples, ranks: Ranks = ALONE) -> float:
    """The mean over examples of the adapter's own `val_score`; the same in all processes."""
    places = range(len(data.examples))
    batches = [places[i : i + PREDICT_BATCH] for i in places[::PREDICT_BATCH]]
    total = 0.0
    for batch in data.batches(ranks.share(batches)):
        with torch.inference_mode():
            total += adapter.val_score(batch) * len(batch.examples)
    return sum(ranks.gather_all(total)) / len(places)
