"""The file of a study, configs/studies/NAME.yaml or one of your own: read, and checked key by key."""

from __future__ import annotations

import math
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from evalkit.config import named
from evalkit.errors import UserError, in_line, nearest

Kind = Literal["adapt", "run"]
Words = Mapping[Kind, tuple[str, ...]]
# `{adapt}` in a line is the folder that the line before it trained, `{NAME.adapt}` that of another cell.
PLACEHOLDER = re.compile(r"\{(?:([^{}]*)\.)?adapt\}")
FOLDERS = ("ckpt", "adapter.from", "adapter.captioner", "adapter.teacher")  # keys that take one
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_EXPECT = re.compile(
    rf"(difference|ratio|value) (?:at least (?P<low>{_NUMBER})|at most (?P<high>{_NUMBER})|"
    rf"between (?P<from>{_NUMBER}) and (?P<to>{_NUMBER}))"
)
ORDERS = ("increasing", "decreasing", "lowest", "highest")
WANTED = (
    "'difference', 'ratio' or 'value', and 'at least 3', 'at most 3' or 'between 2 and 3'; or one of "
    f"{', '.join(ORDERS)}"
)


@dataclass(frozen=True)
class Expectation:
    """What a claim says of its cells.

    Attributes:
        of: difference (first minus second cell), ratio (first by second), value (of the only one); increasing,
            decreasing (of each cell to the next), lowest or highest (the first of all).
        low: what a difference, ratio or value is at least.
        high: what it is at most.
    """

    of: str
    low: float = -math.inf
    high: float = math.inf


@dataclass(frozen=True)
class Claim:
    """A statement about cells that their numbers bear out or not.

    Attributes:
        text: the statement in words.
        of: names of the cells that it is about.
        metric: what of them, as an entry of `y`.
        expect: in which way.
    """

    text: str
    of: tuple[str, ...]
    metric: str
    expect: Expectation


@dataclass(frozen=True)
class StudyCell:
    """One point of a study.

    Attributes:
        name: of the point.
        group: of the line in the plot that it belongs to.
        adapt: lines of `evalkit adapt` without out=, in turn.
        run: lines of `evalkit run` without out=.
        mini: words added to its lines in the miniature.
    """

    name: str
    group: str
    adapt: tuple[str, ...]
    run: tuple[str, ...]
    mini: Words


@dataclass(frozen=True)
class Study:
    """A study's file.

    Attributes:
        name: the file's, without .yaml.
        x: what the cells cost: a dotted path into a record, or a metric.
        y: what they are worth, each as `x`.
        axis: of x in the plot.
        words: words that each line begins with.
        mini: words added to each line in the miniature.
        videoglue: the cell of each of VideoGLUE's adaptations, of which the score is printed; empty for no score.
    """

    name: str
    file: Path
    title: str
    x: str
    y: tuple[str, ...]
    cells: tuple[StudyCell, ...]
    source: str = ""
    axis: str = "linear"
    words: Words = field(default_factory=dict)
    mini: Words = field(default_factory=dict)
    claims: tuple[Claim, ...] = ()
    videoglue: Mapping[str, str] = field(default_factory=dict)

    @property
    def word(self) -> str:
        """What the command names it by."""
        return self.name if studies().get(self.name) == self.file else str(self.file)

    def cell(self, name: str) -> StudyCell:
        """The cell of this name."""
        return next(cell for cell in self.cells if cell.name == name)


def studies() -> dict[str, Path]:
    """The files in configs/studies/ by name."""
    return named.files("studies")


def read(name: str) -> Study:
    """The study of this name, or in this file.

    Raises:
        UserError: there is none, or a key of it is wrong.
    """
    import yaml

    hint = f"Known: {', '.join(studies())}; or a file of your own, study.yaml"
    file = named.find("studies", name, f"study {name}", hint)
    try:
        values = named.values(file)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{file}: not readable as yaml: {in_line(error)[:300]}") from error
    return _Reader(file).study(values)


@dataclass(frozen=True)
class _Reader:
    """Checks the values of a file; errors name it and the key."""

    file: Path

    def study(self, values: Any) -> Study:
        keys = ("title", "source", "x", "y", "axis", "words", "cells", "mini", "claims", "videoglue")
        values = self._mapping("", values, keys, ("title", "x", "y", "cells"))
        axis = values.get("axis", "linear")
        if axis not in ("linear", "log"):
            raise self._wrong("axis", f"{axis!r}: wanted linear or log")
        if not isinstance(values["cells"], list) or not values["cells"]:
            raise self._wrong("cells", "wanted a list of cells, each with a name and a line run: or adapt:")
        cells = tuple(self._cell(f"cells[{k}]", value) for k, value in enumerate(values["cells"]))
        names = [cell.name for cell in cells]
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise self._wrong("cells", f"the name {twice[0]!r} is given twice")
        self._check_placeholders(cells)
        x, y = self._text("x", values["x"]), self._texts("y", values["y"])
        if "" in y or not y:
            raise self._wrong("y", "wanted metrics or dotted paths, at least one")
        if twice := [name for name, count in Counter((x, *y)).items() if count > 1]:
            raise self._wrong("y", f"{twice[0]!r} is given twice, among x and y")
        claims = values.get("claims") or []
        if not isinstance(claims, list):
            raise self._wrong("claims", "wanted a list of claims, each with text, of, metric and expect")
        return Study(
            name=self.file.stem,
            file=self.file,
            title=self._text("title", values["title"]),
            x=x,
            y=y,
            cells=cells,
            source=self._text("source", values.get("source", "")),
            axis=axis,
            words=self._words("words", values.get("words")),
            mini=self._words("mini", values.get("mini")),
            claims=tuple(self._claim(f"claims[{k}]", value, names) for k, value in enumerate(claims)),
            videoglue=self._videoglue(values["videoglue"], names) if "videoglue" in values else {},
        )

    def _cell(self, key: str, values: Any) -> StudyCell:
        values = self._mapping(key, values, ("name", "group", "adapt", "run", "mini"), ("name",))
        lines = {kind: self._texts(f"{key}.{kind}", values.get(kind, [])) for kind in ("adapt", "run")}
        if not any(lines.values()):
            raise self._wrong(key, "it has neither a line adapt: nor a line run:")
        for kind, of_kind in lines.items():
            for line in of_kind:
                self._split(f"{key}.{kind}", PLACEHOLDER.sub("folder", line))
        name = self._text(f"{key}.name", values["name"])
        group = self._text(f"{key}.group", values.get("group", ""))
        return StudyCell(name, group, lines["adapt"], lines["run"], self._words(f"{key}.mini", values.get("mini")))

    def _videoglue(self, values: Any, names: Sequence[str]) -> dict[str, str]:
        from evalkit.metrics.videoglue import ADAPTATIONS  # which takes a while, and `evalkit list` reads these files

        values = self._mapping("videoglue", values, ADAPTATIONS, ADAPTATIONS)
        cells = {key: self._text(f"videoglue.{key}", value) for key, value in values.items()}
        for key, name in cells.items():
            if name not in names:
                raise self._wrong(f"videoglue.{key}", self._unknown("cell", name, names))
        return cells

    def _claim(self, key: str, values: Any, names: Sequence[str]) -> Claim:
        needed = ("text", "of", "metric", "expect")
        values = self._mapping(key, values, needed, needed)
        of = self._texts(f"{key}.of", values["of"])
        for name in of:
            if name not in names:
                raise self._wrong(f"{key}.of", self._unknown("cell", name, names))
        expect = self._expectation(f"{key}.expect", self._text(f"{key}.expect", values["expect"]))
        wanted = {"difference": 2, "ratio": 2, "value": 1}.get(expect.of)
        if wanted is None and len(of) < 2:
            raise self._wrong(f"{key}.of", f"{expect.of} is of two cells or more, and {len(of)} is named")
        if wanted is not None and len(of) != wanted:
            raise self._wrong(f"{key}.of", f"{expect.of} takes {wanted} of the cells, and {len(of)} are named")
        if twice := [name for name in of if of.count(name) > 1]:
            raise self._wrong(f"{key}.of", f"the cell {twice[0]!r} is named twice")
        return Claim(
            self._text(f"{key}.text", values["text"]), of, self._text(f"{key}.metric", values["metric"]), expect
        )

    def _expectation(self, key: str, text: str) -> Expectation:
        if text in ORDERS:
            return Expectation(text)
        form = _EXPECT.fullmatch(in_line(text))
        if form is None:
            raise self._wrong(key, f"{text!r}: wanted {WANTED}")
        ends = {name: float(value) for name, value in form.groupdict().items() if value is not None}
        low, high = ends.get("low", ends.get("from", -math.inf)), ends.get("high", ends.get("to", math.inf))
        if low > high:
            raise self._wrong(key, f"{text!r}: the first number is larger than the second")
        return Expectation(form[1], low, high)

    def _check_placeholders(self, cells: Sequence[StudyCell]) -> None:
        trained = [cell.name for cell in cells if cell.adapt]
        for k, cell in enumerate(cells):
            for kind, lines in (("adapt", cell.adapt), ("run", cell.run)):
                for number, line in enumerate(lines):
                    for found in PLACEHOLDER.finditer(line):
                        name = found[1]
                        if name is None and not (cell.adapt if kind == "run" else number):
                            raise self._wrong(f"cells[{k}].{kind}", f"{found[0]}: no adapt line stands before it")
                        if name is not None and name not in trained:
                            problem = self._unknown("cell with an adapt line", name, trained)
                            raise self._wrong(f"cells[{k}].{kind}", f"{found[0]}: {problem}")

    def _words(self, key: str, value: Any) -> Words:
        """Words by the kind of line that they are added to; a single text is for both kinds."""
        if value is None:
            return {}
        values = value if isinstance(value, dict) else {"adapt": value, "run": value}
        values = self._mapping(key, values, ("adapt", "run"), ())
        words: dict[Kind, tuple[str, ...]] = {}
        for kind in ("adapt", "run"):
            text = self._text(f"{key}.{kind}", values.get(kind, ""))
            words[kind] = self._split(f"{key}.{kind}" if isinstance(value, dict) else key, text)
        return words

    def _split(self, key: str, line: str) -> tuple[str, ...]:
        """The words of a line, in which no placeholder is left."""
        if placeholder := PLACEHOLDER.search(line):
            raise self._wrong(key, f"{placeholder[0]} stands for a folder in the lines adapt: and run: of cells alone")
        try:
            words = tuple(shlex.split(line))
        except ValueError as error:
            raise self._wrong(key, f"{line!r}: {error}") from error
        if wrong := [word for word in words if "=" not in word]:
            raise self._wrong(key, f"expected words key=value, got {wrong[0]!r}")
        keys = [word.partition("=")[0] for word in words]
        for name, word in zip(keys, words, strict=True):
            if name in FOLDERS and "{" in word:
                raise self._wrong(key, f"{word}: wanted {{adapt}} or {{NAME.adapt}}")
        if several := [word for name, word in zip(keys, words, strict=True) if name == "seed" and "," in word]:
            raise self._wrong(key, f"{several[0]}: a line has one seed; `evalkit study` takes several for all lines")
        if "out" in keys:
            raise self._wrong(key, f"{words[keys.index('out')]}: the study names the folders; leave out= out")
        if twice := [name for name in keys if keys.count(name) > 1]:
            raise self._wrong(key, f"{twice[0]} is given twice")
        return words

    def _mapping(self, key: str, value: Any, known: Sequence[str], needed: Sequence[str]) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self._wrong(key, f"wanted the keys {', '.join(known)}")
        for name in value:
            if name not in known:
                raise self._wrong(key, self._unknown("key", str(name), known))
        if missing := [name for name in needed if value.get(name) in (None, "")]:
            raise self._wrong(key, f"the key {missing[0]!r} is missing")
        return value

    def _text(self, key: str, value: Any) -> str:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise self._wrong(key, f"{str(value)[:60]}: wanted text")
        return in_line(value)

    def _texts(self, key: str, value: Any) -> tuple[str, ...]:
        return tuple(self._text(key, item) for item in (value if isinstance(value, list) else [value]))

    def _unknown(self, what: str, name: str, known: Sequence[str]) -> str:
        near = nearest(name, known)
        return f"unknown {what} {name!r}. " + (f"Did you mean {near!r}?" if near else f"Known: {', '.join(known)}")

    def _wrong(self, key: str, problem: str) -> UserError:
        return UserError(f"{self.file}: {key + ': ' if key else ''}{problem}")
