"""A split of another size than published is told, and is not compared with print as if it were whole."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evalkit.api import Example, Task
from evalkit.commands.runs.check import DataCheck, Split, report
from evalkit.config.parse import resolve
from evalkit.datasets import suites
from evalkit.errors import UserError
from evalkit.metrics import accuracy
from evalkit.pipeline.task_data import load_task
from evalkit.results.record import record
from evalkit.results.run_folder import contradictions
from evalkit.results.schema import violations
from evalkit.results.sizes import published_size, size_differences
from evalkit.results.table import table
from tests.records import result_of, rows_of

LIST = "key,vid_key,video_id,sentence\n" + "".join(f"r{i},msr{i},video{i},a cat runs {i}\n" for i in range(5))


def task(test: int, train: int = 0, /, **sizes: int | tuple[int, ...]) -> Task:
    examples = [Example(str(i), Path(f"{i}.mp4"), 0) for i in range(max(test, train))]
    return Task(examples[:test], accuracy, examples[:train], sizes=sizes, published={"VideoPrism-B": 51.4})


def result(of: Task, failed: int = 0, fitted: bool = False, expect: int | None = None) -> dict[str, object]:
    rows = rows_of(len(of.test) - failed, 0, failed)
    known = result_of(rows)
    parts = {key: known[key] for key in ("encoder", "adapter", "scores", "controls", "selection", "cost", "provenance")}
    made = record(
        of,
        rows,
        name="msrvtt",
        score=known["task"]["score"],
        quick_score=None,
        protocol={},
        fitted=fitted,
        expect=expect,
        **parts,
    )
    digests = {"protocol_sha256": "0" * 64}
    hashed = {**made, "task": made["task"] | digests, "data": made["data"] | {"predictions_sha256": "0" * 64}}
    assert not violations(hashed)
    return made


def test_a_split_has_the_size_of_the_paper_or_of_its_files() -> None:
    sizes: dict[str, int | tuple[int, ...]] = {"test": (19_165, 19_906), "train": 7}
    assert size_differences(task(7, 7, test=7)) == []
    assert published_size(task(5, test=(7, 5)), "test") == 5
    assert size_differences(task(5, test=(7, 6))) == [{"split": "test", "examples": 5, "published": 7}]
    assert size_differences(task(5, 3, **sizes), ("train",)) == [{"split": "train", "examples": 3, "published": 7}]
    assert size_differences(task(5)) == [] and published_size(task(5), "test") is None


def test_a_result_of_a_truncated_list_is_partial_and_marks_published_numbers() -> None:
    made = result(task(5, test=1_000))
    assert made["status"] == "partial"
    text = table(made)
    assert "WARNING  test has 5 examples, 1,000 published: not comparable with published numbers" in text
    assert (
        "data.expect=5 says that the number is meant" in text and "VideoPrism-B (published, different test set)" in text
    )
    meant = result(task(5, test=1_000), expect=5)
    assert meant["status"] == "complete" and "VideoPrism-B (published, different test set)" in table(meant)
    whole = table(result(task(5, test=5)))
    assert "complete" in whole and "WARNING" not in whole and "VideoPrism-B (published) " in whole


def test_a_result_of_a_truncated_list_that_is_called_complete_is_found() -> None:
    rows = rows_of(5, 0)
    made: dict[str, Any] = result(task(5, test=1_000))
    made["provenance"] |= {"started": "2026-01-01T00:00:00Z", "finished": "2026-01-01T00:00:01Z"}
    assert not contradictions(made, rows)
    told = "status is complete, but data.size_differences is given without data.expect"
    assert told in contradictions(made | {"status": "complete"}, rows)
    unmarked = {key: value for key, value in made["data"].items() if key != "size_differences"}
    told = "predictions.jsonl has 5 rows, published were 1000, and no data.size_differences"
    assert told in contradictions(made | {"data": unmarked}, rows)


def test_train_counts_where_something_is_fitted_on_it() -> None:
    assert result(task(5, 3, test=5, train=9))["status"] == "complete"
    assert result(task(5, 3, test=5, train=9), fitted=True)["status"] == "partial"
    both = table(result(task(5, 3, test=6, train=9), fitted=True))
    assert "VideoPrism-B (published, different train and test set)" in both


def test_missing_videos_are_failures_and_no_other_size() -> None:
    made = result(task(5, test=5), failed=2)
    assert made["status"] == "partial" and "size_differences" not in made["data"]  # type: ignore[operator]
    assert "WARNING" not in table(made)
    assert "WARNING  MOST OF THE TEST FAILED (3 of 5)" in table(result(task(5, test=5), failed=3))


def test_a_suite_marks_the_printed_number_of_other_examples() -> None:
    suite = suites.Suite({}, sizes={10**6: ["VideoPrism-B"]})
    made = result_of(rows_of(5, 0))
    made["task"] |= {"name": "kinetics400", "split": "val"}
    made["scores"][0]["metric"] = "top1"
    value, row = suites.nearest_published(suite, "frozen", made)
    assert row == "VideoPrism-B" and float(value) > 50
    made["data"]["size_differences"] = [{"split": "test", "examples": 5, "published": 19_165}]
    assert suites.nearest_published(suite, "frozen", made) == (
        f"{value} *",
        "VideoPrism-B (* different test set: see its run)",
    )


def test_the_user_says_what_number_is_meant(tmp_path: Path) -> None:
    (tmp_path / "MSRVTT_JSFUSION_test.csv").write_text(LIST)
    words = ["task=msrvtt", f"data.root={tmp_path}"]
    found = load_task(resolve("check", words))
    assert size_differences(found) == [{"split": "test", "examples": 5, "published": 1_000}]
    assert len(load_task(resolve("check", [*words, "data.expect=5"])).test) == 5
    with pytest.raises(UserError, match="^data.expect=6: test of task msrvtt has 5 examples$"):
        load_task(resolve("check", [*words, "data.expect=6"]))
    with pytest.raises(UserError, match="data.expect=0"):
        resolve("check", [*words, "data.expect=0"])


def test_check_is_unsound_where_a_size_differs_and_is_not_meant() -> None:
    split = Split("test", 5, 1_000, 0, 5, 5, [], [])
    data = DataCheck([split], sizes=size_differences(task(5, test=1_000)), unused=[Path("x/left.mp4")])
    assert not data.sound and replace(data, meant=True).sound and replace(data, sizes=[]).sound
    lines = report(data).splitlines()
    assert "test has 5 examples, published: 1,000" in lines and "left out, of no example: x/left.mp4" in lines
    assert "a list may be cut off, or of another version; data.expect=5 says that the number is meant" in lines
    assert not DataCheck([]).sound
    of_train = DataCheck([split], sizes=[{"split": "train", "examples": 7, "published": 9}])
    assert not any("data.expect" in line for line in report(of_train).splitlines())  # which is of the test's number


def test_a_miniature_has_its_own_size() -> None:
    assert size_differences(load_task(resolve("check", ["task=msrvtt", "mini=true"]))) == []
