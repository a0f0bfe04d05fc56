"""`evalkit show` in the terminal: a run, its samples, and what cannot be shown."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from evalkit.cli import main
from evalkit.metrics import accuracy, activitynet_map, captions, multilabel_map
from evalkit.results import run_folder
from evalkit.results.rows import Row
from evalkit.results.schema import plain
from evalkit.show import text
from evalkit.show.opened import Opened
from evalkit.show.rebuilt import config_of
from evalkit.show.sample import Part
from tests import hostile
from tests.hostile import EVIL, told
from tests.leaderboard.boards import put
from tests.records import result_of

pytestmark = pytest.mark.slow

mark = hostile.mark


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What the command prints."""

    def show(*words: object) -> str:
        capsys.readouterr()
        assert main(["show", *map(str, words)]) == 0
        return capsys.readouterr().out

    return show


def fits(printed: str) -> bool:
    """Whether a terminal of 80 columns shows it as it is; what is to be copied stays in one line: a command, a path."""
    lines = [line for line in printed.splitlines() if not line.startswith("evalkit show RUN ")]
    lines = [line for line in lines if max(map(len, line.split()), default=0) < 40]
    return all(len(line) <= 80 for line in lines) and "\x1b" not in printed


def test_a_run_shows_its_table_its_failures_and_the_classes_it_confuses(
    probed: Path, shown: Callable[..., str]
) -> None:
    told = shown(probed)
    assert fits(told)
    record, rows = run_folder.load(probed), run_folder.load_rows(probed)
    (headline,) = (line.split() for line in told.splitlines() if line.startswith("top1 "))
    assert headline[1] == f"{record['scores'][0]['value']:.1f}" and "folder, test, version" in told
    assert "failed, counted as wrong\n  1  " in told and "(broken.mp4)" in told
    wrong = [row for row in rows if row.prediction and row.prediction[0] != row.target]
    names = ("left", "right")
    for target, name in enumerate(names):
        times = sum(row.target == target for row in wrong)
        of = sum(row.target == target for row in rows)
        assert (f" {times} of {of} {name} {names[1 - target]} " in " ".join(told.split())) == (times > 0)
    assert f"  wrong     {len(wrong):>6,}  " in told and "  failed         1  broken.mp4" in told


def test_a_sample_shows_what_was_expected_and_predicted(probed: Path, shown: Callable[..., str]) -> None:
    for row in run_folder.load_rows(probed):
        told = shown(probed, f"sample={row.id}")
        if row.prediction is None:
            assert told.startswith("broken.mp4: failed\n") and fits(told)
            assert f" failed {row.failure} answer class right left" in " ".join(told.split())
            continue
        right = row.prediction[0] == row.target
        assert told.startswith(f"{row.id}: {'right' if right else 'wrong'}\n") and fits(told)
        (first, second), scores = row.prediction, (row.detail or {})["probabilities"]
        names = ("left", "right")
        lines = [line.split() for line in told.splitlines()]
        if right:
            assert ["predicted,", "right", names[first], f"{scores[0]:.3f}"] in lines
        else:
            assert ["predicted", names[first], f"{scores[0]:.3f}"] in lines
            assert ["right", names[second], f"{scores[1]:.3f}"] in lines


def test_samples_are_named_by_id_by_its_beginning_and_by_how_they_came_out(
    probed: Path, shown: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [row.id for row in run_folder.load_rows(probed)]
    one = next(id for id in ids if id.endswith("00.mp4"))
    assert shown(probed, f"sample={one}").startswith(one)
    assert shown(probed, "sample=brok").startswith("broken.mp4: failed")
    assert shown(probed, "sample=failed").count("broken.mp4: failed") == 1
    assert shown(probed, "sample=first:3").count("\nencoder") == 3
    assert shown(probed, f"sample=broken.mp4,{one},brok").count("\nencoder") == 2
    common = one[:-6]
    assert f"sample={common}: 6 samples begin so: " in told(capsys, "show", str(probed), f"sample={common}")
    assert "Did you mean 'broken.mp4'?" in told(capsys, "show", str(probed), "sample=borken.mp4")
    assert "The first are" in told(capsys, "show", str(probed), "sample=zzz")
    assert "wanted first:N" in told(capsys, "show", str(probed), "sample=first:0")


def test_a_query_shows_its_rank_and_the_five_nearest(searched: Path, shown: Callable[..., str]) -> None:
    rows = run_folder.load_rows(searched)
    told = shown(searched)
    assert fits(told) and "worst queries" in told
    worst = max(rows, key=lambda row: row.prediction["t2v"])
    assert any(line.split()[:1] == [f"{worst.prediction['t2v']:g}"] for line in told.splitlines())
    row = rows[3]
    told = shown(searched, f"sample={row.id}")
    lines = [" ".join(line.split()) for line in told.splitlines()]
    assert f"its rank {row.prediction['t2v']:g}" in lines and "query film 1" in lines
    for place, name in enumerate((row.detail or {})["nearest"][:5], 1):
        sign = "right " if name == row.target[0] else ""
        assert any(line.startswith(f"{sign}{place} ") for line in lines)
    assert not any(line.startswith("6 ") for line in lines)


def test_a_question_shows_its_options_and_controls_where_its_task_is_named(
    asked: Path, world: Path, shown: Callable[..., str]
) -> None:
    told = shown(asked)
    assert "unverified: " in " ".join(told.split()) and "without the task's names" in " ".join(told.split())
    told = shown(asked, f"task={world / 'my_task.py'}")
    assert fits(told) and "unverified" not in told and "accuracy/direction" in told
    row = next(row for row in run_folder.load_rows(asked) if row.prediction is not None and row.target is not None)
    told = shown(asked, f"task={world / 'my_task.py'}", f"sample={row.id}")
    assert "What happens?" in told and "a red circle moves left" in told
    for number, score in enumerate((row.detail or {})["log_likelihood"]):
        (line,) = (line for line in told.splitlines() if f" {'ABCD'[number]}  " in line and f"{score:.3f}" in line)
        assert line.startswith("predicted") == (number == row.prediction)
        assert ("right" in line[:16]) == (number == row.target)
    for name in ("blind", "shuffled", "single_frame", "option_order"):
        assert f"\n{name}" in told
    without = shown(asked, f"sample={row.id}")
    assert "option 1" in without and "moves left" not in without
    gone = shown(asked, f"task={world / 'my_task.py'}", "sample=gone")
    assert gone.startswith("gone: failed") and "no such file" in gone


def test_a_caption_stands_beside_its_references_with_shared_words_in_brackets(
    tmp_path: Path, shown: Callable[..., str]
) -> None:
    rows = [
        Row("a", "v0", target=["the cat sat on a mat", "a dog barks"], prediction="the cat sat, a dog ran"),
        Row("b", "v1", target="a plane lands at night", prediction="birds"),
        Row("c", "v2", target="a plane lands", prediction="a plane lands"),
    ]
    run = put(tmp_path, rows, score=captions)
    told = shown(run, "sample=a")
    assert "predicted  [the cat sat a dog] ran\n" in told
    assert "reference  [the cat sat] on a mat\nreference  [a dog] barks\n" in told
    assert "5 of 6 1-grams, 3 of 5 2-grams, 1 of 4 3-grams, 0 of 3 4-grams" in " ".join(told.split())
    told = shown(run)
    order = [line.split()[-1] for line in told.partition("worst by CIDEr")[2].splitlines()[2:5]]
    assert order == ["b", "a", "c"]


def test_a_run_that_is_none_is_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, "show").endswith("show takes the folder of one run, got nothing")
    assert "there is no such folder" in told(capsys, "show", str(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    assert "no result.json in it" in told(capsys, "show", str(tmp_path / "empty"))
    (tmp_path / "file").touch()
    assert "file is a file; name the folder of a run" in told(capsys, "show", str(tmp_path / "file"))
    run = put(tmp_path / "results", [Row("a", "v", target=1, prediction=1)])
    nowhere = f"out={tmp_path / 'file' / 'a.html'}"
    assert f"{nowhere}: cannot write there: Not a directory" in told(capsys, "show", str(run), "sample=a", nowhere)
    rows = (run / "predictions.jsonl").read_bytes()
    (run / "predictions.jsonl").write_bytes(b"")
    assert "predictions.jsonl is empty: there is no sample to show" in told(capsys, "show", str(run))
    (run / "predictions.jsonl").write_bytes(rows)
    record = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps({**record, "schema": 2}))
    assert "is of schema 2, and this evalkit reads schema 1" in told(capsys, "show", str(run))
    for words, why in [
        (["samples=a"], "unknown key 'samples'. Did you mean 'sample'?"),
        (["out=a.html"], "out= is of samples"),
        (["sample="], "sample=: wanted a value"),
        (["sample=a", "sample=b"], "sample is given twice"),
        (["sample=a", "encode=yes"], "encode=yes: wanted true or false"),
        (["sample=a", "adapter.from=head"], "adapter.from= is of what a page shows: name it, out=FILE.html"),
    ]:
        assert why in told(capsys, "show", str(run), *words)


def test_what_was_changed_and_what_is_not_here_is_told_beside_the_rest(
    probed: Path, labeled: Path, tmp_path: Path, shown: Callable[..., str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(probed, run)
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("videos.csv", "moved.csv"))
    lines = (run / "predictions.jsonl").read_text().replace('"kind": ""', '"kind": "k"')
    (run / "predictions.jsonl").write_text(lines)
    told = " ".join(shown(run).split())
    assert "predictions.jsonl was changed since the run" in told and "without the task's names" in told
    assert "moved.csv" in told and "failed, counted as wrong" in told
    other = tmp_path / "other.csv"
    other.write_text(labeled.read_text().replace("broken.mp4,left", "broken.mp4,right"))
    told = " ".join(shown(probed, f"data.root={other}").split())
    assert "are not those of the run" in told and "data.root=" in told
    assert "unknown key 'data.rot'. Did you mean 'data.root'?" in " ".join(shown(probed, "data.rot=x").split())
    (run / "config.yaml").unlink()
    assert "config.yaml cannot be read" in " ".join(shown(run, "sample=brok").split())


def test_a_result_from_elsewhere_runs_and_fetches_nothing(
    tmp_path: Path, tiny: Path, mark: Path, monkeypatch: pytest.MonkeyPatch, shown: Callable[..., str]
) -> None:
    evil = tmp_path / "evil_module.py"
    evil.write_text(EVIL.format(mark=str(mark), tiny=str(tiny)))
    monkeypatch.syspath_prepend(str(tmp_path))
    row = Row("a", "v", target=1, prediction=1)

    def stranger(number: int, config: str, score: str = "evalkit.metrics:accuracy") -> Path:
        record = result_of([row], accuracy)
        record["task"]["score"] = score
        return run_folder.write(tmp_path / f"results/demo/task/{number}", record, [row], config)

    base = {"task": "egoschema", "ckpt": "demo", "mini": "true"}
    for number, (change, why) in enumerate(
        [
            ({"task": str(evil)}, "runs only where you name it"),
            ({"ckpt": "evil_module:make"}, "which is run only where you name it"),
            ({"adapter": str(evil)}, "which is run only where you name it"),
            ({"ckpt": "someone/model"}, "which is fetched only where you name it"),
            ({"lm": "https://host/v1#m"}, "which is asked only where you name it"),
            ({"encoder.model": "someone/model"}, "which is fetched only where you name it"),
            ({"data.videos": "https://host/videos"}, "which is asked only where you name it"),
        ]
    ):
        config = "".join(f"{key}: {value}\n" for key, value in {**base, **change}.items())
        run = stranger(number, config, f"{evil}:score" if number == 0 else "evalkit.metrics:accuracy")
        shown(run), shown(run, "sample=a")
        with pytest.raises(Exception, match=why):
            config_of(run, [], [])
    assert not mark.exists()


def test_the_users_own_words_take_the_place_of_the_runs(probed: Path, tmp_path: Path) -> None:
    config = config_of(probed, ["adapter.from=mine", "ckpt=demo", "device=cpu"], [])
    assert (config.options.adapter_from, config.options.ckpt, config.options.device) == ("mine", "demo", "cpu")
    kept: Any = config_of(probed, [], [])
    assert kept.options.out == Path("results") and kept.adapter["epochs"] == 2
    assert kept.data["root"].name == "videos.csv"


def test_a_wider_screen_is_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    query = "a test card with color bars, " * 3
    cells = [("rank", "text", "sample"), ("19", f"{query}the first", "a" * 40), ("18", f"{query}the second", "b" * 40)]
    for columns, whole in (("80", False), ("160", True), ("20", False)):
        monkeypatch.setenv("COLUMNS", columns)
        printed = "\n".join(text._fitted(cells))
        assert ("the second" in printed) == whole and ("..." in printed) != whole
        assert max(map(len, printed.splitlines())) <= max(80, int(columns))
    monkeypatch.setenv("COLUMNS", "160")
    (line,) = text.part_lines(Part("", [("said", "word " * 25)], ""))
    assert len(line) > 120


def test_long_texts_wrap_beside_their_scores(tmp_path: Path) -> None:
    head, score = ("", "", "option", "log-likelihood"), "-123.456"
    part = Part("options", [("predicted, right", "A", "a very long option " * 9, score)], "", head)
    lines = list(text.part_lines(part))
    assert fits("\n".join(lines)) and len(lines) > 3 and lines[1].endswith(score)
    assert " ".join(" ".join(line[21:64] for line in lines[1:]).split()) == ("a very long option " * 9).strip()


def test_several_classes_segments_and_failures_of_other_kinds_are_shown(
    tmp_path: Path, shown: Callable[..., str]
) -> None:
    scores = [[0.9, 0.2, 0.1, 0.3, 0.4, 0.5, 0.05], [0.1, 0.9, 0.2, 0.3, 0.4, 0.5, 0.05]]
    rows = [Row("a", "v", target=[1, 6], prediction=scores[0]), Row("b", "w", target=[1], prediction=scores[1])]
    run = put(tmp_path, rows, task="charades", score=multilabel_map)
    told = shown(run)
    assert "likeliest class is none of those that are there" in told
    assert ["1", "of", "1", "1,", "6", "0", "a"] in [line.split() for line in told.splitlines()]
    lines = [line.split() for line in shown(run, "sample=a").splitlines()]
    assert (
        ["0", "0.900", "1"] in lines and ["right", "1", "0.200", "5"] in lines and ["right", "6", "0.050", "7"] in lines
    )
    segments = [[1.0, 5.0, "run", 0.1], [2.0, 3.0, "jump", 0.7]]
    rows = [
        Row("a", "v", target=[[1.0, 5.0, "run"]], prediction=segments),
        *(Row(f"f{i}", f"v{i}.mp4", target=[], failure=f"no such file: v{i}.mp4") for i in range(3)),
    ]
    run = put(tmp_path / "segments", rows, task="tal", score=activitynet_map)
    told = shown(run)
    assert "  3  no such file: VIDEO  (f0, f1, f2)" in told  # what differs in the file's name alone is one
    told = shown(run, "sample=a")
    assert [line.split() for line in told.splitlines() if "jump" in line] == [["2", "3", "jump", "0.7"]]
    assert told.index("jump") < told.index("0.1") and "from s  to s  label  score" in told
    assert fits(shown(run)) and fits(told)


values: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**9) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["t2v", "v2t", "a"]), inner),
    max_leaves=6,
)
likely: Any = (
    values
    | st.lists(st.integers(0, 9), min_size=1, max_size=5)
    | st.lists(st.floats(0, 1), max_size=5)
    | st.fixed_dictionaries({"t2v": st.floats(1, 99), "v2t": st.floats(1, 99)})
    | st.lists(st.tuples(st.floats(0, 9), st.floats(0, 9), st.text(), st.floats(0, 1)).map(list), max_size=3)
)
details: Any = st.dictionaries(
    st.sampled_from(["log_likelihood", "nearest", "similarity", "said", "probabilities"]), values
)


@settings(max_examples=150, deadline=None, database=None)
@given(st.lists(st.tuples(likely, likely, st.none() | details, likely), min_size=1, max_size=3))
def test_whatever_a_result_holds_is_shown(samples: list[tuple[Any, Any, Any, Any]]) -> None:
    """Rows as anybody may write them, of which no metric says anything: no traceback, no control character."""
    rows = [Row(f"s{i}", "v", "", t, p, None, None, detail) for i, (t, p, detail, _) in enumerate(samples)]
    controls = {f"s{i}": {"blind": plain(c), "option_order": plain(c)} for i, (*_, c) in enumerate(samples)}
    opened = Opened(
        Path("run"), result_of([Row("a", "v", target=1, prediction=1)]), rows, "", [None] * len(rows), controls
    )
    shown = [text.overview(opened), *(text.sample(opened, row) for row in rows)]
    assert all(line.isprintable() for printed in shown for line in printed.split("\n"))
