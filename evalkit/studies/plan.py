"""What each cell of a study is asked: its lines, with the words of the study, of the miniature and of the user."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evalkit.config.options import SECTIONS
from evalkit.config.parse import resolve
from evalkit.errors import UserError, nearest
from evalkit.launch import cells
from evalkit.launch.cells import Cell, Jobs
from evalkit.plugins import display_name
from evalkit.studies.files import PLACEHOLDER, Kind, Study, StudyCell

NAMED_FOLDERS = "[^A-Za-z0-9._-]+"  # letters that the name of a folder does not take


@dataclass(frozen=True)
class Plan:
    """What is run for a study.

    Attributes:
        folder: that the study writes.
        jobs: where cells run.
        adapts: by the cell's name, its adaptations in turn; where there are several seeds, by those of `of_seeds`.
        runs: likewise, its runs.
        seeds: that every cell is trained and scored with; empty where the lines name their own, or none.
    """

    study: Study
    folder: Path
    jobs: Jobs
    adapts: Mapping[str, Sequence[Cell]]
    runs: Mapping[str, Sequence[Cell]]
    seeds: tuple[str, ...] = ()

    def of_seeds(self, name: str) -> list[str]:
        """The names in `adapts` and `runs` of a cell of the study, one for each seed."""
        return [f"{name}, seed {seed}" for seed in self.seeds] or [name]

    def stages(self) -> list[list[Cell]]:
        """Cells of launch that can run side by side, stage after stage; what several cells of the study share once."""
        stage_of: dict[Path, int] = {}
        adapts = {cell.config.options.out: cell for some in self.adapts.values() for cell in some}
        for out in adapts:
            _stage(out, adapts, stage_of)
        stages = [[adapts[out] for out in adapts if stage_of[out] == number] for number in sorted({*stage_of.values()})]
        runs = {cell.mark: cell for some in self.runs.values() for cell in some}
        return [*stages, [*runs.values()]] if runs else stages


def _stage(out: Path, adapts: Mapping[Path, Cell], stage_of: dict[Path, int]) -> int:
    """How many adaptations come before this one."""
    if out not in stage_of:
        stage_of[out] = 1 + max(
            (_stage(place, adapts, stage_of) for place in trained_before(adapts[out], adapts)), default=-1
        )
    return stage_of[out]


def trained_before(cell: Cell, trained: Collection[Path]) -> list[Path]:
    """Those of the folders of adaptations that a cell of launch takes, as its encoder, captioner, teacher, or else."""
    config = cell.config
    values = (config.options.ckpt, config.options.adapter_from, *config.adapter.values(), *config.data.values())
    return [
        place
        for place in dict.fromkeys(Path(value) for value in values if isinstance(value, str | Path))
        if place in trained
    ]


def plan(study: Study, words: Sequence[str]) -> Plan:
    """What is run for a study with these words.

    `jobs=`, `on=`, `slurm.*` and `ray.*` say where; `out=` the folder that the study's is in; `mini=true` takes the
    miniature. `adapt.KEY=` and `run.KEY=` are for lines of that kind, `TASK.KEY=` for those of one task, `ckpt=` for
    those that name no encoder themselves, `encoder.KEY=` for those that do not go on with a trained one, all others for
    every line. With seed=0,1,2 every line is run once with each of these seeds.

    Raises:
        UserError: a word is wrong.
    """
    given: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (key and equals):
            raise UserError(f"study {study.name}: expected key=value, got {word!r}")
        if key in given:
            raise UserError(f"{key} is given twice")
        given[key] = value
    jobs = cells.jobs_of({key: given.pop(key) for key in list(given) if cells.is_of_jobs(key)})
    mini = given.get("mini") == "true"
    out = Path(given.pop("out", "results")).expanduser()
    folder = out / f"study-{study.name}{'@mini' * mini}"
    seeds = given.get("seed", "").split(",")
    if len(seeds) == 1:
        return _Planner(study, folder, given, mini).plan(jobs)
    whole = Plan(study, folder, jobs, {}, {}, tuple(seeds))
    plans = [_Planner(study, folder, given | {"seed": seed}, mini).plan(jobs) for seed in seeds]
    _check_seeds(given, plans)
    named = {cell.name: list(zip(whole.of_seeds(cell.name), plans, strict=True)) for cell in study.cells}
    adapts = {key: of_seed.adapts[name] for name, pairs in named.items() for key, of_seed in pairs}
    runs = {key: of_seed.runs[name] for name, pairs in named.items() for key, of_seed in pairs}
    return replace(whole, adapts=adapts, runs=runs)


def _check_seeds(given: Mapping[str, str], plans: Sequence[Plan]) -> None:
    """Raises UserError where something is run twice with one seed: what differs by seed would seem to be less."""
    numbers = [int(seed) for seed in given["seed"].split(",")]
    if twice := [number for number in numbers if numbers.count(number) > 1]:
        raise UserError(f"seed={given['seed']}: {twice[0]} is given twice")
    for number, of_seed in zip(numbers, plans, strict=True):
        lines = itertools.chain(*of_seed.adapts.values(), *of_seed.runs.values())
        if any(line.config.options.seed != number for line in lines):
            other = next(key for key in given if key.endswith(".seed"))
            raise UserError(
                f"seed={given['seed']} is for every line, and {other}={given[other]} for some: leave out one of them"
            )


class _Planner:
    """Fills in the lines of a study's cells.

    Args:
        study: to plan.
        folder: that it writes.
        given: the user's words for lines, by key.
        mini: whether the miniature is meant.
    """

    def __init__(self, study: Study, folder: Path, given: Mapping[str, str], mini: bool) -> None:
        self.study, self.folder, self.given, self.mini = study, folder, given, mini
        self.adapts: dict[str, list[Cell]] = {}
        self.open: list[str] = []  # cells whose lines are being filled in
        self.used: set[str] = set()  # keys of the user's words that some line took

    def plan(self, jobs: Jobs) -> Plan:
        self._check_given()
        for cell in self.study.cells:
            self._train(cell)
        runs = {cell.name: [one for line in cell.run for one in self._run(cell, line)] for cell in self.study.cells}
        if unused := [key for key in self.given if key not in self.used]:
            raise UserError(f"{unused[0]}={self.given[unused[0]]}: no line of study {self.study.name} takes it")
        return Plan(self.study, self.folder, jobs, self.adapts, runs)

    def _check_given(self) -> None:
        """Raises UserError where a word is for a task that the study has not, or would make all cells alike."""
        lines = [line for cell in self.study.cells for line in (*cell.adapt, *cell.run)]
        added = [word for words in (self.study.words, self.study.mini) for some in words.values() for word in some]
        all_words = [*added, *(word for line in lines for word in shlex.split(PLACEHOLDER.sub("folder", line)))]
        self.tasks = {display_name(word.removeprefix("task=")) for word in all_words if word.startswith("task=")}
        for key in self.given:
            head, dot, rest = key.partition(".")
            if key == "task":
                raise UserError(f"task={self.given[key]}: a study has its own tasks: {', '.join(sorted(self.tasks))}")
            if dot and rest == "seed" and "," in self.given[key]:
                raise UserError(f"{key}={self.given[key]}: several seeds are for all lines: seed={self.given[key]}")
            if dot and head not in (*SECTIONS, "adapt", "run", *self.tasks, "lm", "cache"):
                known = [*SECTIONS, "adapt", "run", *sorted(self.tasks)]
                near = nearest(head, known)
                hint = f"Did you mean '{near}.{rest}'?" if near else f"Known before the dot: {', '.join(known)}"
                raise UserError(f"unknown key '{key}'. {hint}")

    def _train(self, cell: StudyCell) -> list[Cell]:
        """The adaptations of a cell, those of other cells that it needs before."""
        if cell.name in self.open:
            circle = " -> ".join([*self.open[self.open.index(cell.name) :], cell.name])
            raise UserError(f"{self.study.file}: cells need each other's adapt: {circle}")
        if cell.name in self.adapts:
            return self.adapts[cell.name]
        self.open.append(cell.name)
        done: list[Cell] = []
        for line in cell.adapt:
            settled = self._words(cell, "adapt", line, done)
            settled["out"] = f"out={self.folder / 'adapted'}"
            words = list(settled.values())
            with self._naming(cell, "adapt"):
                place = self._place(cell, words)
            done.append(cells.adaptation([*words[:-1], f"out={place}"]))
        self.open.pop()
        self.adapts[cell.name] = done
        return done

    @contextlib.contextmanager
    def _naming(self, cell: StudyCell, kind: Kind) -> Iterator[None]:
        """Names file and cell in an error of a line, unless a word of the user's is wrong."""
        try:
            yield
        except UserError as error:
            given = [key for key in self.given if key not in ("mini", "ckpt") and key.rpartition(".")[2] in str(error)]
            if given and str(error).startswith(f"unknown key '{given[0]}'"):
                hint = f"for the lines of one kind alone, write adapt.{given[0]}= or run.{given[0]}="
                raise UserError(f"{error}; {hint}") from error
            if given:
                raise
            place = f"cells[{self.study.cells.index(cell)}].{kind}"
            raise UserError(f"{self.study.file}: {place} ({cell.name}): {error}") from error

    def _place(self, cell: StudyCell, words: Sequence[str]) -> Path:
        """The folder of an adaptation, known by its configuration and by when the files that it names were changed."""
        config = resolve("adapt", words)
        home = self.folder / "adapted"
        files = [file for file in cells.named_files(config) if not file.is_relative_to(home)]
        changed = [cells.last_change(file) for file in files]
        plain = replace(config, options=replace(config.options, out=Path("adapted")), words=())
        mark = hashlib.sha256(f"{plain.to_yaml()}{changed}".encode()).hexdigest()[:8]
        if there := sorted(home.glob(f"[!.]*-{mark}")):  # whatever the cell was called when it was trained
            return there[0]
        planned = (one.config.options.out for some in self.adapts.values() for one in some)
        name = re.sub(NAMED_FOLDERS, "-", cell.name).strip("-.")[:60] or "cell"
        return next((place for place in planned if place.name.endswith(f"-{mark}")), home / f"{name}-{mark}")

    def _run(self, cell: StudyCell, line: str) -> list[Cell]:
        settled = self._words(cell, "run", line, self.adapts[cell.name])
        settled["out"] = f"out={self.folder / 'runs'}"
        # Commas separate values of the adapter's settings, of which the best on val is taken; any others would make
        # several runs of one.
        places = [str(one.config.options.out) for some in self.adapts.values() for one in some]
        words = [
            word if word.startswith("adapter.") and not any(place in word for place in places) else cells.word_of(word)
            for word in settled.values()
        ]
        with self._naming(cell, "run"):
            _, planned = cells.plan(words)
        return planned

    def _words(self, cell: StudyCell, kind: Kind, line: str, before: Sequence[Cell]) -> dict[str, str]:
        """The words of a line by key, what is said last counting."""
        folders: list[Path] = []

        def filled(match: re.Match[str]) -> str:
            trained = before if match[1] is None else self._train(self.study.cell(match[1]))
            folders.append(trained[-1].config.options.out)
            return f"\0{len(folders) - 1}\0"

        own = [
            re.sub("\0(\\d+)\0", lambda number: str(folders[int(number[1])]), word)
            for word in shlex.split(PLACEHOLDER.sub(filled, line))
        ]
        common = self.study.words.get(kind, ())
        added = self.study.mini.get(kind, ()) if self.mini else ()
        of_mini = cell.mini.get(kind, ()) if self.mini else ()
        every = (*common, *own, *added, *of_mini)
        task = display_name(next((w.removeprefix("task=") for w in reversed(every) if w.startswith("task=")), ""))
        # An encoder that was trained is as it is: what would make one is for lines that begin with their own.
        ckpt = next((word for word in (*reversed(of_mini), *own) if word.startswith("ckpt=")), "")
        if ckpt in of_mini:
            trained = not ckpt.startswith("ckpt=random:")
        else:
            trained = ckpt.removeprefix("ckpt=") in map(str, folders) if ckpt else bool(before)
        if trained and not ckpt:
            own.append(f"ckpt={before[-1].config.options.out}")
        settled: dict[str, str] = {}
        for word in (*common, *own, *added, *of_mini):
            key = word.partition("=")[0]
            if self._is_for(key, kind, task, trained and word not in (*own, *of_mini)):
                plain = self._plain(key, kind, task)
                settled[plain] = plain + word[len(key) :]
        named = bool(ckpt) or trained
        for key, value in sorted(self.given.items(), key=lambda item: self._is_prefixed(item[0])):
            if self._is_for(key, kind, task, trained) and (key != "ckpt" or not named):
                self.used.add(key)
                settled[self._plain(key, kind, task)] = f"{self._plain(key, kind, task)}={value}"
        return settled

    def _is_prefixed(self, key: str) -> bool:
        """Whether a key is for lines of one kind or task alone, and so counts more than one for all lines."""
        return key.partition(".")[0] in ("adapt", "run", *self.tasks)

    def _plain(self, key: str, kind: Kind, task: str) -> str:
        """The key as the line takes it."""
        return key.removeprefix(f"{kind}.").removeprefix(f"{task}.") if self._is_prefixed(key) else key

    def _is_for(self, key: str, kind: Kind, task: str, trained: bool) -> bool:
        """Whether a key is for this kind of line and task; a line with a trained encoder takes no other."""
        plain = self._plain(key, kind, task)
        return not self._is_prefixed(plain) and not (trained and (plain == "ckpt" or plain.startswith("encoder.")))


def required_data(plan: Plan) -> dict[str, Path]:
    """The folder or file that each task of a plan reads, by the task's name; none for miniatures."""
    from evalkit.pipeline.task_data import data_root

    planned = itertools.chain(*plan.adapts.values(), *plan.runs.values())
    roots = {display_name(cell.config.options.task): data_root(cell.config) for cell in planned}
    return {task: root for task, root in roots.items() if root is not None}
