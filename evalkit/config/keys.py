"""The keys that apply to a command, from the signatures and docstrings of the chosen plug-ins."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Collection
from dataclasses import is_dataclass
from typing import Any, NamedTuple, cast

from evalkit import plugins
from evalkit.api import Loading, Views
from evalkit.config.options import Command, Options, Trainer
from evalkit.errors import UserError

REQUIRED = inspect.Parameter.empty
_CANARY = {"task", "ckpt", "mini", "seed", "device", "workers", "threads", "precision", "trust", "time_limit"}
_CHECK = {"task", "mini", "workers", "time_limit", "decoder"}


class Key(NamedTuple):
    """One key that words and files may set.

    Attributes:
        section: `encoder`, `data`, `clip`, `adapter`, `trainer`, or empty.
        parameter: its name in Python.
        type: the annotation, `Annotated` with its bounds where it has any.
        default: `REQUIRED` where there is none.
        meaning: one line for people.
    """

    section: str
    parameter: str
    type: Any
    default: Any
    meaning: str


def known_keys(command: Command, task: str = "", adapter: str = "", ckpt: str = "") -> dict[str, Key]:
    """Every key that applies, by name, section by section.

    Args:
        command: what will be done.
        task: name or file of a task; empty leaves out data.* and adapter.*.
        adapter: name of an adapter; empty means the task's own.
        ckpt: of the encoder; where it is a function of the user's own, encoder.* are its parameters.

    Raises:
        UserError: there is no such task or adapter, or it is broken.
    """
    keys = _keys("", Options)
    if command == "adapt":
        keys["out"] = keys["out"]._replace(default=REQUIRED)
    if command == "canary":
        keys["task"] = keys["task"]._replace(default="", meaning="take the clips from this task; empty: drawn ones")
        keys = {name: key for name, key in keys.items() if name in _CANARY}
    if command == "check":
        keys = {name: key for name, key in keys.items() if name in _CHECK}
    else:
        keys |= _keys("encoder", plugins.own_encoder(ckpt) or Loading)
        keys.pop("encoder.trust", None)  # the option `trust` sets it
    if task:
        keys |= _keys("data", plugins.factory("task", task))
        keys.pop("data.mini", None)  # the option `mini` sets it
    if task or command != "canary":
        keys |= _keys("clip", Views)
    if command in ("canary", "check"):
        return keys
    if task:
        keys |= adapter_keys(adapter or default_adapter(task))
        keys.pop("adapter.lm", None)  # the option `lm` sets it
    return keys | _keys("trainer", Trainer)


def adapter_keys(adapter: str) -> dict[str, Key]:
    """The keys `adapter.*` of an adapter: the fields of its module's dataclass `Settings`.

    An adapter without one has the keyword-only parameters of its function as keys.

    Raises:
        UserError: there is no such adapter, or it is broken.
    """
    function = plugins.factory("adapter", adapter)
    settings = getattr(sys.modules[inspect.unwrap(function).__module__], "Settings", None)
    if is_dataclass(settings):
        return _keys("adapter", cast("Callable[..., Any]", settings))
    return _keys("adapter", function, {inspect.Parameter.KEYWORD_ONLY})


def default_adapter(task: str) -> str:
    """The adapter that a task's module states as `ADAPTER`, else probe: known without making the task."""
    return str(getattr(plugins.module_and_factory("task", task)[0], "ADAPTER", "probe"))


def _keys(section: str, owner: Callable[..., Any], kinds: Collection[Any] = ()) -> dict[str, Key]:
    """The parameters of a function or dataclass as keys; `kinds` of parameters, or all that can be named."""
    nameable = {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    meanings = _meanings(owner)
    keys: dict[str, Key] = {}
    for name, parameter in inspect.signature(owner).parameters.items():
        if parameter.kind in (kinds or nameable):
            key = "adapter.from" if name == "adapter_from" else f"{section}.{name}".removeprefix(".")
            keys[key] = Key(section, name, _annotation(owner, parameter), parameter.default, meanings.get(name, ""))
    return keys


def _annotation(owner: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """The type of a parameter or field, with the bounds that `Annotated` gives it."""
    kind = parameter.annotation
    if kind is inspect.Parameter.empty:
        return Any if parameter.default in (None, inspect.Parameter.empty) else type(parameter.default)
    if isinstance(kind, str):  # from __future__ import annotations
        classes = owner.__mro__ if isinstance(owner, type) else ()  # a field may be inherited from another module
        owner = next((base for base in classes if parameter.name in inspect.get_annotations(base)), owner)
        module = inspect.unwrap(owner).__module__
        try:
            return eval(kind, vars(sys.modules[module]))
        except NameError as error:
            raise UserError(
                f"{module}: parameter {parameter.name!r}: {error}; import it outside TYPE_CHECKING"
            ) from error
    return kind


def _meanings(owner: Callable[..., Any]) -> dict[str, str]:
    """The line of each parameter in the google section `Args:` or `Attributes:` of the docstring, bases' included."""
    meanings: dict[str, str] = {}
    for documented in reversed(owner.__mro__ if isinstance(owner, type) else [owner]):
        inside, name = False, ""
        for line in inspect.cleandoc(documented.__doc__ or "").splitlines():
            if line and not line[0].isspace():
                inside = line in ("Args:", "Attributes:")
            elif inside and (entry := re.match(r" {4}(\w+)(?: \([^)]*\))?: *(.*)", line)):
                name, meanings[name] = entry[1], entry[2]
            elif inside and name and line.strip():
                meanings[name] = f"{meanings[name]} {line.strip()}".strip()
    return meanings
