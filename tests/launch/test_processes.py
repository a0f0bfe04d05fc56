"""A run that several processes share: the scores of one, nothing twice, and a reason where one of them ends."""

import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest
from torch import nn

import evalkit
from evalkit.cli import main
from evalkit.config.parse import resolve
from evalkit.errors import UserError
from evalkit.launch import processes
from evalkit.pipeline.training.divided import part
from evalkit.results import run_folder, validate
from evalkit.runtime import ranks
from evalkit.runtime.ranks import Ranks
from tests import forked
from tests.cli import raising
from tests.encoders.test_opengvlab_fusion import NUMBERS, captioned_films, second_stage_of
from tests.forked import launch_forked
from tests.pipeline.tiny_world import probe_words, run, scored, world

__all__ = ["world"]

pytestmark = pytest.mark.slow

TORCHRUN = {
    "RANK": "1",
    "WORLD_SIZE": "3",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "3",
    "MASTER_ADDR": "10.0.0.1",
    "MASTER_PORT": "29500",
}
SRUN = {"SLURM_JOB_ID": "7123", "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NODELIST": "node[07-08]"}


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({}, None),
        (TORCHRUN, (1, 3, "env://")),
        (TORCHRUN | {"WORLD_SIZE": "1", "RANK": "0"}, None),
        (SRUN, (1, 4, "tcp://node07:22123")),
        (SRUN | {"SLURM_STEP_NUM_TASKS": "1"}, None),
        (SRUN | {"SLURM_STEP_ID": "1"}, (1, 4, "tcp://node07:20042")),  # beside step 0 of the same job
        ({"SLURM_JOB_ID": "7123", "SLURM_PROCID": "0", "SLURM_NTASKS": "2"}, None),  # a script of sbatch
        (SRUN | {"WORLD_SIZE": "4"}, (1, 4, "tcp://node07:22123")),  # set for another program
        ({"WORLD_SIZE": "1"}, None),
    ],
)
def test_a_process_finds_its_place_in_what_torchrun_and_srun_set(
    environment: dict[str, str], place: tuple[int, int, str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in {*TORCHRUN, *SRUN}:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():  # which Lightning reads for itself
        monkeypatch.setenv(name, value)
    assert ranks.place_in(environment) == place


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"RANK": "0", "WORLD_SIZE": "2"}, "RANK and WORLD_SIZE are set, as torchrun does, and LOCAL_RANK is not"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2 is set, as torchrun does, and RANK is not: unset WORLD_SIZE"),
        ({"RANK": "1"}, "RANK=1 is set, as torchrun does, and WORLD_SIZE is not: unset RANK"),
        (TORCHRUN | {"WORLD_SIZE": "two"}, "WORLD_SIZE=two in the environment: expected a whole number"),
        (TORCHRUN | {"RANK": "3"}, "RANK=3 and WORLD_SIZE=3 in the environment: expected RANK below WORLD_SIZE"),
        (SRUN | {"SLURM_PROCID": "4"}, "SLURM_PROCID=4 and SLURM_STEP_NUM_TASKS=4 in the environment: expected SLURM_"),
        (TORCHRUN | {"MASTER_PORT": "c10d"}, "MASTER_PORT=c10d in the environment: expected a whole number"),
        (TORCHRUN | {"MASTER_PORT": "70000"}, "MASTER_PORT=70000 in the environment: expected a port, 1 to 65535"),
        ({**SRUN, "SLURM_JOB_ID": ""}, "SLURM_JOB_ID= in the environment: expected a whole number"),
        ({k: v for k, v in SRUN.items() if k != "SLURM_JOB_ID"}, "SLURM_STEP_NUM_TASKS and SLURM_PROCID are set"),
    ],
)
def test_an_environment_that_is_half_set_or_contradicts_itself_is_told(environment: dict[str, str], told: str) -> None:
    with pytest.raises(UserError) as error:
        ranks.place_in(environment)
    assert str(error.value).startswith(told)


def test_a_process_that_waits_for_others_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its environment may be left from something else."""
    for name, value in {**TORCHRUN, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(ranks, "MEETING", timedelta(seconds=1))
    monkeypatch.setattr(ranks, "SILENT_S", 0.05)
    with caplog.at_level("INFO", "evalkit"), pytest.raises(UserError, match="^process 1 of 3 does not meet the others"):
        ranks.here.__wrapped__()
    assert "this is process 1 of 3; it waits for the others" in caplog.text


@pytest.mark.parametrize("size", [1, 2, 3, 64])
def test_shares_hold_each_item_once_and_are_even(size: int) -> None:
    items = range(1_000_000)
    shares = [Ranks(rank, size).share(items) for rank in range(size)]
    assert sorted(item for share in shares for item in share) == [*items]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_two_processes_score_as_one_and_do_nothing_twice(
    world: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*probe_words(world, tiny), "threads=1", "cache=on"]
    folders = []
    for devices in (1, 2):
        monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / f"cache{devices}"))
        folders.append(run(tmp_path / f"out{devices}", *words, f"devices={devices}"))
    one, two = map(run_folder.load, folders)
    assert validate.validate(folders[1]) == [] and scored(folders[0]) == scored(folders[1])
    assert (folders[0] / "predictions.jsonl").read_bytes() == (folders[1] / "predictions.jsonl").read_bytes()
    assert len([*(tmp_path / "out2").rglob("result.json")]) == 1
    for count in ("encoder_forwards", "cache_hits"):
        assert one["cost"][count] == two["cost"][count]
    assert two["cost"]["cache_hits"] == 0 and two["provenance"]["command"].endswith("devices=2")


@pytest.mark.parametrize("more", ["adapter=finetune adapter.epochs=2", "adapter=knn adapter.k=1"])
def test_without_a_cache_each_process_encodes_its_share_for_the_others(
    more: str, world: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Videos, on which both train the encoder; and features of a closed form, which the first solves alone."""
    monkeypatch.setattr("torch.distributed.launcher.api.elastic_launch", launch_forked)
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    words = [word for word in probe_words(world, tiny) if "epochs" not in word]
    words += [*more.split(), "threads=1", "cache=off"]
    folders = [run(tmp_path / f"out{devices}", *words, f"devices={devices}") for devices in (1, 2)]
    one, two = map(run_folder.load, folders)
    for key in ("status", "scores", "controls", "selection"):  # details may differ by rounding
        assert one[key] == two[key], key
    assert one["selection"]["undecodable"]
    for count in ("encoder_forwards", "cache_hits", "cache_misses"):
        assert one["cost"][count] == two["cost"][count], count
    assert not (tmp_path / "cache" / "features").exists()


def test_a_head_that_two_processes_train_is_that_of_one(
    world: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of batches of five, one has three examples and the other two; dropout draws what it would for the whole batch."""
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("torch.distributed.launcher.api.elastic_launch", launch_forked)
    words = [*probe_words(world, tiny), "threads=1", "adapter.batch_size=5", "adapter.dropout=0.3"]
    folders = [run(tmp_path / f"out{devices}", *words, f"devices={devices}") for devices in (1, 2)]
    one, two = map(run_folder.load, folders)
    assert one["selection"]["val_scores"] == two["selection"]["val_scores"]
    rows = [run_folder.load_rows(folder) for folder in folders]
    for alone, shared in zip(*rows, strict=True):
        assert alone.prediction == shared.prediction
        assert shared.detail["probabilities"] == pytest.approx(alone.detail["probabilities"], abs=2e-6)


def test_two_processes_re_rank_as_one(films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each encodes its share of the videos, whose sequences the first matches with all texts."""
    monkeypatch.setattr("torch.distributed.launcher.api.elastic_launch", launch_forked)
    _, _, words = second_stage_of("umt", {*NUMBERS}, tmp_path)
    words += ["task=retrieval", f"data.root={captioned_films(films, tmp_path / 'films.csv')}", "threads=1"]
    folders = [run(tmp_path / f"out{devices}", *words, f"devices={devices}") for devices in (1, 2)]
    alone, shared = ((folder / "predictions.jsonl").read_bytes() for folder in folders)
    assert alone == shared


@pytest.mark.parametrize("size", [2, 3, 7])
def test_each_process_takes_a_part_of_a_batch_and_none_is_without(size: int) -> None:
    batch = [8, 6, 7, 5, 3]
    parts = [part(batch, Ranks(rank, size)) for rank in range(size)]
    assert sorted(place for own, share in parts if share for place in own) == sorted(batch)
    assert sum(share for _, share in parts) == pytest.approx(1) and all(own for own, _ in parts)
    assert [share for own, share in parts] == [len(batch[rank::size]) / 5 for rank in range(size)]


DYING = '''
"""An encoder that is killed in the second process, once both have stored what they encoded of train."""

import os
import signal
from pathlib import Path

import evalkit
from evalkit.api import Encoder


def encoder() -> Encoder:
    module = evalkit.load_encoder("random:vivit_demo")
    stored = Path(os.environ["EVALKIT_CACHE"], "features")

    def die(*_: object) -> None:
        if os.environ.get("RANK") == "1" and len([file for file in stored.glob("*.index") if file.stat().st_size]) > 1:
            os.kill(os.getpid(), signal.SIGKILL)

    module.register_forward_pre_hook(die)
    return module
'''


def test_a_process_that_is_killed_ends_the_run_with_its_reason_and_the_next_goes_on(
    world: Path,
    tmp_path: Path,
    module_here: Callable[[str], str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("torch.distributed.launcher.api.elastic_launch", launch_forked)
    words = ["task=folder", f"data.root={world / 'videos.csv'}", f"ckpt={module_here(DYING)}:encoder", "adapter=knn"]
    words += ["adapter.k=1", "batch=1", "workers=1", "threads=1", "canary=false", f"out={tmp_path / 'out'}"]
    assert main(["run", *words, "devices=2"]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("evalkit: process 1 of 2 was killed by signal 9, SIGKILL (out of memory?); the same command")
    assert main(["run", *words]) == 0
    record = run_folder.load(Path(capsys.readouterr().out.splitlines()[-1]).parent)
    assert record["cost"]["cache_hits"] >= 8 and record["status"] == "complete"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(28, "No space left on device", "/full/features"), "no space left for /full/features: free some, or"),
        (MemoryError(), "not enough memory: fewer workers=, a smaller batch= or smaller files need less"),
    ],
)
def test_what_a_process_cannot_write_or_hold_is_one_line(
    error: Exception, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(processes, "_run", raising(error))
    monkeypatch.setattr("evalkit.runtime.parent.end_with", lambda _: None)
    with pytest.raises(SystemExit):
        processes.run_rank(["1", str(tmp_path), "", "run"])
    reason = processes._reason(
        tmp_path, {0: -signal.SIGTERM, 1: 2}, resolve("run", ["task=folder", "ckpt=demo"]).options
    )
    assert reason.startswith(told) and "\n" not in reason


@pytest.mark.parametrize(
    ("codes", "told"),
    [
        ({0: 1, 1: -signal.SIGTERM}, "process 0 of 2 ended with exit code 1"),
        ({0: -signal.SIGTERM, 1: 1}, "process 1 of 2 ended with exit code 1"),
        ({0: 2, 1: -signal.SIGKILL}, "process 1 of 2 was killed by signal 9, SIGKILL"),
        ({0: -signal.SIGTERM, 1: -signal.SIGSEGV}, "process 1 of 2 was killed by signal 11, SIGSEGV"),
        ({0: 2, 1: -signal.SIGTERM}, "process 0 of 2 ended with exit code 2"),
        ({1: -signal.SIGTERM}, "process 1 of 2 was killed by signal 15, SIGTERM"),
    ],
)
def test_the_process_that_ended_first_is_named_and_not_one_that_was_ended_for_it(
    codes: dict[int, int], told: str, tmp_path: Path
) -> None:
    options = resolve("run", ["task=folder", "ckpt=demo", "devices=2"]).options
    assert processes._reason(tmp_path, codes, options).startswith(told)


LEAVING = '''
"""A process of two that meets the other, ends as an interpreter does, and writes whether it is in a group still."""

import atexit
import os
from pathlib import Path

from torch import distributed

from evalkit.runtime import ranks

place = ranks.here()
assert place.gather_all(place.rank) == [0, 1] and distributed.is_initialized()
atexit._run_exitfuncs()
Path(os.environ["RANK"]).write_text(str(distributed.is_initialized()))
'''


def test_a_process_leaves_its_group_before_the_interpreter_ends(tmp_path: Path) -> None:
    """Else a thread of the group may ask for the interpreter when it is gone, and abort a process that was done."""
    script = tmp_path / "leaving.py"
    script.write_text(LEAVING)
    with forked.ranks(2, script, cwd=tmp_path) as processes:
        assert [process.wait() for process in processes] == [0, 0]
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["False", "False"]


def test_what_processes_cannot_share_is_told(
    world: Path, tiny: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.distributed.launcher.api.elastic_launch", launch_forked)
    words = probe_words(world, tiny)
    assert main(["run", *words, "nodes=2"]) == 2
    assert "nodes=2: evalkit starts processes on its own machine only" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"^devices=2: other processes cannot load a module in memory"):
        module = cast(nn.Module, evalkit.load_encoder("random:vivit_demo"))
        evalkit.run("folder", module, data={"root": world / "videos.csv"}, devices=2)
