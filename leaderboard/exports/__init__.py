"""Exports of results in the formats of other tools: one file per format, found by its name.

A format is a module with `def files(runs: Sequence[Run]) -> Iterator[tuple[str, str]]`: the path of each file in the
folder of the export, and its text. One that writes a single file names it, `FILE`. Runs come newest first. Names in
paths go through `path_part`, so that a result that came from elsewhere cannot choose where it is written. Intervals,
numbers of examples, controls and the protocol's hash are written if the format has fields for them; what it has no
field for is reported.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import itertools
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from evalkit.errors import UserError, counted, suggest, suggest_key
from evalkit.results.rows import Row
from evalkit.results.scores import is_rank, measure, resolve, task_files
from evalkit.results.table import columns, language_model_of, reranked
from evalkit.runtime import atomic
from evalkit.weights.presets import cards

from ..runs import Run, collect

logger = logging.getLogger("evalkit")

SUFFIXES = (".csv", ".html", ".json", ".jsonl", ".md", ".tex", ".yaml")  # by which `out` names a file, not a folder
MORE = """\
out=      a folder, exports/FORMAT by default; of csv and latex also a file, as out=table.tex
metrics=  of latex: headline (default), all, or names, as metrics=t2v_R@1,t2v_R@5,v2t_R@1

docs/export.md has the columns of each."""


def formats() -> dict[str, str]:
    """The formats by name, with the first line of their docstring."""
    files = sorted(Path(__file__).parent.glob("[!_]*.py"))
    return {file.stem: (ast.get_docstring(ast.parse(file.read_bytes())) or "").split("\n")[0] for file in files}


def export(overrides: Sequence[str]) -> int:
    """Writes all runs under a folder in a format.

    Of several runs with the same path, such as two of one encoder and task under one protocol, the newest is written.

    Args:
        overrides: --help, which shows the formats; or to=, the name of one, where a hyphen counts as an underscore;
            results=, a run or a folder with runs in it; out=, the folder to write into, or the file, of a format that
            is one; metrics=, of latex, `headline`, `all` or names of metrics, between commas; task=, the file of a task
            of your own, by which its runs are scored again.

    Returns:
        The exit code: 1 if a run does not validate. Such runs are named and left out.

    Raises:
        UserError: an argument is wrong; there is no such format, no run, or none that has a place in the format.
    """
    if "--help" in overrides:
        print(f"\n{columns([('to=', 'files'), *formats().items()])}\n\n{MORE}")
        return 0
    options = {"to": "", "results": "results", "out": "", "metrics": ""}
    overrides, files = task_files(overrides)
    for override in overrides:
        key, equals, value = override.partition("=")
        if key not in options or not equals:
            near = suggest_key(
                override.replace("format=", "to="), options, "to" if override in formats() else "results"
            )
            raise UserError(f"export takes to=, results=, out=, metrics= and task=, got {override!r}.{near}")
        options[key] = value
    name, known = options["to"].replace("-", "_"), formats()
    if not name:
        raise UserError(f"export needs to=FORMAT, one of {', '.join(known)}")
    if "," in name:
        raise UserError(f"to={options['to']}: one format at a time; begin with to={name.split(',')[0]}")
    if name not in known:
        raise UserError(f"to={options['to']}: there is no such format.{suggest(name, known)} Known: {', '.join(known)}")
    module = importlib.import_module(f"{__name__}.{name}")
    settings = {"metrics": options["metrics"]} if options["metrics"] else {}
    if settings and "metrics" not in inspect.signature(module.files).parameters:
        raise UserError(f"metrics={options['metrics']}: to={name} has all that fits it; metrics= is of to=latex")
    out, only = _place(options["out"] or f"exports/{name}", getattr(module, "FILE", ""))

    runs, refused = collect(Path(options["results"]), files)
    for line in refused:
        logger.warning(f"refused: {line}")
    for run in runs:
        for entry in run.result["scores"]:
            if entry["value"] is None:
                report(run, f"{entry['metric']} is undefined and left out")
    runs = told_apart(sorted(runs, key=timestamp, reverse=True))
    written: set[Path] = set()
    for path, text in module.files(runs, **settings):
        file = only or out / path
        content = text.encode("utf-8", "backslashreplace")  # a name may hold what no encoding has
        if file not in written:
            written.add(file)
            try:
                atomic.write(file, content)
            except OSError as error:
                raise UserError(f"out={only or out}: cannot write {path}: {error.strerror}") from error
        elif content != file.read_bytes():
            logger.warning(f"{path}: another run has the same place, and the older one is left out")
    if runs and not written:
        raise UserError(f"to={name}: none of {counted(len(runs), 'run')} has a place in it. {known[name]}")
    print(f"{only or out}: {counted(len(written), 'file')} of {counted(len(runs), 'run')}")
    return 1 if refused else 0


def _place(out: str, file: str) -> tuple[Path, Path | None]:
    """The folder to write into; and the file, where a format that is one `file` is to be in a file of that suffix."""
    path = Path(out)
    if path.is_dir() or path.suffix not in SUFFIXES:
        return path, None
    if path.suffix != Path(file).suffix:
        wanted = f"a folder, or a file like {file}" if file else "a folder: the format has several files"
        raise UserError(f"out={out}: wanted {wanted}")
    return path.parent, path


# --- what formats share ----------------------------------------------------------------------------------------------


def report(run: Run, message: str) -> None:
    """Reports on stderr that part of a run is left out."""
    logger.warning(f"{run.name}: {message}")


def told_apart(runs: Sequence[Run]) -> list[Run]:
    """The runs, with the first letters of the weights' hash after the name that several encoders have."""
    weights: dict[tuple[str, str], set[str]] = {}
    for run in runs:
        weights.setdefault(model_id(run), set()).add(run.result["encoder"]["sha256"] or "")
    return [run if len(weights[model_id(run)]) == 1 else _with_hash(run) for run in runs]


def _with_hash(run: Run) -> Run:
    encoder = run.result["encoder"]
    name = f"{encoder['name']}-{(encoder['sha256'] or 'none')[:8]}"
    return replace(run, result={**run.result, "encoder": {**encoder, "name": name}})


def task_name(run: Run) -> str:
    """The name of a run's task; `msrvtt-reranked` and `msrvtt-transductive` are never beside what is neither."""
    task = run.result["task"]
    again = "reranked" if reranked(task["protocol"]) else ""
    return "-".join(filter(None, [task["name"], again, "transductive" if task["protocol"].get("transductive") else ""]))


def task_names(runs: Sequence[Run]) -> list[str]:
    """The name of each run's task, with what differs where an encoder has runs of one task under several protocols.

    `kinetics400-videoglue` and `kinetics400-videoprism` by the protocols' names, `ssv2-probe` and `ssv2-knn` by the
    adapters; where these are alike, by the first letters of the protocols' hashes.
    """
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault((model_id(run), run.result["encoder"]["sha256"], task_name(run)), []).append(run)
    names: dict[int, str] = {}
    for (*_, task), group in groups.items():
        traits = [_traits(run) for run in group]
        several = [len({*values}) > 1 for values in zip(*traits, strict=True)]
        labels = ["-".join(filter(None, [task, *itertools.compress(of_run, several)])) for of_run in traits]
        hashes = [run.result["task"]["protocol_sha256"] for run in group]
        for run, label, digest in zip(group, labels, hashes, strict=True):
            alike = {other for other, same in zip(hashes, labels, strict=True) if same == label}
            names[id(run)] = label if len(alike) == 1 else f"{label}-{digest[:8]}"
    return [names[id(run)] for run in runs]


def _traits(run: Run) -> tuple[str, str]:
    """What a protocol is called by: its name, and the adapter."""
    return str(run.result["task"]["protocol"].get("name") or ""), run.result["adapter"]["name"]


def defined(run: Run) -> list[Mapping[str, Any]]:
    """The run's scores whose value is not null, the headline first."""
    return [entry for entry in run.result["scores"] if entry["value"] is not None]


def with_headline(runs: Iterable[Run]) -> Iterator[Run]:
    """The runs with a headline value; the others are reported."""
    for run in runs:
        if run.result["scores"] and run.result["scores"][0]["value"] is not None:
            yield run
        else:
            report(run, "has no headline, and so no place")


def example_scores(run: Run, rows: Sequence[Row]) -> dict[str, npt.NDArray[np.float64]]:
    """Each labeled row's score, (N,) in 0..1, by metric, for the metrics that are means over examples."""
    measured = measure(resolve(run.result["task"]["score"], run.task_files), rows) if run.result["scores"] else {}
    return {metric: values for metric, values in measured.items() if isinstance(values, np.ndarray)}


def path_part(name: str) -> str:
    """A name as one path component that is valid on any file system."""
    return re.sub(r"[^\w.@+-]", "-", name).strip(".") or "unnamed"


def model_id(run: Run) -> tuple[str, str]:
    """Organization and name of the encoder on the Hugging Face hub, else `local` and its name, or its language model's.

    A ckpt like `organization/name` is taken for one of the hub if there is no such local path.
    """
    name, ckpt = run.result["encoder"]["name"], run.result["encoder"]["ckpt"]
    if ckpt == "none":
        return "local", path_part(f"{language_model_of(run.result) or name} text-only")
    if ckpt == "demo":
        return "evalkit", path_part(name)
    hub = _hubs().get(ckpt) or ("" if Path(ckpt).exists() else ckpt.partition("@")[0])
    match = re.fullmatch(r"(\w[\w.-]*)/([\w.-]+)", hub)
    return (path_part(match[1]), path_part(match[2])) if match else ("local", path_part(name))


@functools.cache
def _hubs() -> dict[str, str]:
    return {name: card.hub for name, card in cards().items()}


def fraction(metric: str, value: float | None) -> float | None:
    """A score in the range of most formats: rates in 0..1, ranks unchanged."""
    return value if value is None or is_rank(metric) else round(value / 100, 8)


def summary(run: Run) -> dict[str, Any]:
    """Intervals, controls, failures and hashes, for formats with free-form metadata."""
    record, task, data = run.result, run.result["task"], run.result["data"]
    return {
        "status": record["status"],
        "task_version": task["version"],
        "protocol": task["protocol"],
        "protocol_sha256": task["protocol_sha256"],
        "fingerprint": data["fingerprint"],
        "weights_sha256": record["encoder"]["sha256"],
        "scores": record["scores"],
        "chance": record["chance"],
        "controls": record["controls"],
        "n_expected": data["n_expected"],
        "n_failed": data["n_failed"],
        "command": record["provenance"]["command"],
        "git_commit": record["provenance"]["git_commit"],
    }


def as_json(value: Any) -> str:
    """Indented JSON."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def as_lines(values: Iterable[Any]) -> str:
    """JSON lines."""
    return "".join(json.dumps(value, allow_nan=False) + "\n" for value in values)


def timestamp(run: Run, event: str = "finished") -> datetime:
    """The time at which a run started or finished, UTC."""
    return datetime.fromisoformat(run.result["provenance"][event])
