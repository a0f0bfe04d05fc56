"""The predictions for each test example: the lines of predictions.jsonl."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evalkit.errors import UserError
from evalkit.results.schema import parse, plain, violations


@dataclass(frozen=True)
class Row:
    """One line of predictions.jsonl: what was predicted for one test example.

    Holds plain values only: numpy and torch numbers and arrays become Python's, tuples become lists, NaN and infinity
    become None. A row therefore equals what is read back, and so do the scores.

    Attributes:
        id: unique in the run.
        video: the name of the video, by which intervals are clustered.
        kind: scores are also given per kind; empty means none.
        target: the right answer; None if it is not public.
        prediction: the value that the task's score function takes; None if it failed or was not predicted.
        failure: the reason for a missing prediction, in one line; None if there is a prediction.
        decoder: what decoded the video, where it was not the default.
        detail: anything worth keeping, such as the log-likelihood of each option.

    Raises:
        UserError: a value cannot be written as JSON.
    """

    id: str
    video: str
    kind: str = ""
    target: Any = None
    prediction: Any = None
    failure: str | None = None
    decoder: str | None = None
    detail: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in ("target", "prediction", "detail"):
            try:
                object.__setattr__(self, name, plain(getattr(self, name)))
            except UserError as error:
                raise UserError(f"{name} of example {self.id!r}: {error}") from error
        if self.failure is not None and self.prediction is not None:
            raise ValueError(f"example {self.id!r} has both a prediction and a failure: {self.failure}")

    def json(self) -> str:
        """The row as one line of JSON, ASCII, without the line's end."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def parse(cls, line: str) -> Row:
        """The row that `json` wrote.

        Raises:
            ValueError: the line is no such row; says why.
        """
        values = parse(line)
        shape = (*values, *map(type, values.values())) if isinstance(values, dict) else ()
        if shape not in _SHAPES:
            if problems := violations(values, "#/$defs/row"):
                raise ValueError(problems[0])
            _SHAPES.add(shape)
        if values["failure"] is not None:
            return cls(**values)
        row = object.__new__(cls)  # past __init__, which makes plain what JSON is already, at ten times the cost
        row.__dict__.update(values)
        return row


# Keys and types of rows that fit the schema, which states no more of them: a long file is checked against it once.
_SHAPES: set[tuple[str | type, ...]] = set()


def tally(rows: Sequence[Row]) -> dict[str, Any]:
    """The counts in result.json's `data`: n_expected, n_scored, n_failed and failures [{id, reason}].

    An example without a public answer counts as scored when it has a prediction; `n` of a score counts labeled ones.
    """
    failures = [{"id": row.id, "reason": row.failure or "no prediction"} for row in rows if row.prediction is None]
    return {
        "n_expected": len(rows),
        "n_scored": len(rows) - len(failures),
        "n_failed": len(failures),
        "failures": failures,
    }
