"""What comes with a result runs nothing unless the user names it."""

import importlib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from evalkit.cli import main
from evalkit.errors import UserError
from evalkit.metrics.classification import accuracy
from evalkit.results import run_folder, scores
from tests import hostile
from tests.hostile import EVIL, told
from tests.records import result_of, rows_of

collection = importlib.import_module("evalkit.leaderboard.runs")

mark = hostile.mark


def put(folder: Path, score: str, right: int = 8) -> Path:
    """Writes a run that says that it was scored by this function, with this number of right answers."""
    rows = rows_of(right, 12 - right)
    record = result_of(rows, accuracy)
    record["task"]["score"] = score
    return run_folder.write(folder / "demo/task/run", record, rows, "task: evil\n")


@pytest.fixture
def evil_task(tmp_path: Path, tiny: Path, mark: Path) -> Path:
    """A task's file that leaves a mark where it is imported."""
    file = tmp_path / "stranger/my_task.py"
    file.parent.mkdir()
    file.write_text(EVIL.format(mark=str(mark), tiny=str(tiny)))
    return file.resolve()


def test_a_result_that_names_a_file_is_unverified_and_runs_nothing(
    tmp_path: Path, mark: Path, evil_task: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = put(tmp_path / "results", f"{evil_task}:score")
    why = f"unverified: the scores come from the task file {evil_task}, which runs only where you name it: "
    why += f"task={evil_task} verifies them"
    results, out = f"results={tmp_path / 'results'}", f"out={tmp_path / 'out'}"
    assert main(["validate", str(run)]) == 1
    assert capsys.readouterr().out == f"{run}: {why}\n"
    assert told(capsys, "score", str(run)) == f"evalkit: {run}: {why}"
    assert told(capsys, "compare", str(run), str(run)) == f"evalkit: {run}: {why}"
    assert main(["leaderboard", results, f"{out}.md"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"refused: demo/task/run: {why}"
    assert "unverified" in (tmp_path / "out.md").read_text()
    assert main(["leaderboard", results, f"{out}.html"]) == 1
    assert main(["export", "to=csv", results, out]) == 1
    assert f"refused: demo/task/run: {why}" in capsys.readouterr().err
    assert not mark.exists()


def test_a_task_of_ones_own_is_scored_where_the_user_names_it(
    tmp_path: Path, mark: Path, evil_task: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = put(tmp_path / "results", f"{evil_task}:score")
    moved = tmp_path / "here/my_task.py"
    other = put(tmp_path / "other", f"{evil_task}:score", 7)
    moved.parent.mkdir()
    evil_task.rename(moved)
    results, out = f"results={tmp_path / 'results'}", f"out={tmp_path / 'out'}"
    for words in (
        ["validate", str(run)],
        ["score", str(run)],
        ["compare", str(run), str(other)],
        ["leaderboard", results, f"{out}.md"],
        ["leaderboard", results, f"{out}.html"],
        ["export", "to=csv", results, out],
    ):
        assert main([*words, f"task={moved}"]) == 0, words
        assert "unverified" not in "".join(capsys.readouterr())
    assert mark.exists()


def test_the_file_and_the_function_that_the_user_names_must_be_those_of_the_result(
    tmp_path: Path, mark: Path, evil_task: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = put(tmp_path / "results", f"{evil_task}:score")
    other = tmp_path / "other.py"
    other.write_text("def task(): ...\n")
    assert main(["validate", str(run), f"task={other}"]) == 1 and not mark.exists()
    assert "unverified" in capsys.readouterr().out
    twins = [tmp_path / name / "my_task.py" for name in "ab"]
    for twin in twins:
        twin.parent.mkdir()
        twin.write_text("def task(): ...\n")
    assert main(["validate", str(run), *(f"task={twin}" for twin in twins)]) == 1
    assert "2 of that name are given" in capsys.readouterr().out
    assert main(["validate", str(run), f"task={twins[0]}"]) == 1
    assert "defines no function 'score'" in capsys.readouterr().out
    for word in (f"task={tmp_path / 'no.py'}", "task=egoschema"):
        for command in ("validate", "score", "compare", "leaderboard", "export"):
            assert "wanted the file of a task of your own" in told(capsys, command, word)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["tests", "bench", "leaderboard", "adapters", "tasks", "encoders", "mini", "canary"])
def test_a_result_cannot_import_what_lies_beside_the_package(
    tmp_path: Path, mark: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import evalkit

    code = f"from pathlib import Path\nPath({str(mark)!r}).touch()\ndef score(predictions, targets): ...\n"
    for file in (f"{name}/deeper/evil.py", f"{name}/deeper/__init__.py", "evil.py", "wording.evil.py"):
        (tmp_path / "beside" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "beside" / file).write_text(code)
    monkeypatch.setattr(evalkit, "__path__", [*evalkit.__path__, str(tmp_path / "beside")])
    for module in (f"{name}.deeper.evil", f"{name}.deeper", f"{name}.evil", name, "evil", "", ".evil", "metrics.evil"):
        for function in ("score", "main", ""):
            with pytest.raises(UserError) as caught:
                scores.resolve(f"evalkit.{module}:{function}")
            assert "\n" not in str(caught.value)
    assert not mark.exists()


@pytest.mark.parametrize(
    "name",
    [
        "evalkit.metrics:_ratio",
        "evalkit.metrics:np",
        "evalkit.metrics.text.meteor:_stop",
        "evalkit.metrics.text.texts:generated",
        "evalkit.datasets.files:read_table",
        "evalkit.metrics.bootstrap:interval",
        "evalkit.tasks.egoschema:task",
        "evalkit.tasks.egoschema:submission",
        "evalkit.__main__:main",
        "evalkit.cli:main",
        "evalkit:run",
    ],
)
def test_a_result_cannot_call_what_is_no_score_function(name: str) -> None:
    with pytest.raises(UserError) as caught:
        scores.resolve(name)
    assert not isinstance(caught.value, scores.Unverified) and "\n" not in str(caught.value)


def test_of_an_installed_plug_in_a_result_imports_no_more_than_it_does_itself(
    tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / f"outsiders_{abs(hash(str(tmp_path)))}"
    package.mkdir()
    name = package.name
    (package / "__init__.py").touch()
    (package / "measures.py").write_text("def score(predictions, targets): ...\n")
    (package / "tasks.py").write_text(f"from {name}.measures import score\ndef task(): ...\n")
    (package / "__main__.py").write_text(
        f"from pathlib import Path\nPath({str(mark)!r}).touch()\ndef score(p, t): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    points = [EntryPoint("theirs", f"{name}.tasks:task", "evalkit.tasks")]
    for place in ("importlib.metadata.entry_points", "evalkit.results.scores.entry_points"):
        monkeypatch.setattr(place, lambda *, group: points if group == "evalkit.tasks" else [])
    assert scores.resolve(f"{name}.measures:score").__module__ == f"{name}.measures"
    with pytest.raises(UserError, match="does not import that module"):
        scores.resolve(f"{name}.__main__:score")
    assert not mark.exists()


def test_a_page_makes_no_task_of_a_file_that_a_result_names(tmp_path: Path, mark: Path, evil_task: Path) -> None:
    page = importlib.import_module("evalkit.leaderboard.page.samples")
    run = put(tmp_path / "results", "evalkit.metrics:accuracy")
    (found,), _ = collection.collect(run)
    found.result["task"]["name"] = str(evil_task)
    assert page.task_of(found) is None and not mark.exists()


def test_a_configuration_of_a_result_is_read_as_plain_values(tmp_path: Path, mark: Path) -> None:
    page = importlib.import_module("evalkit.leaderboard.page.samples")
    rows = rows_of(8, 4)
    code = f"data.root: !!python/object/apply:os.system ['touch {mark}']\n"
    run = run_folder.write(tmp_path / "results/demo/egoschema/run", result_of(rows), rows, code)
    (found,), refused = collection.collect(run)
    assert not refused and page.task_of(found) is None and not mark.exists()
