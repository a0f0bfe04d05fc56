"""`evalkit COMMAND --help`: the keys that apply, with type, default and meaning."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evalkit.config.options import Command


def print_keys(
    command: Command,
    words: list[str],
    called: str,
    protocol: str = "",
    prescribed: Mapping[str, Any] | None = None,
    of_jobs: Sequence[tuple[str, ...]] = (),
) -> int:
    """Prints the keys that apply: the general ones, and with `task=` those of the task and its adapter.

    Args:
        command: whose keys.
        words: what stands after the command.
        called: the command that was typed.
        protocol: name of the task's, where it is known.
        prescribed: by key, what that prescribes in place of the keys' own defaults.
        of_jobs: key, type, default and meaning of those that say where runs take place.
    """
    from evalkit import plugins
    from evalkit.config import keys
    from evalkit.config.values import type_name

    chosen = dict(word.split("=", 1) for word in words if "=" in word)
    task, adapter = chosen.get("task", ""), chosen.get("adapter", "")
    known = keys.known_keys(command, task, adapter, chosen.get("ckpt", ""), chosen.get("encoder.model", ""))
    needed = " ".join(f"{name}=..." for name, key in known.items() if key.default is keys.REQUIRED)
    print(f"evalkit {called} {needed} [key=value ...] [config=file.yaml]")
    if task:
        print()
        print(f"task {plugins.display_name(task)}: {plugins.summary('task', task)}")
        if command in ("run", "adapt") or (adapter and command == "features"):
            adapter = adapter or keys.default_adapter(task)
            print(f"adapter {plugins.display_name(adapter)}: {plugins.summary('adapter', adapter)}")
    else:
        print()
        print(f"With task=NAME, `evalkit {called} task=NAME --help` also shows the keys of data.* and adapter.*")
    rows: list[tuple[str, ...]] = [("key", "type", "default", "meaning"), *of_jobs]
    prescribed = prescribed or {}
    for name, key in known.items():
        own = "as the task" if key.section == "clip" and not protocol else _default(key.default)
        default = _default(prescribed[name]) if name in prescribed else own
        rows.append((name, type_name(key.type).removeprefix("one of "), default, key.meaning))
    print()
    print_columns(rows)
    if protocol:
        print(f"\nDefaults of adapter.* and clip.* are those of protocol {protocol}; none is the encoder's own.")
    elif task and command in ("run", "adapt"):
        print("\nAn adapter.* key that is not given is as the task prescribes, else its default.")
    return 0


def _default(value: object) -> str:
    """A default as it would be typed."""
    from evalkit.config.keys import REQUIRED

    if value is REQUIRED:
        return "required"
    if value == Path():
        return ""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_default, value))}]"
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def print_columns(rows: Sequence[tuple[str, ...]]) -> None:
    """Prints aligned columns; long cells wrap, the last column at the terminal's width."""
    from evalkit.results.table import columns

    if rows:
        print(columns(rows, shutil.get_terminal_size((120, 24)).columns))
