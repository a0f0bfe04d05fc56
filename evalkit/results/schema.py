"""What the files of a run may hold: plain JSON values, in the shapes that result.schema.json states."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from evalkit.errors import UserError

DEEPEST = 100  # lists and dictionaries inside one another
_PLAIN = frozenset({type(None), bool, int, str})  # as JSON has them


def plain(value: Any) -> Any:
    """The value in what JSON has: numpy and torch become Python's, tuples lists, paths text, NaN and infinity None.

    Raises:
        UserError: the value, or one inside it, is of another type.
    """
    if type(value) in _PLAIN:
        return value
    if isinstance(value, list | tuple):
        kinds = {*map(type, value)}
        known = kinds <= _PLAIN or (kinds == {float} and all(map(math.isfinite, value)))
        return list(value) if known else [plain(inner) for inner in value]
    if isinstance(value, str | Path):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if hasattr(value, "tolist"):  # numpy and torch, arrays and scalars, without importing torch
        return plain(value.tolist())
    raise UserError(
        f"a result cannot hold {type(value).__name__} {str(value)[:60]!r}; give numbers, text, lists or dictionaries"
    )


def digest(value: Any) -> str:
    """The sha256, in hex, of the value as JSON with sorted keys: equal for equal settings, whatever their order."""
    text = json.dumps(plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def parse(text: str) -> Any:
    """The value that a text of JSON holds.

    Raises:
        ValueError: the text is not JSON, of which NaN, Infinity and numbers as large, which Python alone would take,
            are no part; an object in it has a key twice; or it is nested deeper than any result is.
    """
    value, end = _DECODER.raw_decode(text) if text.startswith("{") else (None, -1)
    if end != len(text):
        value = _DECODER.decode(text)  # blanks around it, or what is wrong
    if text.count("[") + text.count("{") > DEEPEST:
        _check_depth(value)
    return value


def _check_depth(value: Any) -> None:
    level, depth = [value], 0
    while level := [inner for part in level if isinstance(part, dict | list) for inner in _inner(part)]:
        depth += 1
        if depth > DEEPEST:
            raise ValueError(f"nested more than {DEEPEST} deep")


def _inner(part: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return part.values() if isinstance(part, dict) else part


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _finite(number: str) -> float:
    value = float(number)
    if math.isinf(value):
        raise ValueError(f"{number[:20]} is too large for a number")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)[:60]!r} is given twice")
    return values


_DECODER = json.JSONDecoder(parse_constant=_refused, parse_float=_finite, object_pairs_hook=_once)


def violations(value: Any, part: str = "#") -> list[str]:
    """Where a value does not fit the schema, or a part of it: one line each, with the path of the key."""
    lines = []
    for error in sorted(_validator(part).iter_errors(value), key=lambda error: [str(key) for key in error.path]):
        text = error.message if len(error.message) <= 160 else f"{error.message[:160]}..."
        where = ".".join(str(key) for key in error.path)
        lines.append(f"{where}: {text}" if where else text)
    return lines


@cache
def _validator(part: str) -> Any:
    from jsonschema import Draft202012Validator

    schema = json.loads((Path(__file__).parent / "result.schema.json").read_text(encoding="utf-8"))
    return Draft202012Validator(schema if part == "#" else {"$ref": part, "$defs": schema["$defs"]})
