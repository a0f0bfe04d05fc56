"""The documentation as a site: built strictly, and complete where it is made from the code."""

import dataclasses
import os
import re
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any, get_args

import pytest

import docs.made.__main__ as made
from docs.made import text as made_text
from evalkit import plugins
from evalkit.api import Sampling, Task
from tests.test_docs import DOCUMENTS, ROOT, text


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return made.pages()


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    """Links, anchors and pictures are checked, and that each page stands in the navigation."""
    assert made.main([str(tmp_path)]) == 0
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(tmp_path / "mkdocs.yml")]
    ended = subprocess.run(build, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True)
    assert ended.returncode == 0 and "WARNING" not in ended.stderr, ended.stderr
    assert (tmp_path / "site/data/youcook2.html").is_file()
    (tmp_path / "docs/quickstart.md").write_text("[lost](nowhere.md), [lost](tasks.md#nothing)")
    ended = subprocess.run(build, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True)
    assert ended.returncode != 0 and "nowhere.md" in ended.stderr and "#nothing" in ended.stderr


def test_each_task_has_a_page_and_each_adapter_its_keys(pages: dict[str, str]) -> None:
    for name in plugins.names("task"):
        page = pages[f"data/{name}.md"]
        assert f"evalkit check task={name} " in page and "| license |" in page and "## On disk" in page
        assert f"({name}.md)" in pages["data/index.md"]
    for name in plugins.names("adapter"):
        assert f"## adapter={name}\n" in pages["keys.md"]


def test_every_field_of_a_result_has_a_meaning(pages: dict[str, str]) -> None:
    rows = re.findall(r"^\| (\*?`[^|]*) \| ([^|]*) \| (.*) \|$", pages["record.md"], re.MULTILINE)
    assert len(rows) > 100
    assert not [field for field, _, meaning in rows if not meaning.strip()]


def test_the_picture_shows_each_way_of_sampling_with_eight_frames(pages: dict[str, str]) -> None:
    picture = ElementTree.fromstring(pages["views.svg"])
    space = "{http://www.w3.org/2000/svg}"
    assert [one.text for one in picture.iter(f"{space}text")] == [*get_args(Sampling)]
    assert len([*picture.iter(f"{space}rect")]) == 8 * len(get_args(Sampling))


def test_paths_become_a_tree() -> None:
    files = {"a/b/x.csv": "", "a/b/y.csv, a/z.csv": "", "m.json": "", "c/": ""}
    assert made_text.tree(files) == "a/\n    b/\n        x.csv\n        y.csv\n    z.csv\nm.json\nc/\n"


def test_text_is_no_markup_and_its_links_are_links() -> None:
    assert made_text.text("<id>_a*b `c_d` (https://x.org/a_b).") == "&lt;id>\\_a\\*b `c_d` (<https://x.org/a_b>)."


def test_lists_are_as_pythons_markdown_wants_them() -> None:
    """A blank line before, four blanks for what belongs to an item; code is left as it is."""
    written = "Text:\n* one\n  goes on\n\n      code\n\n  last\n* two\n\nNext:\n\n    * code\n"
    wanted = "Text:\n\n* one\n    goes on\n\n        code\n\n    last\n\n* two\n\nNext:\n\n    * code\n"
    assert made_text.lists(written) == wanted


def test_the_readme_lists_every_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    listed = re.findall(r"^\| (`.*?) \|", text("README.md"), re.MULTILINE)
    assert sorted(name for cell in listed for name in re.findall(r"`(\w+)`", cell)) == sorted(extras)


def test_no_advice_installs_the_other_project_of_that_name() -> None:
    places = [file for part in ("evalkit", "tasks", "adapters", "leaderboard") for file in (ROOT / part).rglob("*.py")]
    for file in (*places, *(ROOT / name for name in DOCUMENTS), ROOT / "pyproject.toml"):
        assert not re.search(r"(?<!video-)\bevalkit\[[a-z]|pip install '?evalkit\b", file.read_text()), file


def test_each_variable_of_the_environment_is_told() -> None:
    code = "\n".join(file.read_text() for file in (ROOT / "evalkit").rglob("*.py"))
    told = set(re.findall(r"`(EVALKIT_\w+)`", text("docs/configuration.md")))
    assert told == set(re.findall(r"EVALKIT_[A-Z_]+", code))


def test_the_contract_of_a_task_names_fields_that_there_are() -> None:
    rows = re.findall(r"^\| (`.*?) \| ", text("docs/own-task.md"), re.MULTILINE)
    named = [name for cell in rows for name in re.findall(r"`(\w+)`", cell)]
    fields = {field.name for field in dataclasses.fields(Task)}
    assert {"test", "score", "views", "settings", "published"} <= set(named) <= fields


def test_the_code_of_a_task_of_ones_own_runs() -> None:
    found: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", text("docs/own-task.md"), re.DOTALL):
        exec(code, found)
    assert found["DATA"].sizes == {"train": 120, "test": 30}
    assert found["near"]([[2, 0], [0, 2], None], [1, 2, 0]) == {"near": [1.0, 0.0, 0.0]}
    assert found["near"]([1, 2, 0], [1, 2, 0]) == {"near": [1.0, 1.0, 1.0]}
