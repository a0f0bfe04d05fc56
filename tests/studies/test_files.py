"""The file of a study: what it may hold, and one line that names file and key where it does not."""

from collections.abc import Callable
from pathlib import Path

import pytest

from evalkit.cli import main
from evalkit.datasets import suites
from evalkit.errors import UserError
from evalkit.studies import cards, files
from evalkit.studies.files import Expectation, read

CELL = "  - {name: a, run: task=folder}\n"
HEAD = "title: T\nx: cost.fit_s\ny: top1\n"


def refusal(folder: Path, text: str) -> str:
    file = folder / "mine.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        read(str(file))
    message = str(caught.value)
    assert message.startswith(f"{file}: ") and "\n" not in message
    return message.removeprefix(f"{file}: ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{HEAD}cell:\n{CELL}", "unknown key 'cell'. Did you mean 'cells'?"),
        (f"titel: T\n{HEAD}cells:\n{CELL}", "unknown key 'titel'. Did you mean 'title'?"),
        ("title: T\nx: a.b\ncells:\n" + CELL, "the key 'y' is missing"),
        (f"{HEAD}cells: []\n", "cells: wanted a list of cells, each with a name and a line run: or adapt:"),
        (f"{HEAD}cells:\n  - {{name: a}}\n", "cells[0]: it has neither a line adapt: nor a line run:"),
        (f"{HEAD}cells:\n  - {{name: a, grup: x}}\n", "cells[0]: unknown key 'grup'. Did you mean 'group'?"),
        (f"{HEAD}cells:\n{CELL}{CELL}", "cells: the name 'a' is given twice"),
        (f"{HEAD}axis: lgo\ncells:\n{CELL}", "axis: 'lgo': wanted linear or log"),
        (f"{HEAD}cells:\n  - {{name: a, run: task}}\n", "cells[0].run: expected words key=value, got 'task'"),
        (
            f"{HEAD}cells:\n  - {{name: a, run: task=x out=y}}\n",
            "cells[0].run: out=y: the study names the folders; leave out= out",
        ),
        (
            f"{HEAD}cells:\n  - {{name: a, run: 'task=x ckpt={{adapt}}'}}\n",
            "cells[0].run: {adapt}: no adapt line stands before it",
        ),
        (
            f"{HEAD}cells:\n  - {{name: left, adapt: task=x}}\n  - {{name: b, run: 'ckpt={{lfet.adapt}}'}}\n",
            "cells[1].run: {lfet.adapt}: unknown cell with an adapt line 'lfet'. Did you mean 'left'?",
        ),
        (f"{HEAD}mini: {{runs: a=b}}\ncells:\n{CELL}", "mini: unknown key 'runs'. Did you mean 'run'?"),
        ("title: ''\nx: a\ny: b\ncells:\n" + CELL, "the key 'title' is missing"),
        (f"title: T\nx: a\ny: []\ncells:\n{CELL}", "y: wanted metrics or dotted paths, at least one"),
        (f"title: T\nx: a\ny: [b, b]\ncells:\n{CELL}", "y: 'b' is given twice, among x and y"),
        (f"title: T\nx: a\ny: [b, a]\ncells:\n{CELL}", "y: 'a' is given twice, among x and y"),
        (f"{HEAD}title: S\ncells:\n{CELL}", "not readable as yaml: the key 'title' is given twice, again in line 4"),
        (
            f"{HEAD}cells:\n  - {{name: a, run: task=x, run: task=y}}\n",
            "not readable as yaml: the key 'run' is given twice, again in line 5",
        ),
        (f"{HEAD}cells:\n  - {{name: a, run: seed=1 task=x seed=2}}\n", "cells[0].run: seed is given twice"),
        (f"{HEAD}words: {{run: out=y}}\ncells:\n{CELL}", "words.run: out=y: the study names the folders"),
        (
            f"{HEAD}words: 'ckpt={{adapt}}'\ncells:\n{CELL}",
            "words: {adapt} stands for a folder in the lines adapt: and run: of cells alone",
        ),
        (
            f"{HEAD}cells:\n  - {{name: a, adapt: task=x, run: 'ckpt={{adpat}}'}}\n",
            "cells[0].run: ckpt={adpat}: wanted {adapt} or {NAME.adapt}",
        ),
        (
            f"{HEAD}cells:\n  - {{name: a, adapt: 'adapter.teacher={{b.run}}'}}\n",
            "cells[0].adapt: adapter.teacher={b.run}: wanted {adapt} or {NAME.adapt}",
        ),
        ("- 1\n", "wanted the keys title, source, x, y, axis, words, cells, mini, claims"),
        ("a: [", "not readable as yaml: while parsing a flow node expected the node content, but found '<stream end>'"),
    ],
)
def test_a_wrong_file_is_told_by_its_key_and_what_is_near(tmp_path: Path, text: str, expected: str) -> None:
    assert refusal(tmp_path, text).startswith(expected)


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        ("{text: t, of: [a], metric: m, expect: ratio atleast 3}", "claims[0].expect: 'ratio atleast 3': wanted 'diff"),
        (
            "{text: t, of: [a, a], metric: m, expect: value at least 3}",
            "claims[0].of: value takes 1 of the cells",
        ),
        (
            "{text: t, of: [a], metric: m, expect: ratio at least 3}",
            "claims[0].of: ratio takes 2 of the cells",
        ),
        ("{text: t, of: [a, a], metric: m, expect: lowest}", "claims[0].of: the cell 'a' is named twice"),
        ("{text: t, of: [a], metric: m, expect: lowest}", "claims[0].of: lowest is of two cells or more, and 1 is"),
        ("{text: t, of: [b], metric: m, expect: value at least 3}", "claims[0].of: unknown cell 'b'. Known: a"),
        ("{text: t, of: [a], expect: value at least 3}", "claims[0]: the key 'metric' is missing"),
        (
            "{text: t, of: [a], metric: m, expect: value between 3 and 2}",
            "claims[0].expect: 'value between",
        ),
    ],
)
def test_a_wrong_claim_is_told_by_its_key(tmp_path: Path, claim: str, expected: str) -> None:
    assert refusal(tmp_path, f"{HEAD}cells:\n{CELL}claims:\n  - {claim}\n").startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("difference at least -1", Expectation("difference", low=-1.0)),
        ("ratio between 2 and 3.5", Expectation("ratio", 2.0, 3.5)),
        ("value at most 1e9", Expectation("value", high=1e9)),
        ("increasing", Expectation("increasing")),
    ],
)
def test_expectations_are_read(tmp_path: Path, text: str, expected: Expectation) -> None:
    cells = "cells:\n" + CELL + "  - {name: b, run: task=folder}\n"
    of = "[a]" if text.startswith("value") else "[a, b]"
    file = tmp_path / "mine.yaml"
    file.write_text(f"{HEAD}{cells}claims:\n  - {{text: t, of: {of}, metric: m, expect: {text}}}\n")
    assert read(str(file)).claims[0].expect == expected


@pytest.mark.parametrize("of", [suites.read, cards.read])
def test_a_suite_and_a_card_have_each_key_once_too(tmp_path: Path, of: Callable[[str], object]) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("cells: {}\nrun: task=x\nrows: {a: [x], b: [y], a: [z]}\n")
    with pytest.raises(UserError, match=f"^{file}.* the key 'a' is given twice, again in line 3"):
        of(str(file))


def test_a_key_may_come_again_in_another_mapping(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"{HEAD}cells:\n  - &a {{name: a, run: task=x}}\n  - {{<<: *a, name: b}}\n")
    assert [cell.run for cell in read(str(file)).cells] == [("task=x",)] * 2


def test_braces_of_a_prompt_are_no_placeholder(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"{HEAD}cells:\n  - {{name: a, run: 'adapter.prompt={{captions}}'}}\n")
    assert read(str(file)).cells[0].run == ("adapter.prompt={captions}",)


def test_an_unknown_study_is_told_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "longvivit_memry"]) == 2
    assert "Did you mean 'longvivit_memory'?" in capsys.readouterr().err
    assert main(["study"]) == 2
    assert "study takes one name or file" in capsys.readouterr().err
    assert main(["list", "studies"]) == 0
    assert all(name in capsys.readouterr().out for name in ("longvivit_memory",))
    assert set(files.studies()) >= {"longvivit_memory", "longvivit_frames"}
