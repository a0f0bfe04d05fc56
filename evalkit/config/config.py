"""From `key=value` words to a checked configuration: defaults < `config=file.yaml` < words.

The keys of `data.*` and `adapter.*` are the parameters of the chosen plug-ins, and those of `encoder.*` of the user's
own encoder, so task, ckpt and adapter are settled first, and every other key is checked after that. OmegaConf reads the
file and its `${...}`. Types are settled here: a word is text until its key says what it is, OmegaConf takes `no` for a
boolean, and knows no Sequence and no union of lists.
"""

from __future__ import annotations

import inspect
import re
import shlex
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin

from evalkit import plugins
from evalkit.api import Loading, UserError, Views
from evalkit.config.values import convert, type_name

Command = Literal["run", "adapt", "canary", "check"]
REQUIRED = inspect.Parameter.empty
_SECTIONS = ("encoder", "data", "clip", "adapter", "trainer")
# By a key's last part: a name means the same in every section.
_ABOVE_ZERO = {"batch", "time_limit", "frames", "fps", "stride", "clips", "size"}
_ABOVE_ZERO |= {"batch_size", "lr", "latents", "depth", "temperature", "alpha", "c", "k"}
_ABOVE_ZERO |= {"beams", "max_tokens", "vocabulary"}
_NOT_NEGATIVE = {"seed", "workers", "threads", "max_minutes", "heads", "weight_decay", "epochs", "views", "token_grid"}
_NOT_NEGATIVE |= {"shots"}
_CANARY = {"task", "ckpt", "mini", "seed", "device", "workers", "threads", "precision", "trust", "time_limit"}
_CHECK = {"task", "mini", "workers", "time_limit", "decoder"}
_SHARES = {"dropout", "label_smoothing", "mask_ratio"}  # from 0 to below 1


@dataclass(frozen=True)
class Options:
    """The keys without a section.

    Attributes:
        task: the benchmark: a name that `evalkit list tasks` shows, or a file such as ./my_task.py
        ckpt: the encoder: a name that `evalkit list encoders` shows, a folder or file, organisation/model on the
            Hugging Face hub, random:NAME, or package.module:function
        adapter: what joins encoder and task: a name that `evalkit list adapters` shows; empty: the task's own
        mini: take the task's own miniature data, generated on first use
        lm: a causal language model for adapters that take one: a folder or hub id; empty: the adapter's own
        adapter_from: folder of a trained adapter, written by `evalkit adapt`; empty: the checkpoint's own, if it has
            one; none: fit a new one
        out: folder that the result is written into
        seed: of everything random
        device: where to compute; auto: a GPU where there is one
        workers: processes that decode; 0: one per core
        threads: of the encoder's arithmetic on a CPU; 0: one per core that this process may use
        batch: clips encoded at once; auto: many, and half as many each time the memory does not suffice
        precision: of the encoder's arithmetic; bf16 and 16 are faster on a GPU and move the features slightly
        compile: let torch compile the encoder, which takes a minute once and then makes it faster
        cache: on stores what was encoded and takes it from there; off encodes anew and stores nothing
        canary: put a few clips through the encoder first, and stop where it is not fed what it was trained on
        trust: load a pickled checkpoint that can run code, or a folder that names code; only where you trust the maker
        controls: also score the task's controls, such as blind
        time_limit: seconds that decoding one video may take
        decoder: what reads frames where it is exact, PyAV elsewhere; another than pyav only to match another pipeline
    """

    task: str
    ckpt: str
    adapter: str = ""
    mini: bool = False
    lm: str = ""
    adapter_from: str = ""
    out: Path = Path("results")
    seed: int = 0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    workers: int = 0
    threads: int = 0
    batch: int | Literal["auto"] = "auto"
    precision: Literal["32", "bf16", "16"] = "32"
    compile: bool = False
    cache: Literal["on", "off"] = "on"
    canary: bool = True
    trust: bool = False
    controls: bool = True
    time_limit: float = 120.0
    decoder: Literal["pyav", "decord", "torchcodec"] = "pyav"


@dataclass(frozen=True)
class Trainer:
    """How an adapter is fitted.

    Attributes:
        precision: of the arithmetic, in Lightning's words
        max_minutes: stop fitting after this many minutes; 0: no limit
        views: augmented views of each training clip, one per epoch in turn; 0: none, fit on the views of the test;
            task: as the task says
        shots: fit on so many examples of each class, drawn by the seed, and choose on as many of val; 0: on all
    """

    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    max_minutes: float = 0.0
    views: int | Literal["task"] = "task"
    shots: int = 0


@dataclass(frozen=True)
class Config:
    """Everything that a run or an adaptation was asked to do.

    Attributes:
        command: `run`, `adapt` or `canary`.
        words: as typed; not part of equality.
        options: the keys without a section, defaults included.
        encoder: fields of `evalkit.api.Loading`, or arguments for the user's own encoder; only what was set.
        data: arguments for the task's function, but for `mini`; only what was set.
        clip: fields of `evalkit.api.Views` in place of the task's own; only what was set.
        adapter: arguments for the adapter's function, in place of the task's own settings; only what was set.
        trainer: how to fit, defaults included.
        points: of a sweep: the settings of adapter that each grid point sets beside `adapter`; empty for one fit.
        module: an encoder that is there already, in place of the one that `ckpt` would name.
    """

    command: Command
    words: tuple[str, ...] = field(compare=False)
    options: Options
    encoder: dict[str, Any]
    data: dict[str, Any]
    clip: dict[str, Any]
    adapter: dict[str, Any]
    trainer: Trainer
    points: tuple[dict[str, Any], ...] = ()
    module: Any = field(default=None, compare=False, repr=False)

    def at(self, point: int) -> Config:
        """The configuration of one grid point alone."""
        own = self.points[point] if self.points else {}
        keys = {f"adapter.{key}" for key in own}
        words = [word for word in self.words if word.partition("=")[0] not in keys]
        words += [f"adapter.{key}={typed(value)}" for key, value in own.items()]
        return replace(self, words=tuple(words), adapter={**self.adapter, **own}, points=())

    def to_yaml(self) -> str:
        """The configuration with every key; `config=` on it gives an equal configuration.

        Keys of encoder, data, clip and adapter that were not set stand as comments: as values, they would overrule what
        the task's protocol prescribes.
        """
        from omegaconf import OmegaConf

        lines = [
            "# " + shlex.join(["evalkit", self.command, *self.words]).replace("\n", " "),
            "# Keys that stand as comments were not set: as the task prescribes, else as shown.",
        ]
        for name, key in keys(self.command, self.options.task, self.options.adapter, self.options.ckpt).items():
            if key.section in ("", "trainer"):
                value, mark = getattr(self.trainer if key.section else self.options, key.parameter), ""
            else:
                settings: dict[str, Any] = getattr(self, key.section)
                value, mark = settings.get(key.parameter, key.default), "" if key.parameter in settings else "# "
            text = OmegaConf.to_yaml(OmegaConf.create({name: _plain(value)}))
            lines += [mark + line for line in text.splitlines()]
        return "\n".join(lines) + "\n"


class Key(NamedTuple):
    """One key that words and files may set.

    Attributes:
        section: `encoder`, `data`, `clip`, `adapter`, `trainer`, or empty.
        parameter: its name in Python.
        type: the annotation.
        default: `REQUIRED` where there is none.
        meaning: one line for people.
    """

    section: str
    parameter: str
    type: Any
    default: Any
    meaning: str


class _Given(NamedTuple):
    """A value as it came: text from a word, or text, number, boolean, None or list from a file; `file` of a file."""

    value: Any
    file: str = ""

    def wrong(self, message: str) -> UserError:
        return UserError(f"{self.file}: {message}" if self.file else message)


def keys(command: Command, task: str = "", adapter: str = "", ckpt: str = "") -> dict[str, Key]:
    """Every key that applies, by name, section by section.

    Args:
        command: what will be done.
        task: name or file of a task; empty leaves out data.* and adapter.*.
        adapter: name of an adapter; empty means the task's own.
        ckpt: of the encoder; where it is a function of the user's own, encoder.* are its parameters.

    Raises:
        UserError: there is no such task or adapter, or it is broken.
    """
    found = _keys("", Options)
    if command == "adapt":
        found["out"] = found["out"]._replace(default=REQUIRED)
    if command == "canary":
        found["task"] = found["task"]._replace(default="", meaning="take the clips from this task; empty: drawn ones")
        found = {name: key for name, key in found.items() if name in _CANARY}
    if command == "check":
        found = {name: key for name, key in found.items() if name in _CHECK}
    else:
        own = plugins.own_encoder(ckpt)
        found |= _keys("encoder", own or Loading)
        found.pop("encoder.trust", None)  # the option `trust` sets it
    if task:
        found |= _keys("data", plugins.factory("task", task))
        found.pop("data.mini", None)  # the option `mini` sets it
    if task or command != "canary":
        found |= _keys("clip", Views)
    if command in ("canary", "check"):
        return found
    if task:
        keyword_only = {inspect.Parameter.KEYWORD_ONLY}
        found |= _keys("adapter", plugins.factory("adapter", adapter or own_adapter(task)), keyword_only)
        found.pop("adapter.lm", None)  # the option `lm` sets it
    return found | _keys("trainer", Trainer)


def own_adapter(task: str) -> str:
    """The adapter that a task's module states as `ADAPTER`, else probe: known without making the task."""
    return str(getattr(plugins.module_and_factory("task", task)[0], "ADAPTER", "probe"))


def resolve(command: Command, words: Sequence[str]) -> Config:
    """The checked configuration from words such as `task=egoschema`, and from the file of `config=`.

    Raises:
        UserError: a word is not key=value, a key is unknown or given twice, a value does not fit its key, or a key
            that is needed was not given.
    """
    given = _parse(words)
    if config := given.pop("config", None):
        given = _read(config.value) | given

    general = keys(command)
    _require(command, {name: key for name, key in general.items() if key.section == ""}, given, set(general))
    task, adapter, ckpt = (
        _value(name, general[name], given[name]) if name in given and name in general else ""
        for name in ("task", "adapter", "ckpt")
    )
    known = keys(command, task, adapter, ckpt)
    for name, one in given.items():
        if name not in known:
            raise one.wrong(_unknown(name, known))
    needing = [(f"encoder {ckpt!r}", "encoder")]
    if task:
        adapter = adapter or own_adapter(task)
        needing += [(f"task {plugins.display_name(task)!r}", "data")]
        needing += [(f"adapter {plugins.display_name(adapter)!r}", "adapter")]
    for who, section in needing:
        section_keys = {name: key for name, key in known.items() if key.section == section}
        _require(who, section_keys, given, set(known))

    values: dict[str, dict[str, Any]] = {section: {} for section in ("", *_SECTIONS)}
    for name, key in known.items():
        if name in given:
            values[key.section][key.parameter] = _value(name, key, given[name])
    options = Options(**{"task": "", "ckpt": ""} | values[""])
    if options.trust and not plugins.own_encoder(ckpt):
        values["encoder"]["trust"] = True
    if options.mini and not task:
        raise given["mini"].wrong("mini=true: give the task whose miniature is meant, task=...")
    if options.mini and "mini" not in inspect.signature(plugins.factory("task", task)).parameters:
        raise given["mini"].wrong(
            f"mini=true: task {plugins.display_name(task)!r} has no miniature data; leave mini out"
        )
    if options.lm:
        if "lm" not in inspect.signature(plugins.factory("adapter", adapter)).parameters:
            raise given["lm"].wrong(
                f"lm={options.lm}: adapter {plugins.display_name(adapter)!r} takes no language model"
            )
        values["adapter"]["lm"] = options.lm
    trainer = Trainer(**values["trainer"])
    encoder, data, clip, own = (values[section] for section in ("encoder", "data", "clip", "adapter"))
    return Config(command, tuple(words), options, encoder, data, clip, own, trainer)


def _parse(words: Sequence[str]) -> dict[str, _Given]:
    given: dict[str, _Given] = {}
    for word in words:
        key, equals, value = word.partition("=")  # only the first: ckpt=/d/epoch=3-step=100.ckpt
        if not (key and equals):
            task = f" Did you mean 'task={word}'?" if word in plugins.names("task") else ""
            raise UserError(f"expected key=value, got {word!r}.{task}")
        if key in given:
            raise UserError(f"{key} is given twice: {key}={given[key].value} and {word}")
        given[key] = _Given(value)
    return given


def _read(file: str) -> dict[str, _Given]:
    """The file's keys, spelled as words are (`adapter.lr: 1e-4`) or one level deep (`data: {root: ...}`)."""
    from omegaconf import OmegaConf

    try:
        content: Any = OmegaConf.to_container(OmegaConf.load(file), resolve=True)
    except OSError as error:
        raise UserError(f"config={file}: {(error.strerror or str(error)).lower()}") from error
    except Exception as error:  # yaml's and OmegaConf's own kinds
        raise UserError(f"config={file}: not readable as yaml: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"config={file}: expected lines of key: value")
    given: dict[str, _Given] = {}
    for name, value in content.items():
        section = isinstance(value, dict) and name in _SECTIONS
        pairs = {f"{name}.{key}": one for key, one in value.items()} if section else {str(name): value}
        if twice := pairs.keys() & given.keys():
            raise UserError(f"{file}: {min(twice)} is given twice")
        given |= {key: _Given(one, file) for key, one in pairs.items()}
    return given


def _keys(section: str, owner: Callable[..., Any], kinds: Collection[Any] = ()) -> dict[str, Key]:
    """The parameters of a function or dataclass as keys; `kinds` of parameters, or all that can be named."""
    named = {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    meanings = _meanings(owner)
    found: dict[str, Key] = {}
    for name, parameter in inspect.signature(owner).parameters.items():
        if parameter.kind in (kinds or named):
            key = "adapter.from" if name == "adapter_from" else f"{section}.{name}".removeprefix(".")
            kind = _annotation(owner, parameter)
            found[key] = Key(section, name, kind, parameter.default, meanings.get(name, ""))
    return found


def _annotation(owner: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    kind = parameter.annotation
    if kind is inspect.Parameter.empty:
        return Any if parameter.default in (None, inspect.Parameter.empty) else type(parameter.default)
    if isinstance(kind, str):  # from __future__ import annotations
        module = inspect.unwrap(owner).__module__
        try:
            return eval(kind, vars(sys.modules[module]))
        except NameError as error:
            raise UserError(
                f"{module}: parameter {parameter.name!r}: {error}; import it outside TYPE_CHECKING"
            ) from error
    return kind


def _meanings(owner: Callable[..., Any]) -> dict[str, str]:
    """What each parameter means, from the google section `Args:` or `Attributes:` of the docstring."""
    found: dict[str, str] = {}
    inside, name = False, ""
    for line in inspect.cleandoc(owner.__doc__ or "").splitlines():
        if line and not line[0].isspace():
            inside = line in ("Args:", "Attributes:")
        elif inside and (entry := re.match(r" {4}(\w+)(?: \([^)]*\))?: *(.*)", line)):
            name, found[name] = entry[1], entry[2]
        elif inside and name and line.strip():
            found[name] = f"{found[name]} {line.strip()}".strip()
    return found


def _require(who: str, needed: Mapping[str, Key], given: Mapping[str, _Given], known: Collection[str]) -> None:
    for name, key in needed.items():
        if key.default is REQUIRED and name not in given:
            for other in given:  # tsak=egoschema is what should be mended
                if other not in known and plugins.nearest(other, [name]):
                    raise given[other].wrong(_unknown(other, [name]))
            raise UserError(f"{who} needs {name}=..." + (f" ({key.meaning.rstrip('.')})" if key.meaning else ""))


def _unknown(name: str, known: Iterable[str]) -> str:
    word = name.lstrip("-")
    section, _, leaf = word.rpartition(".")
    leaves = {key.rpartition(".")[2]: key for key in reversed(list(known))}  # of two sections the first
    siblings = {key.rpartition(".")[2]: key for key in known if key.rpartition(".")[0] == section}
    if section and siblings:  # the section's own name would make all of its keys look near
        near = plugins.nearest(leaf, siblings)
        key = leaves.get(leaf) or (near and siblings[near])
    else:
        key = leaves.get(leaf) or plugins.nearest(word, known) or leaves.get(plugins.nearest(word, leaves) or "")
    if key:
        return f"unknown key {name!r}. Did you mean {key!r}?"
    return f"unknown key {name!r}. Known: {', '.join(siblings.values() or [k for k in known if '.' not in k])}"


def _value(name: str, key: Key, given: _Given) -> Any:
    try:
        value = convert(given.value, key.type)
    except ValueError:
        if get_origin(key.type) is Literal:
            known = [str(arg) for arg in get_args(key.type)]
            message = f" is not one of {', '.join(known)}.{plugins.suggest(str(given.value), known)}"
        else:
            message = f": expected {type_name(key.type)}"
            if given.file and type_name(key.type) in ("text", "a path"):
                message += ", in quotes"  # tag: 001 is the number 1 in yaml
        raise given.wrong(f"{name}={given.value}{message}") from None
    if bound := _out_of_bounds(name.rpartition(".")[2], value):
        raise given.wrong(f"{name}={given.value}: expected {type_name(type(value))} {bound}")
    return value


def _out_of_bounds(leaf: str, value: Any) -> str:
    """The bound that a number breaks, in words; empty where it breaks none."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return ""
    if leaf in _ABOVE_ZERO and not value > 0:
        return "above 0"
    if leaf in _NOT_NEGATIVE and not value >= 0:
        return "of at least 0"
    if leaf in _SHARES and not 0 <= value < 1:
        return "from 0 to below 1"
    return "below 2 to the 32nd" if leaf == "seed" and value >= 2**32 else ""


def typed(value: Any) -> str:
    """A value as a word states it."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(typed, value))}]"
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _plain(value: Any) -> Any:
    """A value in yaml's own types; `${` is escaped, since it came from outside any file."""
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return "" if value is REQUIRED else str(value).replace("${", "\\${")
