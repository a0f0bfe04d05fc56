"""The wheel holds one top-level name and runs unpacked; the folders keep to the one dependency rule."""

import ast
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PLUG_INS = ("tasks", "adapters", "leaderboard")
FOLDERS = (*PLUG_INS, "configs")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    ended = subprocess.run(build, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (file,) = out.glob("*.whl")
    return zipfile.ZipFile(file)


@pytest.fixture
def unpacked(wheel: zipfile.ZipFile, tmp_path: Path) -> Path:
    wheel.extractall(tmp_path / "site")
    return tmp_path / "site"


def run(folder: Path, *words: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Python in a folder; `path` is searched for modules before what is installed."""
    env = {**os.environ, "PYTHONPATH": str(path or ""), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, *words], cwd=folder, env=env, capture_output=True, text=True)


def test_the_wheel_holds_one_top_level_name(wheel: zipfile.ZipFile) -> None:
    top = {name.split("/")[0] for name in wheel.namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"evalkit"}
    assert len(top) == 2 and all(name.startswith("evalkit") for name in top)


def test_the_wheel_holds_every_file_of_the_folders(wheel: zipfile.ZipFile) -> None:
    held = set(wheel.namelist())
    for folder in FOLDERS:
        assert any(name.startswith(f"evalkit/{folder}/") for name in held), f"no {folder} in the wheel"
    inside = [file.relative_to(ROOT) for folder in FOLDERS for file in (ROOT / folder).rglob("*") if file.is_file()]
    inside += [file.relative_to(ROOT / "evalkit") for file in (ROOT / "evalkit").rglob("*") if file.is_file()]
    wanted = [file for file in inside if "__pycache__" not in file.parts and not file.name.startswith(".")]
    missing = [str(file) for file in wanted if f"evalkit/{file.as_posix()}" not in held]
    assert not missing
    assert not [name for name in held if "__pycache__" in name or "/tests/" in name]


def test_the_unpacked_wheel_runs_from_anywhere(unpacked: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    where = run(empty, "-c", "import evalkit; print(evalkit.__file__, *evalkit.__path__)", path=unpacked)
    assert where.stdout.split() == [str(unpacked / "evalkit/__init__.py"), str(unpacked / "evalkit")]
    told = run(empty, "-m", "evalkit", "--help", path=unpacked)
    assert (told.returncode, told.stderr) == (0, "") and "evalkit run task=" in told.stdout
    there = run(empty, "-m", "evalkit", "list", "tasks", path=unpacked)
    assert (there.returncode, there.stderr) == (0, "")
    assert there.stdout == run(ROOT, "-m", "evalkit", "list", "tasks").stdout


@pytest.mark.parametrize("folder", PLUG_INS)
def test_a_folder_is_not_importable_under_its_bare_name(folder: str) -> None:
    ended = run(ROOT, "-c", f"import {folder}")
    assert ended.returncode == 1
    assert ended.stderr.endswith(f"ImportError: {folder} is evalkit's folder: import evalkit.{folder} instead\n")
    assert run(ROOT, "-c", f"import evalkit.{folder}").returncode == 0


def modules(*folders: str) -> Iterator[tuple[str, Path]]:
    """Every module of the project's folders by the name it is imported under."""
    for folder in folders:
        for file in sorted((ROOT / folder).rglob("*.py")):
            parts = file.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts if folder == "evalkit" else ("evalkit", *parts))
            yield name.removesuffix(".__init__"), file


def imports(name: str, source: str, package: bool = False) -> set[str]:
    """Absolute names of all that a module imports, at any depth of its code."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = name.split(".")[: len(name.split(".")) - node.level + package] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def folder_of(name: str) -> str:
    """Which plug-in folder an imported name lies in; empty for the core and everything else."""
    first, _, rest = name.partition(".")
    second = rest.partition(".")[0]
    return second if first == "evalkit" and second in PLUG_INS else ""


def test_imports_are_read_in_every_form() -> None:
    source = "import evalkit.tasks.a\nfrom evalkit import tasks\ndef f():\n    from . import b\n    from .b import c\n"
    found = imports("evalkit.adapters.x", source)
    assert found == {"evalkit.tasks.a", "evalkit.tasks", "evalkit.adapters.b", "evalkit.adapters.b.c"}
    assert imports("evalkit.tasks.p", "from . import q\nfrom .. import cli", package=True) == {
        "evalkit.tasks.p.q",
        "evalkit.tasks.cli",
    }
    assert [folder_of(name) for name in ("evalkit.tasks", "evalkit.api.Task", "tasks")] == ["tasks", "", ""]


def test_the_core_imports_no_plug_in() -> None:
    for name, file in modules("evalkit"):
        bad = [one for one in imports(name, file.read_text(), file.name == "__init__.py") if folder_of(one)]
        assert not bad, f"{file}: imports {bad}; plug-ins are found by name"


def test_plug_ins_import_only_the_core() -> None:
    for name, file in modules(*PLUG_INS):
        own = name.split(".")[1:3]  # its folder, and the file or package that is the plug-in
        for one in imports(name, file.read_text(), file.name == "__init__.py"):
            parts = one.split(".")[1:3]
            # Beside the core: its own package, what its folder shares under a leading underscore, and within the
            # leaderboard any module: that folder is one package, in which only exports/ holds plug-ins.
            shared = parts[:1] == own[:1] and len(parts) == 2 and (parts[0] == "leaderboard" or parts[1][0] == "_")
            assert not folder_of(one) or parts == own or shared, f"{file}: imports {one}"
