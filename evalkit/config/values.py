"""What the value of a key may be: from text to a declared type, and how that type is called in words."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Interval, Le, Lt

from evalkit.errors import letters, names_file, nearest

# What is typed for a value of another spelling, by its letters and digits.
TYPED = {
    **dict.fromkeys(("yes", "y", "1", "on", "t", "enabled", "always"), ("true", "on")),
    "0": ("false", "off", "cuda"),
    **dict.fromkeys(("no", "n", "off", "f", "disabled", "none", "never"), ("false", "off")),
    "true": ("true", "on"),
    "false": ("false", "off"),
    **dict.fromkeys(("gpu", "nvidia", "cuda0", "gpu0"), ("cuda",)),
    **dict.fromkeys(("metal", "apple"), ("mps",)),
    **dict.fromkeys(("fp16", "float16", "half", "f16"), ("16", "16-mixed", "float16")),
    **dict.fromkeys(("fp32", "float32", "single", "full", "f32"), ("32", "32-true", "float32")),
    **dict.fromkeys(("bfloat16", "brainfloat16"), ("bf16", "bf16-mixed")),
}


class OutOfBounds(ValueError):
    """A number of the right type outside its bounds; says which, such as `a whole number above 0`."""


def type_name(kind: Any) -> str:
    """What a value of this type looks like, in words: `a number`, `true or false`, `a whole number or none`."""
    args = get_args(kind)
    if get_origin(kind) is Annotated:
        return type_name(args[0])
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
        OutOfBounds: it breaks a bound that `Annotated` states.
        ValueError: it does not fit.
    """
    text = value if isinstance(value, str) else None
    if kind is Any:
        return value
    if get_origin(kind) is Annotated:
        plain, *constraints = get_args(kind)
        return _bounded(convert(value, plain), constraints)
    if _is_union(kind):
        broken: list[str] = []  # the bounds that the value is outside of
        for member in sorted(get_args(kind), key=lambda member: member in (str, Path)):  # text fits all, so it is last
            if broken and member in (str, Path):
                break
            try:
                return convert(value, member)
            except OutOfBounds as error:
                broken.append(str(error))
            except ValueError:
                continue
        if broken:
            raise OutOfBounds(" or ".join(broken))
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
            items = [convert(item, arg) for item, arg in zip(value, args, strict=True)]
            return items if get_origin(kind) is list or kind is list else tuple(items)
    elif kind is bool and (isinstance(value, bool) or text in ("true", "false")):
        return value in (True, "true")
    elif kind is int and (type(value) is int or (text and re.fullmatch(r"[+-]?[0-9]+", text))):
        return int(value)
    elif kind is float and (type(value) in (int, float) or (text and "_" not in text)) and math.isfinite(float(value)):
        return float(value)
    elif kind is str and text is not None:
        return text
    elif kind is Path and text and names_file(text):
        try:
            return Path(text).expanduser()
        except RuntimeError as error:  # ~nobody, who has no home
            raise ValueError from error
    raise ValueError


def meant(value: Any, kind: Any) -> str | None:
    """The value of a boolean or of a choice that was probably meant; None where that is open."""
    allowed = [str(arg) for arg in get_args(kind)] if get_origin(kind) is Literal else []
    if kind is bool:
        allowed = ["true", "false"]
    known = next((word for word in TYPED.get(letters(str(value)), ()) if word in allowed), None)
    return known or (nearest(str(value), allowed) if allowed else None)


def _bounded(value: Any, constraints: Iterable[Any]) -> Any:
    """The value, once it is within its bounds; what is not a number has none, and other metadata says nothing.

    Raises:
        OutOfBounds: it breaks one.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        for constraint in constraints:
            bounds: list[Any] = list(constraint) if isinstance(constraint, Interval) else [constraint]
            bounds = [bound for bound in bounds if isinstance(bound, Gt | Ge | Lt | Le)]
            if not all(_is_within(value, bound) for bound in bounds):
                raise OutOfBounds(f"{type_name(type(value))} {_in_words(bounds)}")
    return value


def _is_within(value: Any, bound: Any) -> bool:
    match bound:
        case Gt(limit):
            return bool(value > limit)
        case Ge(limit):
            return bool(value >= limit)
        case Lt(limit):
            return bool(value < limit)
        case _:
            return bool(value <= bound.le)


def _in_words(bounds: Sequence[Any]) -> str:
    """`above 0`, `of at least 0`, `from 0 to below 1`."""
    words = []
    for bound in bounds:
        (limit,) = (getattr(bound, name) for name in bound.__match_args__)
        prefix = {Gt: "above ", Ge: "of at least ", Lt: "below ", Le: "of at most "}[type(bound)]
        if len(bounds) > 1:
            prefix = {Gt: "above ", Ge: "from ", Lt: "below ", Le: ""}[type(bound)]
        words.append(prefix + ("2 to the 32nd" if limit == 2**32 else f"{limit:g}"))
    return " to ".join(words)


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, UnionType)


def _is_list(kind: Any) -> bool:
    return kind in (list, tuple) or get_origin(kind) in (list, tuple, Sequence, Collection, Iterable)


def _is_fixed(kind: Any) -> bool:
    return get_origin(kind) is tuple and ... not in get_args(kind)
