"""The cells of a sweep or a study: what each is asked in words, whether it is finished, and where they run."""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple, cast, get_args

from evalkit import plugins
from evalkit.config.config import GROUP, Config
from evalkit.config.keys import known_keys
from evalkit.config.options import Options
from evalkit.config.parse import resolve
from evalkit.config.words import pairs
from evalkit.errors import UserError, nearest
from evalkit.results import run_folder, validate

logger = logging.getLogger("evalkit")

LISTS = ("cache.also", "log")  # keys of which several values with commas between them are one
Place = Literal["local", "slurm", "ray"]
# What `evalkit sweep --help` says beside the keys of a run.
ABOUT = """\
Values with commas between them are combined. One run trains all values of adapter.* together and takes the best on val;
every other combination is a run of its own. The same command again shows what is finished, and runs what is missing.

  evalkit sweep task=ssv2 ckpt=my_encoder adapter.lr=1e-4,3e-4,1e-3
  evalkit sweep task=ssv2,diving48 ckpt=my_encoder,videoprism_base seed=0,1,2 jobs=2
  evalkit sweep task=ssv2 ckpt=my_encoder seed=0,1,2 on=slurm slurm.time=4:00:00 slurm.partition=gpu"""
# The keys of `Jobs`: type, default and meaning.
KEYS = (
    ("on", ", ".join(get_args(Place)), "local", "where runs take place: this machine, jobs of SLURM, or tasks of Ray"),
    ("jobs", "a whole number", "", "runs side by side at most; empty: one on this machine, as many as fit elsewhere"),
    ("slurm.time", "text", "", "required with on=slurm: the time limit of each job, such as 4:00:00"),
    (
        "slurm.cluster",
        "slurm, local",
        "slurm",
        "local runs the jobs on this machine, to try a command before queueing it",
    ),
    (
        "slurm.KEY",
        "text",
        "",
        "an option of sbatch, with _ for -: partition, account, qos, constraint, gres, mem_gb ...",
    ),
    ("ray.address", "text", "auto", "with on=ray: the cluster's address; auto: the one that this machine belongs to"),
    ("ray.num_gpus", "a number", "", "GPUs that each run reserves; a fraction shares one"),
    ("ray.num_cpus", "a number", "", "cores that each run reserves"),
    ("ray.memory_gb", "a number", "", "memory that each run reserves, in GB"),
)


@dataclass(frozen=True)
class Jobs:
    """Where the cells of a sweep run.

    Attributes:
        on: processes of this machine, jobs of SLURM, or tasks of a Ray cluster.
        count: so many side by side at most; None means one on this machine, as many as there is room for elsewhere.
        settings: what the words `slurm.KEY=` or `ray.KEY=` say, by KEY.
    """

    on: Place = "local"
    count: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict)


class Cell(NamedTuple):
    """One pass over one task with one encoder: a configuration with the grid points that are fitted together.

    Attributes:
        words: what `evalkit sweep` takes for this cell alone; of an adaptation, `adapt` and what that takes.
        points: per grid point, the words that make it a plain run.
    """

    words: tuple[str, ...]
    points: tuple[tuple[str, ...], ...]
    config: Config

    @property
    def mark(self) -> str:
        """Hash of the configuration, which its run's folder ends in."""
        return hashlib.sha256(self.config.to_yaml().encode()).hexdigest()[:8]

    @property
    def home(self) -> Path:
        """The folder that holds the folders of cells."""
        out = self.config.options.out
        return out.parent if self.config.command == "adapt" else out


def grouped(planned: Sequence[Cell], name: str) -> list[Cell]:
    """Names the cells as one group in the trackers of `log=`, by a hash of their options."""
    words = sorted(cell.config.words for cell in planned)
    group = f"{name}-{hashlib.sha256(repr(words).encode()).hexdigest()[:8]}"
    return [_in_group(cell, group) for cell in planned]


def _in_group(cell: Cell, group: str) -> Cell:
    options = cell.config.options
    if not options.log or options.log_group:
        return cell
    config = replace(cell.config, options=replace(options, log_group=group))
    return cell._replace(words=(*cell.words, f"{GROUP}={group}"), config=config)


def adaptation(words: Sequence[str]) -> Cell:
    """The cell of `evalkit adapt` with these words.

    Raises:
        UserError: a word is wrong.
    """
    return Cell(("adapt", *words), (tuple(words),), resolve("adapt", words))


def plan(words: Sequence[str], called: str = "sweep") -> tuple[Jobs, list[Cell]]:
    """The launcher and the cells: one per combination of options other than `adapter.*`.

    Args:
        words: as typed.
        called: the command that was typed.

    Raises:
        UserError: a word is wrong.
    """
    of_jobs: dict[str, str] = {}
    axes: dict[str, list[str]] = {}
    for key, value in pairs(words):
        if key in axes or key in of_jobs:
            raise UserError(f"{key} is given twice")
        if is_of_jobs(key):
            of_jobs[key] = value
            continue
        values = [value] if key in LISTS else list(dict.fromkeys(split(value)))
        if len(values) > 1 and not all(values):
            raise UserError(f"{key}={value}: a value between commas is empty")
        axes[key] = values
    jobs = jobs_of(of_jobs)
    grid = {
        key: values
        for key, values in axes.items()
        if key.startswith("adapter.") and key != "adapter.from" and len(values) > 1
    }
    if axes.get("ckpt") == ["none"]:  # nothing is fitted that one value could be chosen for: each is a run
        grid = {}
    common = {key: values for key, values in axes.items() if key not in grid}
    cells = []
    for chosen in _product(common):
        # In whatever order keys are given, points have the same numbers and the run the same name.
        points = tuple((*chosen, *varied_words) for varied_words in _product(dict(sorted(grid.items()))))
        configs = [_resolved(point, axes, called) for point in points]
        varied = [key.removeprefix("adapter.") for key in grid]
        base = configs[0]
        settings = tuple({key: config.adapter[key] for key in varied} for config in configs)
        quoted = [f"{key}={','.join(map(_quoted, values))}" for key, values in grid.items()]
        cell_words = (*(word_of(word) for word in chosen), *quoted)
        common_settings = {key: value for key, value in base.adapter.items() if key not in varied}
        named = sorted(word for word in cell_words if not word.startswith(f"{GROUP}="))
        settled = replace(base, words=tuple(named), adapter=common_settings, points=settings if grid else ())
        cells.append(Cell(cell_words, points, settled))
    return jobs, cells


def _resolved(point: Sequence[str], axes: Mapping[str, Sequence[str]], called: str) -> Config:
    """The configuration of a grid point.

    Raises:
        UserError: a word is wrong; of a setting that only some encoders of the sweep take, it says how to run all.
    """
    try:
        return resolve("run", point, called=called)
    except UserError as error:
        key = next((key for key in axes if key.startswith("encoder.") and f"unknown key {key!r}" in str(error)), "")
        if not key:
            raise
        model = axes.get("encoder.model", [""])[0]
        fitting = [ckpt for ckpt in axes["ckpt"] if key in known_keys("run", ckpt=ckpt, model=model)]
        out = axes.get("out", [Options.out])[0]
        raise UserError(f"{error}{in_two_sweeps(key, fitting, axes['ckpt'], out)}") from None


def in_two_sweeps(key: str, fitting: Sequence[str], ckpts: Iterable[str], out: str | Path) -> str:
    """What to append where a setting of encoder.* fits only some of a sweep's encoders; empty where it fits none."""
    others = [ckpt for ckpt in dict.fromkeys(ckpts) if ckpt not in fitting]
    if not fitting or not others:
        return ""
    one, other = (f"ckpt={','.join(dict.fromkeys(some))}" for some in (fitting, others))
    return (
        f". {key} fits {one}: make two sweeps with the same out={out}, one of {one} with {key}=, and one of {other} "
        "with what fits it"
    )


def first_values(words: Sequence[str]) -> list[str]:
    """The words with the first of each key's values, as `evalkit run` takes them; without those of jobs."""
    given = [word.partition("=") for word in words if not is_of_jobs(word.partition("=")[0])]
    return [f"{key}{equals}{value if key in LISTS else split(value)[0]}" for key, equals, value in given]


def is_of_jobs(key: str) -> bool:
    """Whether a key says where cells run."""
    return key in ("jobs", "on") or key.partition(".")[0] in get_args(Place)


def jobs_of(words: Mapping[str, str]) -> Jobs:
    """Where cells run, from the words jobs=, on=, slurm.KEY= and ray.KEY=.

    Raises:
        UserError: a value is none of those allowed, or a key is of a place where the cells do not run.
    """
    on, count = words.get("on", "local"), words.get("jobs")
    if on not in get_args(Place):
        near = nearest(on, get_args(Place))
        raise UserError(f"on={on}: expected local, slurm or ray." + (f" Did you mean on={near}?" if near else ""))
    if count is not None and not (count.isdecimal() and int(count) > 0):
        raise UserError(f"jobs={count}: expected a whole number above 0")
    settings = {}
    for key, value in words.items():
        section, dot, name = key.partition(".")
        if dot and section != on:
            raise UserError(f"{key}={value} is for on={section}, and the sweep runs on={on}: leave out one of them")
        if dot and on == "local":
            raise UserError(f"unknown key '{key}={value}'. On this machine, a sweep takes jobs= alone")
        if dot:
            settings[name] = value
    return Jobs(cast(Place, on), None if count is None else int(count), settings)


def unknown_key(jobs: Jobs, key: str, known: Sequence[str]) -> UserError:
    """The error of a key `slurm.KEY` or `ray.KEY` that is none of those known."""
    near = nearest(key, known)
    hint = f"Did you mean '{jobs.on}.{near}'?" if near else f"Known: {', '.join(known)}"
    return UserError(f"unknown key '{jobs.on}.{key}={jobs.settings[key]}'. {hint}")


def split(value: str) -> list[str]:
    """Splits a value at commas outside brackets and quotes, and removes the quotes."""
    parts, depth, quote = [""], 0, ""
    for letter in value:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in "[(":
            depth += 1
        elif letter in "])":
            depth -= 1
        elif letter == "," and depth == 0:
            parts.append("")
            continue
        parts[-1] += letter
    return [part[1:-1] if len(part) > 1 and part[0] == part[-1] and part[0] in "'\"" else part for part in parts]


def finished(cell: Cell) -> Path | None:
    """The complete run of this very cell that is already there, newer than the files that its words name; or the folder
    that an adaptation wrote, which appears whole.
    """
    config = cell.config
    if config.command == "adapt":
        return config.options.out if config.options.out.is_dir() and any(config.options.out.iterdir()) else None
    changed = max(map(last_change, named_files(config)), default=0.0)
    task_files = plugins.own_task_file(config.options.task)
    for record in sorted(config.options.out.glob(f"*/*/[!.]*-{cell.mark}*/{run_folder.RESULT}")):
        if record.stat().st_mtime < changed:
            continue
        if problems := validate.validate(record.parent, task_files):
            logger.warning(f"not taken: {problems[0]}")
        elif run_folder.load(record.parent)["status"] == "complete":
            logger.info(f"already there: {record.parent}")
            return record.parent
    return None


def named_files(config: Config) -> list[Path]:
    """The files and folders that a cell's options refer to.

    A name that is none must not be looked up: a folder `probe` in the working folder is not the adapter, and an empty
    path would be the working folder itself.
    """
    options = config.options
    names = [name for name in (options.task, options.adapter) if name.endswith(".py")]
    names += [options.ckpt] if options.ckpt != "demo" and not options.ckpt.startswith("random:") else []
    names += [options.lm] if options.lm not in ("", "scratch") else []
    names += [options.adapter_from] if options.adapter_from not in ("", "none") else []
    values = (*config.data.values(), *config.adapter.values())
    names += [str(value) for value in values if isinstance(value, Path)]
    return [Path(name).expanduser() for name in names]


def last_change(place: Path) -> float:
    """When a file, or any file right in a folder, was last written; 0 for what is neither."""
    try:
        files = [place] if place.is_file() else [file for file in place.iterdir() if file.is_file()]
    except OSError:
        return 0.0
    return max((file.stat().st_mtime for file in files), default=0.0)


def _product(axes: dict[str, list[str]]) -> Iterator[tuple[str, ...]]:
    for values in itertools.product(*axes.values()):
        yield tuple(f"{key}={value}" for key, value in zip(axes, values, strict=True))


def word_of(word: str) -> str:
    """The word with its value quoted where it has commas, as `split` gives it back."""
    key, _, value = word.partition("=")
    return word if key in LISTS else f"{key}={_quoted(value)}"


def _quoted(value: str) -> str:
    """The value as `split` gives it back.

    Raises:
        UserError: it holds a comma and both kinds of quotes.
    """
    if split(value) == [value]:
        return value
    for quote in ('"', "'"):
        if quote not in value:
            return f"{quote}{value}{quote}"
    raise UserError(f"{value}: a value with a comma may hold one kind of quotes only")
