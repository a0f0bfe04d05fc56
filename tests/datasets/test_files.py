"""Tables and JSON as people have them: what is broken is an error at its row, never other rows."""

from pathlib import Path
from typing import Any

import pytest

from evalkit.datasets.files import class_number, find_file, read_json, read_lines, read_table, time_span
from evalkit.errors import UserError


def refused(file: Path, text: str, **settings: Any) -> str:
    file.write_text(text, encoding="utf-8", newline="")
    with pytest.raises(UserError) as caught:
        list(read_table(file, ("path", "label"), optional=("split",), **settings))
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(str(file))


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ('a.mp4,cat\nb.mp4,"red\nc.mp4,cat\nd.mp4,dog\n', ", line 3: not readable as a table: unexpected end of data"),
        ('a.mp4,"cat\nb.mp4,cat\nc.mp4,"dog\n', ", line 2: not readable as a table: ',' expected after '\"'"),
        ('a.mp4,"cat\nb.mp4,dog"\nc.mp4,dog\n', ", line 2: a quote opens there, and what follows up to the next"),
        ('a.mp4,cat\nb.mp4,do"g"\n', ""),
        ("a.mp4,cat\nb.mp4,dog,extra\n", ", line 3: 3 values; wanted 2 (path,label); put a value that contains ','"),
        ("a.mp4,cat\nb.mp4", ", line 3: 1 values; wanted 2 (path,label); the file ends in this row, perhaps cut off"),
        ('a.mp4,cat\nb.mp4, "dog"\n', ", line 3: remove the blanks before the quotes of ' \"dog\"'"),
        (
            'a.mp4,cat\nb.mp4,\t"dog, red"\n',
            ", line 3: 3 values; wanted 2 (path,label); remove the blanks before quotes",
        ),
        ("a.mp4,cat\nb.mp4,d\0g\n", ", line 3: it holds a NUL character, so the file is damaged"),
        ("a.mp4,cat\nb\0.mp4,dog\n", ", line 3: it holds a NUL character, so the file is damaged"),
        (f"a.mp4,cat\nb.mp4,{'x,' * 600_000}", ", line 3: not readable as a table: a line of more than 1,000,000 char"),
        ("a.mp4,cat\npath,label\nb.mp4,dog\n", ", line 3: the header is repeated, as if two tables were joined"),
        ("a.mp4,cat\n\ufeffpath,label\nb.mp4,dog\n", ", line 3: the header is repeated"),
    ],
)
def test_a_broken_row_is_an_error_at_its_first_line(tmp_path: Path, rows: str, told: str) -> None:
    file = tmp_path / "videos.csv"
    if told:
        assert refused(file, f"path,label\n{rows}").startswith(told)
    else:  # a quote within a value is one
        file.write_text(f"path,label\n{rows}")
        assert [row["label"] for _, row in read_table(file, ("path", "label"))] == ["cat", 'do"g"']


def test_a_value_may_have_several_lines_and_its_row_is_where_it_begins(tmp_path: Path) -> None:
    file = tmp_path / "videos.csv"
    file.write_text('path,label,note\na.mp4,cat,"one\ntwo"\n\nb.mp4,dog,"a ""b"""\n')
    rows = list(read_table(file, ("path", "label")))
    assert [where.rpartition(" ")[2] for where, _ in rows] == ["2", "5"]
    assert [row["note"] for _, row in rows] == ["one\ntwo", 'a "b"']


@pytest.mark.parametrize("name", ["Split", " split", "SPLIT ", "splits", "spilt", "subset", "partition", "data_split"])
def test_a_column_that_is_nearly_an_optional_one_is_refused(tmp_path: Path, name: str) -> None:
    told = refused(tmp_path / "videos.csv", f"path,label,{name}\na.mp4,cat,test\n")
    meant = "near 'split': if it holds that, rename it to 'split', else to another name"
    assert told == f": unknown column {name!r}, {meant}"


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("path,label,label", ": column 'label' appears twice; rename or remove one"),
        (
            "path,label,Label",
            ": unknown column 'Label', near 'label': if it holds that, rename it to 'label', else to another name",
        ),
        ("path,Label,x", ": no column 'label'; wanted path,label, found 'path,Label,x'. Did you mean 'Label'?"),
    ],
)
def test_columns_that_leave_open_which_is_meant_are_refused(tmp_path: Path, header: str, told: str) -> None:
    assert refused(tmp_path / "videos.csv", f"{header}\na.mp4,cat,test\n") == told


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("part", ("train", "test")),
        ("use", ("Train", " VALIDATION ")),
        ("kind", ("dev", "eval")),
        ("", ("valid", "val")),
        ("x", ("training", "testing")),
    ],
)
def test_a_column_of_splits_under_another_name_is_refused(tmp_path: Path, name: str, values: tuple[str, str]) -> None:
    told = refused(tmp_path / "videos.csv", f"n,path,{name},label\n1,a.mp4,{values[0]},cat\n2,b.mp4,{values[1]},dog\n")
    assert told == f": column {name!r} holds splits: call it 'split', or remove the column"


@pytest.mark.parametrize(
    ("text", "optional"),
    [
        ("path,label,part\na.mp4,cat,train\nb.mp4,dog,tram\n", ("split",)),  # vehicles
        ("path,label,part\na.mp4,cat,train\nb.mp4,dog,\n", ("split",)),
        ("path,label,part,split\na.mp4,cat,train,train\nb.mp4,dog,test,test\n", ("split",)),
        ("path,label,part\na.mp4,train,train\nb.mp4,test,test\n", ()),
    ],
)
def test_a_column_that_may_be_no_split_stays(tmp_path: Path, text: str, optional: tuple[str, ...]) -> None:
    file = tmp_path / "videos.csv"
    file.write_text(text)
    assert len(list(read_table(file, ("path", "label"), optional=optional))) == text.count("\n") - 1


@pytest.mark.parametrize("empty", ["   ", ",", " , ", ",,,", '"",""', "\t"])
def test_a_row_without_a_value_is_skipped(tmp_path: Path, empty: str) -> None:
    file = tmp_path / "videos.csv"
    file.write_text(f"{empty}\npath,label\n{empty}\na.mp4,cat\n{empty}\nb.mp4,dog\n{empty}")
    rows = list(read_table(file, ("path", "label"), optional=("split",)))
    assert [(where.rpartition(" ")[2], row["path"]) for where, row in rows] == [("4", "a.mp4"), ("6", "b.mp4")]


@pytest.mark.parametrize("mark", ["\t", ";", "|"])
def test_a_table_with_another_separator_says_so(tmp_path: Path, mark: str) -> None:
    advice = f"; its values are separated by {mark!r}: save it with ',' between them"
    told = refused(tmp_path / "videos.csv", f"path{mark}label\na.mp4{mark}cat\n")
    assert told.startswith(": no column 'path'") and told.endswith(advice)
    told = refused(tmp_path / "videos.csv", f"path,label\na.mp4{mark}cat\n")
    assert told == f", line 2: 1 values; wanted 2 (path,label){advice}"
    told = refused(tmp_path / "videos.csv", "path,label\na.mp4,cat\n", delimiter="\t")
    assert told.endswith("; its values are separated by ',': save it with '\\t' between them")


@pytest.mark.parametrize(("header", "name"), [("path, label", " label"), ("path ,label", "path ")])
def test_blanks_around_the_name_of_a_column_are_named(tmp_path: Path, header: str, name: str) -> None:
    told = refused(tmp_path / "videos.csv", f"{header}\na.mp4, cat\n")
    assert told == (
        f": no column {name.strip()!r}; wanted path,label, found {header!r}; remove the blanks around {name!r}"
    )


@pytest.mark.parametrize(
    ("encoding", "label", "advice"),
    [
        ("utf-16", "caf\u00e9", "the file is in UTF-16: save it as UTF-8"),
        ("utf-16-le", "cafe", "the file is in UTF-16: save it as UTF-8"),
        ("cp1252", "caf\u00e9", "wanted text: save it as UTF-8"),
    ],
)
def test_a_file_that_is_no_utf8_says_how_to_save_it(tmp_path: Path, encoding: str, label: str, advice: str) -> None:
    file = tmp_path / "videos.csv"
    file.write_text(f"path,label\na.mp4,{label}\n", encoding=encoding)
    with pytest.raises(UserError, match=f"; {advice}$"):
        list(read_table(file, ("path", "label")))


def test_a_list_and_json_in_utf16_say_how_to_save_them(tmp_path: Path) -> None:
    file = tmp_path / "list"
    file.write_text('["a"]\n', encoding="utf-16")
    for read in (lambda: list(read_lines(file)), lambda: read_json(file, list)):
        with pytest.raises(UserError, match="; the file is in UTF-16: save it as UTF-8$"):
            read()


def test_columns_that_are_simply_more_are_no_error(tmp_path: Path) -> None:
    file = tmp_path / "videos.csv"
    file.write_text(",path,label,split,width,subset,,notes\n0,a.mp4,cat,test,3,s,,\n")
    ((_, row),) = read_table(file, ("path", "label"), optional=("split",))
    assert (row["path"], row["label"], row["split"]) == ("a.mp4", "cat", "test")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' appears twice"),
        ('{"a": [1, 2', "perhaps cut off"),
        ('{"a": "tex', "perhaps cut off"),
        ("", "perhaps cut off"),
        ('{"a": 1} x', "Extra data"),
        ("[" * 100_000, "cannot read"),
    ],
)
def test_json_that_is_cut_off_or_has_a_key_twice_is_refused(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "list.json"
    file.write_text(text)
    with pytest.raises(UserError, match=told):
        read_json(file, dict)


@pytest.mark.parametrize(
    "span", [(3, 2), (-1, 2), (0, float("inf")), ("nan", 2), (0, "nan"), ("-inf", 1), (-0.5, -0.1), (0, "1e999")]
)
def test_spans_that_are_reversed_negative_or_not_finite_are_refused(span: tuple[Any, Any]) -> None:
    with pytest.raises(ValueError, match="no span from"):
        time_span(*span)


@pytest.mark.parametrize("span", [(0, 1), ("1.5", " 2 "), (4.97, 4.97)])
def test_spans_of_numbers_or_their_texts_are_taken(span: tuple[Any, Any]) -> None:
    assert time_span(*span) == (float(span[0]), float(span[1]))


@pytest.mark.parametrize("value", [-1, 5, 1.5, True, "1.5", "-1", "5", "1_0", "", None, "x", float("nan"), [1], "²"])
def test_a_class_that_is_no_whole_number_of_them_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="wanted a whole number from 0 to 4"):
        class_number(value, 5)


@pytest.mark.parametrize(("value", "number"), [(0, 0), (4, 4), ("3", 3), (" 2 ", 2), (1.0, 1)])
def test_a_class_is_a_whole_number_or_its_digits(value: Any, number: int) -> None:
    assert class_number(value, 5) == number


@pytest.mark.parametrize("line", ["x" * 1_100_000, "a\0b"])
def test_a_list_that_is_none_is_refused_at_its_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "list.txt").write_text(f"first\n{line}\n")
    with pytest.raises(
        UserError, match=r"list.txt, line 2 (has more than|holds a NUL).*: it is not a list, or damaged"
    ):
        list(read_lines(tmp_path / "list.txt"))


def test_a_root_beside_the_data_is_told_with_theirs(tmp_path: Path) -> None:
    (tmp_path / "k400/annotations").mkdir(parents=True)
    (tmp_path / "k400/annotations/train.csv").touch()
    names = ("train.csv", "annotations/train.csv")

    def told(root: Path) -> str:
        with pytest.raises(UserError) as caught:
            find_file(root, *names)
        return str(caught.value).partition("has no train.csv or annotations/train.csv")[2]

    assert told(tmp_path) == f". Did you mean data.root={tmp_path / 'k400'}?"
    (tmp_path / "k400/videos").mkdir()
    assert told(tmp_path / "k400/videos") == f". Did you mean data.root={tmp_path / 'k400'}?"
    (tmp_path / "k400/annotations/train.csv").unlink()
    assert told(tmp_path) == "; found there: k400/"
    assert told(tmp_path / "k400/videos") == "; it is empty"
