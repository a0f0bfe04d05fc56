"""Claims about made-up records: costs are exact, scores have the interval of a paired bootstrap."""

import copy
import math
import statistics
from pathlib import Path
from typing import Any

import pytest

from evalkit.errors import UserError
from evalkit.results import run_folder
from evalkit.results.rows import Row
from evalkit.results.schema import violations
from evalkit.studies.claims import front, judge, verdict
from evalkit.studies.estimates import Estimate, Outcome, Pairs, over_seeds, value
from evalkit.studies.files import Claim, Expectation, Study, StudyCell
from evalkit.studies.page import axis, html
from evalkit.studies.report import ONE_SEED, as_json, markdown, quantity, report, verdict_line
from tests.records import result_of

COST = "cost.training.saved_bytes"
TRAINING = {
    "saved_bytes": 0,
    "peak_bytes": 2,
    "peak_of": "process",
    "seconds": 0.1,
    "flops": 3,
    "trainable": 3,
    "batch": 4,
}


def outcome(folder: Path, right: int, saved_bytes: int, n: int = 120) -> Outcome:
    """A cell that answers the first examples right and costs so many bytes."""
    rows = [Row(f"q{i}", f"v{i}", target=1, prediction=int(i < right)) for i in range(n)]
    record = copy.deepcopy(result_of(rows))
    record["provenance"]["command"] = "evalkit run task=egoschema ckpt=demo mini=true"
    run_folder.write(folder, record, rows, "")
    record = run_folder.load(folder)
    assert violations(record) == []
    return Outcome([{"cost": {"training": TRAINING | {"saved_bytes": saved_bytes}}}], [(folder, record)])


@pytest.fixture
def outcomes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Outcome]]:
    monkeypatch.setattr("evalkit.results.validate._inconsistencies", lambda run, record: [])  # the command is made up
    return {
        "all": [outcome(tmp_path / "all", 100, 900)],
        "half": [outcome(tmp_path / "half", 99, 500)],
        "bad": [outcome(tmp_path / "bad", 20, 300)],
        "lost": [Outcome(failure="its process ended with -9")],
    }


def claim(expect: Expectation, *of: str, metric: str = "accuracy") -> Claim:
    return Claim("text", of, metric, expect)


@pytest.mark.parametrize(
    ("claimed", "expected"),
    [
        (claim(Expectation("ratio", low=1.8), "all", "half", metric=COST), "holds"),
        (claim(Expectation("ratio", low=1.81), "all", "half", metric=COST), "does not hold"),
        (claim(Expectation("lowest"), "bad", "half", "all", metric=COST), "holds"),
        (claim(Expectation("increasing"), "bad", "half", "all", metric=COST), "holds"),
        (claim(Expectation("increasing"), "bad", "all", "half", metric=COST), "does not hold"),
        (claim(Expectation("value", high=900), "all", metric=COST), "holds"),
        (claim(Expectation("increasing"), "all", "all", metric=COST), "does not hold"),  # equal costs
        (claim(Expectation("difference", high=-50), "bad", "all"), "holds"),
        (claim(Expectation("difference", low=-5), "bad", "all"), "does not hold"),
        (claim(Expectation("difference", low=-1), "half", "all"), "cannot tell"),
        (claim(Expectation("difference", low=-10), "half", "all"), "holds"),
        (claim(Expectation("ratio", high=0.5), "bad", "all"), "holds"),
        (claim(Expectation("ratio", 0.9, 1.1), "half", "all"), "holds"),
        (claim(Expectation("highest"), "all", "bad"), "holds"),
        (claim(Expectation("highest"), "all", "half", "bad"), "cannot tell"),
        (claim(Expectation("decreasing"), "bad", "all"), "does not hold"),
        (claim(Expectation("value", low=70), "all"), "holds"),
        (claim(Expectation("value", low=85), "all"), "cannot tell"),
        (claim(Expectation("highest"), "lost", "bad"), "cannot tell"),
    ],
)
def test_a_claim_is_judged_by_the_interval(outcomes: dict[str, list[Outcome]], claimed: Claim, expected: str) -> None:
    judged = judge(claimed, outcomes, Pairs())
    assert judged.verdict == expected
    assert verdict_line(judged).startswith(f"{expected}: text (")
    assert bool(judged.reason) == ("lost" in claimed.of)


def test_a_difference_is_that_of_compare_and_contains_the_truth(outcomes: dict[str, list[Outcome]]) -> None:
    pairs = Pairs()
    found = pairs.difference(value(outcomes["bad"], "accuracy"), value(outcomes["all"], "accuracy"))
    assert found.value == pytest.approx(100 * -80 / 120) and found.low < found.value < found.high < 0
    back = pairs.difference(value(outcomes["all"], "egoschema:accuracy"), value(outcomes["bad"], "accuracy"))
    assert back.value == -found.value
    ratio = pairs.ratio(value(outcomes["bad"], "accuracy"), value(outcomes["all"], "accuracy"))
    assert ratio.value == pytest.approx(0.2) and 0.1 < ratio.low < 0.2 < ratio.high < 0.3
    with pytest.raises(UserError, match="a cost and a score cannot be compared"):
        pairs.difference(value(outcomes["bad"], "accuracy"), value(outcomes["all"], COST))


def test_what_no_record_has_is_told_with_what_is_near(outcomes: dict[str, list[Outcome]]) -> None:
    with pytest.raises(UserError, match="no acuracy in its records. Did you mean 'accuracy'?"):
        value(outcomes["all"], "acuracy")
    with pytest.raises(UserError, match="no cost.training.saved in its records. Its runs have accuracy"):
        value(outcomes["all"], "cost.training.saved")
    with pytest.raises(UserError, match="its process ended"):
        value(outcomes["lost"], "accuracy")


def test_an_interval_that_is_unknown_tells_nothing() -> None:
    unknown = Estimate(1.0, math.nan, math.nan)
    for expect in (Expectation("difference", low=0), Expectation("increasing"), Expectation("lowest")):
        assert verdict(expect, [unknown]) == "cannot tell"
    assert verdict(Expectation("lowest"), [unknown, Estimate(1, 1, 1)]) == "does not hold"


def test_the_front_holds_what_nothing_beats() -> None:
    points = [(1.0, 10.0), (2.0, 30.0), (3.0, 20.0), (2.0, 25.0), (math.nan, 99.0), (1.0, 10.0)]
    assert front(points) == [True, True, False, False, False, True]
    assert front([(1.0, 10.0), (2.0, 5.0)], lower=True) == [True, True]
    assert front([(1.0, 5.0), (2.0, 10.0)], lower=True) == [True, False]


def test_bytes_and_numbers_read_well() -> None:
    assert [quantity("a_bytes", n) for n in (0, 999, 1000, 502_730_704, 2e12)] == [
        *("0 bytes", "999 bytes", "1 kB", "503 MB", "2 TB")
    ]
    assert [quantity("a_bytes", n) for n in (999.6, 999_499, 999_500, 999_999, 999_700_000)] == [
        *("1 kB", "999 kB", "1 MB", "1 MB", "1 GB")
    ]
    assert quantity("flops", 999_999_999) == "1 G" and quantity("flops", math.inf) == "-"
    assert [quantity("seconds", n) for n in (1.2345678, 1234.5, 1234567, math.nan)] == [
        *("1.235", "1,234", "1.23 M", "-")
    ]


def study_of(outcomes: dict[str, list[Outcome]], x: str, *y: str, runs: tuple[str, ...] = ("task=x",)) -> Study:
    cells = tuple(StudyCell(name, "", ("task=x",), runs, {}) for name in outcomes)
    return Study("s", Path("s.yaml"), "T", x, y, cells)


@pytest.mark.parametrize("y", ["cost.training.saved_bytes", "egoschema:R@4"])
def test_less_is_more_of_costs_and_of_what_is_lower_where_better(outcomes: dict[str, list[Outcome]], y: str) -> None:
    """Whether a metric is named alone or with its task."""
    del outcomes["lost"]
    for seconds, (of_cell,) in enumerate(outcomes.values(), 1):
        of_cell.adapted[0]["cost"]["training"]["seconds"] = seconds
        of_cell.runs[0][1]["scores"][0]["metric"] = "R@4"
    found = report(study_of(outcomes, "cost.training.seconds", y), outcomes, False, Pairs())
    assert [point.on_front for point in found.points] == [(True,)] * 3  # each costs more and is less


def test_a_cost_of_zero_and_a_score_as_the_cost_are_put_into_words(outcomes: dict[str, list[Outcome]]) -> None:
    del outcomes["lost"]
    outcomes["bad"][0].adapted[0]["cost"]["training"]["saved_bytes"] = 0
    (sentence,) = report(study_of(outcomes, COST, "accuracy"), outcomes, False, Pairs()).sentences
    assert "all costs 900 bytes; accuracy +66.7 (" in sentence
    (sentence,) = report(study_of(outcomes, "accuracy", COST), outcomes, False, Pairs()).sentences
    assert "bad (16.67, 0 bytes)" in sentence
    table = markdown(report(study_of(outcomes, "accuracy", COST), outcomes, False, Pairs()))
    assert "| all |  | 83.33 | 900 bytes |" in table


def test_what_no_cell_has_is_told_where_cells_are_only_trained(outcomes: dict[str, list[Outcome]]) -> None:
    trained = {"all": [Outcome(outcomes["all"][0].adapted)]}
    study = study_of(trained, "cost.training.saved_byte", "accuracy", runs=())
    (point,) = report(study, trained, False, Pairs()).points
    assert "no cost.training.saved_byte in its records" in point.failure and "no accuracy in its rec" in point.failure
    (point,) = report(study_of(trained, "cost.training.saved_byte", "accuracy"), trained, False, Pairs()).points
    assert point.failure == ""  # its runs are still to come


def test_failed_examples_are_told_once_with_their_cells(outcomes: dict[str, list[Outcome]]) -> None:
    for name, failed in (("all", 3), ("half", 3), ("bad", 0)):
        outcomes[name][0].runs[0][1]["data"]["n_failed"] = failed
    found = report(study_of(outcomes, COST, "accuracy"), outcomes, False, Pairs())
    note = "3 of 120 examples of egoschema@mini failed and count as wrong: all, half"
    assert found.notes == (note, ONE_SEED)
    content: Any = as_json(found, outcomes, [])
    assert f"\n{note}\n" in markdown(found) and f"<p>{note}</p>" in html(found) and content["notes"] == [note, ONE_SEED]


def test_an_axis_has_marks_however_near_its_numbers_are() -> None:
    for numbers in ([75e6], [75e6, 76e6], [1e6, 3e6], [1e6, 1e9]):
        ticks = axis(numbers, 0, 100, log=True).ticks()
        assert len(ticks) >= 2 and ticks == sorted(ticks)
        assert all(min(numbers) / 1.2 < tick < max(numbers) * 1.2 for tick in ticks)


def test_a_report_marks_the_front_and_shows_what_is_missing(outcomes: dict[str, list[Outcome]], tmp_path: Path) -> None:
    cells = tuple(StudyCell(name, "g<1>", (), ("task=x",), {}) for name in outcomes)
    claims = (
        claim(Expectation("ratio", low=1.8), "all", "half", metric=COST),
        claim(Expectation("lowest"), "lost", "bad"),
    )
    study = Study("s", tmp_path, "A | title", COST, ("accuracy",), cells, claims=claims)
    found = report(study, outcomes, True, Pairs())
    assert [point.on_front for point in found.points] == [(True,), (True,), (True,), (False,)]
    table = markdown(found)
    assert "| half | g<1> | 500 bytes | 82.5 |" in table and "* lost: its process ended with -9" in table
    assert "# A | title (miniature)" in table and "* **holds**: text (all / half: " in table
    (sentence,) = found.sentences
    assert "bad (300 bytes, 16.7), half (500 bytes, 82.5), all (900 bytes, 83.3)" in sentence
    assert "all costs 3.00 times what bad does; accuracy +66.7 (+" in sentence
    page = html(found)
    assert page.count("<circle") == 3 + 1 and "g&lt;1&gt;" in page and "g<1>" not in page
    content: Any = as_json(found, outcomes, ["mini=true"])
    assert content["cells"][1][COST] == {"value": 500.0, "ci95": None, "runs": []}
    assert content["cells"][3]["accuracy"] == {"value": None, "on_front": False}
    assert [claimed["verdict"] for claimed in content["claims"]] == ["holds", "cannot tell"]


def test_the_interval_over_seeds_joins_that_of_videos_and_students_t() -> None:
    one, two, three = Estimate(60.0, 55.0, 64.0), Estimate(62.0, 58.0, 67.0), Estimate(70.0, 64.0, 76.0)
    found = over_seeds([one, two, three], scores=True)
    spread = 4.302653 * statistics.stdev([60, 62, 70]) / math.sqrt(3)
    assert found.value == pytest.approx(64)
    assert found.low == pytest.approx(64 - math.hypot((5 + 4 + 6) / 3, spread), abs=1e-4)
    assert found.high == pytest.approx(64 + math.hypot((4 + 5 + 6) / 3, spread), abs=1e-4)
    assert over_seeds([one], scores=True) == one
    assert over_seeds([Estimate(3.0, 3.0, 3.0), Estimate(4.0, 4.0, 4.0)], scores=False) == (3.5, 3.5, 3.5)
    alike = over_seeds([Estimate(50.0, 40.0, 60.0)] * 3, scores=True)
    assert alike == pytest.approx((50.0, 40.0, 60.0))  # training that always ends alike adds nothing
    assert math.isnan(over_seeds([one, Estimate(61.0, math.nan, math.nan)], scores=True).low)


def test_a_ratio_over_seeds_is_that_of_the_means_in_the_table(
    outcomes: dict[str, list[Outcome]], tmp_path: Path
) -> None:
    one = Pairs().ratio(value(outcomes["bad"], "accuracy"), value(outcomes["all"], "accuracy"))
    outcomes["all"].append(outcome(tmp_path / "all 1", 50, 900))
    outcomes["bad"].append(outcome(tmp_path / "bad 1", 40, 300))
    a, b = (value(outcomes[name], "accuracy") for name in ("bad", "all"))
    found = Pairs().ratio(a, b)
    assert found.value == pytest.approx(a.estimate.value / b.estimate.value) == pytest.approx((20 + 40) / (100 + 50))
    apart = [(20 - 0.4 * 100) / 75, (40 - 0.4 * 50) / 75]
    spread = 12.7062 * statistics.stdev(apart) / math.sqrt(2)
    assert found.high - found.value == pytest.approx(spread, rel=0.1) and found.high - found.value > spread
    assert found.high - found.value > 10 * (one.high - one.value)
    outcomes["all"][1] = outcome(tmp_path / "none right", 0, 900)
    none = Pairs().ratio(a, value(outcomes["all"], "accuracy"))
    assert none.value == pytest.approx(60 / 100) and math.isnan(none.low)
    nothing = {"all": [outcomes["all"][1]], "bad": [outcomes["bad"][1]]}
    judged = judge(claim(Expectation("ratio", low=1), "bad", "all"), nothing, Pairs())
    assert judged.verdict == "cannot tell"


def test_what_one_seed_shows_may_not_be_told_of_several(outcomes: dict[str, list[Outcome]], tmp_path: Path) -> None:
    better = Claim("all is better", ("all", "bad"), "accuracy", Expectation("difference", low=0))
    assert judge(better, outcomes, Pairs()).verdict == "holds"
    outcomes["all"].append(outcome(tmp_path / "all 1", 30, 1100))
    outcomes["bad"].append(outcome(tmp_path / "bad 1", 40, 500))
    judged = judge(better, outcomes, Pairs())
    assert judged.verdict == "cannot tell"
    assert judged.estimates[0].value == pytest.approx(100 * ((100 - 20) + (30 - 40)) / 2 / 120)
    assert value(outcomes["all"], COST).estimate == (1000.0, 1000.0, 1000.0)
    both = {name: outcomes[name] for name in ("all", "bad")}
    of_both = report(study_of(both, COST, "accuracy"), both, False, Pairs())
    assert of_both.notes == ()
    assert of_both.sentences[0] == "Numbers are means over 2 seeds; the intervals include how far seeds differ."
    assert as_json(of_both, both, [])["cells"][0]["accuracy"]["runs"] == [
        str(tmp_path / "all"),
        str(tmp_path / "all 1"),
    ]
    outcomes["all"][1] = Outcome(failure="killed")  # the mean of the other seed alone would be of another kind
    judged = judge(better, outcomes, Pairs())
    assert (judged.verdict, judged.reason) == ("cannot tell", "killed")
