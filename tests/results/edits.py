"""A run, and edits of its files after which the hashes, counts and scores that follow are made anew."""

import hashlib
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from evalkit.metrics import top1_top5
from evalkit.results import run_folder
from evalkit.results.evidence import EVIDENCE, Evidence
from evalkit.results.rows import Row, tally
from evalkit.results.schema import digest
from evalkit.results.scores import scores
from tests.records import result_of

STARTED = "2026-01-31T23:59:59+00:00"
COMMAND = "evalkit run task=nextqa mini=true ckpt=demo seed=3 adapter.lr=0.1 data.root=/d"
CONFIG = f"""# {COMMAND}
# Keys that stand as comments were not set: as the task prescribes, else as shown.
task: nextqa
ckpt: demo
adapter: ''
mini: true
seed: 3
precision: '32'
data.root: /d
adapter.lr: 0.1
trainer.shots: 0
"""


def _rows() -> list[Row]:
    rows = [
        Row(f"q{i}", f"v{i // 2}.mp4", kind="CT"[i % 2], target=i % 3, prediction=[i % 2, 2, 1 - i % 2])
        for i in range(12)
    ]
    return [*rows, *(Row(f"f{i}", f"x{i}.mp4", kind="C", target=1, failure="no such file") for i in range(2))]


def write(folder: Path) -> Path:
    """Writes a run into a folder of its own, as `evalkit run` does."""
    rows = _rows()
    record = result_of(rows, top1_top5, seed=3)
    record["task"] |= {"name": "nextqa@mini", "quick_score": None}
    record["task"]["protocol"] |= {"adapter": "multiple_choice", "settings": {"pooling": "mean", "lr": 0.1}}
    record["adapter"]["settings"] |= {"lr": 0.1, "from": ""}
    record["provenance"]["command"] = COMMAND
    record["data"]["published_size"] = 14
    blind = {row.id: [1, 0, 2] for row in rows if row.prediction}
    turned = {row.id: [[k, 2, 1 - k] for k in (0, 1)] for row in rows if row.prediction}
    record["controls"] = [
        {"name": "blind", "metric": "top1", "value": 100 * 4 / 14},
        {"name": "option_order", "metric": "top1", "value": 100 * 4 / 14},
    ]
    val = [(f"a{i}", i % 2, [0, 1]) for i in range(4)]
    record["selection"] = {
        "grid": [{"pooling": "mean", "lr": 0.5}, {"pooling": "mean", "lr": 0.1}, {"pooling": "mean", "lr": 9.0}],
        "chosen": {"point": 1, "epoch": 3, "epochs": 4},
        "val_score": 50.0,
        "val_scores": [25.0, 50.0, 50.0, 25.0],
        "grid_val_scores": [25.0, 50.0, None],
        "failures": [{"point": 2, "reason": "the loss became nan at step 3"}],
        "n_train": 9,
        "n_val": 4,
        "undecodable": [],
    }
    run = folder / run_folder.run_id(CONFIG, datetime.fromisoformat(STARTED))
    evidence = Evidence({"blind": blind, "option_order": turned}, val)
    return run_folder.write(run, record, rows, CONFIG, evidence=evidence)


class Files:
    """A run's files, read to be edited; `hashes` and `scored` say what is made anew when they are written back."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.record: dict[str, Any] = run_folder.load(run)
        self.rows = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
        self.lines = [json.loads(line) for line in (run / EVIDENCE).read_text().splitlines()]
        self.config = (run / "config.yaml").read_text()
        self.hashes = {"predictions", "config", "protocol", "evidence"}
        self.scored = False

    def row(self, id: str) -> dict[str, Any]:
        return next(row for row in self.rows if row["id"] == id)

    def line(self, id: str) -> dict[str, Any]:
        return next(line for line in self.lines if line["id"] == id)

    def score(self, metric: str = "top1") -> dict[str, Any]:
        return next(entry for entry in self.record["scores"] if entry["metric"] == metric)

    def write(self) -> None:
        record = self.record
        if self.scored:
            rows = [Row(**row) for row in self.rows]
            counts = tally(rows)
            record["data"] |= counts
            record["status"] = "partial" if counts["n_failed"] else "complete"
            record["scores"] = scores(top1_top5, rows, record["provenance"]["seed"])
        texts = {
            "predictions": "".join(json.dumps(row) + "\n" for row in self.rows),
            "evidence": "".join(json.dumps(line) + "\n" for line in self.lines),
            "config": self.config,
        }
        for kind, name in (("predictions", "predictions.jsonl"), ("evidence", EVIDENCE), ("config", "config.yaml")):
            if (self.run / name).exists():
                (self.run / name).write_text(texts[kind])
            of = record["provenance" if kind == "config" else "data"]
            if kind in self.hashes and f"{kind}_sha256" in of:
                of[f"{kind}_sha256"] = hashlib.sha256(texts[kind].encode()).hexdigest()
        if "protocol" in self.hashes:
            record["task"]["protocol_sha256"] = digest(record["task"]["protocol"])
        (self.run / "result.json").write_text(json.dumps(record))


Edit = Callable[[Files], object]


def rows_edited(edit: Edit) -> Edit:
    """An edit of the rows, after which the scores are computed again."""

    def both(files: Files) -> None:
        edit(files)
        files.scored = True

    return both


def without(*hashes: str, then: Edit) -> Edit:
    """An edit after which these hashes stay as they were."""

    def both(files: Files) -> None:
        files.hashes -= set(hashes)
        then(files)

    return both


def bytes_edited(name: str, edit: Callable[[bytes], bytes]) -> Edit:
    """An edit of a file as it is, whose hash is made anew."""

    def both(files: Files) -> None:
        content = edit((files.run / name).read_bytes())
        (files.run / name).write_bytes(content)
        if name == "predictions.jsonl":
            files.record["data"]["predictions_sha256"] = hashlib.sha256(content).hexdigest()
            (files.run / "result.json").write_text(json.dumps(files.record))
        files.write = lambda: None  # type: ignore[method-assign]

    return both


def copy_over(files: Files) -> None:
    files.rows[files.rows.index(files.row("q1"))] = {**files.row("q4"), "id": "q1"}


def drop(files: Files) -> None:
    files.rows.remove(files.row("q0"))


def repair(files: Files) -> None:
    files.row("f0").update(prediction=[1, 0, 2], failure=None)


def selected(**values: Any) -> Edit:
    return lambda files: files.record["selection"].update(values)


def raised(files: Files) -> None:
    files.record["selection"].update(val_score=75.0, val_scores=[25.0, 50.0, 75.0, 25.0])
    files.record["selection"]["grid_val_scores"] = [25.0, 75.0, None]


def renamed(files: Files) -> None:
    files.record["task"]["name"] = "nextqa"
    files.record["provenance"]["command"] = COMMAND.replace("mini=true ", "")
    files.config = CONFIG.replace("mini=true ", "").replace("mini: true", "mini: false")
    stamp = run_folder.run_id(files.config, datetime.fromisoformat(STARTED))
    files.run = files.run.rename(files.run.with_name(stamp))


def remove(*names: str) -> Edit:
    def both(files: Files) -> None:
        for name in names:
            (files.run / name).unlink()

    return both


def unhashed(section: str, key: str, edit: Edit = lambda files: None) -> Edit:
    def both(files: Files) -> None:
        files.record[section].pop(key)
        edit(files)

    return both


def setting(*path: str, value: Any) -> Edit:
    """Puts a value in place of another in result.json."""

    def edit(files: Files) -> None:
        part = files.record
        for name in path[:-1]:
            part = part[name]
        assert part[path[-1]] != value
        part[path[-1]] = value

    return edit


def seeded(files: Files) -> None:
    files.record["provenance"]["seed"] = 4
    files.scored = True
