"""What each task states of its data without them, `DATA`: complete, and the names that its reader asks for."""

import re
import tomllib
from pathlib import Path

import pytest

from evalkit import plugins
from evalkit.api import Data
from evalkit.cli import main
from evalkit.config import keys
from evalkit.config.parse import resolve
from evalkit.errors import UserError
from evalkit.pipeline.task_data import load_task

ROOT = Path(__file__).parents[2]
TASKS = tuple(plugins.names("task"))
# Read from other tasks' folders, or from a file or a folder of any name.
OF_ANY_NAME = ("folder", "imagenet", "mixture", "retrieval")


@pytest.mark.parametrize("name", TASKS)
def test_every_task_states_its_data(name: str) -> None:
    data = keys.stated_data(name)
    assert data.source == "your own" or data.source.startswith("http")
    assert data.license and data.files
    assert data.sizes.keys() <= {"train", "val", "test"}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert data.needs.keys() <= {*extras, "WordNet"}
    known = {"mini", *keys.known_keys("check", name)}
    assert {word.partition("=")[0] for asked in data.needs.values() for word in asked.split()} <= known


@pytest.mark.parametrize("name", [name for name in TASKS if name not in OF_ANY_NAME])
def test_what_a_reader_asks_for_first_is_among_the_files_that_are_stated(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        load_task(resolve("check", [f"task={name}", f"data.root={tmp_path}"]))
    asked = re.findall(r"[\w.-]*[\w-]\.\w{3,5}\b|CRIM13_train1", str(raised.value).replace(str(tmp_path), ""))
    stated = {part for path in keys.stated_data(name).files for part in re.split(r"[/, ]+", path)}
    stated |= {"labels"} if name == "chimpact" else set()  # one file for each clip, of its name
    assert stated & {*asked, *re.findall(r"\blabels\b", str(raised.value))}, str(raised.value)


@pytest.mark.parametrize("name", [name for name in TASKS if name not in OF_ANY_NAME])
def test_source_and_license_of_the_task_are_the_stated_ones(name: str) -> None:
    task, data = plugins.factory("task", name)(mini=True), keys.stated_data(name)
    assert task.source == data.source


def test_a_task_that_states_something_else_is_told(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text('DATA = {"source": "here"}\ndef task():\n    pass\n')
    with pytest.raises(UserError, match=r"DATA is a dict; wanted an evalkit\.api\.Data"):
        keys.stated_data(str(tmp_path / "mine.py"))


def test_a_task_of_ones_own_may_state_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.py").write_text('def task():\n    """Finds cats."""\n')
    assert keys.stated_data(str(tmp_path / "mine.py")) == Data()
    assert main(["list", "tasks", str(tmp_path / "mine.py")]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("mine: Finds cats.\n") and printed.count("not stated") == 5


def test_a_listed_task_shows_source_license_sizes_extras_and_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "tasks", "kinetics400"]) == 0
    lines = {line.split("  ")[0]: line.partition("  ")[2].strip() for line in capsys.readouterr().out.splitlines()}
    assert lines["license"] == "CC BY 4.0 (annotations)"
    assert lines["source"] == "https://github.com/cvdfoundation/kinetics-dataset"
    assert lines["examples"] == "train 235,693 or 246,534, test 19,165 or 19,906"
    assert lines["protocols"].startswith("videoglue, ") and "train.csv" in lines
    assert "evalkit check task=kinetics400 data.root=data/kinetics400" in lines
    assert main(["list", "tasks", "youcook2"]) == 0
    assert "captions with data.meteor=true" in capsys.readouterr().out


def test_an_unknown_name_is_an_error() -> None:
    assert main(["list", "tasks", "youcook3"]) == 2
