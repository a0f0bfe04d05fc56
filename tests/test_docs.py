"""The documents' commands and code, run."""

import re
import shlex
import sys
from pathlib import Path
from typing import cast

import pytest

from evalkit import plugins
from evalkit.cli import main
from evalkit.config.options import Command
from evalkit.config.parse import resolve
from evalkit.datasets import suites
from evalkit.launch import cells, suite
from evalkit.mini import language
from evalkit.mini.film import write
from evalkit.results import run_folder, validate
from evalkit.studies import cards as reference_cards
from evalkit.studies import files as study_files
from evalkit.studies import plan as study_plan
from evalkit.studies import verify

ROOT = Path(__file__).parents[1]
runs = pytest.mark.usefixtures("decoding_here")
DOCUMENTS = (
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "docs/adapters.md",
    "docs/commands.md",
    "docs/encoders.md",
    "docs/features.md",
    "docs/results.md",
    "docs/scale.md",
    "docs/studies.md",
    "docs/tasks.md",
    "docs/training.md",
    "docs/verify.md",
)


def text(name: str) -> str:
    """A document, in which a line that goes on in the next is one."""
    return re.sub(r"\\\n\s*", "", (ROOT / name).read_text(encoding="utf-8"))


LINES = [
    line
    for name in ("README.md", "docs/commands.md", "docs/encoders.md", "docs/features.md")
    for line in re.findall(
        r"^ {4}evalkit ((?:run|adapt|canary|check|features|plan|sweep) .*)$", text(name), re.MULTILINE
    )
]
LINES += [  # in blocks, where a launcher may stand before them
    line
    for block in re.findall(r"^```\n(.*?)^```", text("docs/scale.md"), re.DOTALL | re.MULTILINE)
    for line in re.findall(r"^.*\bevalkit ((?:run|plan|sweep) .*)$", block, re.MULTILINE)
]


@runs
def test_the_task_of_contributing_runs_to_the_letter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = re.findall(r"```python\n(.*?)```", text("CONTRIBUTING.md"), re.DOTALL)[0]
    assert len(code.splitlines()) <= 40
    Path("my_task.py").write_text(code)
    rows = ["path,label,split"]
    for number, story in enumerate(language.clips("contributing", 9)):
        write(story, Path(f"{number}.mp4"), 4)
        rows.append(f"{number}.mp4,{'cat' if number % 2 else 'dog'},{'train' if number < 6 else 'test'}")
    Path("labels.csv").write_text("\n".join(rows) + "\n")
    command = re.search(r"evalkit (run task=\./my_task\.py.*ckpt=demo)$", text("CONTRIBUTING.md"), re.MULTILINE)
    assert command
    assert main([*shlex.split(command[1]), "adapter.epochs=2"]) == 0
    (run,) = Path("results/demo/my_task").iterdir()
    assert validate.validate(run) == []
    assert run_folder.load(run)["data"]["n_expected"] == 3


@runs
def test_the_encoder_of_the_documents_runs_to_the_letter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = re.findall(r"```python\n(.*?)```", text("docs/encoders.md"), re.DOTALL)[0]
    assert len(code.splitlines()) <= 30
    Path("my_encoder.py").write_text(code)
    command = re.search(r"evalkit (run .*ckpt=my_encoder:make .*)$", text("docs/encoders.md"), re.MULTILINE)
    assert command
    try:
        assert main([*shlex.split(command[1]), "adapter.epochs=1"]) == 0
    finally:
        sys.modules.pop("my_encoder", None)
    (run,) = Path("results/my_encoder-make/kinetics400@mini").iterdir()
    assert validate.validate(run) == []
    assert run_folder.load(run)["encoder"]["settings"]["width"] == 64


def test_contributing_is_under_fifty_lines_of_prose() -> None:
    prose = re.sub(r"```python\n.*?```", "", text("CONTRIBUTING.md"), flags=re.DOTALL)
    assert len(prose.splitlines()) < 50


@pytest.mark.parametrize("line", LINES)
def test_every_line_of_the_documents_is_understood(line: str) -> None:
    command, *words = shlex.split(line.split("  #")[0])
    if command == "sweep":
        cells.plan(words)
    elif command == "plan":
        resolve("run", words, called=command)
    elif words[0].startswith("suite="):
        suite.plan(suites.read(words[0].partition("=")[2]), words[1:])
    elif "my_encoder:" not in line:  # that file is made in other tests
        resolve(cast(Command, command), words)


def test_the_cards_of_the_documents_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(re.findall(r"```yaml\n(.*?)```", text("docs/verify.md"), re.DOTALL)[0])
    documents = "\n".join(map(text, ("README.md", "docs/commands.md", "docs/verify.md")))
    lines = [shlex.split(line.split("  #")[0]) for line in re.findall(r"^ {4}evalkit verify (.*)$", documents, re.M)]
    assert len(lines) >= 6
    for name, *words in [*lines, ["./mine.yaml"]]:
        if name != "list":
            resolve("run", verify.line(reference_cards.read(name), [word for word in words if word != "--help"]))


def test_the_studies_of_the_documents_can_be_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(re.findall(r"```yaml\n(.*?)```", text("docs/studies.md"), re.DOTALL)[0])
    lines = re.findall(r"^ {4}evalkit study (.*)$", text("docs/studies.md"), re.MULTILINE)
    assert len(lines) >= 3
    for name, *words in (shlex.split(line.split("  #")[0]) for line in [*lines, "mine.yaml", "mine.yaml mini=true"]):
        planned = study_plan.plan(study_files.read(name), [word for word in words if word != "--help"])
        assert planned.stages()


def test_every_file_that_architecture_names_exists() -> None:
    named = set(re.findall(r"(?:evalkit|tasks|adapters|configs)/[\w/]+\.(?:py|yaml|json)", text("ARCHITECTURE.md")))
    assert named
    missing = [name for name in named if "NAME" not in name and not (ROOT / name).exists()]
    assert not missing


def test_the_documents_name_every_task_and_adapter() -> None:
    kinds: dict[plugins.Kind, str] = {"task": "docs/tasks.md", "adapter": "docs/commands.md"}
    for kind, document in kinds.items():
        for name in plugins.names(kind):
            assert name in text(document), f"{kind} {name}"


def test_no_document_points_to_a_file_that_is_not_there() -> None:
    for name in DOCUMENTS:
        for target in re.findall(r"\]\(([\w./-]+)\)", text(name)):
            assert ((ROOT / name).parent / target).exists(), f"{name}: {target}"
