"""manifest.json beside files of features: what their maker says of them, each of the type that it must be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evalkit.errors import UserError, one_line
from evalkit.runtime.bounded import read_bytes

MANIFEST = "manifest.json"
SPLITS = ("train", "val", "test")

_TEXT, _COUNT = {"type": ["string", "null"]}, {"type": ["integer", "null"], "minimum": 0}


def _object(**fields: Any) -> dict[str, Any]:
    return {"type": ["object", "null"], "properties": fields}


# What is read of it. All of it may be left out or null, and other things may stand beside it.
SCHEMA = _object(
    task=_object(name=_TEXT, version=_COUNT, split=_TEXT, fold=_COUNT),
    encoder=_object(name=_TEXT, ckpt=_TEXT, sha256=_TEXT, clip=_object()),
    views=_object(),
    splits=_object(**dict.fromkeys(SPLITS, _object(rows=_COUNT))),
    failures={
        "type": ["array", "null"],
        "items": {
            "type": "object",
            "required": ["split", "id"],
            "properties": {
                "split": {"enum": [*SPLITS]},
                "id": {"type": "string"},
                "reason": _TEXT,
                "missing": {"type": ["boolean", "null"]},
            },
        },
    },
    random=_object(seed=_COUNT, state=_TEXT),
)


def read_manifest(folder: Path) -> dict[str, Any]:
    """What the maker says of the features; empty where nothing is said.

    Raises:
        UserError: it is no JSON object, or something in it is of another type than docs/features.md has.
    """
    file = folder / MANIFEST
    if not file.is_file():
        return {}
    try:
        content = json.loads(read_bytes(file, 1 << 30))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read {file}: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise UserError(f"{file}: wanted a JSON object, found a {type(content).__name__}")
    from jsonschema import Draft202012Validator

    if wrong := next(Draft202012Validator(SCHEMA).iter_errors(content), None):
        where = ".".join(map(str, wrong.path))
        text = wrong.message if len(wrong.message) <= 160 else f"{wrong.message[:160]}..."
        raise UserError(f"{file}: {where}: {text}; docs/features.md has what it may hold, and all may be left out")
    return content
