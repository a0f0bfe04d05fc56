"""From `key=value` words to a checked configuration: defaults < `config=file.yaml` < words.

The keys of `data.*` and `adapter.*` are the parameters of the chosen plug-ins, and those of `encoder.*` of the user's
own encoder, so task, ckpt and adapter are settled first, and every other key is checked after that. OmegaConf reads the
file and its `${...}`. Types are settled here: a word is text until its key says what it is, OmegaConf takes `no` for a
boolean, and knows no Sequence and no union of lists.
"""

from __future__ import annotations

import base64
import os
import re
import shlex
from dataclasses import dataclass, field, replace
from typing import Any

from evalkit import plugins
from evalkit.config.keys import REQUIRED, known_keys
from evalkit.config.options import Command, Options, Trainer
from evalkit.errors import printable

GROUP = "log.group"  # of no record: the same cell is the same run in whichever sweep


@dataclass(frozen=True)
class Config:
    """Everything that a run or an adaptation was asked to do.

    Attributes:
        command: `run`, `adapt`, `canary`, `check` or `features`.
        words: as typed, without `log.group`; not part of equality.
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
        settings = self.points[point] if self.points else {}
        keys = {f"adapter.{key}" for key in settings}
        words = [word for word in self.words if word.partition("=")[0] not in keys]
        words += [f"adapter.{key}={typed(value)}" for key, value in settings.items()]
        return replace(self, words=tuple(words), adapter={**self.adapter, **settings}, points=())

    @property
    def built_by(self) -> tuple[str, ...]:
        """The words that name a function of the user's own which builds the encoder; none where evalkit does."""
        words = (self.options.ckpt, self.encoder.get("model", ""))
        return tuple(word for word in words if plugins.own_encoder(word))

    def to_yaml(self) -> str:
        """The configuration with every key but `log.group`; `config=` on it gives an equal configuration.

        Keys of encoder, data, clip and adapter that were not set stand as comments: as values, they would overrule what
        the task's protocol prescribes.
        """
        from omegaconf import OmegaConf

        lines = [
            "# " + printable(shlex.join(["evalkit", self.command, *self.words])),
            "# Keys that stand as comments were not set: as the task prescribes, else as shown.",
        ]
        options = self.options
        known = known_keys(self.command, options.task, options.adapter, options.ckpt, self.encoder.get("model", ""))
        for name, key in known.items():
            if name == GROUP:
                continue
            if key.section in ("", "trainer"):
                value, mark = getattr(self.trainer if key.section else self.options, key.parameter), ""
            else:
                settings: dict[str, Any] = getattr(self, key.section)
                value, mark = settings.get(key.parameter, key.default), "" if key.parameter in settings else "# "
            plain = _plain(value)
            text = OmegaConf.to_yaml(OmegaConf.create({name: plain})) if _is_printable(plain) else _escaped(name, plain)
            lines += [mark + line for line in text.splitlines()]
        return "\n".join(lines) + "\n"


def typed(value: Any) -> str:
    """A value as a word states it."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(typed, value))}]"
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _is_printable(value: Any) -> bool:
    return all(map(_is_printable, value)) if isinstance(value, list) else str(value).isprintable()


def _escaped(name: str, value: Any) -> str:
    """A line of yaml whose texts are in double quotes, with escapes for what yaml does not take or would fold."""

    def written(value: Any) -> str:
        if isinstance(value, list):
            return f"[{', '.join(map(written, value))}]"
        if not isinstance(value, str):
            return typed(value)
        try:
            value.encode()
        except UnicodeEncodeError:  # a file's name whose bytes are no UTF-8
            return f'!!binary "{base64.b64encode(os.fsencode(value)).decode()}"'
        text = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{printable(text)}"'

    return f"{name}: {written(value)}"


def _plain(value: Any) -> Any:
    """A value in yaml's own types; `${` is escaped, since it came from outside any file."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    # Backslashes before it count in pairs.
    return "" if value is REQUIRED else re.sub(r"(\\*)\$\{", r"\1\1\\${", str(value))
