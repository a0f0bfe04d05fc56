"""Results side by side: a `Column` per benchmark and adaptation with a `Cell` per encoder."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evalkit.datasets import training_data
from evalkit.errors import counted
from evalkit.metrics.significance import rank_intervals
from evalkit.results.table import encoder_name, language_model_of, reranked
from evalkit.weights import presets

from .runs import Run
from .seeds import Seeds, pool_seeds

MINI = "@mini"
SEEN = "†"  # beside a score on data of the encoder's training
BY_TEXT = ("captioner", "contrastive", "multiple_choice", "retrieval", "segments_to_lm", "zero_shot")  # adapters
ALONE = "none"  # the ckpt of a run without an encoder: a language model alone, which is asked in words


@dataclass(frozen=True)
class Cell:
    """One encoder under one protocol on one benchmark.

    Attributes:
        seeds: its runs, one of each seed, and of each fold where the benchmark has several.
        encoder: its name, with a suffix if several encoders share the name.
        mark: a letter if protocol or data differ from those of most of the column, else empty.
        ranks: 95 % interval of its rank, from 1; None if it is not ranked.
        seen: data sets that the encoder, or its adapter, was trained on and that share videos with the benchmark; empty
            for none.
    """

    seeds: Seeds
    encoder: str
    mark: str
    ranks: tuple[int, int] | None
    seen: str = ""

    @property
    def run(self) -> Run:
        """The newest of its runs."""
        return self.seeds.newest

    @property
    def score(self) -> Mapping[str, Any] | None:
        """The headline, as the mean over seeds and folds; None if no example has a public answer."""
        return self.seeds.score


@dataclass(frozen=True)
class Column:
    """The runs of one benchmark, split, protocol, adaptation and metric.

    Attributes:
        task: its name, with @mini for the miniature.
        split: what was scored.
        protocol: its name, where there are several.
        adaptation: as returned by `adaptation`.
        metric: the headline; empty if no example has a public answer.
        cells: the best first.
        marks: by letter, how its cells differ from those without a letter.
    """

    task: str
    split: str
    protocol: str
    adaptation: str
    metric: str
    cells: tuple[Cell, ...]
    marks: Mapping[str, str]


# --- side by side ----------------------------------------------------------------------------------------------------


def adaptation(record: Mapping[str, Any]) -> str:
    """The adaptation of a run, as `evalkit.datasets.published` names it: frozen, mlap, finetune, zero-shot, ...

    Predictions that evalkit did not make are `made elsewhere`, whatever made them. What depends on the other examples
    of the test is marked, and so never beside what does not, nor beside printed numbers; so is what was re-ranked.
    """
    protocol = record["task"]["protocol"]
    marked = ", transductive" if protocol.get("transductive") else ""
    return f"{_adaptation(record)}{', re-ranked' if reranked(protocol) else ''}{marked}"


def _adaptation(record: Mapping[str, Any]) -> str:
    adapter = record["adapter"]
    settings = adapter["settings"]
    if adapter["name"] == "predictions":
        return "made elsewhere"
    if adapter["name"] == "own_head":  # of a checkpoint that was fine-tuned
        return "finetune"
    # A head of classes was fitted on the task's, here or before; one that works by text may be of any other task.
    of_task = adapter["name"] not in BY_TEXT or record["task"]["name"] in adapter.get("trained_on", ())
    fitted_before = settings.get("probe") or (settings.get("from") and of_task)
    if record["selection"] is None and not fitted_before:
        return "zero-shot"
    if shots := record["task"]["protocol"].get("shots"):  # papers print what all of the training data gives
        return f"{shots}-shot"
    if share := record["task"]["protocol"].get("share"):
        return f"{100 * share:g} % of train"
    if adapter["name"] == "finetune":
        return {"all": "finetune", "adapters": "adapter"}.get(settings.get("tune", ""), str(settings.get("tune", "")))
    if adapter["name"] in ("captioner", "contrastive"):  # the latter trained the encoder
        return "fine-tuned"
    several = adapter["name"] in ("probe", "localizer") and settings.get("layers", 0) > 1
    of_several_layers = settings.get("head") == "mlap" or several
    return "mlap" if of_several_layers else "frozen"


def build_columns(runs: Iterable[Run]) -> list[Column]:
    """A column per task, split, protocol, adaptation and metric, sorted by these."""
    by_column: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        task, scores = run.result["task"], run.result["scores"]
        protocol = str(task["protocol"].get("name") or "")
        metric = scores[0]["metric"] if scores else ""
        by_column.setdefault((task["name"], task["split"], protocol, adaptation(run.result), metric), []).append(run)
    names = _names(run for members in by_column.values() for run in members)
    return [_column(key, members, names) for key, members in sorted(by_column.items())]


_Identity = tuple[str, str, str]


def _identity(record: Mapping[str, Any]) -> _Identity:
    """An encoder's name, hash of its weights, and settings as JSON; of a run without one, its language model's."""
    encoder = record["encoder"]
    if encoder["ckpt"] == ALONE:  # the language model stands in its place
        return encoder_name(record), str(record["task"]["protocol"].get("lm", "")), "{}"
    return encoder["name"], encoder["sha256"] or encoder["ckpt"], json.dumps(_settings(record), sort_keys=True)


def _settings(record: Mapping[str, Any]) -> dict[str, Any]:
    """The encoder's settings without its batch size, by dotted name."""
    return {key: value for key, value in _flat(record["encoder"].get("settings", {})) if key != "batch"}


def _names(runs: Iterable[Run]) -> dict[_Identity, str]:
    """The display name of each encoder: its name, with hash prefix and varying settings if several share it."""
    records = {_identity(run.result): run.result for run in runs}
    names = {}
    for (name, weights, settings_json), record in records.items():
        parts = [name]
        if len({other_weights for other, other_weights, _ in records if other == name}) > 1:
            parts.append(weights[:8])
        settings = _settings(record)
        same_weights = [_settings(records[identity]) for identity in sorted(records) if identity[:2] == (name, weights)]
        for key in sorted({key for other in same_weights for key in other}):
            if any(other.get(key) != settings.get(key) for other in same_weights):
                parts.append(f"{key}={settings.get(key)}")
        names[name, weights, settings_json] = " ".join(parts)
    return names


def _terms(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Protocol, data, task version and score function: two runs are comparable if these are equal.

    Runs of the folds of a benchmark, whose data differ, have equal terms.
    """
    task = record["task"]
    data = "folds" if "fold" in task else record["data"]["fingerprint"]
    return (task["protocol_sha256"], data, str(task["version"]), task["score"])


def _column(key: tuple[str, ...], runs: Sequence[Run], names: Mapping[_Identity, str]) -> Column:
    same: dict[tuple[_Identity, tuple[str, ...]], list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run.result["provenance"]["finished"], run.name)):
        same.setdefault((_identity(run.result), _terms(run.result)), []).append(run)
    pools = [pool_seeds(members) for members in same.values()]
    votes = Counter(_terms(pool.newest.result) for pool in pools)
    usual, *others = sorted(votes, key=lambda terms: (-votes[terms], terms))
    letters = {terms: letter(i) for i, terms in enumerate(others)}
    records = {_terms(pool.newest.result): pool.newest.result for pool in pools}
    ranks = _ranks(pools)
    cells = [
        Cell(pool, names[identity], letters.get(terms, ""), ranks.get(pool.newest.name), _seen(pool.newest.result))
        for (identity, terms), pool in zip(same, pools, strict=True)
    ]
    cells.sort(key=lambda cell: (-_value(cell), cell.encoder, cell.mark))
    marks = {mark: differences(records[usual], records[terms]) for terms, mark in letters.items()}
    task, split, protocol, adapted, metric = key
    return Column(task, split, protocol, adapted, metric, tuple(cells), marks)


def _seen(record: Mapping[str, Any]) -> str:
    """The training data, of the encoder and of a loaded adapter, that share videos with the benchmark.

    The encoder's are by its checkpoint if the record lacks them; that an adapter was trained on the benchmark itself is
    in `adaptation`.
    """
    encoder, task = record["encoder"], record["task"]["name"]
    trained_on = encoder.get("trained_on", presets.trained_on(encoder["ckpt"])) or {}
    of_adapter = {name: "data" for name in record["adapter"].get("trained_on", ()) if name != task}
    return training_data.in_words(training_data.seen(task, of_adapter | trained_on))


def _value(cell: Cell) -> float:
    """Sort key; cells without a value come last."""
    value = cell.score["value"] if cell.score else None
    return -math.inf if value is None else float(value)


def letter(i: int) -> str:
    """The mark of a number from 0: a, b, ..., z, aa, ab, ...."""
    return (letter(i // 26 - 1) if i >= 26 else "") + chr(ord("a") + i % 26)


def _ranks(pools: Sequence[Seeds]) -> dict[str, tuple[int, int]]:
    """Rank intervals by name of the newest run, among runs of the same examples and score function."""
    groups: dict[tuple[Any, ...], list[Seeds]] = {}
    for pool in pools:
        if pool.newest.result["scores"]:
            groups.setdefault(_terms(pool.newest.result)[1:], []).append(pool)
    ranks: dict[str, tuple[int, int]] = {}
    for group in groups.values():
        values = [pool.headline.values for pool in group] if len(group) > 1 else []
        clusters = group[0].headline.clusters if values else None
        comparable = [value for value in values if value is not None]
        if clusters is None or len(comparable) < len(group):
            continue
        if all(np.array_equal(pool.headline.clusters, clusters) for pool in group):
            intervals = rank_intervals(comparable, clusters.tolist(), seed=0)
            ranks |= {pool.newest.name: interval for pool, interval in zip(group, intervals, strict=True)}
    return ranks


def differences(usual: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """A description of how two runs' terms differ."""
    different = []
    data, task = other["data"], other["task"]
    if data["fingerprint"] != usual["data"]["fingerprint"] and "fold" not in task:
        different.append(f"other data ({counted(data['n_expected'], 'example')}, {data['fingerprint'][:8]})")
    for key, word in (("version", "version"), ("score", "scored by")):
        if task[key] != usual["task"][key]:
            different.append(f"{word} {task[key]} instead of {usual['task'][key]}")
    before, after = (dict(_flat(record["task"]["protocol"])) for record in (usual, other))
    changed = [key for key in sorted(before.keys() | after.keys()) if before.get(key) != after.get(key)]
    if "adapter" in changed:  # which has other settings
        changed = [key for key in changed if not key.startswith("settings.")]
    models = [language_model_of(record) for record in (usual, other)]
    if "lm" in changed and all(models) and models[0] != models[1]:
        different.append(f"lm {models[1]} instead of {models[0]}")
        changed.remove("lm")
    if {usual["encoder"]["ckpt"], other["encoder"]["ckpt"]} > {ALONE}:  # views, and what reads them
        different.append("no video" if other["encoder"]["ckpt"] == ALONE else "a video")
        changed = [key for key in changed if key in before and key in after]
    for key in changed:
        instead = f" instead of {before[key]}" if key in before else ""
        different.append(f"{key} {after[key]}{instead}" if key in after else f"no {key}, which is {before[key]}")
    return "; ".join(different)


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value
