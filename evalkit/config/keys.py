"""The keys that apply to a command, from the signatures and docstrings of the chosen plug-ins."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from annotated_types import Gt

from evalkit import plugins
from evalkit.api import Data, Loading, Views
from evalkit.api.loading import READING
from evalkit.config.options import OPTIONS, Command, Options, Trainer
from evalkit.errors import UserError
from evalkit.weights import presets

if TYPE_CHECKING:
    from evalkit.heads.adapter import AdapterSettings

REQUIRED = inspect.Parameter.empty
# Of options.
SPELLED = {
    "adapter_from": "adapter.from",
    "cache_also": "cache.also",
    "encoder_name": "encoder.name",
    "form": "as",
    "lm_precision": "lm.precision",
    "log_dir": "log.dir",
    "log_group": "log.group",
    "log_online": "log.online",
}
_CANARY = {"task", "ckpt", "mini", "seed", "device", "workers", "threads", "precision", "trust", "time_limit"}
_FEATURES = _CANARY | {"as", "split", "part", "adapter", "out", "encoder.name", "batch", "compile", "cache.also"}
_FEATURES |= {"canary", "decoder"}
_CHECK = {"task", "mini", "out", "workers", "time_limit", "decoder"}


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


# Of every task; `evalkit.pipeline.task_data.load_task` compares it.
EXPECT = Key(
    *("data", "expect", Annotated[int, Gt(0)] | None, None),
    "how many test examples are meant, where that is not the published number",
)


# Of every task; `load_task` hides it from them, and `evalkit.datasets.videos` looks there.
VIDEOS = Key(
    *("data", "videos", str | None, None),
    "where the videos lie, if not in data.root: a folder, tar, parquet file or URL; several by *, {a,b} or {000..012}",
)


def known_keys(command: Command, task: str = "", adapter: str = "", ckpt: str = "", model: str = "") -> dict[str, Key]:
    """Every key that applies, by name, section by section.

    Args:
        command: what will be done.
        task: name or file of a task; empty leaves out data.* and adapter.*.
        adapter: name of an adapter; empty means the task's own.
        ckpt: of the encoder; where it is a function of the user's own, encoder.* are its parameters, of `random:NAME`
            also the family's settings.
        model: of `encoder.model`, likewise: what is built for the weights.

    Raises:
        UserError: there is no such task or adapter, or it is broken.
    """
    keys = _keys("", OPTIONS.get(command, Options))
    if command == "features":
        keys = {name: key for name, key in keys.items() if name in _FEATURES}
    if command in ("adapt", "features"):
        keys["out"] = keys["out"]._replace(default=REQUIRED)
    if command == "canary":
        keys["task"] = keys["task"]._replace(default="", meaning="take the clips from this task; empty: drawn ones")
        keys = {name: key for name, key in keys.items() if name in _CANARY}
    if command == "check":
        keys = {name: key for name, key in keys.items() if name in _CHECK}
    else:
        keys |= _encoder_keys(ckpt, model)
        keys.pop("encoder.trust", None)  # the option `trust` sets it
    if task:
        keys |= _keys("data", plugins.factory("task", task))
        keys.pop("data.mini", None)  # the option `mini` sets it
        keys.setdefault("data.expect", EXPECT)
        keys.setdefault("data.videos", VIDEOS)
    if task or command != "canary":
        keys |= _keys("clip", Views)
    if command in ("canary", "check"):
        return keys
    if task:
        keys |= {} if command == "features" and not adapter else adapter_keys(adapter or default_adapter(task))
        for name in ("adapter.lm", "adapter.lm_precision"):  # the options lm and lm.precision set them
            keys.pop(name, None)
    return keys if command == "features" else keys | _keys("trainer", Trainer)


def _encoder_keys(ckpt: str, model: str) -> dict[str, Key]:
    """How weights are read, and what is built for them: the parameters of a function, or a preset's settings."""
    if function := plugins.own_encoder(ckpt):
        return _keys("encoder", function)
    keys = _keys("encoder", Loading)
    if not model:
        return keys | _preset_keys(ckpt.removeprefix("random:") if ckpt.startswith("random:") else "")
    if function := plugins.own_encoder(model, "encoder.model"):
        of_function = _keys("encoder", function)
        return {**of_function, **{name: key for name, key in keys.items() if key.parameter in READING}}
    return keys | _preset_keys(model)


def _preset_keys(name: str) -> dict[str, Key]:
    """The clip's frames and size and the family's settings, each with the preset's value; none of another name."""
    preset = presets.presets().get(name)
    if preset is None:
        return {}
    values = presets.read(preset)
    family = str(values["encoder"])
    known = plugins.shape_settings(family)
    keys = {
        name: key
        for name, key in _keys("encoder", plugins.factory("encoder", family)).items()
        if key.parameter in known
    }
    for name in ("frames", "size"):
        keys.setdefault(f"encoder.{name}", Key("encoder", name, Annotated[int, Gt(0)], None, f"the clip's {name}"))
    stated = {**values["settings"], **{name: values["clip"].get(name) for name in ("frames", "size")}}
    return {name: key._replace(default=stated.get(key.parameter, key.default)) for name, key in keys.items()}


def default_adapter(task: str) -> str:
    """The adapter that a task's module states as `ADAPTER`, else probe: known without making the task."""
    return str(getattr(plugins.module_and_factory("task", task)[0], "ADAPTER", "probe"))


def stated_data(task: str) -> Data:
    """What a task states of its data, `DATA` in its module; of one that states nothing, nothing."""
    module = plugins.module_and_factory("task", task)[0]
    data = getattr(module, "DATA", Data())
    if not isinstance(data, Data):
        raise UserError(f"task {task}: DATA is a {type(data).__name__}; wanted an evalkit.api.Data")
    return data


def settings_class(adapter: str) -> type[AdapterSettings]:
    """The class `Settings` in the module of an adapter's function; its fields are the keys of `adapter.*`.

    Raises:
        UserError: there is no such adapter, it is broken, or it has no such class.
    """
    from evalkit.heads.adapter import AdapterSettings  # imports torch

    plug_in, function = plugins.module_and_factory("adapter", adapter)
    module = plug_in.__name__  # whose function may come from elsewhere, with its Settings
    settings = vars(plug_in).get("Settings") or vars(sys.modules[function.__module__]).get("Settings")
    if not (isinstance(settings, type) and issubclass(settings, AdapterSettings)):
        raise UserError(
            f"adapter {adapter!r} is broken: {module} has no class `Settings` of evalkit.api.AdapterSettings: "
            "see docs/adapters.md"
        )
    if inspect.get_annotations(settings) and "__dataclass_fields__" not in vars(settings):
        raise UserError(
            f"adapter {adapter!r} is broken: its class `Settings` is not a dataclass, so its fields are not options: "
            "put @dataclass(frozen=True) above it"
        )
    return settings


def adapter_keys(adapter: str) -> dict[str, Key]:
    """The keys `adapter.*` of an adapter, in the order of its documentation."""
    return _keys("adapter", settings_class(adapter))


def adapter_defaults(adapter: str) -> dict[str, Any]:
    """The default of each key of `adapter.*`, `REQUIRED` where it has none, in the order of its documentation."""
    return {key.parameter: key.default for key in adapter_keys(adapter).values()}


def _keys(section: str, owner: Callable[..., Any]) -> dict[str, Key]:
    """The parameters of a function or dataclass that can be named, as keys, in the order of its docstring."""
    named = {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    meanings = _meanings(owner)
    order = list(meanings)
    parameters = inspect.signature(owner).parameters
    keys: dict[str, Key] = {}
    for name in sorted(parameters, key=lambda name: order.index(name) if name in order else len(order)):
        parameter = parameters[name]
        if parameter.kind in named:
            key = f"{section}.{name}" if section else SPELLED.get(name, name)
            default = _default(owner, parameter)
            keys[key] = Key(section, name, _annotation(owner, parameter), default, meanings.get(name, ""))
    return keys


def _default(owner: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """The default of a parameter; of a dataclass' field, what its `default_factory` makes."""
    field = getattr(owner, "__dataclass_fields__", {}).get(parameter.name)
    if field is None or field.default_factory is dataclasses.MISSING:
        return parameter.default
    return field.default_factory()


def _annotation(owner: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """The type of a parameter or field, with the bounds that `Annotated` gives it."""
    kind = parameter.annotation
    if kind is inspect.Parameter.empty:
        return Any if parameter.default in (None, inspect.Parameter.empty) else type(parameter.default)
    if isinstance(kind, str):  # from __future__ import annotations
        classes = owner.__mro__ if isinstance(owner, type) else ()
        declared = (c for c in classes if parameter.name in vars(c).get("__annotations__", {}))
        module = next(declared, inspect.unwrap(owner)).__module__
        try:
            kind = eval(kind, vars(sys.modules[module]))
        except NameError as error:
            raise UserError(
                f"{module}: parameter {parameter.name!r}: {error}; import it outside TYPE_CHECKING"
            ) from error
    return kind


def _meanings(owner: Callable[..., Any]) -> dict[str, str]:
    """The meaning of each parameter, from the google section `Args:` or `Attributes:` of the docstring.

    Of a class, also those of the classes that it is derived from, which come first unless it documents them anew.
    """
    documented = reversed(owner.__mro__) if isinstance(owner, type) else (owner,)
    meanings: dict[str, str] = {}
    for documents in documented:
        inside, name = False, ""
        for line in inspect.cleandoc(documents.__doc__ or "").splitlines():
            if line and not line[0].isspace():
                inside = line in ("Args:", "Attributes:")
            elif inside and (entry := re.match(r" {4}(\w+)(?: \([^)]*\))?: *(.*)", line)):
                name = entry[1]
                meanings.pop(name, None)
                meanings[name] = entry[2]
            elif inside and name and line.strip():
                meanings[name] = f"{meanings[name]} {line.strip()}".strip()
    return meanings
