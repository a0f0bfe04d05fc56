"""Where the parts of a run contradict each other: the record itself, its configuration, its folder's name."""

from __future__ import annotations

import base64
import hashlib
import math
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evalkit.errors import in_line, printable
from evalkit.plugins import display_name
from evalkit.results.evidence import alike

# In config.yaml, before what a run used of the keys that nobody set; a run's folder is named by what stands above it.
USED = "# Of these, this run used:\n"

LONGEST_COMMAND = 200_000  # characters; Linux takes no longer word
_STAMP = re.compile(r"(\d{8}T\d{6}Z)-([0-9a-f]{8})(-\d+)?")


def of_times(record: Mapping[str, Any]) -> Iterator[str]:
    """Times that are none, or in no order."""
    times = {}
    for key in ("started", "finished"):
        try:
            times[key] = datetime.fromisoformat(record["provenance"][key])
        except ValueError:
            yield f"provenance.{key} is {record['provenance'][key]}, which is no time"
    if len(times) == 2 and times["finished"] < times["started"]:
        yield "provenance.finished is before provenance.started"


def of_folder(run: Path, record: Mapping[str, Any], config: bytes) -> Iterator[str]:
    """A folder's name, where `run_id` made it, that is not of this start or of this configuration."""
    stamp = _STAMP.fullmatch(run.absolute().name)
    if not stamp:
        return
    started = datetime.fromisoformat(record["provenance"]["started"])
    if f"{started.astimezone(UTC):%Y%m%dT%H%M%SZ}" != stamp[1]:
        yield f"provenance.started is {record['provenance']['started']}, but the folder's name says {stamp[1]}"
    # A pass over a grid is named by all of it, and config.yaml is that of the point that was chosen.
    if _words(record)[:1] != ["sweep"] and _stamp_of(config) != stamp[2]:
        yield f"config.yaml was changed: its sha256 does not begin with {stamp[2]}, as the folder's name says"


def _stamp_of(config: bytes) -> str:
    """What `run_id` made of a config.yaml: of all that stands before what the run used of other keys."""
    return hashlib.sha256(config.partition(USED.encode())[0]).hexdigest()[:8]


def of_selection(record: Mapping[str, Any]) -> Iterator[str]:
    """A choice that is not the best of what it was made from."""
    selection = record["selection"]
    if selection is None:
        return
    chosen, grid = selection["chosen"], selection["grid"]
    point, epoch = chosen.get("point"), chosen.get("epoch")
    best = selection.get("grid_val_scores")
    failed = {failure["point"] for failure in selection.get("failures", [])}
    if best is not None and len(best) != len(grid):
        yield f"selection.grid has {len(grid)} points, selection.grid_val_scores {len(best)}"
    elif best is not None and failed - set(range(len(best))):
        yield f"selection.failures names point {max(failed)} of {len(best)}"
    elif best is not None and isinstance(point, int):
        left = [k for k in range(len(best)) if k not in failed]
        right = max(left, key=lambda k: -math.inf if best[k] is None else best[k], default=None)
        if point != right:
            yield f"selection.chosen.point is {point}, but the best of grid_val_scores is that of point {right}"
        elif not alike(best[point], selection["val_score"]):
            yield f"selection.val_score is {selection['val_score']}, but {best[point]} in grid_val_scores"
    curve = selection.get("val_scores")
    if curve and isinstance(epoch, int):
        if chosen.get("epochs", len(curve)) != len(curve):
            yield f"selection.chosen.epochs is {chosen['epochs']}, but val_scores has {len(curve)}"
        highest = max((value for value in curve if value is not None), default=None)
        last = max((k for k, value in enumerate(curve, 1) if value == highest), default=0)
        if None not in curve and epoch != last:
            yield f"selection.chosen.epoch is {epoch}, but the last of the best in val_scores is {last}"
        elif 0 < epoch <= len(curve) and not alike(curve[epoch - 1], selection["val_score"]):
            yield f"selection.val_score is {selection['val_score']}, but {curve[epoch - 1]} in val_scores"
    if isinstance(point, int) and 0 <= point < len(grid):
        yield from _differences("selection.grid", grid[point], record)


def of_protocol(record: Mapping[str, Any]) -> Iterator[str]:
    """An adapter that is not the protocol's."""
    protocol, adapter = record["task"]["protocol"], record["adapter"]
    if protocol.get("adapter", adapter["name"]) != adapter["name"]:
        yield f"adapter.name is {adapter['name']}, but {protocol['adapter']} in task.protocol"
    model = adapter.get("language_model") or {}
    if model.get("sha256") and "lm" in protocol and protocol["lm"] != model["sha256"]:
        yield f"adapter.language_model.sha256 is {model['sha256']}, but {_shown(protocol['lm'])} in task.protocol"
    template = protocol.get("template")
    if model and template not in (None, model["template"]):
        yield f"adapter.language_model.template is {_shown(model['template'])}, but {_shown(template)} in task.protocol"
    settings = protocol.get("settings")
    if isinstance(settings, Mapping):
        yield from _differences("task.protocol.settings", settings, record)
        for key in sorted((settings.keys() - protocol.keys()) ^ _settings(record).keys()):
            lacking = "adapter.settings" if key in settings else "task.protocol.settings"
            yield f"{key} is not in {lacking}, though a setting of the adapter"


def _differences(where: str, settings: Mapping[str, Any], record: Mapping[str, Any]) -> Iterator[str]:
    stored = _settings(record)
    for key, value in settings.items():
        if key in stored and stored[key] != value:
            yield f"adapter.settings.{key} is {_shown(stored[key])}, but {_shown(value)} in {where}"


def _settings(record: Mapping[str, Any]) -> dict[str, Any]:
    """The adapter's settings as they were given: not where it came from, nor the hash of a language model."""
    protocol = record["task"]["protocol"]
    return {key: value for key, value in record["adapter"]["settings"].items() if key not in ("from", *protocol)}


def of_config(record: Mapping[str, Any], config: bytes) -> list[str]:
    """Where config.yaml says something else than the record, or than the command at its head."""
    try:
        head, values = read_config(config.decode())
    except ValueError as error:
        return [f"config.yaml: {in_line(error)}"]
    if not head.startswith("# evalkit "):
        return []  # not written by evalkit, which its hash or the folder's name would tell of a run
    problems = []
    for key, stored in _asked(record).items():
        # What is null was left to the encoder or the task.
        if values.get(key, "null") != "null" and not any(_same(values[key], value) for value in stored):
            problems.append(f"config.yaml has {key}: {_shown(values[key])}, the result {_shown(stored[0])}")
    words = _words(record)
    command = f"# {shlex.join(['evalkit', *words])}"
    written = (printable(command), command.replace("\n", " "))  # the second in former records
    # The config.yaml of a sweep is that of the point that was chosen.
    swept = words[:1] == ["sweep"] and _not_adapter(_split(head)[3:]) == _not_adapter(words[1:])
    if not swept and head not in written:
        problems.append(f"provenance.command is not that of config.yaml: {_shown(head.removeprefix('# '))}")
    for word in words[1:]:
        key, _, value = word.partition("=")
        if key in values and not (words[0] == "sweep" and key.startswith("adapter.")) and not _same(values[key], value):
            problems.append(f"config.yaml has {key}: {_shown(values[key])}, provenance.command {_shown(word)}")
    return problems


def _asked(record: Mapping[str, Any]) -> dict[str, list[Any]]:
    """By key of the configuration what the record may have of it."""
    protocol, adapter, name = record["task"]["protocol"], record["adapter"], record["task"]["name"]
    asked: dict[str, list[Any]] = {
        "task": [name, name.removesuffix("@mini")],
        "mini": [name.endswith("@mini")],
        "ckpt": [record["encoder"]["ckpt"]],
        "adapter": [adapter["name"], ""],
        "seed": [record["provenance"]["seed"]],
    }
    if "fold" in record["task"]:
        asked["data.fold"] = [record["task"]["fold"]]
    settings = record["encoder"].get("settings", {})
    asked |= {"precision": [settings["precision"]]} if "precision" in settings else {}
    asked |= {f"adapter.{key}": [value] for key, value in _settings(record).items()}
    if isinstance(protocol.get("views"), Mapping):
        asked |= {f"clip.{key}": [value] for key, value in protocol["views"].items()}
        asked["trainer.shots"] = [0 if protocol.get("shots_prescribed") else protocol.get("shots", 0)]
        asked["trainer.share"] = [protocol.get("share", 1.0)]
    return asked


def _words(record: Mapping[str, Any]) -> list[str]:
    """The words of the command, without `evalkit`."""
    return _split(record["provenance"]["command"])[1:]


def _split(command: str) -> list[str]:
    """The words of a line; none where it is no line that a shell takes, or far too long for one."""
    try:
        return shlex.split(command) if len(command) <= LONGEST_COMMAND else []
    except ValueError:
        return []


def _not_adapter(words: Sequence[str]) -> list[str]:
    return [printable(word) for word in words if not word.startswith("adapter.")]


def read_config(text: str) -> tuple[str, dict[str, Any]]:
    """The first line of a config.yaml, and its values as they are written, by key.

    Raises:
        ValueError: it is not yaml, or has a key twice.
    """
    import yaml

    try:
        root = yaml.compose(text, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"not readable as yaml: {in_line(error)[:200]}") from error
    values: dict[str, Any] = {}
    for key, value in root.value if isinstance(root, yaml.MappingNode) else ():
        if not isinstance(key, yaml.ScalarNode):
            raise ValueError("a key is not text")
        if key.value in values:
            raise ValueError(f"{key.value} is given twice")
        values[key.value] = _plain(value)
    return text.partition("\n")[0], values


def _plain(node: Any) -> Any:
    """Text, or a list of texts; None for anything deeper."""
    import yaml

    if isinstance(node, yaml.SequenceNode):
        return [_plain(item) if isinstance(item, yaml.ScalarNode) else None for item in node.value]
    if not isinstance(node, yaml.ScalarNode):
        return None
    if node.tag == "tag:yaml.org,2002:binary":  # a file's name whose bytes are no UTF-8
        return os.fsdecode(base64.b64decode(node.value))
    return re.sub(r"((?:\\\\)*)\\\$\{", lambda escaped: escaped[1][::2] + "${", node.value)


def _same(written: Any, value: Any) -> bool:
    """Whether what is written in config.yaml may stand for a value, or for what a word says; text is read loosely."""
    if isinstance(value, str) and len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1]
    if written is None or (isinstance(written, list) and None in written):
        return True  # deeper than text and lists of it
    if isinstance(written, list):
        if isinstance(value, str):
            inner = value.strip()
            inner = inner[1:-1] if inner[:1] + inner[-1:] in ("[]", "()") else inner
            value = [part.strip() for part in inner.split(",")] if inner.strip() else []
        return isinstance(value, Sequence) and len(value) == len(written) and all(map(_same, written, value))
    if isinstance(value, list | dict):
        return False
    if value == written:  # none is a word of some keys, and stands for no value of others
        return True
    text = "null" if value in (None, "none") else str(value)
    try:
        if float(text) == float(written):
            return True
    except ValueError:
        pass
    return text.lower() == written.lower() or _place(text) in (_place(written), display_name(written))


def _place(text: str) -> str:
    return os.path.normpath(os.path.expanduser(text))


def _shown(value: Any) -> str:
    text = in_line(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
