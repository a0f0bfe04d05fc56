"""Edits of a run's files by someone who knows how its hashes are made.

`FOUND` and `UNKNOWN` are the table of docs/results.md. Each edit leaves the run as its author would: the hashes, counts
and scores that follow from the files are made anew, unless the edit is about one of them.
"""

from evalkit.results.evidence import EVIDENCE
from tests.results.edits import (
    CONFIG,
    Edit,
    bytes_edited,
    copy_over,
    drop,
    raised,
    remove,
    renamed,
    repair,
    rows_edited,
    seeded,
    selected,
    setting,
    unhashed,
    without,
)

FOUND: dict[str, tuple[Edit, str]] = {
    # predictions.jsonl
    "a prediction, its hash left": (
        without("predictions", then=lambda f: f.row("q0").update(prediction=[0])),
        "sha256",
    ),
    "a prediction, hashed again": (lambda f: f.row("q2").update(prediction=[2, 0, 1]), "recomputed"),
    "a row dropped": (rows_edited(drop), "lacks 1 of the examples that were expected: 'q0'"),
    "a row copied over another": (rows_edited(copy_over), "video, kind or target of 1 example: 'q1'"),
    "a row added": (
        rows_edited(lambda f: f.rows.append({**f.row("q0"), "id": "new"})),
        "1 unexpected example: 'new'",
    ),
    "a row twice": (rows_edited(lambda f: f.rows.append(f.row("q0"))), "2 rows with id 'q0'"),
    "rows in another order": (rows_edited(lambda f: f.rows.reverse()), "another order"),
    "a row's id": (rows_edited(lambda f: f.row("q0").update(id="other")), "lacks 1"),
    "a target": (
        rows_edited(lambda f: f.row("q2").update(target=0)),
        "video, kind or target of 1 example: 'q2'",
    ),
    "a target taken out": (
        rows_edited(lambda f: f.row("q2").update(target=None)),
        "video, kind or target of 1 example: 'q2'",
    ),
    "a video": (
        rows_edited(lambda f: f.row("q2").update(video="new.mp4")),
        "video, kind or target of 1 example: 'q2'",
    ),
    "a kind": (
        rows_edited(lambda f: f.row("q2").update(kind="T")),
        "video, kind or target of 1 example: 'q2'",
    ),
    "a failure made a success": (rows_edited(repair), "1 example failed otherwise than evidence.jsonl says: 'f0'"),
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
    "an expected hash": (lambda f: f.line("q0").update(expected="0" * 16), "video, kind or target of 1 example: 'q0'"),
    "a line of evidence.jsonl": (lambda f: f.lines.pop(0), "unexpected example"),
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
