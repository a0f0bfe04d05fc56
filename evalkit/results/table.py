"""A result as text for a terminal or a pipe, and what a reader should know that no number says."""

from __future__ import annotations

import io
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from textwrap import wrap
from typing import Any

from rich.console import Console
from rich.table import Table

from evalkit.errors import counted, printable
from evalkit.results.rows import Row
from evalkit.results.sizes import different_sets

FEWEST = 20  # answers, below which one answer for most of them may be chance
MOST = 0.5  # of all answers that one may be
TIMES = 3.0  # as often as it is right that it may be given


def columns(rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """Rows of cells as aligned text; with a width in characters, cells wrap: at 30, those of the last column at it."""
    widths = [max(map(len, column), default=0) for column in zip(*rows, strict=True)]
    if width is not None and widths:
        widths = [min(30, cell_width) for cell_width in widths]
        widths[-1] = max(30, width - sum(widths[:-1]) - 2 * (len(widths) - 1))
    lines = []
    for row in rows:
        cells = [
            [cell] if width is None else wrap(cell, w, break_long_words=False)
            for cell, w in zip(row, widths, strict=True)
        ]
        for parts in zip_longest(*cells, fillvalue=""):
            lines.append("  ".join(f"{part:<{w}}" for part, w in zip(parts, widths, strict=True)).rstrip())
    return "\n".join(lines)


def reranked(protocol: Mapping[str, Any]) -> int:
    """How many candidates of each query retrieval re-ranked; 0 where it did not, as of adapters with other settings."""
    settings = protocol.get("settings")
    count = settings.get("rerank") if isinstance(settings, Mapping) else None
    return count if type(count) is int and count > 0 else 0


def table(result: Mapping[str, Any]) -> str:
    """The result as text for a terminal or a pipe: what was run, its scores, what to compare them with, what failed."""
    task, encoder, adapter, data = (result[key] for key in ("task", "encoder", "adapter", "data"))
    failed, expected = data["n_failed"], data["n_expected"]
    status = result["status"] + (
        f": {failed:,} of {counted(expected, 'example')} failed, counted as wrong" if failed else ""
    )
    head = Table.grid(padding=(0, 2))
    head.add_row("task", f"{task['name']}, {task['split']}, version {task['version']}")
    alone = encoder["ckpt"] == "none"
    head.add_row("encoder", "none" if alone else f"{encoder['name']}, {count(encoder['parameters'])} parameters")
    if model := adapter.get("language_model"):
        head.add_row("language model", f"{language_model_of(result)}, {count(model['parameters'])} parameters")
    head.add_row("adapter", f"{adapter['name']}, {count(adapter['trainable_parameters'])} trainable")
    protocol = task["protocol"]
    if (views := protocol.get("views")) and views.get("frames"):  # of features that others made nobody may have said
        name = f"; protocol {protocol['name']}" if protocol.get("name") else ""
        head.add_row("clip", f"{views_in_words(views)}{name}")
    if protocol.get("transductive"):
        temperature = adapter["settings"].get("dual_softmax")
        how = f"dual softmax, temperature {temperature:g}" if temperature else "transductive"
        head.add_row("scored by", f"{how}: what one query finds depends on all others of the test")
    if first := reranked(protocol):
        head.add_row("scored by", f"the first {first:,} by the cosine, ordered by layers that see video and text")
    if scorer := task["protocol"].get("scored_by"):
        head.add_row("scored by", f"{scorer}, as the server gives nothing else")
    head.add_row("status", status)
    if failed * 2 > expected:
        share = f"{failed:,} of {expected:,}"
        head.add_row("WARNING", f"MOST OF THE TEST FAILED ({share}): the score says little of the encoder")
    differences = data.get("size_differences", [])
    for split in differences:
        numbers = f"{counted(split['examples'], 'example')}, {split['published']:,} published"
        head.add_row("WARNING", f"{split['split']} has {numbers}: not comparable with published numbers")
    if any(split["split"] == "test" for split in differences) and "expect" not in data:
        head.add_row("", f"data.expect={expected} says that the number is meant")
    if shared := shared_in_words(data):
        first_pair = data["shared_videos"]["first"][0]
        head.add_row("WARNING", f"{shared}, the first {first_pair['test']}: `evalkit check` names them")
    if left_out := (result["selection"] or {}).get("undecodable"):
        missing = sum(video["reason"].startswith("no such file") for video in left_out)
        kinds = {"missing": missing, "undecodable": len(left_out) - missing}
        kinds_in_words = " and ".join(f"{count:,} {kind}" for kind, count in kinds.items() if count)
        head.add_row("train", f"{kinds_in_words} videos left out")

    body = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    body.add_column("", no_wrap=True)
    for title in ("score", "95 % interval", "examples", "videos"):
        body.add_column(title, justify="right", no_wrap=True)
    if failed:
        body.add_column("bounds", justify="right", no_wrap=True)
    for entry in result["scores"]:
        body.add_row(
            entry["metric"],
            decimal(entry["value"]),
            interval(entry["ci95"]),
            f"{entry['n']:,}",
            f"{entry['n_clusters']:,}",
            *([interval(entry["bounds"])] if failed else []),
        )
    if result["scores"]:
        body.add_row()
        body.add_row("chance", decimal(result["chance"]))
        headline = result["scores"][0]["metric"]
        for control in result["controls"]:
            metric = "" if control["metric"] == headline else f" {control['metric']}"
            body.add_row(f"{control['name']} (control){metric}", decimal(control["value"]))
        published = ", ".join(filter(None, ("published", different_sets(differences))))
        for row, value in task.get("published", {}).items():
            body.add_row(f"{row} ({published})", decimal(value))

    buffer = io.StringIO()
    # Wide enough that nothing is cut: a terminal folds a long name, a pipe keeps it.
    console = Console(
        file=buffer, width=1000, color_system=None, force_terminal=False, markup=False, emoji=False, highlight=False
    )
    console.print(head)
    console.print()
    console.print(body if result["scores"] else "no score: no test example has a public answer")
    lines = [line.rstrip() for line in buffer.getvalue().splitlines()]
    lines += _grouped(data["failures"])
    if result.get("differences"):
        lines += ["", "recomputed scores differ from the stored ones:", *(f"  {x}" for x in result["differences"])]
    # A file name may hold bytes that no encoding has; printing it must not fail.
    return "\n".join(lines).encode("utf-8", "backslashreplace").decode()


def views_in_words(views: Mapping[str, Any]) -> str:
    """Which frames and crops a protocol's `views` show: `16 frames x 224, dense (stride 4), 4 clips x 3 crops`."""
    known = {name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in views.items() if value}
    sampling = known.get("sampling", "")
    detail = {"fps": f" ({known.get('fps')} a second)", "dense": f" (stride {known.get('stride')})"}.get(sampling, "")
    frames, *counts = [
        f"{known.get(name)} {name[:-1] if known.get(name) == '1' else name}" for name in ("frames", "clips", "crops")
    ]
    shown = [f"{frames} x {known.get('size')}, {sampling}{detail}", " x ".join(counts)]
    if window := known.get("window"):
        shown.append(f"in windows of {window} s, one every {known.get('window_stride', window)} s")
    return ", ".join(shown)


def shared_in_words(data: Mapping[str, Any]) -> str:
    """How many test videos were also trained on, of a record's `data`; empty for none."""
    videos = data.get("shared_videos", {}).get("videos", 0)
    return f"{videos:,} test {'videos are' if videos > 1 else 'video is'} in train, too" if videos else ""


def language_model_of(record: Mapping[str, Any]) -> str:
    """The language model of a run for people: its name and a short hash, or that a server holds it; empty for none."""
    model = record["adapter"].get("language_model")
    if not model:
        return ""
    return f"{model['name']} {model['sha256'][:8] if model['sha256'] else 'served'}"


def encoder_name(record: Mapping[str, Any]) -> str:
    """The name of a run's encoder for people; of a run without one, its language model's, which says so."""
    encoder = record["encoder"]
    if encoder["ckpt"] != "none":
        return str(encoder["name"])
    return f"{language_model_of(record) or encoder['name']} (text only)"


def _grouped(failures: Sequence[Mapping[str, str]], most: int = 5) -> list[str]:
    """The reasons of failures, the most frequent first, each with the first ids that have it."""
    alike: dict[str, list[Mapping[str, str]]] = {}
    for failure in failures:
        alike.setdefault(without_video(failure["reason"], failure["id"]), []).append(failure)
    if not alike:
        return []
    groups = {
        reason if len(some) > 1 else some[0]["reason"]: [failure["id"] for failure in some]
        for reason, some in alike.items()
    }
    ranked = sorted(groups.items(), key=lambda group: -len(group[1]))
    width = len(f"{len(ranked[0][1]):,}")
    lines = ["", "failed (bounds: with all of them wrong, with all of them right)"]
    for reason, ids in ranked[:most]:
        lines.append(f"  {len(ids):{width},}  {reason}  ({first(ids)})")
    left = sum(len(ids) for _, ids in ranked[most:])
    return [*lines, f"  {left:{width},}  for {len(ranked) - most} other reasons"] if left else lines


def without_video(reason: str, name: str) -> str:
    """The reason of a failure without the video that it is of, so that equal reasons are seen to be equal."""
    named = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "VIDEO", reason) if name else reason
    return re.sub(r"\S+\.(?:mp4|webm|mkv|avi|mov|m4v|mpe?g|flv|wmv|ts)\b", "VIDEO", named)


def first(ids: Sequence[str], most: int = 3) -> str:
    """The first of some names, as a terminal can show them, and dots where there are more."""
    return ", ".join(map(printable, ids[:most])) + (", ..." if len(ids) > most else "")


def count(number: int | None) -> str:
    """A number of parameters: `1,234`, from 100,000 `1.2 M`; unknown for None."""
    if number is None:
        return "unknown"
    return f"{number:,}" if number < 100_000 else f"{number / 1e6:,.1f} M"


def decimal(number: float | None, sign: str = "", missing: str = "-") -> str:
    """A score with one decimal: `56.7`; with sign="+" `+1.2`; `missing` for None and NaN."""
    return missing if number is None or math.isnan(number) else f"{float(number):{sign}.1f}"


def interval(numbers: Sequence[float | None], sign: str = "", missing: str = "-") -> str:
    """A low and a high score: `54.3 to 59.1`; `missing` where one is None or NaN."""
    known = [decimal(number, sign, "") for number in numbers]
    return " to ".join(known) if all(known) else missing


def collapsed(rows: Sequence[Row], names: Sequence[str] = (), fitted: bool = True) -> str:
    """A line where one answer is given for most examples, and far more often than it is right; else empty.

    Args:
        rows: of the test examples; those whose target is not a number, or that have no answer, do not count.
        names: of the classes that the numbers stand for.
        fitted: by this run, so that more training may help.
    """
    answers = [(_first(row.prediction), row.target) for row in rows if type(row.target) is int]
    given = Counter(answer for answer, _ in answers if answer is not None)
    if given.total() < FEWEST:
        return ""
    (answer, count), *_ = given.most_common(1)
    right = sum(target == answer for _, target in answers)
    if count < MOST * given.total() or count < TIMES * right:
        return ""
    name = printable(names[answer][:60]) if answer < len(names) else str(answer)
    advice = (
        ": the head has hardly learned. See its scores on val (selection in result.json); more epochs or another "
        "adapter.lr may help"
    )
    return (
        f"{count:,} of {given.total():,} answers are {name!r}, which is right for {right:,}{advice if fitted else ''}"
    )


def tied(selection: Mapping[str, Any] | None) -> str:
    """A note that several grid points tie on val, so the first of them was taken; else empty."""
    if not selection or selection.get("val_score") is None:
        return ""
    points, best = selection.get("grid_val_scores") or (), selection["val_score"]
    count = sum(point == best for point in points)
    of_val = f"{best:.1f}" + (f" on {counted(selection['n_val'], 'example')}" if "n_val" in selection else "")
    return (
        f"{count} of {len(points)} grid points tie on val ({of_val}); the first of them was chosen" if count > 1 else ""
    )


def _first(prediction: Any) -> int | None:
    """The number that is answered: of a list of classes, the first one."""
    if isinstance(prediction, list | tuple) and prediction:
        prediction = prediction[0]
    return prediction if type(prediction) is int else None
