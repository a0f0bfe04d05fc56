"""What lies inside of a run: its clips, where its head looks, its features as a map; made where they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from torch import Tensor

from evalkit.errors import UserError
from evalkit.results.rows import Row
from evalkit.show.clip import Seen, seen
from evalkit.show.encoded import Encoded, open_encoded
from evalkit.show.feature_map import FeatureMap, feature_map
from evalkit.show.opened import Opened
from evalkit.video.workers import DecodePool


class Inside:
    """The encoder of a run, opened when it is first needed; a context manager that lets it go.

    Entering raises UserError where the user's words about the encoder do not fit it.

    Args:
        opened: the run.
        chosen: the samples that are shown.
        words: key=value of the user's, in place of the run's own: adapter.from=, ckpt=, device=.
        files: of tasks of the user's own.
        encode: encode what is not stored.
    """

    def __init__(
        self, opened: Opened, chosen: Sequence[Row], words: Sequence[str], files: Sequence[Path], encode: bool
    ) -> None:
        self.opened, self.chosen, self.words, self.files, self.encode = opened, chosen, words, files, encode
        # Its process starts with the first clip.
        self._pool = DecodePool(1, opened.config.options.time_limit if opened.config else 0)

    def __enter__(self) -> Inside:
        if any(not word.startswith("data.") for word in self.words):  # else a mistyped word would go unseen
            self._opened()
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.close()
        if isinstance(self.__dict__.get("_encoded"), Encoded):
            self._encoded.experiment.__exit__(None)  # type: ignore[union-attr]

    def clip(self, row: Row) -> Seen:
        """The clips of a sample as the encoder saw them.

        Raises:
            UserError: they cannot be shown.
        """
        return seen(self.opened, row.id, self._pool)

    def attention(self, row: Row) -> tuple[Tensor, bool]:
        """Where the head looks for a sample, weights (V, layers, T', S); and whether it answers as the run's head did.

        Raises:
            UserError: that cannot be shown.
        """
        if row.id not in self.opened.examples:
            raise UserError(f"the task has no example {row.id!r}")
        weights, predicted = self._opened().attention(self.opened.examples[row.id])
        return weights, bool(self.opened.answer(predicted) == self.opened.answer(row.prediction))

    def feature_map(self) -> FeatureMap:
        """The map of the run's test samples.

        Raises:
            UserError: that cannot be shown.
        """
        if isinstance(self._map, UserError):
            raise self._map
        return self._map

    def _opened(self) -> Encoded:
        if isinstance(self._encoded, UserError):
            raise self._encoded
        return self._encoded

    @cached_property
    def _encoded(self) -> Encoded | UserError:
        try:
            return open_encoded(self.opened, self.words, self.files, self.encode)
        except UserError as error:
            return error

    @cached_property
    def _map(self) -> FeatureMap | UserError:
        try:
            return feature_map(self.opened, self._opened(), self.chosen)
        except UserError as error:
            return error
