"""`evalkit list tasks|encoders|adapters|suites|studies`: lists names; `list tasks NAME`: one task's data."""

from __future__ import annotations

from typing import cast, get_args

from evalkit import plugins
from evalkit.config import named
from evalkit.config.help import print_columns
from evalkit.datasets import suites
from evalkit.errors import UserError, nearest
from evalkit.studies import files
from evalkit.weights import presets

# What else the kinds are called, without the plural's s.
CALLED = {
    **dict.fromkeys(("dataset", "benchmark", "data", "eval"), "tasks"),
    **dict.fromkeys(("model", "ckpt", "checkpoint", "backbone", "preset"), "encoders"),
    **dict.fromkeys(("head", "probe"), "adapters"),
}


# The command that shows the options of one.
ABOUT = {
    "encoders": "run task=TASK ckpt={name} --help",
    "adapters": "run task=TASK adapter={name} --help",
    "studies": "study {name} --help",
}


def main(words: list[str]) -> int:
    """Prints the names of one kind, with a line on each; or all that is stated of one task.

    Raises:
        UserError: there is no such kind, or no such task.
    """
    kinds = ("tasks", "encoders", "adapters", "suites", "studies")
    if len(words) == 2 and words[0] == "tasks" and words[1] not in kinds:
        _print_task(words[1])
        return 0
    if len(words) == 2 and words[0] in ABOUT:
        kind, name = words
        raise UserError(
            f"list {kind} takes no name, got {name}: 'evalkit list {kind}' shows all, and "
            f"'evalkit {ABOUT[kind].format(name=name)}' what one may be given"
        )
    if len(words) != 1:
        raise UserError(f"list takes one of {', '.join(kinds)}, got {' '.join(words) or 'nothing'}")
    if words[0] not in kinds:
        near = CALLED.get(words[0].casefold().removesuffix("s")) or nearest(words[0], kinds)
        hint = f" Did you mean 'evalkit list {near}'?" if near else ""
        raise UserError(f"list {words[0]}: not one of {', '.join(kinds)}.{hint}")
    if words[0] == "suites":
        print_columns([(name, named.summary(file)) for name, file in suites.suites().items()])
        return 0
    if words[0] == "studies":
        print_columns([(name, named.summary(file)) for name, file in files.studies().items()])
        return 0
    kind = cast(plugins.Kind, words[0].removesuffix("s"))
    if kind == "encoder":
        print_columns(_encoders())
        print(
            "\nckpt=NAME takes the published weights from the Hugging Face hub, or says which file they are; "
            "ckpt=random:NAME makes random ones."
        )
        return 0
    known = plugins.names(kind)
    print_columns([(name, plugins.summary(kind, name)) for name in known])
    return 0


def _print_task(name: str) -> None:
    """What a task states of its data, without any of it at hand."""
    from evalkit.config import keys

    data, known = keys.stated_data(name), keys.known_keys("check", name)
    root = known["data.root"].default if "data.root" in known else ""
    print(f"{plugins.display_name(name)}: {plugins.summary('task', name)}\n")
    needs = [f"{extra} with {asked}" if asked else extra for extra, asked in data.needs.items()]
    rows = [
        ("source", data.source),
        ("license", data.license),
        ("examples", ", ".join(f"{split} {size}" for split, size in data.counted())),
        ("disk", data.disk),
        ("vanished", data.vanished),
        ("adapter", keys.default_adapter(name)),
        ("extras", ", ".join(needs) or "none"),
        ("protocols", ", ".join(get_args(known["data.protocol"].type)) if "data.protocol" in known else "one"),
    ]
    print_columns([(what, told or "not stated") for what, told in rows])
    if data.files:
        print(f"\nfiles in data.root={root}")
        print_columns([*data.files.items()])
    print(f"\nevalkit check task={name}{f' data.root={root}' if root else ''}")


def _encoders() -> list[tuple[str, ...]]:
    """A row per encoder that `ckpt=` knows by name; read from configs/, so that nothing heavy is imported."""
    rows: list[tuple[str, ...]] = [("name", "family", "parameters", "clip", "text", "weights", "source")]
    for name, card in presets.cards().items():
        license = card.license if card.hub or card.url else "none"
        count = f"{card.parameters / 1e6:.1f} M"
        rows.append((name, card.family, count, card.clip, "text" if card.text else "-", license, card.source))
    for name, origin in plugins.names("encoder").items():
        if origin.startswith("entry point "):
            rows.append((name, "your own", "-", "-", "-", "-", origin))
    return rows
