"""config.yaml gives its configuration back whatever was typed; a file of config= is small and stands for little."""

import itertools
import os
from pathlib import Path

import pytest

from evalkit.config.keys import adapter_keys
from evalkit.config.parse import resolve
from evalkit.errors import UserError

PIECES = ["a", " ", "'", '"', "\\", "${", "}", "\\${", "\\\\${", "\n", "\r", "\t", "\x01", "\x85", "\u2028", "\udcff"]
PIECES += ["\U0001f600", "é", ":", "# ", "- ", "{", "[", ",", "&a", "*a", "!!x", "null", "1e3", "\x7f", "\ufeff", "|"]

BOMB = "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
BOMB += "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 10)}]\n" for a, b in itertools.pairwise("abcdefghi"))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("piece", PIECES, ids=ascii)
def test_any_text_is_written_and_read_back(here: Path, piece: str) -> None:
    for value in (piece, f"/d/{piece}", f"{piece}b", f"a{piece}b {piece}"):
        config = resolve("check", ["task=egoschema", f"data.root={value}"])
        (here / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
        again = resolve("check", ["config=config.yaml"])
        assert again.data == config.data
        assert again.to_yaml().splitlines()[1:] == config.to_yaml().splitlines()[1:]


@pytest.mark.parametrize("name", ["a\x00b", "\ud800", "~nobody_of_this_name/a"], ids=ascii)
def test_what_no_file_can_be_called_is_no_path(name: str) -> None:
    with pytest.raises(UserError, match=r"there is no user 'nobody_|holds a character that no file's name has$"):
        resolve("check", ["task=egoschema", f"data.root={name}"])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (BOMB, "its aliases make more than"),
        ("task: " + "[" * 3000, "nested too deeply"),
        ("task: \x01", "not readable as yaml"),
        ("#" * 10**6 + "##", "larger than 1,000,000 bytes"),
    ],
    ids=["aliases", "nesting", "control", "size"],
)
def test_a_file_that_stands_for_too_much_is_refused(here: Path, content: str, problem: str) -> None:
    (here / "x.yaml").write_text(content)
    with pytest.raises(UserError, match=problem) as caught:
        resolve("check", ["config=x.yaml"])
    assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)


def test_a_device_without_an_end_is_no_configuration() -> None:
    with pytest.raises(UserError, match="larger than"):
        resolve("check", ["config=/dev/zero"])


def test_a_root_beside_a_miniature_is_refused_as_a_word_and_kept_from_a_file(here: Path) -> None:
    words = ["task=egoschema", "mini=true"]
    with pytest.raises(UserError, match=r"^data.root=/nowhere has no effect with mini=true.*: leave one out$"):
        resolve("check", [*words, "data.root=/nowhere"])
    (here / "x.yaml").write_text("data.root: /d\n")
    assert resolve("check", [*words, "config=x.yaml"]).options.mini


SETTINGS = '''
from dataclasses import dataclass, field
from evalkit.api import AdapterSettings

@dataclass(frozen=True)
class Settings(AdapterSettings):
    """Settings.

    Attributes:
        widths: of the layers.
    """

    widths: tuple[int, ...] = field(default_factory=lambda: (8, 4))

def adapter(encoder, task, points):
    """A head."""
'''


def test_settings_are_found_where_the_adapters_file_has_them(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"base_{here.name.replace('-', '_')}"
    (here / f"{name}.py").write_text(SETTINGS)
    monkeypatch.syspath_prepend(here)
    assert adapter_keys(f"./{name}.py")["adapter.widths"].default == (8, 4)
    (here / "all.py").write_text(f"from {name} import Settings, adapter\n")
    assert list(adapter_keys("./all.py")) == ["adapter.widths"]
    (here / "function.py").write_text(f"from {name} import adapter\n")
    assert list(adapter_keys("./function.py")) == ["adapter.widths"]
    (here / "settings.py").write_text(
        f"from dataclasses import dataclass\nimport {name}\nfrom {name} import adapter\n"
        f"@dataclass(frozen=True)\nclass Settings({name}.Settings):\n    depth: int = 2\n"
    )
    assert list(adapter_keys("./settings.py")) == ["adapter.widths", "adapter.depth"]


def test_a_pipe_without_a_writer_is_not_waited_for_and_one_of_the_shell_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(UserError, match=r"pipe.yaml: not readable as yaml: it is a pipe; wanted a file"):
        resolve("run", [f"config={tmp_path / 'pipe.yaml'}"])
    reading, writing = os.pipe()
    os.write(writing, b"task: egoschema\nckpt: demo\n")
    os.close(writing)
    with os.fdopen(reading):
        assert resolve("run", [f"config=/dev/fd/{reading}"]).options.task == "egoschema"
