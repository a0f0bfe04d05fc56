"""Edits of a run on too few examples, of what it says of its selection, and files that are none: all are found."""

import importlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evalkit.errors import UserError
from evalkit.metrics.classification import accuracy
from evalkit.results import run_folder, signature
from evalkit.results.evidence import Evidence
from evalkit.results.validate import validate
from tests.records import result_of, rows_of
from tests.results import edits
from tests.results.edits import Files

collect = importlib.import_module("evalkit.leaderboard.runs").collect
Edit = Callable[[dict[str, Any]], object]


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    """A run on twelve examples of a list of a thousand."""
    rows = rows_of(8, 4)
    record = result_of(rows, accuracy) | {"status": "partial", "controls": [], "selection": None}
    sizes = [{"split": split, "examples": 12, "published": 1000} for split in ("train", "test")]
    record["data"] |= {"published_size": 1000, "size_differences": sizes}
    record["task"]["quick_score"] = None
    run = run_folder.write(tmp_path / "results/demo/task/run", record, rows, "task: x\n", evidence=Evidence())
    assert validate(run) == []
    return run


def edit(run: Path, change: Edit) -> list[str]:
    record = run_folder.load(run)
    change(record)
    (run / "result.json").write_text(json.dumps(record))
    return validate(run)


def meant(record: dict[str, Any]) -> None:
    record["status"] = "complete"
    record["data"]["expect"] = 12


def whole(record: dict[str, Any]) -> None:
    record["status"] = "complete"
    del record["data"]["size_differences"], record["data"]["published_size"]


def of_train(record: dict[str, Any]) -> None:
    record["data"]["size_differences"].pop()


def smaller(record: dict[str, Any]) -> None:
    record["data"]["size_differences"][1]["published"] = 13


@pytest.mark.parametrize("change", [meant, whole, of_train, smaller])
def test_a_run_on_a_list_that_was_cut_off_cannot_be_made_complete(cut: Path, change: Edit) -> None:
    assert any("no example is as it was expected" in problem for problem in edit(cut, change))


def test_a_number_that_was_meant_cannot_be_changed_afterwards(tmp_path: Path) -> None:
    rows = rows_of(8, 4)
    record = result_of(rows, accuracy) | {"controls": [], "selection": None}
    record["data"] |= {"published_size": 12, "expect": 12}
    run = run_folder.write(tmp_path / "run", record, rows, "task: x\n", evidence=Evidence())
    assert validate(run) == []
    assert any("no example is as it was" in line for line in edit(run, lambda record: record["data"].pop("expect")))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda files: files.record["selection"].update(n_val=4000),
            "selection.n_val is 4000, but evidence.jsonl has 4",
        ),
        (lambda files: files.record["selection"].update(n_val="4"), "selection.n_val is 4, but evidence.jsonl has 4"),
        (lambda files: files.record["selection"].update(chosen={}), "selection.chosen.point is None, no whole number"),
        (
            lambda files: files.record["selection"]["chosen"].update(point=0.0),
            "selection.chosen.point is 0.0, no whole number",
        ),
        (
            lambda files: files.record["provenance"].update(command="evalkit run task='nextqa"),
            "provenance.command is not that of config.yaml: evalkit run",
        ),
        (
            lambda files: files.record["provenance"].update(command="evalkit score predictions=x"),
            "provenance.command is not that of config.yaml: evalkit run",
        ),
        (
            lambda files: files.record["provenance"].update(command="evalkit sweep task=nextqa ckpt=demo"),
            "provenance.command is not that of config.yaml: evalkit run",
        ),
        (
            lambda files: files.record["provenance"].update(command="evalkit run " + "a=b " * 100_000),
            "provenance.command is not that of config.yaml: evalkit run",
        ),
        (
            lambda files: setattr(files, "config", files.config + "#" * 2_000_000),
            "config.yaml cannot be read: it has 2,0",
        ),
        (lambda files: files.record["selection"].pop("n_val"), "selection.n_val was taken out"),
        (lambda files: files.record["selection"].pop("val_scores"), "selection.val_scores was taken out"),
        (lambda files: files.record["selection"].pop("grid_val_scores"), "selection.grid_val_scores was taken out"),
        (lambda files: files.record["selection"].pop("failures"), "selection.failures was taken out"),
        (
            lambda files: files.record["adapter"]["settings"].pop("pooling"),
            "pooling is not in adapter.settings, though a setting of the adapter",
        ),
        (
            lambda files: files.record["adapter"]["settings"].update(extra=1),
            "extra is not in task.protocol.settings, though a setting of the adapter",
        ),
    ],
)
def test_what_is_taken_out_of_a_selection_or_the_settings_is_missed(
    tmp_path: Path, change: Callable[[Files], object], problem: str
) -> None:
    files = Files(edits.write(tmp_path))
    change(files)
    files.write()
    assert any(problem in line for line in validate(files.run))


@pytest.mark.parametrize("name", ["result.json", "predictions.jsonl", "config.yaml", "evidence.jsonl"])
@pytest.mark.parametrize("make", [os.mkfifo, lambda place: Path(place).symlink_to("/dev/zero")])
def test_a_pipe_or_a_device_in_place_of_a_file_is_told_and_not_waited_for(
    cut: Path, name: str, make: Callable[[Path], object]
) -> None:
    (cut / name).unlink()
    make(cut / name)
    problems = validate(cut)
    assert problems and all(line.startswith(f"{cut}: ") for line in problems)
    assert any(f"{name} cannot be read: it is no regular file" in p or f"{name} was changed" in p for p in problems)
    runs, refused = collect(cut.parents[2])
    assert not runs and len(refused) == 1


def test_a_signature_that_is_none_is_not_read(cut: Path, tmp_path: Path) -> None:
    with (cut / signature.SIGNATURE).open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(UserError, match=r"result.json.sig cannot be read: it has 1,073,741,824 bytes, at most 100,000"):
        signature.signer(cut, tmp_path / "signers")


def test_a_folder_of_results_that_cannot_be_read_is_named(
    cut: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    locked = cut.parent / "locked"
    locked.mkdir()
    scandir = os.scandir

    def refusing(place: str) -> Any:
        if Path(place) == locked:
            raise PermissionError(13, "Permission denied", str(locked))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refusing)  # tests may run as root, who may read all
    assert run_folder.runs(cut.parents[2]) == [cut]
    assert f"cannot read the folder {locked}: Permission denied" in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        lambda files: files.record["selection"].update(n_train=9000),
        lambda files: files.record["selection"]["grid"][0].update(lr=77),
        lambda files: files.record["adapter"]["settings"].update({"from": "elsewhere"}),
    ],
)
def test_what_no_file_tells_of_a_selection_is_not_found(tmp_path: Path, change: Callable[[Files], object]) -> None:
    files = Files(edits.write(tmp_path))
    change(files)
    files.write()
    assert validate(files.run) == []
