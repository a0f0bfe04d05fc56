"""Every `evalkit ...` in the documents is understood by the command that it names; what is cheap is run."""

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from evalkit.cli import NAMED, WITH_KEYS, main
from evalkit.commands.workspace import _needs
from evalkit.config.help import print_keys
from evalkit.config.options import Command
from evalkit.config.parse import resolve
from evalkit.datasets import suites
from evalkit.launch import cells, suite
from tests.test_docs import DOCUMENTS, ROOT, text

# Words that stand for whatever the reader has, and something that there is in their place.
STANDS_FOR = {"task=NAME": "task=ssv2", "tasks NAME": "tasks ssv2"}
# Files of the reader's own, and the documents that print them.
OWN = {
    "my_task.py": "CONTRIBUTING.md",
    "my_adapter.py": "docs/adapters.md",
    "my_encoder.py": "docs/encoders.md",
    "mine.yaml": "docs/configuration.md",
}
LISTS = ("tasks", "encoders", "adapters", "suites", "studies")


def commands(document: str) -> list[str]:
    """What follows `evalkit` in blocks of commands, where a launcher may stand before it, and within sentences."""
    blocks = re.findall(r"^ *```(?:bash)?\n(.*?)^ *```", document, re.DOTALL | re.MULTILINE)
    prose = re.sub(r"^ *```.*?^ *```", "", document, flags=re.DOTALL | re.MULTILINE)
    found = re.findall(r"^ {4,}(?:[A-Z_]+=\S+ )?evalkit ([a-z]+ .*|[a-z]+)$", prose, re.MULTILINE)
    found += re.findall(r"^(?:.*\s)?evalkit ([a-z]+ .*|[a-z]+)$", "\n".join(blocks), re.MULTILINE)
    found += re.findall(r"`evalkit ([a-z][^`]*)`", prose)
    return [" ".join(re.split(r" +# ", line)[0].split()) for line in found]


LINES = sorted({line for name in DOCUMENTS if name != "CHANGELOG.md" for line in commands(text(name))})
# Beyond words: what is left out, a choice, a name that stands for any.
VAGUE = re.compile(r"\.\.\.|\bCOMMAND\b|\bFORMAT\b|\|")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder that holds what the documents print to be saved."""
    monkeypatch.chdir(tmp_path)
    for name, document in OWN.items():
        Path(name).write_text(re.findall(r"```(?:python|yaml)\n(.*?)```", text(document), re.DOTALL)[0])
    assert main(["init", "encoder", "my_network"]) == 0
    yield
    for name in ("my_encoder", "my_network"):
        sys.modules.pop(name, None)


def test_commands_are_found_in_blocks_after_launchers_and_in_sentences() -> None:
    document = (
        "    evalkit cache   # a note\n    EVALKIT_LM_KEY=... evalkit run a=b\nSay `evalkit list tasks` first.\n"
        "```\nsrun x evalkit run task=a\n    -m evalkit plan\n```\n```yaml\nrun: evalkit\n```\n"
    )
    assert commands(document) == ["cache", "run a=b", "run task=a", "plan", "list tasks"]
    assert len(LINES) > 120


@pytest.mark.parametrize("line", [line for line in LINES if not VAGUE.search(line)])
def test_every_command_of_the_documents_is_understood(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    for word, stands_for in STANDS_FOR.items():
        line = line.replace(word, stands_for)
    command, *words = shlex.split(line)
    assert [*(ROOT / "evalkit/commands").glob(f"*/{command}.py")], f"no command {command}"
    configured = cast(Command, WITH_KEYS.get(command))
    if "--help" in words:
        if configured:
            print_keys(configured, words, called=command)
        else:
            assert main([command, "--help"]) == 0
    elif not words or command in NAMED:  # named alone in a sentence; studies and cards are read in tests/test_docs.py
        pass
    elif command == "sweep":
        cells.plan(words)
    elif words[0].startswith("config="):  # of a run, or the document's own
        assert words[0] == "config=RUN/config.yaml" or resolve("run", words).options.mini
    elif configured and not re.search(r"\b(task|ckpt)=\S+ .*\b(ckpt|task|data\.root)=", line) and command != "canary":
        assert not [word for word in words if "=" not in word]  # a part of a line, in a sentence
    elif words[0].startswith("suite="):
        suite.plan(suites.read(words[0].partition("=")[2]), words[1:])
    elif command == "doctor":
        assert [*_needs.examine(words)]
    elif configured:
        resolve(configured, words, called=command)
    elif command in ("list", "power"):
        assert main([command, *words]) == 0
    else:
        _refuses_only_what_is_not_there(command, words, capsys)


def _refuses_only_what_is_not_there(command: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A command that reads files: none of the document's is here, and no word is wrong."""
    if command not in ("score", "validate", "compare", "leaderboard", "export", "cache"):
        assert main([command, "--help"]) == 0  # a key, a server: nothing of it is tried
        return
    code = main([command, *words])
    told = capsys.readouterr().err
    assert code in (0, 2) and "unknown" not in told and " takes " not in told and "Did you mean" not in told, told


@pytest.mark.parametrize("line", [line for line in LINES if VAGUE.search(line) and line.startswith("list ")])
def test_every_list_that_is_named_is_one(line: str) -> None:
    assert set(line.removeprefix("list ").split("|")) <= set(LISTS)
