"""The command line: which module does the work, and what is printed where."""

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evalkit.cli import main
from evalkit.runtime import notes
from tests.cli import WORDS, mistake, put_runner
from tests.cli import here as here  # which pytest finds by its name

HEAVY = {"torch", "lightning", "omegaconf", "transformers", "numpy", "av", "decord"}


@pytest.mark.parametrize("words", [["--help"], ["list", "tasks"], ["list", "encoders"], ["run", "--help"]])
def test_help_and_list_load_nothing_heavy(words: list[str]) -> None:
    code = (
        f"import sys\nfrom evalkit.cli import main\nassert main({words!r}) == 0\nprint(*sys.modules, file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(ended.stderr.split())


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_the_usage_names_every_command(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(words) == 0
    told = capsys.readouterr().out
    for command in ("run", "adapt", "list", "score", "validate", "doctor"):
        assert f"  evalkit {command} " in told


def test_the_version_is_the_distributions(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import version

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"evalkit {version('video-evalkit')}\n"


def test_the_module_runs_as_the_command_does() -> None:
    ended = subprocess.run([sys.executable, "-m", "evalkit", "rum"], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("evalkit: unknown command 'rum'.") and "Traceback" not in ended.stderr


@pytest.mark.parametrize("command", ["run", "adapt"])
def test_work_gets_the_configuration_and_prints_for_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    seen: list[Any] = []
    put_runner(monkeypatch, seen.append)
    if command == "adapt":
        monkeypatch.setattr("evalkit.commands.runs.adapt.adapt", seen.append)
    assert main([command, *WORDS, "adapter.lr=1e-4", "out=o"]) == 0
    assert (seen[0].command, seen[0].adapter, seen[0].options.out) == (command, {"lr": 1e-4}, Path("o"))
    assert capsys.readouterr() == ("", "")


def test_a_mistake_is_told_before_the_work_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "evalkit.commands.runs.run", None)  # importing it would fail
    assert mistake(capsys, "run", *WORDS, "lr=1") == "unknown key 'lr'. Did you mean 'adapter.lr'?"
    assert mistake(capsys, "run", "task=egoshema", "ckpt=demo") == (
        "no task named 'egoshema'. Did you mean 'egoschema'? `evalkit list tasks` shows all"
    )
    assert mistake(capsys, "run", *WORDS, "adapter.lr=fast") == "adapter.lr=fast: expected a number"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["validat"],
            "unknown command 'validat'. Did you mean 'validate'? `evalkit --help` shows all",
        ),
        (["task=x"], "unknown command 'task=x'. Did you mean 'evalkit run task=x ...'?"),
        (["list"], "list takes one of tasks, encoders, adapters, suites, studies, got nothing"),
        (
            ["list", "tasks", "adapters"],
            "list takes one of tasks, encoders, adapters, suites, studies, got tasks adapters",
        ),
        (
            ["list", "task"],
            "list task: not one of tasks, encoders, adapters, suites, studies. Did you mean 'evalkit list tasks'?",
        ),
        (["score"], "score takes the folder of one run, got nothing"),
        (["score", "a", "b"], "score takes the folder of one run, got a b"),
        (["validate"], "validate takes one or more paths of results, got nothing"),
        (["doctor", "now"], "doctor takes nothing, or task=NAME and words of run, got now"),
    ],
)
def test_a_mistaken_command_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    assert mistake(capsys, *words) == told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["push", "repo=a/b", "repo=c/d"], "repo is given twice: repo=a/b and repo=c/d"),
        (["export", "to=csv", "to=mteb"], "to is given twice: to=csv and to=mteb"),
        (["leaderboard", "out=a.md", "out=b.md"], "out is given twice: out=a.md and out=b.md"),
        (["compare", "a", "b", "all=true", "all=false"], "all is given twice: all=true and all=false"),
        (["power", "difference=2", "difference=3"], "difference is given twice: difference=2 and difference=3"),
        (["submit", "run", "to=board", "key="], "key=: wanted a value"),
        (["export", "to=csv", "results="], "results=: wanted a value"),
        (["score", "run", "task="], "task=: wanted a value"),
    ],
)
def test_a_key_of_which_one_value_would_be_passed_over_is_refused(
    capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    assert mistake(capsys, *words) == told


@pytest.mark.parametrize("word", ["ckpt=~nosuch/run.ckpt", "data.root=~nosuch", "~nosuch/enc.py"])
def test_the_home_folder_of_nobody_is_told(capsys: pytest.CaptureFixture[str], word: str) -> None:
    assert mistake(capsys, "run", "task=folder", word).startswith(f"{word}: there is no user 'nosuch', whose home")


def test_a_quiet_command_shows_its_errors_and_no_notes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = []

    def run(config: Any) -> None:
        shown.append(notes.are_shown())
        logging.getLogger("evalkit").warning("a note")

    put_runner(monkeypatch, run)
    assert main(["run", "quiet=true", *WORDS]) == main(["run", *WORDS, "quiet=false"]) == 0
    assert shown == [False, True] and capsys.readouterr() == ("", "a note\n")
    assert main(["run", "quiet=true", "task=egoshema", "ckpt=demo"]) == 2
    assert "no task named 'egoshema'" in capsys.readouterr().err
    assert mistake(capsys, "run", "quiet=yes") == "quiet=yes: expected true or false. Did you mean quiet=true?"


def test_list_shows_names_with_what_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "tasks"]) == 0
    assert capsys.readouterr().out == "egoschema  Chooses one of five answers.\nk400       Names an action.\n"


def test_list_shows_a_broken_file_as_broken(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "tasks" / "torn.py").write_text("def task(:\n")
    assert main(["list", "tasks"]) == 0
    assert "\ntorn       broken: SyntaxError: invalid syntax" in capsys.readouterr().out


def test_list_of_nothing_says_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "adapters").mkdir()
    assert main(["list", "adapters"]) == 0
    assert capsys.readouterr().out == ""


def test_score_prints_the_table_of_the_scores(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rescored = {"run": "r", "differences": []}
    monkeypatch.setattr(
        "evalkit.commands.results.score.rescore", lambda run, files: rescored if run == Path("results/r") else 0
    )
    monkeypatch.setattr("evalkit.commands.results.score.table", lambda result: f"table of {result['run']}")
    assert main(["score", "results/r"]) == 0
    assert capsys.readouterr().out == "table of r\n"


def test_validate_prints_every_problem_and_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    problems = {Path("bad"): ["no scores", "no task"], Path("good"): []}
    monkeypatch.setattr("evalkit.commands.results.validate.validate", lambda path, files: problems[path])
    assert main(["validate", "good"]) == 0
    assert capsys.readouterr().out == "good: ok\n"
    assert main(["validate", "bad", "good"]) == 1
    assert capsys.readouterr().out == "no scores\nno task\ngood: ok\n"


def test_doctor_prints_its_report(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("evalkit.commands.workspace.doctor.report", lambda: "all well")
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out == "all well\n"


def test_help_of_a_task_lists_the_keys_that_apply(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "task=./shapes.py", "whatever", "--help"]) == 0
    told = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in told.splitlines()]
    assert lines[0] == "evalkit run task=... ckpt=... data.root=... [key=value ...] [config=file.yaml]"
    assert lines[2:4] == ["task shapes: Tells shapes apart.", "adapter head: Linear layer."]
    assert "key type default meaning" in lines
    assert "data.root a path required folder of the videos." in lines
    assert "data.subset true or false true" in lines
    assert "adapter.lr a number 0.001 step size." in lines
    assert "adapter.betas a list [a,b], each a number [0.9,0.99]" in lines
    assert "adapter.top a whole number or none none" in lines
    assert "clip.sampling uniform, segments, linspace, as the task" in "\n".join(lines)
    assert "seed a whole number 0 seed of all random numbers" in lines
    assert max(map(len, told.splitlines())) <= 100


def test_help_without_a_task_says_how_to_see_more(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["adapt", "--help"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("evalkit adapt task=... ckpt=... out=... [key=value ...] [config=file.yaml]\n")
    assert "`evalkit adapt task=NAME --help` also shows the keys of data.* and adapter.*" in told
    assert "data.root" not in told and "trainer.precision" in told


@pytest.mark.parametrize("task", ["./shapes.py", "./shapes.py,folder"])
def test_help_of_a_sweep_lists_the_keys_of_a_run_and_those_of_its_own(
    task: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", f"task={task}", "adapter.lr=1e-4,1e-3", "on=slurm", "slurm.time=1", "--help"]) == 0
    told = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in told.splitlines()]
    assert "evalkit sweep task=... ckpt=... data.root=... [key=value ...] [config=file.yaml]" in lines
    assert "task shapes: Tells shapes apart." in lines and "adapter.lr a number 0.001 step size." in lines
    assert any(line.startswith("on local, slurm, ray local where runs take place") for line in lines)
    for key in ("jobs", "slurm.time", "slurm.cluster", "slurm.KEY", "ray.address", "ray.num_gpus", "ray.memory_gb"):
        assert [line for line in lines if line.startswith(f"{key} ")], key


def test_help_of_an_unknown_task_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert mistake(capsys, "run", "task=egoshema", "--help").startswith("no task named 'egoshema'. Did you mean")


@pytest.mark.parametrize("command", ["list", "score", "validate", "doctor"])
def test_every_command_answers_help(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert main([command, "--help"]) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"  evalkit {command} ") and told.count("\n") == 1


def test_the_cache_says_what_it_holds_and_lets_go_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from evalkit.features.store import open_default

    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path))
    with open_default() as store:
        store.put(b"k" * 32, torch.zeros(1000))
    assert main(["cache"]) == 0
    told = capsys.readouterr().out
    assert "0.00 GB of 50, 1 feature" in told and str(tmp_path / "features") in told
    assert main(["cache", "prune=1e300"]) == 0  # more than there are bytes
    assert "freed 0.00 GB" in capsys.readouterr().out and open_default().usage().entries == 1
    assert main(["cache", "prune=0"]) == 0
    assert "freed 0.00 GB" in capsys.readouterr().out
    assert open_default().usage().entries == 0
    for words in (["prune=x"], ["prune=-1"], ["purge=1"], ["prune=1", "prune=2"]):
        assert mistake(capsys, "cache", *words).startswith("cache takes nothing or prune=GIGABYTES, got ")
    monkeypatch.setenv("EVALKIT_CACHE_GB", "lots")
    assert mistake(capsys, "cache") == "EVALKIT_CACHE_GB=lots: expected gigabytes, a number above 0"
