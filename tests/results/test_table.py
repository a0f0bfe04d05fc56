import pytest

from evalkit.results.rows import Row
from evalkit.results.table import table
from tests.records import minimal_of, result_of, rows_of


def test_the_table_says_what_was_run_what_it_scores_and_what_failed() -> None:
    rows = [*rows_of(8, 4, failed=3), Row("g", "g", target=1, failure="cannot be decoded: moov atom not found")]
    assert table(result_of(rows)).splitlines() == [
        "task     egoschema@mini, test, version 1",
        "encoder  demo, 1.2 M parameters",
        "adapter  multiple_choice, 4,321 trainable",
        "status   partial: 4 of 16 examples failed, counted as wrong",
        "",
        "                         score   95 % interval   examples   videos         bounds",
        "accuracy                  50.0    12.5 to 87.5         16        6   50.0 to 75.0",
        "",
        "chance                    20.0",
        "blind (control)           22.5",
        "ShortViViT (published)    47.9",
        "LongViViT (published)     56.8",
        "",
        "failed (bounds: with all of them wrong, with all of them right)",
        "  3  no such file  (f0, f1, f2)",
        "  1  cannot be decoded: moov atom not found  (g)",
    ]


def test_the_table_of_a_run_without_labels_or_failures_says_so() -> None:
    text = table(minimal_of(rows_of(0, 0, unlabeled=3)))
    assert "no score: no test example has a public answer" in text and "failed" not in text
    assert "status   complete" in text and "unknown parameters" in text


def test_the_table_shows_an_unknown_number_as_a_dash_and_keeps_brackets() -> None:
    result = result_of(rows_of(3, 1))
    result["task"]["name"] = "[bold]x[/bold]"
    result["scores"][0].update(value=None, ci95=[None, None])
    result["chance"] = None
    text = table(result)
    assert "[bold]x[/bold]" in text
    assert [line.split() for line in text.splitlines() if line.startswith(("accuracy", "chance"))] == [
        ["accuracy", "-", "-", "4", "2"],
        ["chance", "-"],
    ]


def test_the_table_can_be_printed_whatever_a_file_is_called() -> None:
    rows = [*rows_of(1, 1), Row("clip\udcff.mp4", "v", target=1, failure="broken")]
    assert r"clip\udcff.mp4" in table(result_of(rows)).encode().decode()


def test_many_reasons_are_cut_to_the_most_frequent() -> None:
    rows = rows_of(1, 0, failed=496) + [Row(f"r{i}", "v", target=1, failure=f"reason {i}") for i in range(30)]
    tail = table(result_of(rows)).splitlines()[-6:]
    assert tail[0] == "  496  no such file  (f0, f1, f2, ...)"
    assert tail[-1] == "   26  for 26 other reasons"


def test_a_reason_that_names_the_video_of_each_is_one_reason() -> None:
    names = [f"abseiling/v{i}_000001.mp4" for i in range(40)]
    rows = rows_of(1, 0) + [Row(name, name, target=1, failure=f"no such file {name}") for name in names]
    text = table(result_of(rows))
    assert "  40  no such file VIDEO  (abseiling/v0_000001.mp4, " in text and "other reasons" not in text
    one = [*rows_of(1, 0), Row("v", "v", target=1, failure="a.mp4: cut off at byte 3")]
    assert "  1  a.mp4: cut off at byte 3  (v)" in table(result_of(one))


def test_training_videos_that_are_missing_are_told_from_those_that_do_not_decode() -> None:
    result = result_of(rows_of(3, 1))
    reasons = ["no such file: /d/a.mp4", "no such file: /d/b.mp4", "the file is empty"]
    for left_out, shown in ((reasons, "2 missing and 1 undecodable"), (reasons[:2], "2 missing")):
        result["selection"] = {"undecodable": [{"video": "v", "reason": reason} for reason in left_out]}
        assert f"train    {shown} videos left out" in table(result)


VIEWS = {
    "sampling": "uniform",
    "frames": 16,
    "fps": 1.0,
    "stride": 1,
    "clips": 1,
    "crops": 1,
    "size": 224,
    "window": None,
}


@pytest.mark.parametrize(
    ("views", "name", "shown"),
    [
        ({}, "", "16 frames x 224, uniform, 1 clip x 1 crop"),
        ({"frames": 1, "crops": 3}, "", "1 frame x 224, uniform, 1 clip x 3 crops"),
        (
            {"sampling": "dense", "stride": 4, "clips": 4, "crops": 3},
            "videoglue",
            "16 frames x 224, dense (stride 4), 4 clips x 3 crops; protocol videoglue",
        ),
        ({"sampling": "fps", "frames": 256}, "", "256 frames x 224, fps (1 a second), 1 clip x 1 crop"),
        ({"window": 4.0, "window_stride": 2.0}, "", "uniform, 1 clip x 1 crop, in windows of 4 s, one every 2 s"),
    ],
)
def test_the_table_says_which_clip_was_shown(views: dict[str, object], name: str, shown: str) -> None:
    result = result_of(rows_of(1, 1))
    result["task"]["protocol"] |= {"views": VIEWS | views, "name": name}
    (line,) = (line for line in table(result).splitlines() if line.startswith("clip "))
    assert line.endswith(shown)


def test_scores_that_depend_on_the_rest_of_the_test_are_marked() -> None:
    result = result_of(rows_of(1, 1))
    assert "depends" not in table(result)
    result["task"]["protocol"]["transductive"] = True
    assert "scored by  transductive: what one query finds depends on all others of the test" in table(result)
    result["adapter"]["settings"]["dual_softmax"] = 0.01
    assert "scored by  dual softmax, temperature 0.01: what one query finds" in table(result)


def test_a_score_that_was_re_ranked_says_by_what() -> None:
    result = result_of(rows_of(1, 1))
    assert "scored by" not in table(result)
    result["task"]["protocol"]["settings"] = {"rerank": 128}
    assert "scored by  the first 128 by the cosine, ordered by layers that see video and text" in table(result)


@pytest.mark.parametrize("settings", [{"rerank": "cross-encoder"}, {"rerank": True}, {"rerank": None}, {}, None, [1]])
def test_a_setting_of_that_name_of_another_adapter_says_nothing_of_it(settings: object) -> None:
    result = result_of(rows_of(1, 1))
    result["task"]["protocol"]["settings"] = settings
    assert "scored by" not in table(result)
