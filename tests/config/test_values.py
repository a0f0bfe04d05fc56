"""Text, and what a file holds, becomes a value of the declared type."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from evalkit.config.values import convert, type_name


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("3", int | str, 3),
        ("last", int | Literal["last"], "last"),
        ("x", str | Path, "x"),
        ("1,2", list[int], [1, 2]),
        ("1,2", tuple[int, ...], (1, 2)),
        ("(a, b)", tuple, ("a", "b")),
        ([1, 2], tuple[float, float], (1.0, 2.0)),
        (3, float, 3.0),
        ("5", Any, "5"),
    ],
)
def test_types_beyond_the_simple_ones(value: object, kind: Any, expected: object) -> None:
    assert convert(value, kind) == expected
    assert type(convert(value, kind)) is type(expected)


@pytest.mark.parametrize(
    ("value", "kind", "name"),
    [
        ("a", dict[str, int], "dict"),
        ("a", Callable, "Callable"),
        (True, float, "a number"),
        (1.5, int, "a whole number"),
        ("c", Literal["a", "b"] | None, "one of a, b or none"),
        ("a", Sequence[int], "a list [a,b], each a whole number"),
        (None, str, "text"),
    ],
)
def test_what_does_not_fit_is_named(value: object, kind: Any, name: str) -> None:
    with pytest.raises(ValueError):
        convert(value, kind)
    assert type_name(kind) == name
