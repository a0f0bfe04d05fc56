"""Rows and results to test with."""

from collections.abc import Callable, Sequence
from typing import Any

from evalkit.metrics import accuracy
from evalkit.results.rows import Row, tally
from evalkit.results.scores import reference, scores

MISSING = "no such file"


def rows_of(right: int, wrong: int, failed: int = 0, unlabeled: int = 0) -> list[Row]:
    """Rows with three examples per video, in that order."""
    rows = [Row(f"q{i}", f"v{i // 3}", target=1, prediction=1) for i in range(right)]
    rows += [Row(f"q{right + i}", f"v{(right + i) // 3}", target=1, prediction=0) for i in range(wrong)]
    rows += [Row(f"f{i}", f"x{i // 3}", target=1, failure=MISSING) for i in range(failed)]
    return rows + [Row(f"u{i}", f"u{i // 3}", prediction=0) for i in range(unlabeled)]


def result_of(rows: Sequence[Row], score: Callable[..., Any] = accuracy, seed: int = 0) -> dict[str, Any]:
    """A full result, but for the two hashes that `write` adds."""
    counts = tally(rows)
    return {
        "schema": 1,
        "status": "partial" if counts["n_failed"] else "complete",
        "task": {
            "name": "egoschema@mini",
            "version": 1,
            "split": "test",
            "score": reference(score),
            "protocol": {"sampling": "uniform", "frames": 16},
            "published": {"ShortViViT": 47.9, "LongViViT": 56.8},
        },
        "encoder": {
            "name": "demo",
            "ckpt": "demo",
            "sha256": "0" * 64,
            "architecture": "longvivit",
            "clip": {"frames": 16, "size": 64},
            "parameters": 1_234_567,
            "settings": {"masking": 0.75},
        },
        "adapter": {"name": "multiple_choice", "settings": {"pooling": "mean"}, "trainable_parameters": 4321},
        "data": {"fingerprint": "abc", **counts},
        "scores": scores(score, rows, seed),
        "chance": 20.0,
        "controls": [{"name": "blind", "metric": "accuracy", "value": 22.5}],
        "selection": {"grid": [{"lr": 0.1}], "chosen": {"lr": 0.1}, "val_score": 50.0},
        "cost": {
            "decode_s": 1.5,
            "encode_s": 2.0,
            "fit_s": 0.0,
            "score_s": 0.1,
            "encoder_forwards": 10,
            "cache_hits": 0,
            "cache_misses": 10,
            "peak_memory_bytes": 10**9,
            "wall_s": 4,
        },
        "provenance": {
            "command": "evalkit run task=egoschema",
            "git_commit": None,
            "dirty": None,
            "packages": {"numpy": "2.4.6"},
            "python": "3.11.9",
            "platform": "Linux",
            "device": "cpu",
            "decoder": "decord2 3.4.0",
            "seed": seed,
            "started": "2026-01-31T23:59:59+00:00",
            "finished": "2026-02-01T00:00:59+00:00",
        },
    }


def minimal_of(rows: Sequence[Row]) -> dict[str, Any]:
    """A result without anything that is optional or may be unknown."""
    result = result_of(rows)
    del result["task"]["published"], result["encoder"]["settings"]
    result["encoder"]["sha256"] = result["encoder"]["parameters"] = result["chance"] = result["selection"] = None
    result["controls"] = []
    return result


# A stranger's task in a file of its own.
PLUGIN = '''
from evalkit.metrics import accuracy

def score(predictions, targets):
    return {"half": [value / 2 if p != t else value for value, p, t in zip(accuracy(predictions, targets)["accuracy"],
                                                                           predictions, targets)]}

def task():
    """Mine."""
'''
