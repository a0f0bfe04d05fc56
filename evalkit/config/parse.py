"""Command-line overrides and the file of `config=` -> a checked Config."""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import re
import stat
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args, get_origin

from evalkit import errors, plugins
from evalkit.config.config import GROUP, Config
from evalkit.config.keys import REQUIRED, Key, adapter_defaults, adapter_keys, default_adapter, known_keys
from evalkit.config.options import OPTIONS, SECTIONS, Command, Options, Trainer
from evalkit.config.values import OutOfBounds, convert, meant, type_name
from evalkit.config.words import RESUMES, pairs
from evalkit.config.words import called as key_called
from evalkit.errors import UserError
from evalkit.runtime.bounded import MOST_VALUES, count_values

# Beyond what any machine has; larger numbers would overflow deep inside, or start as many processes.
LARGEST = {
    **dict.fromkeys(("workers", "threads"), 1_024),
    **dict.fromkeys(("batch", "clip.stride", "time_limit", "trainer.max_minutes"), 1_000_000),
    **dict.fromkeys(("clip.frames", "clip.clips", "clip.size", "trainer.views"), 10_000),
}
MOST_COUNTED = 20  # numbers of a range such as seed=0-4 that a message writes out
MOST_BYTES = 10**6  # of a file of `config=`


class _Given(NamedTuple):
    """A value as it came: text from a word, or text, number, boolean, None or list from a file; `file` of a file."""

    value: Any
    file: str = ""

    def wrong(self, message: str) -> UserError:
        return UserError(f"{self.file}: {message}" if self.file else message)


def resolve(command: Command, words: Sequence[str], called: str = "") -> Config:
    """The checked configuration from words such as `task=egoschema`, and from the file of `config=`.

    Args:
        command: what will be done.
        words: as typed.
        called: the command that was typed, where it is another.

    Raises:
        UserError: a word is not key=value, a key is unknown or given twice, a value does not fit its key, or a key
            that is needed was not given.
    """
    given = _parse(words)
    if config := given.pop("config", None):
        given = _read(config.value) | given

    if suite := given.get("suite"):
        raise suite.wrong(
            f"suite={suite.value}: evalkit {called or command} takes task=...; `evalkit run "
            f"suite={suite.value} ...` runs all of a suite"
        )
    general = known_keys(command)
    _require(called or command, {name: key for name, key in general.items() if key.section == ""}, given, set(general))
    task, adapter, ckpt, model = (
        _value(name, general[name], given[name]) if name in given and name in general else ""
        for name in ("task", "adapter", "ckpt", "encoder.model")
    )
    known = known_keys(command, task, adapter, ckpt, model)
    for name, value in given.items():
        if name not in known:
            about = _of_other_adapters(name, known, task, adapter) or _of_other_encoders(name, known, ckpt, model)
            raise value.wrong(about or _unknown(name, known))
    needing = [(f"encoder {ckpt!r}", "encoder")]
    if task:
        adapter = adapter or ("" if command == "features" else default_adapter(task))
        needing += [(f"task {plugins.display_name(task)!r}", "data")]
        needing += [(f"adapter {plugins.display_name(adapter)!r}", "adapter")]
    for who, section in needing:
        section_keys = {name: key for name, key in known.items() if key.section == section}
        _require(who, section_keys, given, set(known))

    values: dict[str, dict[str, Any]] = {section: {} for section in ("", *SECTIONS)}
    for name, key in known.items():
        if name in given:
            values[key.section][key.parameter] = _value(name, key, given[name])
    options = OPTIONS.get(command, Options)(**{"task": "", "ckpt": ""} | values[""])
    if options.trust and not plugins.own_encoder(ckpt):
        values["encoder"]["trust"] = True
    if options.mini and not task:
        raise given["mini"].wrong("mini=true: give the task whose miniature is meant, task=...")
    if options.mini and "mini" not in inspect.signature(plugins.factory("task", task)).parameters:
        raise given["mini"].wrong(
            f"mini=true: task {plugins.display_name(task)!r} has no miniature data; leave mini out"
        )
    for name in ("data.root", "data.videos"):
        if options.mini and name in given and not given[name].file and not task.endswith(".py"):
            raise UserError(
                f"{name}={given[name].value} has no effect with mini=true, which generates its own data: leave one out"
            )
    if options.lm:
        if "lm" not in adapter_defaults(adapter):
            raise given["lm"].wrong(
                f"lm={options.lm}: adapter {plugins.display_name(adapter)!r} takes no language model"
            )
        values["adapter"]["lm"] = options.lm
    if options.lm_precision != "32":
        if "lm_precision" not in adapter_defaults(adapter):
            raise given["lm.precision"].wrong(
                f"lm.precision={options.lm_precision}: adapter {plugins.display_name(adapter)!r} takes no language "
                "model"
            )
        values["adapter"]["lm_precision"] = options.lm_precision
    trainer = Trainer(**values["trainer"])
    encoder, data, clip, adapter_settings = (values[section] for section in ("encoder", "data", "clip", "adapter"))
    typed = tuple(word for word in words if not word.startswith(f"{GROUP}="))
    return Config(command, typed, options, encoder, data, clip, adapter_settings, trainer)


def _parse(words: Sequence[str]) -> dict[str, _Given]:
    given: dict[str, _Given] = {}
    for key, value in pairs(words):
        if key in given:
            raise UserError(f"{key} is given twice: {key}={given[key].value} and {key}={value}")
        given[key] = _Given(value)
    return given


def _read(file: str) -> dict[str, _Given]:
    """The file's keys, spelled as words are (`adapter.lr: 1e-4`) or one level deep (`data: {root: ...}`)."""
    from omegaconf import OmegaConf

    try:
        text = _read_text(file)
        content: Any = OmegaConf.to_container(OmegaConf.load(io.StringIO(text)), resolve=True)
    except OSError as error:
        raise UserError(f"config={file}: {(error.strerror or str(error)).lower()}") from error
    except RecursionError as error:
        raise UserError(f"config={file}: not readable as yaml: it is nested too deeply, or within itself") from error
    except Exception as error:  # yaml's and OmegaConf's own kinds
        raise UserError(f"config={file}: not readable as yaml: {errors.in_line(error)[:300]}") from error
    # OmegaConf takes a text without a colon for a key, and one without any value for no keys.
    if not isinstance(content, dict) or not content or ":" not in text:
        raise UserError(f"config={file}: expected lines of key: value")
    given: dict[str, _Given] = {}
    for name, value in content.items():
        section = isinstance(value, dict) and name in SECTIONS
        pairs = {f"{name}.{key}": entry for key, entry in value.items()} if section else {str(name): value}
        if twice := pairs.keys() & given.keys():
            raise UserError(f"{file}: {min(twice)} is given twice")
        given |= {key: _Given(_as_text(entry), file) for key, entry in pairs.items()}
    return given


def _as_text(value: Any) -> Any:
    """The value with texts for bytes, as which `Config.to_yaml` writes a file's name that is no UTF-8."""
    if isinstance(value, list):
        return [_as_text(item) for item in value]
    return os.fsdecode(value) if isinstance(value, bytes) else value


def _read_text(file: str) -> str:
    """The text of a configuration file, with limits on its size, also after expanding aliases.

    Raises:
        ValueError: it is larger, or its aliases, which may stand for others, make more values; or it is a pipe with a
            name, which waits for a writer, and not one of the shell's, as in config=<(...).
    """
    if stat.S_ISFIFO(os.stat(file).st_mode) and not os.path.realpath(file).startswith("/proc/"):
        raise ValueError("it is a pipe; wanted a file")
    with open(file, "rb") as opened:
        content = opened.read(MOST_BYTES + 1)  # /dev/zero has no end
    if len(content) > MOST_BYTES:
        raise ValueError(f"it is larger than {MOST_BYTES:,} bytes")
    text = content.decode()
    if count_values(text) > MOST_VALUES:
        raise ValueError(f"its aliases make more than {MOST_VALUES:,} values")
    return text


def _require(who: str, needed: Mapping[str, Key], given: Mapping[str, _Given], known: Collection[str]) -> None:
    for name, key in needed.items():
        if key.default is REQUIRED and name not in given:
            for other in given:  # tsak=egoschema is what should be mended
                if other not in known and (key_called(other, [name]) or errors.nearest(other, [name])):
                    raise given[other].wrong(_unknown(other, [name]))
            raise UserError(f"{who} needs {name}=..." + (f" ({key.meaning.rstrip('.')})" if key.meaning else ""))


def _of_other_adapters(name: str, known: Collection[str], task: str, adapter: str) -> str:
    """The message on a setting that this adapter lacks and others have; empty if none has it, or if the run has it."""
    adapter = adapter or (default_adapter(task) if task else "")
    if not adapter or not name.startswith("adapter.") or name.removeprefix("adapter.") in known:
        return ""
    having = []
    for other in plugins.names("adapter"):
        with contextlib.suppress(UserError):  # one that is broken is no reason to speak of it here
            having += [other] * (name in adapter_keys(other))
    if not having:
        return ""
    settings = ", ".join(key for key in known if key.startswith("adapter."))
    return (
        f"unknown key {name!r}: adapter {plugins.display_name(adapter)!r} has no such setting. Known: {settings}. "
        f"Adapters that have it: {', '.join(having)}"
    )


def _of_other_encoders(name: str, known: Mapping[str, Key], ckpt: str, model: str) -> str:
    """The message on a key `encoder.*` that this encoder lacks; empty for other keys, and where one it has is near."""
    own = {key.parameter: name for name, key in known.items() if key.section == "encoder"}
    if not name.startswith("encoder.") or not own or errors.nearest(name.removeprefix("encoder."), own):
        return ""
    shape = "" if model or not os.path.isfile(ckpt) else "; encoder.model= of a preset or function adds its settings"
    return f"unknown key {name!r}: encoder {model or ckpt} takes {', '.join(own.values())}{shape}"


def _unknown(name: str, known: Iterable[str]) -> str:
    word, known = name.lstrip("-"), list(known)
    if errors.letters(word) in RESUMES:
        return (
            f"unknown key {name!r}: leave it out; the same command goes on from what is stored, and writes a new result"
        )
    if word != name and word in known:
        return f"unknown key {name!r}. Did you mean {word!r}, without dashes?"
    if key := key_called(word, known):
        return f"unknown key {name!r}. Did you mean {key!r}?"
    section, _, leaf = word.rpartition(".")
    if word in SECTIONS and (of_section := [key for key in known if key.startswith(f"{word}.")]):
        return f"unknown key {name!r}. Known: {', '.join(of_section)}"
    leaves = {key.rpartition(".")[2]: key for key in reversed(known)}  # of two sections the first
    siblings = {key.rpartition(".")[2]: key for key in known if key.rpartition(".")[0] == section}
    if section and siblings:  # the section's own name would make all of its keys look near
        near = errors.nearest(leaf, siblings)
        key = leaves.get(leaf) or (near and siblings[near]) or key_called(leaf, known)
    else:
        key = leaves.get(leaf) or errors.nearest(word, known) or leaves.get(errors.nearest(word, leaves) or "")
    if key:
        return f"unknown key {name!r}. Did you mean {key!r}?"
    return f"unknown key {name!r}. Known: {', '.join(siblings.values() or [k for k in known if '.' not in k])}"


def check_value(file: str, name: str, key: Key, value: Any) -> Any:
    """A value from a file, converted to its option's type; the default is used unchanged.

    Raises:
        UserError: it is of another type, or out of its bounds.
    """
    return value if value == key.default else _value(name, key, _Given(value, file))


def _value(name: str, key: Key, given: _Given) -> Any:
    shown = str(given.value)[:200]
    try:
        value = convert(given.value, key.type)
    except OutOfBounds as error:
        raise given.wrong(f"{name}={shown}: expected {error}") from None
    except (ValueError, OverflowError):  # the latter of a whole number that no float holds
        if get_origin(key.type) is Literal:
            message = f" is not one of {', '.join(str(arg) for arg in get_args(key.type))}."
        else:
            message = f": expected {type_name(key.type)}"
            if given.file and type_name(key.type) in ("text", "a path"):
                message += ", in quotes"  # tag: 001 is the number 1 in yaml
        raise given.wrong(f"{name}={shown}{message}{_advice(name, key, given)}") from None
    most = LARGEST.get(name, 2**62)
    if isinstance(value, int | float) and value > most and (name in LARGEST or isinstance(value, int)):
        raise given.wrong(f"{name}={shown}: expected at most {most:,}")
    return value


def _advice(name: str, key: Key, given: _Given) -> str:
    """Advice on a value that does not fit; empty if there is none."""
    if near := meant(given.value, key.type):
        listed = get_origin(key.type) is Literal
        return f" Did you mean {near!r}?" if listed else f". Did you mean {name}={near}?"
    values = [value.strip() for value in str(given.value).strip("[]() ").split(",")]
    near_each = [meant(value, item) or value for value in values for item in get_args(key.type)[:1]]
    if get_origin(key.type) is tuple and near_each and near_each != values:
        return f". Did you mean {name}={','.join(near_each)}?"
    kind = type_name(key.type)
    numbers = re.fullmatch(r"(\d{1,4})(?:-|:|\.\.)(\d{1,4})", str(given.value))
    if numbers and kind == "a whole number" and 0 < int(numbers[2]) - int(numbers[1]) < MOST_COUNTED:
        values = [str(number) for number in range(int(numbers[1]), int(numbers[2]) + 1)]
    is_number = kind.endswith("number") and "[" not in kind
    if len(values) > 1 and not given.file and is_number and all(_fits(value, key.type) for value in values):
        return f"; evalkit sweep tries several, {name}={','.join(values)}"
    return ""


def _fits(text: str, kind: Any) -> bool:
    try:
        convert(text, kind)
    except (ValueError, OverflowError):
        return False
    return True
