"""Pages of keys, of the fields of a result, of encoders and of cards."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from docs.made.text import table, text
from evalkit import cli, plugins
from evalkit.config import keys
from evalkit.config.config import typed
from evalkit.config.values import type_name
from evalkit.studies import cards
from evalkit.weights import presets

ROOT = Path(__file__).parents[2]


def choices(known: Mapping[str, keys.Key]) -> tuple[str, ...]:
    """The protocols that a task's keys offer; none where it has one alone."""
    return get_args(known["data.protocol"].type) if "data.protocol" in known else ()


def key_rows(known: Mapping[str, keys.Key], *sections: str) -> Iterator[tuple[str, str, str, str]]:
    """A row per key of the sections."""
    for name, key in known.items():
        if key.section in sections:
            default = "as the task" if key.section == "clip" else _default(key.default)
            yield f"`{name}`", text(type_name(key.type).removeprefix("one of ")), text(default), text(key.meaning)


def _default(value: object) -> str:
    return "required" if value is keys.REQUIRED else typed(value)


def keys_page() -> str:
    """The command's own help, and all keys but those of the tasks."""
    head = ("key", "type", "default", "meaning")
    known = keys.known_keys("run", "folder")
    parts = ["# All keys", "What `evalkit --help` prints:", "```\n" + cli.USAGE.rstrip() + "\n```"]
    parts += [
        "`evalkit run task=NAME --help` prints the keys of one task and its adapter. Those of `data.*` stand on "
        "[each task's page](data/index.md), all others here.",
        "## Without a section",
    ]
    parts += [table(head, key_rows(known, "")), "## encoder.*", table(head, key_rows(known, "encoder"))]
    parts += ["## clip.*: in place of the task's own", table(head, key_rows(known, "clip"))]
    parts += ["## trainer.*", table(head, key_rows(known, "trainer")), "## data.* of every task"]
    parts += [table(head, ([f"`data.{key.parameter}`", text(type_name(key.type)), "null", text(key.meaning)]
                           for key in (keys.EXPECT, keys.VIDEOS)))]  # fmt: skip
    for name in plugins.names("adapter"):
        parts += [f"## adapter={name}", text(plugins.summary("adapter", name))]
        if rows := [*key_rows(keys.adapter_keys(name), "adapter")]:
            parts.append(table(head, rows))
    return "\n\n".join(parts) + "\n"


def record_page() -> str:
    """Every field of result.json, by its schema."""
    schema = json.loads((ROOT / "evalkit/results/result.schema.json").read_text(encoding="utf-8"))
    parts = ["# Fields of a result", f"`result.json`, from its schema, which is shipped as "
             f"`evalkit/results/result.schema.json`. {schema['description']}"]  # fmt: skip
    parts += ["[Results](results.md) explains the numbers. Fields in *italics* are optional."]
    required = schema["required"]
    rows = [(_field(name, required), _kind(value, schema), _meaning(value, schema))
            for name, value in schema["properties"].items()]  # fmt: skip
    parts.append(table(("field", "type", "meaning"), rows))
    for name, value in schema["properties"].items():
        if inner := [*_fields(value, schema)]:
            parts += [f"## {name}", table(("field", "type", "meaning"), inner)]
    return "\n\n".join(parts) + "\n"


def _field(name: str, required: Sequence[str]) -> str:
    return f"`{name}`" if name in required else f"*`{name}`*"


def _resolved(value: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """A part of the schema with what its reference names; of several forms the one that is no null."""
    while "$ref" in value:
        value = {**schema["$defs"][value["$ref"].rpartition("/")[2]], **{k: v for k, v in value.items() if k != "$ref"}}
    for form in value.get("anyOf", ()):
        if form.get("type") != "null":
            return {**_resolved(form, schema), **{k: v for k, v in value.items() if k != "anyOf"}, "nullable": True}
    return dict(value)


def _kind(value: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    value = _resolved(value, schema)
    kind = value.get("type", "")
    if "const" in value or "enum" in value:
        words = ", ".join(map(str, value.get("enum", [value.get("const")])))
    elif kind == "array" and isinstance(value.get("items"), dict):
        words = f"list of {_kind(value['items'], schema)}"
    else:
        words = " or ".join(one for one in ([kind] if isinstance(kind, str) else kind) if one != "null") or "any"
    return words + (" or null" if value.get("nullable") or "null" in kind else "")


def _meaning(value: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    return text(_resolved(value, schema).get("description", ""))


def _fields(value: Mapping[str, Any], schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str, str]]:
    """The fields of an object, or of a list's objects, at any depth, each by its path."""
    value = _resolved(value, schema)
    if value.get("type") == "array":
        yield from _fields(value.get("items", {}), schema, path)
        return
    for name, inner in value.get("properties", {}).items():
        yield _field(f"{path}{name}", [f"{path}{one}" for one in value.get("required", ())]), _kind(inner, schema), _meaning(inner, schema)  # fmt: skip  # noqa: E501
        yield from _fields(inner, schema, f"{path}{name}.")


def encoders_page() -> str:
    """Every preset, with its card."""
    head = ("`ckpt=`", "family", "parameters", "clip", "text", "license", "weights", "trained on")
    rows = []
    for name, card in presets.cards().items():
        link = f"[{card.hub}](https://huggingface.co/{card.hub})" if "/" in card.hub else card.hub
        place = link or (f"<{card.url}>" if card.url else "not published")
        trained = ", ".join(f"{data} ({what})" for data, what in card.trained_on.items())
        source = f"[{name}]({card.source})" if card.source.startswith("http") else name
        count = f"{card.parameters / 1e6:.1f} M"
        words = "yes" if card.text else ""
        rows.append((source, text(card.family), count, card.clip, words, card.license, place, text(trained)))
    return (
        "# List of encoders\n\nThe names that `ckpt=` accepts, as `evalkit list encoders` prints them; "
        "`ckpt=random:NAME` uses random weights. [Encoders](encoders.md) lists what else `ckpt=` accepts. An empty "
        "entry under *trained on* means that the training data are not published.\n\n" + table(head, rows)
    )


def cards_page() -> str:
    """Every reference card: its line, and what is published for it."""
    rows = []
    for card in cards.every():
        expected = ", ".join(f"{metric} {value:g}" for metric, value in card.expected.items())
        rows.append(
            (f"`{card.name}`", f"`{' '.join(f'{k}={v}' for k, v in card.run.items())}`", expected, text(card.printed))
        )
    return (
        "# List of cards\n\nPublic checkpoints, the command that evaluates each, and its published score: "
        "`evalkit verify NAME data.root=FOLDER` runs the command and compares the scores "
        "([Reference cards](verify.md)).\n\n" + table(("card", "command", "published", "source"), rows)
    )
