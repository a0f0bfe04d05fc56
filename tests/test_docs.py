"""The documents' commands and code, run."""

import importlib
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from docs.made.__main__ import MADE, links, pages
from evalkit import plugins
from evalkit.cli import main
from evalkit.config.parse import resolve
from evalkit.mini import language
from evalkit.mini.film import write
from evalkit.results import run_folder, validate
from evalkit.studies import cards as reference_cards
from evalkit.studies import files as study_files
from evalkit.studies import plan as study_plan
from evalkit.studies import verify
from evalkit.weights import checkpoint

ROOT = Path(__file__).parents[1]
runs = pytest.mark.usefixtures("decoding_here")
DOCUMENTS = (
    *("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"),
    *sorted(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md")),
    "docs/made/README.md",
)


def text(name: str) -> str:
    """A document, in which a line that goes on in the next is one."""
    return re.sub(r"\\\n\s*", "", (ROOT / name).read_text(encoding="utf-8"))


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


@runs
def test_a_training_checkpoint_is_loaded_and_scored_from_python_as_documented(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    module, snippet = re.findall(r"```python\n(.*?)```", text("docs/encoders.md"), re.DOTALL)
    Path("my_encoder.py").write_text(module)
    try:
        written = importlib.import_module("my_encoder").make(64)
        state = {f"model.encoder.{name}": value for name, value in written.state_dict().items()}
        torch.save({"state_dict": state | {"model.head.weight": torch.zeros(3, 64)}}, "run.ckpt")
        names: dict[str, Any] = {}
        exec(snippet, names)
    finally:
        sys.modules.pop("my_encoder", None)
    in_memory, of_file = (names[name].record["encoder"] for name in ("in_memory", "of_file"))
    assert in_memory["sha256"] == of_file["sha256"] == checkpoint.sha256(written)
    assert in_memory["name"] == "my_run" and of_file["settings"]["width"] == 64


def test_contributing_is_under_fifty_lines_of_prose() -> None:
    prose = re.sub(r"```python\n.*?```", "", text("CONTRIBUTING.md"), flags=re.DOTALL)
    assert len(prose.splitlines()) < 50


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
        for target, anchor in re.findall(r"\]\((?!\w+:)([\w./-]*)(?:#([\w-]+))?\)", text(name)):
            file = (ROOT / name).parent / target if target else ROOT / name
            assert file.exists(), f"{name}: {target}"
            if anchor:
                headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
                anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
                assert anchor in anchors, f"{name}: {target}#{anchor}"


def test_links_to_pages_that_are_made_lead_there_on_the_site() -> None:
    headings = re.findall(r"^## (\w+)$", text("docs/made/README.md"), re.MULTILINE)
    assert {heading.lower() for heading in headings} == MADE.keys()
    assert set(MADE.values()) <= pages().keys()
    for name in DOCUMENTS:
        assert "made/README" not in links(text(name)), name
