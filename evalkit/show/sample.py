"""One sample of a run as parts with rows of cells: what was expected, what was predicted, and what controls said."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from evalkit.api import Example
from evalkit.metrics.text.tokenizer import tokenized
from evalkit.results.rows import Row
from evalkit.results.table import encoder_name
from evalkit.show.opened import Opened, is_numbers
from evalkit.video.media import shown

TOP = 5  # classes, and videos near a query
N = 4  # longest n-gram that caption metrics count
MOST_TEXT = 2_000  # characters of one text
MOST_REFERENCES = 20
MOST_EXPECTED, MOST_PREDICTED = 20, 10  # segments or boxes
# Of regions, by how many numbers stand before their label: seconds, or shares of the frame.
BOUNDS = {2: ("from s", "to s"), 4: ("left", "top", "right", "bottom")}
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Word(NamedTuple):
    """A word of a caption or reference, and how many words the longest n-gram has that it is shared in; 0: in none."""

    text: str
    shared: int


Cell = str | Sequence[Word]


class Part(NamedTuple):
    """A part of what is shown of a sample.

    Attributes:
        title: in a word or two.
        rows: of as many cells each.
        note: a line below them; empty for none.
        head: titles of the columns; empty where the cells say what they are.
    """

    title: str
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    head: Sequence[str] = ()


def verdict(opened: Opened, row: Row) -> str:
    """How a sample came out: right, wrong, failed, not public, or its score."""
    if row.prediction is None:
        return "failed"
    right = opened.is_right(row)
    if right is not None:
        return "right" if right else "wrong"
    value = opened.values[opened.place[row.id]]
    if value is not None:
        return f"{opened.metric} {value:.1f}"
    return "no public answer" if row.target is None else "answered"


def parts(opened: Opened, row: Row) -> list[Part]:
    """All that the run, and its task where it is here, say of a sample."""
    example = opened.examples.get(row.id)
    made = [Part("sample", _head(opened, row, example))]
    if row.prediction is None:
        made.append(Part("failed", [(row.failure or "no prediction",)]))
    answer = {
        "class": _classes,
        "classes": _several,
        "question": _question,
        "retrieval": _query,
        "text": _caption,
        "other": _other,
    }[opened.kind_of(row)]
    made += answer(opened, row, example)
    if controls := opened.controls.get(row.id):
        made.append(_controls(opened, row, example, controls))
    return made


def _head(opened: Opened, row: Row, example: Example | None) -> list[tuple[str, str]]:
    task = opened.record["task"]
    rows = [
        ("run", opened.folder.resolve().name),
        ("task", f"{task['name']}, {task['split']}"),
        ("encoder", f"{encoder_name(opened.record)}, {opened.record['adapter']['name']}"),
        ("video", shown(example.video) if example else row.video),
    ]
    if example and example.span:
        start, end = example.span
        rows.append(("span", f"{start:g} to {end:g} s" if end > start else f"at {start:g} s"))
    if row.kind:
        rows.append(("kind", row.kind))
    if example and example.text and opened.kind != "retrieval":
        rows.append(("text", example.text[:MOST_TEXT]))
    if row.decoder:
        rows.append(("decoded by", row.decoder))
    return rows


# --- what was expected and predicted, by what is asked ---------------------------------------------------------------


def _classes(opened: Opened, row: Row, example: Example | None) -> list[Part]:
    value, detail = row.prediction, row.detail or {}
    ranked = value if isinstance(value, list) else [] if value is None else [value]
    scores, unit = _scores(detail, len(ranked))
    rows = [
        (_sign(place == 0, number == row.target), opened.name(number), scores[place] if scores else "")
        for place, number in enumerate(ranked[:TOP])
    ]
    if row.target is not None and row.target not in ranked[:TOP]:
        rows.append((_sign(False, True), opened.name(row.target), "not among the first" if ranked else ""))
    return [Part("answer", rows, "", ("", "class", unit))] if rows else []


def _several(opened: Opened, row: Row, example: Example | None) -> list[Part]:
    target = row.target if isinstance(row.target, list) else [row.target]
    scores = row.prediction or []
    order = sorted(range(len(scores)), key=lambda number: -scores[number])
    place = {number: rank for rank, number in enumerate(order, 1)}
    chosen = [*order[:TOP], *(number for number in target if number not in order[:TOP] and number is not None)]
    rows = [
        (
            _sign(False, number in target),
            opened.name(number),
            f"{scores[number]:.3f}" if number in place else "",
            str(place.get(number, "")),
        )
        for number in chosen
    ]
    return [Part("classes", rows, "Several may be right.", ("", "class", "score", "rank"))] if rows else []


def _question(opened: Opened, row: Row, example: Example | None) -> list[Part]:
    detail = row.detail or {}
    numbers = [number for number in (row.target, row.prediction) if type(number) is int]
    count = len(example.choices) if example else max([len(_values(detail)), *(number + 1 for number in numbers)])
    scores, unit = _scores(detail, count)
    rows = [
        (
            _sign(row.prediction == number, row.target == number),
            _letter(number),
            example.choices[number][:MOST_TEXT] if example else f"option {number + 1}",
            scores[number] if scores else "",
        )
        for number in range(count)
    ]
    said = str(detail["said"])[:MOST_TEXT] if "said" in detail else ""
    note = f"The language model said: {said}" if said else ""
    return [Part("options", rows, note, ("", "", "option", unit))] if rows else []


def _query(opened: Opened, row: Row, example: Example | None) -> list[Part]:
    own = own_video(row.target)
    rows = [("query", example.text[:MOST_TEXT] if example else row.id), ("its video", own)]
    found, detail = row.prediction, row.detail or {}
    if found is not None:
        rows += [
            ("its rank", _cell(found["t2v"])),
            ("its best text's rank", _cell(found["v2t"])),
        ]
    if "similarity" in detail:
        rows.append(("similarity", _cell(detail["similarity"])))
    made = [Part("query", rows)]
    texts: dict[str, str] = {}
    for other in opened.examples.values():  # the first text about each video
        texts.setdefault(own_video(other.target), other.text)
    near = nearest_videos(row)
    if near:
        nearest = [
            (_sign(False, name == own), str(place), name, texts.get(name, "")[:MOST_TEXT])
            for place, name in enumerate(near, 1)
        ]
        made.append(Part("nearest", nearest, "", ("", "rank", "video", "a text about it" if texts else "")))
    return made


def nearest_videos(row: Row) -> list[str]:
    """The names of the videos that are nearest to a query, as many as are shown."""
    names = (row.detail or {}).get("nearest")
    return [str(name) for name in names[:TOP]] if isinstance(names, list) else []


def own_video(target: Any) -> str:
    """The name of the video that a text is about."""
    return str(target[0] if isinstance(target, list | tuple) and target else target)


def _caption(opened: Opened, row: Row, example: Example | None) -> list[Part]:
    references = [row.target] if isinstance(row.target, str) else row.target or []
    references = [tokenized(str(text)[:MOST_TEXT]).split() for text in references]
    said = tokenized(str(row.prediction or "")[:MOST_TEXT]).split()
    shared = [set().union(*(_grams(text, n) for text in references)) for n in range(1, N + 1)]
    if opened.whole:  # answers, which are right as a whole or not at all
        shared = []
    rows: list[tuple[Cell, ...]] = [("predicted", marked(said, shared))] if row.prediction is not None else []
    own = [_grams(said, n) for n in range(1, N + 1)] if shared else []
    rows += [("reference", marked(text, own)) for text in references[:MOST_REFERENCES]]
    note = ""
    if said and references and not opened.whole:
        counts = []
        for n in range(1, N + 1):
            most: Counter[tuple[str, ...]] = Counter()
            for text in references:
                most |= Counter(zip(*(text[i:] for i in range(n)), strict=False))
            mine = Counter(zip(*(said[i:] for i in range(n)), strict=False))
            if total := mine.total():
                counts.append(f"{(mine & most).total()} of {total} {n}-grams")
        note = f"As metrics split them, the references have {', '.join(counts)} of what was predicted."
    if len(references) > MOST_REFERENCES:
        note += f" {len(references) - MOST_REFERENCES} more references are not shown."
    return [Part("texts", rows, note)] if rows else []


def _grams(words: Sequence[str], n: int) -> set[tuple[str, ...]]:
    return set(zip(*(words[i:] for i in range(n)), strict=False))


def marked(words: Sequence[str], shared: Sequence[set[tuple[str, ...]]]) -> list[Word]:
    """Each word with the length of the longest of its n-grams that is in `shared`, whose k-th set holds k+1-grams."""
    longest = [0] * len(words)
    for n, grams in enumerate(shared, 1):
        for start in range(len(words) - n + 1):
            if tuple(words[start : start + n]) in grams:
                longest[start : start + n] = [n] * n  # n rises
    return [Word(word, n) for word, n in zip(words, longest, strict=True)]


def _other(opened: Opened, row: Row, example: Example | None) -> list[Part]:
    return [
        *_regions("expected", row.target, MOST_EXPECTED),
        *_regions("predicted", _likeliest_first(row.prediction), MOST_PREDICTED),
    ]


def _regions(title: str, value: Any, most: int) -> list[Part]:
    """Segments, boxes or texts with their times, one per row; anything else as it is written."""
    if value is None:
        return []
    if not isinstance(value, list) or not value or len({len(v) if isinstance(v, list) else -1 for v in value}) > 1:
        return [Part(title, [(_json(value),)])]
    if not isinstance(value[0], list):
        return [Part(title, [(_json(value),)])]
    rows = [("", *map(_cell, region)) for region in value[:most]]
    note = f"{most} of {len(value):,} are shown." if len(value) > most else ""
    label = next((place for place, cell in enumerate(value[0]) if isinstance(cell, str)), 0)
    named = (*BOUNDS[label], "label", "score") if label in BOUNDS else ()
    head = ["", *(named[place] if place < len(named) else "" for place in range(len(value[0])))]
    return [Part(title, rows, note, head)]


def _likeliest_first(value: Any) -> Any:
    """Regions with a score at their end, the highest first; anything else as it is."""
    scored = isinstance(value, list) and all(isinstance(v, list) and v and type(v[-1]) in (int, float) for v in value)
    return sorted(value, key=lambda region: -region[-1]) if scored else value


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else value[:MOST_TEXT] if isinstance(value, str) else _json(value)


# --- controls and small words ----------------------------------------------------------------------------------------


def _controls(opened: Opened, row: Row, example: Example | None, controls: Mapping[str, Any]) -> Part:
    rows = []
    for name, value in controls.items():
        several = value if name == "option_order" and value and isinstance(value, list) else [value]
        answers = [short(opened, answer, example) for answer in several]
        right = ""
        if opened.kind in ("class", "question") and row.target is not None:
            hits = [opened.answer(v) == row.target for v in several]
            right = f"right in {sum(hits)} of {len(hits)} orders" if len(hits) > 1 else "right" if hits[0] else "wrong"
        rows.append((name, right, ", ".join(dict.fromkeys(answers))))
    return Part("controls", rows, "", ("control", "", "predicted"))


def short(opened: Opened, value: Any, example: Example | None) -> str:
    """A prediction in a few words."""
    if value is None:
        return "nothing"
    if opened.kind == "question":
        text = example.choices[value] if example and type(value) is int and 0 <= value < len(example.choices) else ""
        return f"{_letter(value)} {text[:MOST_TEXT]}".strip() if type(value) is int else str(value)
    if opened.kind in ("class", "classes"):
        return opened.name(opened.answer(value))
    if opened.kind == "retrieval" and isinstance(value, Mapping):
        return f"rank {_cell(value.get('t2v'))}"
    return value[:MOST_TEXT] if isinstance(value, str) else _json(value)


def _sign(predicted: bool, right: bool) -> str:
    return "predicted, right" if predicted and right else "predicted" if predicted else "right" if right else ""


def _letter(number: int) -> str:
    return LETTERS[number] if 0 <= number < len(LETTERS) else str(number + 1)


def _values(detail: Mapping[str, Any]) -> list[Any]:
    names = ("probabilities", "log_likelihood", "cosines", "similarity", "votes", "scores")
    return next((detail[name] for name in names if isinstance(detail.get(name), list)), [])


def _scores(detail: Mapping[str, Any], count: int) -> tuple[list[str], str]:
    """A score of each of so many answers as text, and what it is; empty where they have none."""
    for name, value in detail.items():
        if is_numbers(value) and len(value) >= count > 0 and name != "tokens":
            return [f"{item:.3f}" for item in value], {"probabilities": "probability"}.get(name, name).replace("_", "-")
    return [], ""


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]} ..."
