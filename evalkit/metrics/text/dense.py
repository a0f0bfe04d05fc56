"""Dense captioning metrics: events with times and sentences, by densevid_eval (2018) and SODA.

densevid_eval compares each predicted sentence with those of all events that it overlaps, at tIoU 0.3, 0.5, 0.7 and
0.9, and one that overlaps none with a word that nobody writes; it scores each video by itself and takes the mean over
videos and thresholds (Krishna et al. 2017, https://github.com/ranjaykrishna/densevid_eval; evaluate2018.py in
https://github.com/ttengwang/PDVC). evaluate2021.py takes random letters for that word, so that no two runs agree.
SODA_c pairs a video's events in order (Fujita et al. 2020, https://github.com/fujiso/SODA).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from evalkit.errors import UserError
from evalkit.metrics.bootstrap import PERCENT, AdditiveScore, Table, mean
from evalkit.metrics.classification import is_failed
from evalkit.metrics.text import captions, meteor
from evalkit.metrics.text.bleu import bleu, parts
from evalkit.metrics.text.captions import undefined
from evalkit.metrics.text.cider import LIMITS, cider
from evalkit.metrics.text.ngrams import Ints, N, count
from evalkit.metrics.text.rouge import rouge_l
from evalkit.metrics.text.tokenizer import tokenized

THRESHOLDS = (0.3, 0.5, 0.7, 0.9)
MAX_EVENTS = 1000  # of one video; more are ignored
_NO_EVENT = "abc123!@#"


class Event(NamedTuple):
    """A segment from start to end, in seconds, with its tokenized sentence."""

    start: float
    end: float
    words: str


Events = Sequence[Event]


def dense(predictions: Sequence[Any], targets: Sequence[Any]) -> dict[str, float]:
    """`CIDEr`, `CIDEr-split`, `BLEU-4` to `BLEU-1`, `ROUGE-L`, `Recall` and `Precision` of dense captions; means over
    videos, each over the four tIoU thresholds.

    In CIDEr, as densevid_eval has it, the documents are the pairs of one video alone, so that a video with one pair is
    0 whatever is said. In CIDEr-split they are those of all videos; it is NaN if the whole split has one event.

    Args:
        predictions: the events of each video, [{"segment": [start, end], "sentence": text}, ...], in seconds; None for
            a failed one, which has none.
        targets: the same, or a list of such lists, one per annotator: each is a reference.

    Raises:
        UserError: a prediction or a target is not such a list, or a target is empty.
    """
    return _densevid(*_events("dense", predictions, targets))[0]


def dense_meteor(predictions: Sequence[Any], targets: Sequence[Any]) -> dict[str, float]:
    """`dense`, `METEOR` by the same rule, and `SODA_c`; needs video-evalkit[captions].

    SODA_c is the mean over the references of a video, as PDVC and those after it take it. SODA's own code leaves out
    videos without a prediction; here they are 0.

    Raises:
        UserError: as `dense`, and if METEOR cannot run.
    """
    meteor.start()
    ours, theirs = _events("dense_meteor", predictions, targets)
    metrics, pairs = _densevid(ours, theirs)
    sums = np.zeros((len(THRESHOLDS) * len(ours), meteor.FIELDS))
    np.add.at(sums, pairs.cell, meteor.parts(pairs.ours, pairs.theirs))
    return {**metrics, "METEOR": _over_thresholds(meteor.score(sums)), "SODA_c": mean(_soda(ours, theirs), PERCENT)}


def tiou(a: Event, b: Event) -> float:
    """Temporal intersection over union of two events."""
    shared = max(0.0, min(a.end, b.end) - max(a.start, b.start))
    covered = min(max(a.end, b.end) - min(a.start, b.start), a.end - a.start + b.end - b.start)
    return shared / (covered + 1e-8)


class _Pairs(NamedTuple):
    """Sentences that are compared (P,), and the cell of each: threshold x videos + video."""

    ours: list[str]
    theirs: list[list[str]]
    cell: Ints


def _densevid(ours: Sequence[Events], theirs: Sequence[Sequence[Events]]) -> tuple[dict[str, float], _Pairs]:
    pairs = _paired(ours, theirs)
    videos, cells = len(ours), len(THRESHOLDS) * len(ours)
    size = np.maximum(np.bincount(pairs.cell, minlength=cells), 1)

    def averaged(values: Any, limits: tuple[float, float] = PERCENT) -> AdditiveScore:
        return _over_thresholds(np.bincount(pairs.cell, values, minlength=cells) / size, limits)

    grams = count(pairs.ours, pairs.theirs)
    sums = np.zeros((cells, 2 + 2 * N))
    np.add.at(sums, pairs.cell, parts(grams))
    alone = sum(len(events) for sets in theirs for events in sets) < 2
    metrics: dict[str, float] = {
        "CIDEr": averaged(cider(grams, pairs.cell), LIMITS),
        "CIDEr-split": undefined(videos) if alone else averaged(cider(grams, pairs.cell // videos), LIMITS),
    }
    metrics |= {f"BLEU-{n}": _over_thresholds(bleu(sums)[:, n - 1]) for n in range(N, 0, -1)}
    metrics["ROUGE-L"] = averaged([rouge_l(*pair) for pair in zip(pairs.ours, pairs.theirs, strict=True)])
    covered = [
        [_recall_precision(events, sets, least) for events, sets in zip(ours, theirs, strict=True)]
        for least in THRESHOLDS
    ]
    recall, precision = np.moveaxis(np.array(covered), -1, 0)
    return {**metrics, "Recall": _over_thresholds(recall), "Precision": _over_thresholds(precision)}, pairs


def _paired(ours: Sequence[Events], theirs: Sequence[Sequence[Events]]) -> _Pairs:
    left: list[str] = []
    right: list[list[str]] = []
    cells: list[int] = []
    for level, least in enumerate(THRESHOLDS):
        for video, (events, sets) in enumerate(zip(ours, theirs, strict=True)):
            for event in events:
                met = [other.words for reference in sets for other in reference if tiou(event, other) >= least] or [
                    _NO_EVENT
                ]
                left += [event.words] * len(met)
                right += [[words] for words in met]
                cells += [level * len(ours) + video] * len(met)
    return _Pairs(left, right, np.array(cells, np.int64))


def _recall_precision(events: Events, sets: Sequence[Events], least: float) -> tuple[float, float]:
    """The best recall and the best precision of a video's events, over its references."""
    if not events:
        return 0.0, 0.0
    overlaps = [
        np.array([[tiou(event, annotated) > least for annotated in reference] for event in events])
        for reference in sets
    ]
    return max(float(o.any(0).mean()) for o in overlaps), max(float(o.any(1).mean()) for o in overlaps)


def _soda(ours: Sequence[Events], theirs: Sequence[Sequence[Events]]) -> list[float]:
    """SODA_c of each video, in 0..1."""
    ours = [sorted(events, key=_start) for events in ours]
    theirs = [[sorted(reference, key=_start) for reference in sets] for sets in theirs]
    # SODA's code swaps the roles: the annotated sentence is METEOR's hypothesis.
    pairs = [
        (annotated.words, [event.words])
        for events, sets in zip(ours, theirs, strict=True)
        for reference in sets
        for annotated in reference
        for event in events
    ]
    scores = iter(meteor.score(meteor.parts(*zip(*pairs, strict=True))) if pairs else ())
    per_video = []
    for events, sets in zip(ours, theirs, strict=True):
        measures = []
        for reference in sets:
            gains = [[next(scores) * tiou(event, annotated) for event in events] for annotated in reference]
            # The harmonic mean of the best sum / events and of it / references.
            measures.append(2 * _in_order(gains) / (len(events) + len(reference)))
        per_video.append(fmean(measures))
    return per_video


def _start(event: Event) -> float:
    return event.start


def _in_order(gains: Sequence[Sequence[float]]) -> float:
    """The largest sum of gains of pairs (row, column) that rise in both."""
    before = [0.0] * (1 + max(map(len, gains), default=0))
    for row in gains:
        here = [0.0]
        for column, gain in enumerate(row):
            here.append(max(here[-1], before[column + 1], before[column] + gain))
        before = here
    return before[-1]


def _over_thresholds(values: Table, limits: tuple[float, float] = PERCENT) -> AdditiveScore:
    """The mean over videos, in percent, of values per cell (threshold x video)."""
    return mean(np.asarray(values).reshape(len(THRESHOLDS), -1).mean(0), limits)


def _events(metric: str, predictions: Sequence[Any], targets: Sequence[Any]) -> tuple[list[Events], list[list[Events]]]:
    """The events of each prediction, and the references of each target."""
    theirs = [_sets(metric, "target", target) for target in targets]
    for sets, target in zip(theirs, targets, strict=True):
        if not all(sets):
            raise UserError(f"{metric}: target {repr(target)[:60]} has no event; wanted at least one")
    ours = [[] if is_failed(p) else _sets(metric, "prediction", p)[0][:MAX_EVENTS] for p in predictions]
    return ours, theirs


def _sets(metric: str, role: str, value: Any) -> list[Events]:
    if isinstance(value, list | tuple):
        nested = bool(value) and all(isinstance(item, list | tuple) for item in value)
        return [[_event(metric, role, event) for event in events] for events in (value if nested else [value])]
    raise _unlike(metric, role, value)


def _event(metric: str, role: str, value: Any) -> Event:
    try:
        start, end = map(float, value["segment"])
        if not start <= end:
            raise ValueError
        # Like the reference, before it is tokenized.
        sentence = "".join(letter if letter.isascii() else " " for letter in value["sentence"])
    except (KeyError, TypeError, ValueError, AttributeError):
        raise _unlike(metric, role, value) from None
    return Event(start, end, tokenized(sentence))


def _unlike(metric: str, role: str, value: Any) -> UserError:
    return UserError(
        f'{metric}: {role} {repr(value)[:60]} is not {{"segment": [start, end], "sentence": text}} with '
        "start <= end, or a list of such"
    )


def dense_by_video(predictions: Sequence[Any], targets: Sequence[Any]) -> dict[str, Any]:
    """`dense` over videos, for examples that are their segments; `captions` if targets are captions, as in training.

    A failed segment has an empty sentence.

    Args:
        predictions: the sentence of each segment; None for a failed one.
        targets: of each, {"video": name, "segment": [start, end], "references": the video's events by annotator}.

    Raises:
        UserError: a prediction or a target is not so.
    """
    if not isinstance(targets[0], Mapping):
        return dict(captions.captions(predictions, targets))
    return _by_video(dense, predictions, targets)


def dense_by_video_meteor(predictions: Sequence[Any], targets: Sequence[Any]) -> dict[str, Any]:
    """`dense_by_video`, `METEOR` and `SODA_c`; needs video-evalkit[captions].

    Raises:
        UserError: as `dense_by_video`, and if METEOR cannot run.
    """
    if not isinstance(targets[0], Mapping):
        return dict(captions.captions_meteor(predictions, targets))
    return _by_video(dense_meteor, predictions, targets)


def _by_video(
    score: Callable[[Sequence[Any], Sequence[Any]], Mapping[str, float]],
    predictions: Sequence[Any],
    targets: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    events: dict[str, list[dict[str, Any]]] = {}
    first: dict[str, int] = {}  # example of each video
    for i, (sentence, target) in enumerate(zip(predictions, targets, strict=True)):
        first.setdefault(target["video"], i)
        events.setdefault(target["video"], []).append({"segment": target["segment"], "sentence": _sentence(sentence)})
    metrics = score(list(events.values()), [targets[i]["references"] for i in first.values()])
    return {name: _on_examples(value, list(first.values()), len(targets)) for name, value in metrics.items()}


def _on_examples(value: float, places: Sequence[int], n: int) -> float:
    """A score over videos as one over n examples: the first example of a video has its summands."""
    if not isinstance(value, AdditiveScore):
        return value
    parts = np.zeros((n, value.parts.shape[1]))
    parts[list(places)] = value.parts
    return AdditiveScore(parts, value.of, value.limits)


def _sentence(prediction: Any) -> str:
    """The sentence of a segment; for a target in place of a prediction, that of the event nearest in time."""
    if isinstance(prediction, Mapping):
        start, end = prediction["segment"]
        events = (event for reference in prediction["references"] for event in reference)
        nearest = min(events, key=lambda e: abs(e["segment"][0] - start) + abs(e["segment"][1] - end))
        return str(nearest["sentence"])
    return prediction or ""
