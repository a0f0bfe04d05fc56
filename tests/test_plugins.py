"""Plug-ins are found by folder, entry point or path, and a broken one is told in one line."""

import importlib
import pickle
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import get_args

import pytest

import evalkit
from evalkit import errors, plugins
from evalkit.config.keys import known_keys
from evalkit.errors import UserError

GOOD = '''"""A module."""


def task(root: str = "here") -> str:
    """Names the colour of a shape.

    Args:
        root: where the videos are.
    """
    return root
'''


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty tasks folder in place of the project's own, which is importable as evalkit.tasks."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "__init__.py").touch()
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if f"{name}.".startswith("evalkit.tasks.")}
    monkeypatch.setattr(evalkit, "__path__", [evalkit.__path__[0], str(tmp_path)])
    importlib.invalidate_caches()
    yield folder
    for name in [name for name in sys.modules if f"{name}.".startswith("evalkit.tasks.")]:
        del sys.modules[name]
    sys.modules.update(hidden)


def use_entry_points(monkeypatch: pytest.MonkeyPatch, **points: str) -> None:
    found = [EntryPoint(name, value, "evalkit.tasks") for name, value in points.items()]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda *, group: found if group == "evalkit.tasks" else [])


def message(kind: plugins.Kind, name: str) -> str:
    with pytest.raises(UserError) as caught:
        plugins.factory(kind, name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_and_packages_are_plug_ins_and_underscored_ones_are_not(tasks: Path) -> None:
    (tasks / "zebra.py").write_text(GOOD)
    (tasks / "ants").mkdir()
    (tasks / "ants" / "__init__.py").write_text(GOOD)
    (tasks / "_shared.py").write_text(GOOD)
    (tasks / "_world").mkdir()
    (tasks / "_world" / "__init__.py").write_text(GOOD)
    (tasks / "notes").mkdir()
    (tasks / "notes.txt").touch()
    assert plugins.names("task") == {"ants": str(tasks / "ants/__init__.py"), "zebra": str(tasks / "zebra.py")}
    assert list(plugins.names("task")) == ["ants", "zebra"]


def test_the_factory_is_the_function_called_as_its_kind(tasks: Path) -> None:
    (tasks / "zebra.py").write_text(GOOD)
    (tasks / "ants").mkdir()
    (tasks / "ants" / "__init__.py").write_text("from evalkit.tasks.ants.inner import task")
    (tasks / "ants" / "inner.py").write_text(GOOD)
    assert plugins.factory("task", "zebra")() == "here"
    assert plugins.factory("task", "ants")("there") == "there"
    assert plugins.factory("task", "zebra").__module__ == "evalkit.tasks.zebra"


def test_an_entry_point_is_a_module_or_a_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tasks: Path) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "outsiders_tasks.py").write_text(GOOD + "\n\ndef other():\n    '''Another.'''\n    return 'other'\n")
    use_entry_points(monkeypatch, plain="outsiders_tasks", named="outsiders_tasks:other")
    assert plugins.names("task") == {
        "named": "entry point outsiders_tasks:other",
        "plain": "entry point outsiders_tasks",
    }
    assert plugins.summary("task", "plain") == "Names the colour of a shape."
    assert plugins.summary("task", "named") == "Another."
    assert "outsiders_tasks" not in sys.modules
    assert plugins.factory("task", "plain")() == "here"
    assert plugins.factory("task", "named")() == "other"
    del sys.modules["outsiders_tasks"]


def test_an_entry_point_without_a_module_is_listed_and_refused(monkeypatch: pytest.MonkeyPatch, tasks: Path) -> None:
    use_entry_points(monkeypatch, gone="no_such_module_here", deep="no_such_package.inner")
    assert plugins.summary("task", "gone") == "broken: entry point no_such_module_here does not exist"
    assert plugins.summary("task", "deep") == "broken: ModuleNotFoundError: No module named 'no_such_package'"
    assert message("task", "gone").endswith("ModuleNotFoundError: No module named 'no_such_module_here'")


def test_two_plug_ins_of_one_name_are_an_error_that_names_both(monkeypatch: pytest.MonkeyPatch, tasks: Path) -> None:
    (tasks / "zebra.py").write_text(GOOD)
    use_entry_points(monkeypatch, zebra="outsider:task")
    with pytest.raises(UserError) as caught:
        plugins.names("task")
    assert str(caught.value) == (
        f"two tasks are named 'zebra': {tasks}/zebra.py and entry point outsider:task; rename or remove one"
    )


def test_a_file_and_a_folder_of_one_name_are_an_error_too(tasks: Path) -> None:
    (tasks / "zebra.py").write_text(GOOD)
    (tasks / "zebra").mkdir()
    (tasks / "zebra" / "__init__.py").write_text(GOOD)
    expected = f"two tasks are named 'zebra': {tasks}/zebra.py and {tasks}/zebra/__init__.py; rename or remove one"
    assert message("task", "zebra") == expected


def test_an_unknown_name_is_answered_with_the_nearest_or_all(tasks: Path) -> None:
    for name in ("egoschema", "folder", "kinetics400"):
        (tasks / f"{name}.py").write_text(GOOD)
    known = "Known: egoschema, folder, kinetics400"
    assert message("task", "egoshema").endswith("Did you mean 'egoschema'? `evalkit list tasks` shows all")
    assert message("task", "qqq") == f"no task named 'qqq'. {known}"
    assert message("adapter", "probe2") == "no adapter named 'probe2'. Known: none"


def test_a_path_is_loaded_once_under_a_name_that_pickle_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_task.py").write_text(GOOD)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "my_task.py").write_text(GOOD)
    function = plugins.factory("task", "./my_task.py")
    assert function is plugins.factory("task", str(tmp_path / "my_task.py"))
    assert function is not plugins.factory("task", "other/my_task.py")
    assert pickle.loads(pickle.dumps(function)) is function
    assert plugins.summary("task", "./my_task.py") == "Names the colour of a shape."
    assert plugins.display_name("./my_task.py") == "my_task"
    assert plugins.display_name("egoschema") == "egoschema"
    assert message("task", "./gone.py") == "no task file './gone.py'"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("x = 1\ny = nothing\n", ":2: NameError: name 'nothing' is not defined"),
        ("def task(:\n", ":1: SyntaxError: invalid syntax"),
        (
            "import json\n\njson.loads('{\\n')\n",
            ":3: JSONDecodeError: Expecting property name enclosed in double quotes",
        ),
        ("import no_such_module_here\n", ":1: ModuleNotFoundError: No module named 'no_such_module_here'"),
    ],
)
def test_a_broken_file_is_told_with_its_line(tasks: Path, source: str, told: str) -> None:
    (tasks / "zebra.py").write_text(source)
    for name in ("zebra", str(tasks / "zebra.py")):
        for _ in range(2):  # a failed import leaves nothing behind that hides the error
            assert message("task", name).startswith(f"task {name!r} is broken: {tasks / 'zebra.py'}{told}")


def test_a_file_without_the_function_is_broken(tasks: Path) -> None:
    (tasks / "zebra.py").write_text("x = 1\n")
    assert message("task", "zebra") == f"task 'zebra' is broken: {tasks / 'zebra.py'}: no function named 'task'"


def test_an_error_that_a_plug_in_words_itself_is_shown_as_it_is(tasks: Path) -> None:
    (tasks / "zebra.py").write_text("from evalkit.api import UserError\n\nraise UserError('feed the zebra')\n")
    assert message("task", "zebra") == "feed the zebra"


def test_a_summary_is_read_without_importing(tasks: Path) -> None:
    (tasks / "zebra.py").write_text(f"{GOOD}\nraise RuntimeError('imported')\n")
    (tasks / "bare.py").write_text("'''Only the module says.'''\n\ndef task():\n    pass\n")
    (tasks / "mute.py").write_text("from evalkit.tasks.zebra import task\n")
    (tasks / "torn.py").write_text("def task(:\n")
    assert plugins.summary("task", "zebra") == "Names the colour of a shape."
    assert plugins.summary("task", "bare") == "Only the module says."
    assert plugins.summary("task", "mute") == ""
    assert plugins.summary("task", "torn").startswith("broken: SyntaxError: invalid syntax")
    assert "evalkit.tasks.zebra" not in sys.modules


def test_one_thing_is_counted_without_the_plural() -> None:
    told = [errors.counted(*of) for of in ((0, "clip"), (1, "clip"), (2, "clip"), (1234, "test example"), (1, "class"))]
    assert told == ["0 clips", "1 clip", "2 clips", "1,234 test examples", "1 class"]
    assert errors.counted(2, "class") == "2 classes"


def test_a_suggestion_is_a_sentence_or_nothing() -> None:
    assert errors.suggest("unifrom", ["uniform", "dense"]) == " Did you mean 'uniform'?"
    assert errors.suggest("zzz", ["uniform", "dense"]) == ""
    assert errors.suggest("diff", ["difference", "baseline"]) == " Did you mean 'difference'?"
    assert errors.suggest("ba", ["baseline"]) == ""
    assert errors.suggest("msr", ["msrvtt_qa", "msrvtt"]) == " Did you mean one of 'msrvtt', 'msrvtt_qa'?"
    assert errors.suggest("MSR-VTT", ["msrvtt_qa", "msrvtt"]) == " Did you mean 'msrvtt'?"


PROJECT = [(kind, name) for kind in get_args(plugins.Kind) for name in plugins.names(kind)]


@pytest.mark.parametrize(("kind", "name"), PROJECT)
def test_every_plug_in_of_the_project_loads_and_explains_itself(kind: plugins.Kind, name: str) -> None:
    module = f"evalkit.{kind}s.{name}"
    assert plugins.factory(kind, name).__module__ in (module, f"{module}.model")  # of a folder, its model.py
    told = plugins.summary(kind, name)
    assert told.endswith(".") and not told.startswith("broken"), told


@pytest.mark.parametrize(("kind", "name"), [pair for pair in PROJECT if pair[0] != "encoder"])
def test_every_key_of_the_project_has_a_meaning(kind: plugins.Kind, name: str, tmp_path: Path) -> None:
    (tmp_path / "zebra.py").write_text(GOOD)
    known = known_keys("run", name) if kind == "task" else known_keys("run", str(tmp_path / "zebra.py"), name)
    assert not [key for key, one in known.items() if not one.meaning]


def test_code_in_another_folder_is_told_with_the_path_under_which_it_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("here/inner/nearby_code.py", "my models/outer_code.py"):
        file = tmp_path / place
        file.parent.mkdir(parents=True)
        file.write_text("def build():\n    return None\n")
    monkeypatch.chdir(tmp_path / "here")
    word = "../my models/outer_code.py"
    advice = "name its function, ckpt=outer_code:build, with PYTHONPATH='../my models' before evalkit"
    assert plugins.hint_of_own_code(word) == f" {word} is code: {advice}"
    with pytest.raises(UserError, match="No module named 'outer_code'"):
        plugins.own_encoder("outer_code:build")
    monkeypatch.syspath_prepend("../my models")
    assert plugins.own_encoder("outer_code:build") is sys.modules["outer_code"].build
    absolute = tmp_path / "here" / "inner" / "nearby_code.py"
    assert plugins.hint_of_own_code(str(absolute)).endswith("name its function, ckpt=inner.nearby_code:build")
    assert plugins.own_encoder("inner.nearby_code:build")
