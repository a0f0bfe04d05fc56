"""Cells as jobs: through submitit on this machine, and through SLURM's commands, which programs of the test play."""

import json
import os
import signal
from pathlib import Path

import pytest

from evalkit.cli import main
from evalkit.errors import UserError
from evalkit.launch import cells, slurm
from evalkit.results import run_folder, validate
from tests.launch import fake_slurm
from tests.patience import wait_until
from tests.pipeline.tiny_world import probe_words, world

__all__ = ["world"]

pytestmark = pytest.mark.slow

LOCAL = ["on=slurm", "slurm.cluster=local", "slurm.time=10"]


@pytest.fixture
def words(world: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    return [*probe_words(world, tiny), f"out={tmp_path / 'out'}", "threads=1", "canary=false", "device=cpu"]


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90", 90), ("90:30", 91), ("1:30:00", 90), ("1-12", 2160), ("1-12:30", 2190), ("2-0:0:1", 2881), ("0:01", 1)],
)
def test_a_time_limit_is_read_as_sbatch_reads_it(text: str, minutes: int) -> None:
    assert slurm.minutes(text) == minutes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["on=slrum"], "on=slrum: expected local, slurm or ray. Did you mean on=slurm?"),
        (["on=slurm"], "on=slurm needs slurm.time=, the time limit of each job, such as slurm.time=4:00:00"),
        (["on=slurm", "slurm.time=soon"], "slurm.time=soon: expected minutes, hours:minutes:seconds"),
        (["on=slurm", "slurm.time=0"], "slurm.time=0: expected a time above 0"),
        (["on=slurm", "slurm.time=1", "slurm.partion=gpu"], "unknown key 'slurm.partion=gpu'. Did you mean"),
        (["on=slurm", "slurm.time=1", "slurm.mem_gb=64GB"], "slurm.mem_gb=64GB: expected a whole number of GB"),
        (["on=slurm", "slurm.time=1", "slurm.cluster=lokal"], "slurm.cluster=lokal: expected slurm, or local"),
        (["on=slurm", "slurm.time=1", "slurm.nodes=2"], "slurm.nodes=2: a sweep has an option for it: nodes=2"),
        (["on=slurm", "slurm.time=1", "slurm.num_gpus=4"], "slurm.num_gpus=4: a sweep has an option for it: devices=4"),
        (["on=local", "local.cores=3"], "unknown key 'local.cores=3'. On this machine, a sweep takes jobs= alone"),
        (["on=ray", "ray.address="], "ray.address=: expected a value"),
        (["slurm.time=1"], "slurm.time=1 is for on=slurm, and the sweep runs on=local"),
        (["on=ray", "ray.num_gpu=1"], "unknown key 'ray.num_gpu=1'. Did you mean 'ray.num_gpus'?"),
        (["on=ray", "ray.num_gpus=half"], "ray.num_gpus=half: expected a number of at least 0"),
        (["jobs=0"], "jobs=0: expected a whole number above 0"),
    ],
)
def test_a_wrong_word_is_one_line_before_anything_runs(words: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        from evalkit.launch import sweep

        sweep.sweep(["task=egoschema", "mini=true", "ckpt=demo", f"out={tmp_path / 'out'}", *words])
    assert str(caught.value).startswith(message)
    assert not (tmp_path / "out").exists()


def test_a_parameter_is_a_number_true_or_false_where_it_says_so() -> None:
    words = {"time": "10", "use_srun": "false", "exclusive": "true", "cpus_per_task": "8", "partition": "gpu"}
    parameters, on_cluster = slurm._parameters(cells.Jobs("slurm", None, words))
    expected = {"time": 10, "use_srun": False, "exclusive": True, "cpus_per_task": 8, "partition": "gpu"}
    assert parameters == {"job_name": "evalkit", **expected} and on_cluster


def test_without_slurm_the_way_to_try_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    jobs, planned = cells.plan(
        ["task=egoschema", "mini=true", "ckpt=demo", f"out={tmp_path}", "on=slurm", "slurm.time=1"]
    )
    with pytest.raises(UserError, match=r"^on=slurm: there is no srun here; .*slurm\.cluster=local$"):
        slurm.run_all(planned, jobs)


def test_a_job_of_this_machine_leaves_its_reason(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Records are left by nine jobs in bench/fanout.py, and below."""
    words = [*(word for word in words if not word.startswith("ckpt=")), "ckpt=nothing_at_all"]
    assert main(["sweep", *words, *LOCAL]) == 1
    assert "failed: ckpt=nothing_at_all: no such file or folder" in capsys.readouterr().out
    _, (cell,) = cells.plan(words)
    outcome = json.loads((tmp_path / "out" / slurm.FOLDER / f"{cell.mark}.json").read_bytes())
    assert outcome["folder"] == "" and outcome["failure"].startswith("ckpt=nothing_at_all")


def test_a_preempted_job_is_queued_again_and_no_cell_is_queued_twice(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The job is preempted as soon as it can say so; an interrupted sweep finds it under way."""
    state = fake_slurm.install(tmp_path / "slurm")
    monkeypatch.setenv("PATH", f"{tmp_path / 'slurm'}{os.pathsep}{os.environ['PATH']}")
    on_slurm = ["on=slurm", "slurm.time=1:00:00", "slurm.partition=gpu", "slurm.mem_gb=8"]
    long = {"adapter.epochs=3": "adapter.epochs=100"}
    words, out = [*(long.get(word, word) for word in words), "seed=0,1"], tmp_path / "out"
    monkeypatch.setattr(slurm, "LOOK_EVERY_S", 0.1)

    def interrupt(*_: object) -> object:
        log = out / slurm.FOLDER / "100_0_0_log.err"
        assert wait_until(lambda: log.exists() and "encode train" in log.read_text(), 120)
        os.kill(int((state / "100_0.task").read_text()), signal.SIGUSR2)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(slurm, "_look", interrupt)
        assert main(["sweep", *words, *on_slurm]) == 130
    assert "the jobs go on" in capsys.readouterr().err
    batch = (state / "100.batch").read_text()
    for line in ("--partition=gpu", "--time=60", "--mem=8GB", "--array=0-1%2", "--job-name=evalkit"):
        assert f"#SBATCH {line}\n" in batch
    assert main(["sweep", *words, *on_slurm]) == 0
    shown = capsys.readouterr()
    records = [*out.rglob(run_folder.RESULT)]
    assert sorted(run_folder.load(record.parent)["provenance"]["seed"] for record in records) == [0, 1]
    assert all(validate.validate(record.parent) == [] and str(record.parent) in shown.err for record in records)
    assert any(f"job 100_0 is under way ({word}): " in shown.err for word in ("pending", "running"))
    assert (state / "100_0.starts").read_text() == "start\nstart\n"  # once by the sweep, and once when it was preempted
    assert (state / "errors").read_text() == ""
