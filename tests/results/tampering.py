"""Edits of a run's files by someone who knows how its hashes are made.

`FOUND` and `UNKNOWN` are the table of docs/results.md. Each edit leaves the run as its author would: the hashes, counts
and scores that follow from the files are made anew, unless the edit is about one of them.
"""

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


FOUND: dict[str, tuple[Edit, str]] = {
    # predictions.jsonl
    "a prediction, its hash left": (
        without("predictions", then=lambda f: f.row("q0").update(prediction=[0])),
        "sha256",
    ),
    "a prediction, hashed again": (lambda f: f.row("q2").update(prediction=[2, 0, 1]), "recomputed"),
    "a row dropped": (rows_edited(drop), "lacks 1 of the examples that were expected: 'q0'"),
    "a row copied over another": (rows_edited(copy_over), "of 1 examples are not as expected: 'q1'"),
    "a row added": (
        rows_edited(lambda f: f.rows.append({**f.row("q0"), "id": "new"})),
        "1 examples that were not expected: 'new'",
    ),
    "a row twice": (rows_edited(lambda f: f.rows.append(f.row("q0"))), "2 rows with id 'q0'"),
    "rows in another order": (rows_edited(lambda f: f.rows.reverse()), "another order"),
    "a row's id": (rows_edited(lambda f: f.row("q0").update(id="other")), "lacks 1"),
    "a target": (rows_edited(lambda f: f.row("q2").update(target=0)), "not as expected: 'q2'"),
    "a target taken out": (rows_edited(lambda f: f.row("q2").update(target=None)), "not as expected: 'q2'"),
    "a video": (rows_edited(lambda f: f.row("q2").update(video="new.mp4")), "not as expected: 'q2'"),
    "a kind": (rows_edited(lambda f: f.row("q2").update(kind="T")), "not as expected: 'q2'"),
    "a failure made a success": (rows_edited(repair), "1 examples failed otherwise than evidence.jsonl says: 'f0'"),
    "a success made a failure": (rows_edited(lambda f: f.row("q0").update(prediction=None)), "failed otherwise"),
    "a failure's reason": (rows_edited(lambda f: f.row("f0").update(failure="cut off")), "failed otherwise"),
    "the last line cut": (bytes_edited("predictions.jsonl", lambda text: text[:-9]), "line 14: cut off"),
    "the last line's end cut": (bytes_edited("predictions.jsonl", lambda text: text[:-1]), "line 14: cut off"),
    "an empty line": (bytes_edited("predictions.jsonl", lambda text: text + b"\n"), "line 15 is not JSON"),
    "a key twice in a row": (
        bytes_edited("predictions.jsonl", lambda text: text.replace(b'"kind"', b'"target": 9, "kind"', 1)),
        "line 1: key 'target' is given twice",
    ),
    "NaN in a row": (
        bytes_edited("predictions.jsonl", lambda text: text.replace(b"[0, 2, 1]", b"NaN", 1)),
        "line 1: NaN is not JSON",
    ),
    "bytes that are no text": (bytes_edited("predictions.jsonl", lambda text: b"\xff" + text), "line 1: 'utf-8'"),
    "no predictions": (remove("predictions.jsonl"), "no predictions.jsonl"),
    # scores
    "a score": (lambda f: f.score().update(value=99.0), "top1 value: stored 99.0"),
    "an interval": (lambda f: f.score().update(ci95=[40.0, 41.0]), "top1 ci95"),
    "bounds": (lambda f: f.score().update(bounds=[0.0, 100.0]), "top1 bounds"),
    "n": (lambda f: f.score().update(n=1000), "top1 n: stored 1000"),
    "n_clusters": (lambda f: f.score().update(n_clusters=2), "top1 n_clusters"),
    "the score of a kind": (lambda f: f.score("top1/C").update(value=1.0), "top1/C value"),
    "a metric's name": (lambda f: f.score().update(metric="accuracy"), "scores: stored accuracy"),
    "a metric added": (lambda f: f.record["scores"].append({**f.score(), "metric": "mAP"}), "mAP; recomputed"),
    "a metric taken out": (lambda f: f.record["scores"].pop(), "scores: stored"),
    "another headline": (lambda f: f.record["scores"].reverse(), "scores: stored"),
    "no scores": (setting("scores", value=[]), "scores: stored none"),
    "another score function": (setting("task", "score", value="evalkit.metrics:top1_map"), "chance were changed"),
    # chance and controls
    "chance": (setting("chance", value=1.0), "the task, its data or chance were changed"),
    "a control": (lambda f: f.record["controls"][0].update(value=0.0), "control blind: stored top1 0.0, recomputed"),
    "a control of several orders": (
        lambda f: f.record["controls"][1].update(value=0.0),
        "control option_order: stored",
    ),
    "a control's metric": (lambda f: f.record["controls"][0].update(metric="top5"), "recomputed top1"),
    "a control's name": (lambda f: f.record["controls"][0].update(name="shuffled"), "evidence.jsonl has others"),
    "a control taken out": (lambda f: f.record["controls"].pop(), "evidence.jsonl has others"),
    "a control added": (lambda f: f.record["controls"].append({**f.record["controls"][0], "name": "x"}), "others"),
    "what a control predicted": (lambda f: f.line("q1")["controls"].update(blind=[0, 1, 2]), "control blind: stored"),
    # selection
    "the score on val": (selected(val_score=60.0), "selection.val_score is 60.0, but 50.0 in grid_val_scores"),
    "the score on val, wherever it stands": (raised, "selection.val_score: stored 75.0, recomputed 50.0"),
    "the validation curve": (selected(val_scores=[25.0, 50.0, 50.0, 99.0]), "the last of the best in val_scores is 4"),
    "a curve cut short": (selected(val_scores=[25.0, 50.0]), "epochs is 4, but val_scores has 2"),
    "the chosen epoch": (selected(chosen={"point": 1, "epoch": 2, "epochs": 4}), "chosen.epoch is 2"),
    "the chosen point": (selected(chosen={"point": 0, "epoch": 3, "epochs": 4}), "chosen.point is 0, but the best"),
    "another point's score": (selected(grid_val_scores=[60.0, 50.0, None]), "chosen.point is 1, but the best"),
    "a point's settings": (
        lambda f: f.record["selection"]["grid"][1].update(lr=0.2),
        "adapter.settings.lr is 0.1, but 0.2 in selection.grid",
    ),
    "a point dropped": (lambda f: f.record["selection"]["grid"].pop(0), "selection.grid has 2 points"),
    "a point that failed": (selected(failures=[{"point": 7, "reason": "x"}]), "selection.failures names point 7 of 3"),
    "the chosen point failed": (selected(failures=[{"point": 1, "reason": "x"}]), "chosen.point is 1, but the best"),
    "no selection": (setting("selection", value=None), "selection is null, but evidence.jsonl has 4 val examples"),
    "what was predicted of val": (lambda f: f.line("a0").update(prediction=[1, 0]), "selection.val_score: stored"),
    "a val example dropped": (lambda f: f.lines.remove(f.line("a1")), "selection.val_score: stored"),
    "no val examples": (lambda f: f.lines.__delitem__(slice(14, None)), "selection is there, but"),
    # status and data
    "failed examples called complete": (setting("status", value="complete"), "status is complete"),
    "scored examples called failed": (setting("status", value="failed"), "status is failed"),
    "n_expected": (setting("data", "n_expected", value=20), "data.n_expected is 20, but 14"),
    "n_scored": (setting("data", "n_scored", value=14), "data.n_scored is 14, but 12"),
    "n_failed": (setting("data", "n_failed", value=0), "data.n_failed is 0, but 2"),
    "failures": (setting("data", "failures", value=[]), "data.failures differs"),
    "the fingerprint": (setting("data", "fingerprint", value="0" * 64), "the task, its data or chance were changed"),
    "the published size": (setting("data", "published_size", value=12), "the task, its data or chance were changed"),
    "the published numbers": (setting("task", "published", value={"ours": 1.0}), "its data or chance were changed"),
    # identity
    "the task": (setting("task", "name", value="egoschema@mini"), "config.yaml has task: nextqa"),
    "a miniature called real": (
        setting("task", "name", value="nextqa"),
        "config.yaml has mini: true, the result False",
    ),
    "a miniature called real, everywhere": (renamed, "the task, its data or chance were changed"),
    "the task's version": (setting("task", "version", value=2), "the task, its data or chance were changed"),
    "the split": (setting("task", "split", value="val"), "the task, its data or chance were changed"),
    "the checkpoint": (setting("encoder", "ckpt", value="big"), "config.yaml has ckpt: demo, the result big"),
    "the adapter": (setting("adapter", "name", value="probe"), "but multiple_choice in task.protocol"),
    "a setting": (setting("adapter", "settings", "lr", value=0.2), "config.yaml has adapter.lr: 0.1, the result 0.2"),
    "the seed": (seeded, "config.yaml has seed: 3, the result 4"),
    "the command": (
        setting("provenance", "command", value="evalkit run task=nextqa ckpt=demo"),
        "provenance.command is not that of config.yaml",
    ),
    "the protocol, its hash left": (
        without("protocol", then=setting("task", "protocol", "frames", value=64)),
        "task.protocol was changed",
    ),
    "the protocol": (setting("task", "protocol", "frames", value=64), "the task, its data or chance were changed"),
    # config.yaml
    "config.yaml, its hash left": (
        without("config", then=lambda f: setattr(f, "config", CONFIG.replace("/d", "/e"))),
        "config.yaml was changed: its sha256 is not",
    ),
    "config.yaml": (lambda f: setattr(f, "config", CONFIG.replace("/d", "/e")), "as the folder's name says"),
    "config.yaml, its hash taken out": (unhashed("provenance", "config_sha256"), "config_sha256 was taken out"),
    "a key of config.yaml": (
        lambda f: setattr(f, "config", CONFIG.replace("data.root: /d", "data.root: /e")),
        "config.yaml has data.root: /e, provenance.command data.root=/d",
    ),
    "a key twice in config.yaml": (lambda f: setattr(f, "config", CONFIG + "seed: 4\n"), "seed is given twice"),
    "no config.yaml": (remove("config.yaml"), "config.yaml was changed"),
    # evidence.jsonl
    "evidence.jsonl, its hash left": (
        without("evidence", then=lambda f: f.line("q0")["controls"].update(blind=[2])),
        "evidence.jsonl was changed",
    ),
    "an expected hash": (lambda f: f.line("q0").update(expected="0" * 16), "not as expected: 'q0'"),
    "a line of evidence.jsonl": (lambda f: f.lines.pop(0), "examples that were not expected"),
    "no evidence.jsonl": (remove(EVIDENCE), "no evidence.jsonl"),
    "the hash of evidence.jsonl": (unhashed("data", "evidence_sha256"), "evidence_sha256 was taken out"),
    "evidence.jsonl and its hash": (unhashed("data", "evidence_sha256", remove(EVIDENCE)), "was taken out"),
    # times
    "an end before the start": (
        setting("provenance", "finished", value="2026-01-31T23:00:00+00:00"),
        "finished is before provenance.started",
    ),
    "the start": (
        setting("provenance", "started", value="2026-01-31T22:00:00+00:00"),
        "but the folder's name says 20260131T235959Z",
    ),
    "a day that is none": (setting("provenance", "finished", value="2026-02-31T00:00:00+00:00"), "which is no time"),
    "the folder's name": (
        lambda f: setattr(f, "run", f.run.rename(f.run.with_name("20250101T000000Z-00000000"))),
        "but the folder's name says 20250101T000000Z",
    ),
    # result.json
    "a key twice in result.json": (
        bytes_edited("result.json", lambda text: text.replace(b'"status"', b'"status": "failed", "status"', 1)),
        "key 'status' is given twice",
    ),
    "an unknown key": (lambda f: f.record.update(note="hello"), "'note' was unexpected"),
    "no result.json": (remove("result.json"), "no result.json"),
}

# Nothing in the files tells: only a signature does.
UNKNOWN: dict[str, Edit] = {
    "a prediction, with all that follows from it": rows_edited(lambda f: f.row("q2").update(prediction=[2, 0, 1])),
    "a detail of a prediction": lambda f: f.row("q0").update(detail={"sure": True}),
    "the encoder's name": setting("encoder", "name", value="VideoPrism-L"),
    "the weights' hash": setting("encoder", "sha256", value="1" * 64),
    "the number of parameters": setting("encoder", "parameters", value=1),
    "the architecture": setting("encoder", "architecture", value="ViT-g"),
    "the encoder's clip": setting("encoder", "clip", "frames", value=8),
    "the canary": lambda f: f.record["encoder"].update(canary=[]),
    "what an adapter trains": setting("adapter", "trainable_parameters", value=1),
    "cost": setting("cost", "wall_s", value=0.5),
    "the device": setting("provenance", "device", value="cuda"),
    "the decoder": setting("provenance", "decoder", value="decord2 9"),
    "packages": setting("provenance", "packages", value={}),
    "the commit": setting("provenance", "git_commit", value="0" * 40),
    "how long it took": setting("provenance", "finished", value="2026-02-01T09:00:59+00:00"),
}
