"""What the value of a key may be: from text to a declared type, and how that type is called in words."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin


def type_name(kind: Any) -> str:
    """What a value of this type looks like, in words: `a number`, `true or false`, `a whole number or none`."""
    args = get_args(kind)
    if _is_union(kind):
        return " or ".join(type_name(member) for member in sorted(args, key=lambda member: member is NoneType))
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, args))}" if len(args) > 1 else str(args[0])
    if _is_list(kind):
        each = " or ".join(dict.fromkeys(type_name(arg) for arg in args if arg is not ...)) or "text"
        return f"{len(args)} values [a,b], each {each}" if _is_fixed(kind) else f"a list [a,b], each {each}"
    if kind in (str, Any):
        return "text"
    plain = {bool: "true or false", int: "a whole number", float: "a number", Path: "a path", NoneType: "none"}
    return plain.get(kind) or str(getattr(kind, "__name__", kind))


def convert(value: Any, kind: Any) -> Any:
    """The value as its declared type.

    Args:
        value: text from a word; text, number, boolean, None or list from a file.
        kind: what the key's parameter is annotated with.

    Raises:
        ValueError: it does not fit.
    """
    text = value if isinstance(value, str) else None
    if kind is Any:
        return value
    if _is_union(kind):
        for member in sorted(get_args(kind), key=lambda member: member in (str, Path)):  # text fits all, so it is last
            try:
                return convert(value, member)
            except ValueError:
                continue
    elif kind is NoneType and value in (None, "none"):
        return None
    elif get_origin(kind) is Literal:
        for arg in get_args(kind):
            if str(arg) == str(value):
                return arg
    elif _is_list(kind):
        if text is not None:
            text = text.strip()
            inner = text[1:-1] if text[:1] + text[-1:] in ("[]", "()") else text
            value = [part.strip() for part in inner.split(",")] if inner.strip() else []
        if isinstance(value, list):
            args = get_args(kind) or (str, ...)
            if not _is_fixed(kind):
                args = (args[0],) * len(value)
            items = [convert(one, arg) for one, arg in zip(value, args, strict=True)]
            return items if get_origin(kind) is list or kind is list else tuple(items)
    elif kind is bool and (isinstance(value, bool) or text in ("true", "false")):
        return value in (True, "true")
    elif kind is int and (type(value) is int or (text and re.fullmatch(r"[+-]?[0-9]+", text))):
        return int(value)
    elif kind is float and (type(value) in (int, float) or (text and "_" not in text)) and math.isfinite(float(value)):
        return float(value)
    elif kind is str and text is not None:
        return text
    elif kind is Path and text:
        return Path(text).expanduser()
    raise ValueError


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, UnionType)


def _is_list(kind: Any) -> bool:
    return kind in (list, tuple) or get_origin(kind) in (list, tuple, Sequence, Collection, Iterable)


def _is_fixed(kind: Any) -> bool:
    return get_origin(kind) is tuple and ... not in get_args(kind)
