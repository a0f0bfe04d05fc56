"""Predictions that were made elsewhere, in the formats in which benchmarks take them; a task's score says which.

multiple choice     json {id: 3}, {id: {"prediction": 3}} (NExT-QA) or [{"q_uid": id, "answer": 3}], or csv with the
columns q_uid,answer (EgoSchema)
captions            json [{"image_id": id, "caption": "..."}] (COCO)
dense captions      json {"results": {video: [{"timestamp": [start, end], "sentence": "..."}]}} (densevid_eval)
open questions      json {video: {question: "..."}} (NExT-OE) or {id: "..."}
retrieval           npz: a matrix `similarity` of texts by videos; `texts` and `videos`, their ids, where it has them
in another order than the task
segments in time    json {"results": {video: [{"segment": [start, end], "label": "...", "score": 0.5}]}} (ActivityNet)
boxes               csv video,second,left,top,right,bottom,action,score (AVA)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np

from evalkit import metrics
from evalkit.api import Example, Task
from evalkit.datasets.files import load_json, parsing_errors_at, read_json, read_table
from evalkit.errors import UserError, one_line
from evalkit.localization.key_frames import key_frame_name, read_detections
from evalkit.localization.segments import read_segment_predictions
from evalkit.runtime.bounded import check_archive


class Predictions(NamedTuple):
    """What a file says of a task's test examples.

    Attributes:
        task: whose test examples and score they are of: that of dense captions is over videos.
        values: by the id of the example, what the score function takes.
        others: ids in the file that are none of the task's, which are left out.
        form: the name of the format.
    """

    task: Task
    values: dict[str, Any]
    others: list[str]
    form: str


def read_predictions(task: Task, file: Path) -> Predictions:
    """Reads a file of predictions in the format that goes with the task's score; see the top of this file.

    Raises:
        UserError: no format is known, the file is missing or names an entry that is not so, or none of its ids is one
            of the task's.
    """
    if not file.is_file():
        problem = "is a folder; name the file in it" if file.is_dir() else "there is no such file"
        raise UserError(f"predictions={file}: {problem}")
    name = task.score.__name__ if getattr(metrics, getattr(task.score, "__name__", ""), None) is task.score else ""
    form, read = _FORMATS.get(name, ("", None))
    if name == "accuracy" and not all(example.choices for example in task.test):
        read = None
    if read is None:
        known = ", ".join(dict.fromkeys(form for form, _ in _FORMATS.values()))
        raise UserError(f"predictions={file}: no format is known for this task's score; there are those of {known}")
    task = _over_videos(task) if form == "dense captions" else task
    values, others = read(task, file)
    if not values:
        wanted = task.test[0].id if task.test else "none"
        found = f"{others[0]!r}" if others else "none at all"
        raise UserError(f"{file}: it has no prediction for this task, whose ids are like {wanted!r}; it has {found}")
    return Predictions(task, values, others, form)


_Read = tuple[dict[str, Any], list[str]]


def _sorted_out(file: Path, task: Task, pairs: Iterable[tuple[str, str, Any]], check: Callable[[Any], Any]) -> _Read:
    """The predictions of the task's examples, checked, and the other ids; of (place, id, value)."""
    examples = {example.id: example for example in task.test}
    values: dict[str, Any] = {}
    others: list[str] = []
    for where, name, value in pairs:
        if name in values:
            raise UserError(f"{where}: {name} appears twice")
        if name not in examples:
            others.append(name)
            continue
        with parsing_errors_at(where):
            values[name] = check((examples[name], value))
    return values, others


# --- one reader per format -------------------------------------------------------------------------------------------


def _choices(task: Task, file: Path) -> _Read:
    def check(pair: tuple[Example, Any]) -> int:
        example, value = pair
        if isinstance(value, Mapping):
            truth, value = value.get("answer"), value["prediction"]
            if truth is not None and example.target is not None and truth != example.target:
                raise ValueError(f"its answer is {truth!r}, that of the annotations {example.target!r}: another split?")
        number = int(value) if isinstance(value, str) and value.strip().isdigit() else value
        if type(number) is not int or not 0 <= number < len(example.choices):
            raise ValueError(f"answer {value!r}; wanted a number from 0 to {len(example.choices) - 1}")
        return number

    pairs: Iterable[tuple[str, str, Any]]
    if file.suffix.lower() == ".csv":
        pairs = ((where, row["q_uid"], row["answer"]) for where, row in read_table(file, ("q_uid", "answer")))
    else:
        pairs = _json_pairs(file, ("q_uid", "qid", "id"), ("answer", "prediction"))
    return _sorted_out(file, task, pairs, check)


def _captions(task: Task, file: Path) -> _Read:
    pairs = _json_pairs(file, ("image_id", "video_id", "id"), ("caption",))
    return _sorted_out(file, task, pairs, lambda pair: _text(pair[1]))


def _answers(task: Task, file: Path) -> _Read:
    def pairs() -> Iterable[tuple[str, str, Any]]:
        for where, name, value in _json_pairs(file, ("question_id", "id"), ("answer", "prediction")):
            if isinstance(value, Mapping):
                yield from ((f"{where}, question {number}", f"{name}_{number}", of) for number, of in value.items())
            else:
                yield where, name, value

    return _sorted_out(file, task, pairs(), lambda pair: _text(pair[1], empty=True))


def _json_pairs(file: Path, ids: tuple[str, ...], keys: tuple[str, ...]) -> Iterable[tuple[str, str, Any]]:
    """Yields place, id and value of {id: value}, or of a list of objects that have one of the names of each."""
    content = load_json(file)
    if isinstance(content, dict):
        yield from ((f"{file}, {name}", name, value) for name, value in content.items())
        return
    if not isinstance(content, list):
        raise UserError(f"cannot read {file}: wanted a JSON dict or list, found a {type(content).__name__}")
    for number, entry in enumerate(content, 1):
        where = f"{file}, entry {number}"
        found = (
            [next((entry[key] for key in names if key in entry), None) for names in (ids, keys)]
            if isinstance(entry, dict)
            else []
        )
        if not found or found[0] is None or found[1] is None:
            raise UserError(f"{where}: {str(entry)[:60]}; wanted {ids[0]} and {keys[0]}")
        yield where, str(found[0]), found[1]


def _text(value: Any, empty: bool = False) -> str:
    if not isinstance(value, str) or not (empty or value.strip()):
        raise ValueError(f"{value!r}; wanted a text")
    return value


def _over_videos(task: Task) -> Task:
    """The task of dense captions with an example per video, whose target is the events of each annotator."""
    videos: dict[str, Example] = {}
    for example in task.test:
        target = example.target
        videos.setdefault(target["video"], replace(example, id=target["video"], target=target["references"], span=None))
    meteor = task.score is metrics.dense_by_video_meteor
    score = metrics.dense_meteor if meteor else metrics.dense
    return replace(task, test=list(videos.values()), score=score, quick_score=None, protocol="made elsewhere")


def _events(task: Task, file: Path) -> _Read:
    def check(pair: tuple[Example, Any]) -> list[dict[str, Any]]:
        if not isinstance(pair[1], list):
            raise ValueError(f"a {type(pair[1]).__name__}; wanted a list of events")
        events = []
        for number, event in enumerate(pair[1], 1):
            start, end = (float(time) for time in event["timestamp"])
            if not 0 <= start <= end < math.inf:
                raise ValueError(f"event {number} from {start:g} to {end:g} s; wanted 0 <= start <= end")
            events.append({"segment": [start, end], "sentence": _text(event["sentence"], empty=True)})
        return events

    with parsing_errors_at(str(file)):
        entries = list(read_json(file, dict)["results"].items())
    known = {name.removeprefix("v_"): name for name in (example.id for example in task.test)}
    named = ((f"{file}, video {name}", known.get(name.removeprefix("v_"), name), value) for name, value in entries)
    return _sorted_out(file, task, named, check)


def _segments(task: Task, file: Path) -> _Read:
    return read_segment_predictions(file, [example.id for example in task.test], task.classes)


def _boxes(task: Task, file: Path) -> _Read:
    """Boxes of the actions that have a name: `classes[id - 1]`, which is empty for one that is not scored."""
    found = read_detections(file, {number: name for number, name in enumerate(task.classes, 1) if name})
    names = {example.id for example in task.test}
    boxes = {key_frame_name(key): value for key, value in found.boxes.items()}
    others = [name for name in boxes if name not in names]
    # A key frame that is not in the file has no box, which is an answer, where others of the video are there.
    videos = {name for name, _ in found.boxes}
    empty: dict[str, Any] = {e.id: [] for e in task.test if e.id not in boxes and e.id.rpartition("_")[0] in videos}
    return {**{name: value for name, value in boxes.items() if name in names}, **empty}, others


def _ranks(task: Task, file: Path) -> _Read:
    try:
        check_archive(file)
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, BadZipFile, TypeError) as error:  # the last of a bare .npy
        raise UserError(f"cannot read {file} as npz: {one_line(error)}") from error
    matrix = next((arrays[name] for name in ("similarity", "sims", "sim_matrix") if name in arrays), None)
    texts = [example.id for example in task.test]
    video_of = [example.target[0] if isinstance(example.target, tuple) else example.target for example in task.test]
    videos = [*dict.fromkeys(video_of)]
    rows, columns = (
        [str(name) for name in arrays[key].tolist()] if key in arrays else default
        for key, default in (("texts", texts), ("videos", videos))
    )
    if matrix is None or matrix.dtype.kind not in "fiu" or matrix.shape != (len(rows), len(columns)):
        shape = "none" if matrix is None else f"{matrix.dtype} of {' x '.join(map(str, matrix.shape))}"
        raise UserError(
            f"{file}: wanted an array `similarity` of {len(rows)} texts x {len(columns)} videos, found {shape}"
        )
    for kind, names in (("texts", rows), ("videos", columns)):
        if len({*names}) != len(names):
            raise UserError(f"{file}: an id appears twice in `{kind}`")
    if not np.isfinite(matrix).all():
        row, column = np.argwhere(~np.isfinite(matrix))[0].tolist()
        raise UserError(f"{file}: the similarity of text {rows[row]!r} and video {columns[column]!r} is not a number")
    if absent := [name for name in videos if name not in {*columns}]:
        raise UserError(f"{file}: {len(absent)} of {len(videos)} videos are missing, first {absent[0]!r}")
    place, column, number = ({name: i for i, name in enumerate(names)} for names in (rows, columns, videos))
    known = [i for i, name in enumerate(texts) if name in place]
    of = np.array([number[video_of[i]] for i in known], np.intp)
    t2v, v2t = matrix_ranks(matrix[[place[texts[i]] for i in known]][:, [column[name] for name in videos]], of)
    ranks = {texts[i]: {"t2v": t2v[k], "v2t": v2t[of[k]]} for k, i in enumerate(known)}
    return ranks, [name for name in rows if name not in {*texts}]


def matrix_ranks(similarity: np.ndarray[Any, Any], of: np.ndarray[Any, Any]) -> tuple[list[float], list[float]]:
    """Ranks from 1 of each text's video among all, and of each video's best text among the texts of other videos.

    Args:
        similarity: (n, m), of texts and videos.
        of: (n,), the column of each text's video.

    Returns:
        (n,) and (m,); equal similarities have the mean of their ranks, and a video without a text has NaN.
    """
    n, m = similarity.shape
    own = similarity[np.arange(n), of]
    t2v = 0.5 + (similarity > own[:, None]).sum(1) + (similarity == own[:, None]).sum(1) / 2
    v2t = np.full(m, math.nan)
    for j in np.unique(of).tolist():
        best = own[of == j].max()
        rivals = similarity[of != j, j]
        v2t[j] = 1 + (rivals > best).sum() + (rivals == best).sum() / 2
    return t2v.tolist(), v2t.tolist()


_FORMATS: dict[str, tuple[str, Callable[[Task, Path], _Read] | None]] = {
    "accuracy": ("multiple choice", _choices),
    "captions": ("captions", _captions),
    "captions_meteor": ("captions", _captions),
    "paragraph": ("captions", _captions),
    "paragraph_meteor": ("captions", _captions),
    "dense_by_video": ("dense captions", _events),
    "dense_by_video_meteor": ("dense captions", _events),
    "exact_match": ("open questions", _answers),
    "wups": ("open questions", _answers),
    "wups_untagged": ("open questions", _answers),
    "retrieval": ("retrieval", _ranks),
    "activitynet_map": ("segments in time", _segments),
    "thumos_map": ("segments in time", _segments),
    "ava_map": ("boxes", _boxes),
}
