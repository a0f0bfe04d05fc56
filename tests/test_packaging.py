"""The wheel holds one top-level name and runs unpacked; the folders keep to the one dependency rule."""

import ast
import graphlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PLUG_INS = ("tasks", "adapters", "leaderboard")
FOLDERS = (*PLUG_INS, "configs")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source package, and the wheel that is built of it."""
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    ended = subprocess.run(build, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    (file,) = built.glob("video_evalkit-*.whl")
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
    assert len(top) == 2 and any(name.startswith("video_evalkit-") for name in top)


def test_the_wheel_holds_every_file_of_the_folders(wheel: zipfile.ZipFile) -> None:
    held = set(wheel.namelist())
    for folder in FOLDERS:
        assert any(name.startswith(f"evalkit/{folder}/") for name in held), f"no {folder} in the wheel"
    inside = [file.relative_to(ROOT) for folder in FOLDERS for file in (ROOT / folder).rglob("*") if file.is_file()]
    inside += [file.relative_to(ROOT / "evalkit") for file in (ROOT / "evalkit").rglob("*") if file.is_file()]
    left_out = ("__pycache__", "results")  # the board's own
    inside = [file for file in inside if not (file.parts[0] == "leaderboard" and file.parts[1] in left_out)]
    wanted = [file for file in inside if "__pycache__" not in file.parts and not file.name.startswith(".")]
    missing = [str(file) for file in wanted if f"evalkit/{file.as_posix()}" not in held]
    assert not missing
    assert not [name for name in held if "__pycache__" in name or "/tests/" in name]


def test_the_unpacked_wheel_runs_from_anywhere(unpacked: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    where = run(empty, "-c", "import evalkit; print(evalkit.__file__, *evalkit.__path__)", path=unpacked)
    assert where.stdout.split() == [str(unpacked / "evalkit/__init__.py"), str(unpacked / "evalkit")]
    usage = run(empty, "-m", "evalkit", "--help", path=unpacked)
    assert (usage.returncode, usage.stderr) == (0, "") and "evalkit run task=" in usage.stdout
    listed = run(empty, "-m", "evalkit", "list", "tasks", path=unpacked)
    assert (listed.returncode, listed.stderr) == (0, "")
    assert listed.stdout == run(ROOT, "-m", "evalkit", "list", "tasks").stdout


@pytest.mark.parametrize("package", ["*.whl", "*.tar.gz"])
def test_a_fresh_environment_runs_what_is_installed_of_each_package(package: str, built: Path, tmp_path: Path) -> None:
    """The environment sees what this one has of other packages, so that nothing is fetched, and not this checkout."""
    fresh, (file,) = tmp_path / "fresh", built.glob(package)
    assert run(tmp_path, "-m", "venv", "--without-pip", str(fresh)).returncode == 0
    (site,) = fresh.glob("lib/python*/site-packages")
    (site / "others.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet")
    ended = run(tmp_path, "-m", "pip", "--python", str(fresh / "bin/python"), "install", *options, str(file))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    env = {**os.environ, "PYTHONPATH": "", "EVALKIT_CACHE": str(tmp_path / "cache")}

    def evalkit(*words: str) -> str:
        command = [str(fresh / "bin/evalkit"), *words]
        ended = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    assert evalkit("--version").startswith("evalkit 0.")
    assert (site / "evalkit/tasks/youcook2.py").is_file()
    assert evalkit("list", "tasks", "youcook2").startswith("youcook2: Captions each step")
    if package == "*.whl":  # which is built of the other
        assert "nothing is missing" in evalkit("doctor", "task=egoschema", "ckpt=demo", "mini=true", "decoder=decord")


def test_an_editable_install_leaves_no_copies_of_the_folders(tmp_path: Path) -> None:
    """Imports take the checkout; searches and editors would find the copies, stale after the first edit."""
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--target")
    ended = run(tmp_path, "-m", "pip", "install", *options, str(tmp_path / "site"), "-e", str(ROOT))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    installed = {entry.name for entry in (tmp_path / "site").iterdir() if not entry.name.endswith(".dist-info")}
    assert installed == {"_video_evalkit.pth", "bin"}
    assert (tmp_path / "site/_video_evalkit.pth").read_text() == str(ROOT)


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


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes at any depth; but for imports that only type checkers make, and those of a module's `__getattr__`."""
    for node in ast.iter_child_nodes(tree):
        typing_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        facade = isinstance(tree, ast.Module) and isinstance(node, ast.FunctionDef) and node.name == "__getattr__"
        if not (typing_only or facade):
            yield node
            yield from statements(node)


def imports(name: str, source: str, package: bool = False, nodes: Callable[[ast.AST], Any] = ast.walk) -> set[str]:
    """Absolute names of all that a module imports, at any depth of its code."""
    imported = set()
    for node in nodes(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = name.split(".")[: len(name.split(".")) - node.level + package] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            imported |= {f"{base}.{alias.name}" for alias in node.names}
    return imported


def folder_of(name: str) -> str:
    """Which plug-in folder an imported name lies in; empty for the core and everything else."""
    first, _, rest = name.partition(".")
    second = rest.partition(".")[0]
    return second if first == "evalkit" and second in PLUG_INS else ""


def test_imports_are_read_in_every_form() -> None:
    source = "import evalkit.tasks.a\nfrom evalkit import tasks\ndef f():\n    from . import b\n    from .b import c\n"
    assert imports("evalkit.adapters.x", source) == {
        *("evalkit.tasks.a", "evalkit.tasks", "evalkit.adapters.b", "evalkit.adapters.b.c")
    }
    assert imports("evalkit.tasks.p", "from . import q\nfrom .. import cli", package=True) == {
        "evalkit.tasks.p.q",
        "evalkit.tasks.cli",
    }
    lazy = "if TYPE_CHECKING:\n    import a\ndef __getattr__(name):\n    import b\ndef f():\n    import c\n"
    assert imports("evalkit.x", lazy) == {"a", "b", "c"} and imports("evalkit.x", lazy, nodes=statements) == {"c"}
    assert [folder_of(name) for name in ("evalkit.tasks", "evalkit.api.Task", "tasks")] == ["tasks", "", ""]


# Lower ones import no higher ones. evalkit itself and its __main__ stand outside: they only lead to a part.
LAYERS = (
    ("api", "errors"),
    ("runtime", "plugins", "video", "heads", "metrics", "canary", "pretraining"),
    ("config", "weights", "features", "datasets", "localization", "results", "tracking"),
    ("encoders", "language"),
    ("adapters", "mini", "pipeline"),
    ("launch", "show"),
    ("tasks", "demo", "commands", "callback", "studies"),
    ("cli", "leaderboard"),
)
# A file per adapter has no other place.
CROWDED = {"adapters"}


def test_every_import_leads_down_the_layers_and_packages_make_no_circle() -> None:
    layer = {part: number for number, parts in enumerate(LAYERS) for part in parts}
    graph: dict[str, set[str]] = {}
    upward = set()
    for name, file in modules("evalkit", *PLUG_INS):
        part = f"{name}.".split(".")[1]
        if part in ("", "__main__"):
            continue
        assert part in layer, f"{file}: LAYERS says nothing of {part}"
        for imported in imports(name, file.read_text(), file.name == "__init__.py", statements):
            first, _, rest = imported.partition(".")
            other = rest.partition(".")[0]
            if first != "evalkit" or other in (part, "__version__", "__path__", ""):
                continue
            if other == "demo" and not (ROOT / imported.replace(".", "/")).with_suffix(".py").is_file():
                continue  # where demo's files lie, which its __init__ says, and imports nothing for it
            graph.setdefault(part, set()).add(other)
            if other not in layer or layer[other] > layer[part]:
                upward.add((file.relative_to(ROOT).as_posix(), other))
    assert not upward, f"imports of a higher layer: {sorted(upward)}"
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_folders_and_files_can_be_taken_in_at_a_glance() -> None:
    """At most 15 entries in a package, evalkit's own and the tasks aside, and at most 400 lines in a file of code."""
    packages = {file.parent for _, file in modules("evalkit", *PLUG_INS)} - {ROOT / "evalkit", ROOT / "tasks"}
    held = {folder: [entry.name for entry in folder.iterdir() if entry.name[:2] != "__"] for folder in packages}
    crowded = {folder.relative_to(ROOT).as_posix() for folder, entries in held.items() if len(entries) > 15}
    assert crowded <= CROWDED, f"more than 15 entries: {sorted(crowded - CROWDED)}"
    lengths = {file: len(file.read_text().splitlines()) for _, file in modules("evalkit", *PLUG_INS, "tests")}
    long = {file.relative_to(ROOT).as_posix() for file, length in lengths.items() if length > 400}
    assert not long, f"more than 400 lines: {sorted(long)}"


def test_the_core_imports_no_plug_in() -> None:
    for name, file in modules("evalkit"):
        imported = imports(name, file.read_text(), file.name == "__init__.py")
        wrong = [other for other in imported if folder_of(other)]
        assert not wrong, f"{file}: imports {wrong}; plug-ins are found by name"


def test_plug_ins_import_only_the_core() -> None:
    for name, file in modules(*PLUG_INS):
        plug_in = name.split(".")[1:3]  # its folder, and the file or package that is the plug-in
        for imported in imports(name, file.read_text(), file.name == "__init__.py"):
            parts = imported.split(".")[1:3]
            # Beside the core: its own package, what its folder shares under a leading underscore, and within the
            # leaderboard any module: that folder is one package, in which only exports/ holds plug-ins.
            shared = parts[:1] == plug_in[:1] and len(parts) == 2 and (parts[0] == "leaderboard" or parts[1][0] == "_")
            assert not folder_of(imported) or parts == plug_in or shared, f"{file}: imports {imported}"
