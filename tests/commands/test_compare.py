import importlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import intervals as simulated
from evalkit.cli import main
from evalkit.errors import UserError
from evalkit.metrics.average_precision import multilabel_map
from evalkit.metrics.bootstrap import AdditiveScore, mean
from evalkit.metrics.retrieval import retrieval
from evalkit.metrics.significance import exchange_test, holm, rank_intervals
from evalkit.results import run_folder
from evalkit.results.compare import compare
from evalkit.results.rows import Row
from tests.records import result_of, rows_of

scipy: Any = importlib.import_module("scipy.stats")  # comes with scikit-learn, without types


def write(
    folder: Path, rows: Sequence[Row], change: Callable[[dict[str, Any]], object] = bool, **settings: Any
) -> Path:
    record = result_of(rows, **settings)
    change(record)
    return run_folder.write(folder / "run", record, rows, "")


def answered(right: Sequence[bool], per_video: int = 1) -> list[Row]:
    return [Row(f"q{i}", f"v{i // per_video}", target=1, prediction=int(one)) for i, one in enumerate(right)]


# --- what the numbers promise ----------------------------------------------------------------------------------------
# 1,000 data sets: the share of a true 95 % has a simulation error of +-1.4 points, and 4,000 that of a true 5 % +-0.7.


def test_the_interval_of_a_rate_holds_the_truth_in_95_percent_of_data_sets() -> None:
    assert 0.93 <= simulated.coverage(simulated.right, sets=1000, resamples=500) <= 0.97


@pytest.mark.parametrize("draw", [simulated.summed, simulated.ranked, simulated.labeled, simulated.classes])
def test_so_does_that_of_a_score_over_the_split(draw: Any) -> None:
    assert 0.91 <= simulated.coverage(draw, sets=200, resamples=300) <= 0.99  # +-3.0


def test_two_equally_good_runs_are_told_apart_in_5_percent_of_data_sets() -> None:
    assert 0.04 <= simulated.false_positives(sets=4000, resamples=399) <= 0.06


def test_so_are_two_equally_good_rankings() -> None:
    assert 0.02 <= simulated.false_positives_of_rankings(sets=200, resamples=199) <= 0.08  # +-3.0


def test_the_exchange_test_of_one_sample_per_video_is_mcnemars_with_half_of_what_ties() -> None:
    a, b = np.array([1.0] * 60 + [0] * 40), np.array([1.0] * 54 + [0] * 6 + [1] * 15 + [0] * 25)
    exact = scipy.binomtest(6, 21).pvalue
    half = exact - scipy.binom.pmf(6, 21, 0.5)
    assert exchange_test(mean(a), mean(b), range(100), seed=0, resamples=40_000) == pytest.approx(half, abs=0.004)


def test_samples_of_one_video_are_exchanged_together() -> None:
    a, b = np.zeros(60), np.array(([1.0] * 10 + [0.0] * 5) * 4)
    clusters = np.repeat(range(12), 5).tolist()
    assert exchange_test(mean(a), mean(b), range(60), seed=0) < 0.001
    signs = np.array(np.meshgrid(*[[-1, 1]] * 8)).reshape(8, -1).sum(0) * 5
    half = (np.abs(signs) > 39).mean() / 2
    assert exchange_test(mean(a), mean(b), clusters, seed=0, resamples=100_000) == pytest.approx(half, abs=0.001)


def test_fewer_than_six_videos_tell_nothing() -> None:
    assert math.isnan(exchange_test(mean(np.zeros(5)), mean(np.ones(5)), range(5), seed=0))
    assert rank_intervals([np.zeros(5), np.ones(5)], range(5), seed=0) == [(1, 2), (1, 2)]


@pytest.mark.parametrize("p", [[0.01, 0.04, 0.03, 0.5], [0.2], [0.9, 0.9], [0.001, 0.001, 0.001]])
def test_holm_rejects_what_its_definition_rejects(p: list[float]) -> None:
    adjusted = holm(p)
    for level in (0.004, 0.03, 0.05, 0.11, 0.6):
        rejected = set()
        for k, i in enumerate(np.argsort(p, kind="stable").tolist()):
            if p[i] > level / (len(p) - k):
                break
            rejected.add(i)
        assert {i for i, value in enumerate(adjusted) if value <= level} == rejected


def test_holm_leaves_out_what_is_unknown() -> None:
    found = holm([0.02, math.nan, 0.5])
    assert found[0] == 0.04 and math.isnan(found[1]) and found[2] == 0.5


# --- ranks -----------------------------------------------------------------------------------------------------------


def test_runs_that_cannot_be_told_apart_share_their_ranks() -> None:
    generator = np.random.default_rng(0)
    easy = generator.random(400)
    good, alike, bad = easy < 0.8, easy < 0.8, easy < 0.4
    assert rank_intervals([good, bad, alike], range(400), seed=0) == [(1, 2), (3, 3), (1, 2)]


def test_a_rank_interval_takes_sums_too_and_needs_no_order() -> None:
    generator = np.random.default_rng(1)
    scores = [generator.gamma(shape, size=300) for shape in (1.0, 3.0, 1.05)]
    found = rank_intervals(
        [mean(scores[0]), AdditiveScore(mean(scores[1]).parts, mean(scores[1]).of), scores[2]], range(300), 0
    )
    assert found == [(2, 3), (1, 1), (2, 3)]
    assert rank_intervals(scores[::-1], range(300), 0)[::-1] == found


def test_the_rank_interval_holds_the_true_rank_in_95_percent_of_boards() -> None:
    generator = np.random.default_rng(0)
    truth = np.array([0.5, 0.55, 0.6, 0.6, 0.8])
    ranks = [(1 + (truth > one).sum(), 5 - (truth < one).sum()) for one in truth]
    missed = 0
    for seed in range(200):
        values = generator.random((5, 150)) < truth[:, None]
        found = rank_intervals(list(values), range(150), seed, resamples=200)
        missed += sum(
            not (low <= best and worst <= high) for (low, high), (best, worst) in zip(found, ranks, strict=True)
        )
    assert missed / 1000 <= 0.07


# --- two runs --------------------------------------------------------------------------------------------------------


def test_the_samples_that_changed_are_named_and_their_difference_has_an_interval(tmp_path: Path) -> None:
    a = [True] * 50 + [False] * 50
    b = [False] * 3 + [True] * 60 + [False] * 37
    runs = write(tmp_path, answered(a)), write(tmp_path, answered(b))
    found = compare(*runs)
    (one,) = found.differences
    assert one.metric == "accuracy" and [one.a, one.b, one.value] == pytest.approx([50, 60, 10])
    assert one.low < 10 < one.high and one.low > 0
    changed = {
        name: [f"q{i}" for i in places]
        for name, places in (("right -> wrong", range(3)), ("wrong -> right", range(50, 63)))
    }
    assert (found.by, found.changed) == ("accuracy", changed)
    assert (found.n, found.n_clusters, found.apart) == (100, 100, [])
    assert 0.005 < one.p < 0.05
    turned = compare(*runs[::-1]).differences[0]
    assert turned.value == pytest.approx(-10) and turned.p == pytest.approx(one.p, abs=0.005)


def test_a_run_and_itself_do_not_differ(tmp_path: Path) -> None:
    run = write(tmp_path, answered([True, False] * 20))
    found = compare(run, run)
    assert found.differences[0].value == 0 and found.differences[0].p == 1
    assert found.differences[0].low < 0 < found.differences[0].high
    assert found.changed == {"right -> wrong": [], "wrong -> right": []}


def test_a_failed_sample_is_wrong_and_kinds_are_told(tmp_path: Path) -> None:
    kinds = ["order", "object"] * 10
    a = [Row(f"q{i}", f"v{i}", kind, 1, 1) for i, kind in enumerate(kinds)]
    b = [
        Row(f"q{i}", f"v{i}", kind, 1, None if i == 2 else 1, "broken" if i == 2 else None)
        for i, kind in enumerate(kinds)
    ]
    found = compare(write(tmp_path, a), write(tmp_path, b))
    values = {one.metric: round(one.value, 6) for one in found.differences}
    assert values == {"accuracy": -5, "accuracy/object": 0, "accuracy/order": -10}
    assert found.changed["right -> wrong"] == ["q2"]


def test_a_score_over_the_split_is_compared_on_the_same_draws(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    targets = [[i % 2] for i in range(80)]
    noisy = [(np.eye(2)[i % 2] + generator.normal(0, noise, 2)).tolist() for noise in (1.5, 0.3) for i in range(80)]
    runs = [
        write(
            tmp_path,
            [Row(f"q{i}", f"v{i}", target=targets[i], prediction=noisy[80 * k + i]) for i in range(80)],
            score=multilabel_map,
        )
        for k in (0, 1)
    ]
    found = compare(*runs)
    (one,) = found.differences
    assert one.metric == "mAP" and one.low < one.value < one.high and one.p < 0.01
    assert (found.by, found.changed) == ("", {})


def renamed(key: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda record: record["task"].update({key: value})


ROWS = rows_of(30, 30)


@pytest.mark.parametrize(
    ("rows", "change", "told"),
    [
        (ROWS, renamed("name", "egoschema"), "task.name is egoschema@mini and egoschema"),
        (ROWS, renamed("version", 2), "task.version is 1 and 2"),
        (ROWS[:-1], bool, "they have 60 and 59 samples, and 'q59' is in one of them only"),
        (ROWS[::-1], bool, "their samples are in another order"),
        ([*ROWS[:-1], Row("q59", "v19", target=0, prediction=0)], bool, "target of sample 'q59' is '1' and '0'"),
        ([*ROWS[:-1], Row("q59", "other", target=1, prediction=0)], bool, "video of sample 'q59' is 'v19' and 'other'"),
        (ROWS, lambda record: record["data"].update(fingerprint="x"), "data.fingerprint differs"),
        (rows_of(0, 0, unlabeled=60), bool, "they have 60 and 60 samples"),
    ],
)
def test_what_cannot_be_compared_is_refused_by_what_differs(
    tmp_path: Path, rows: list[Row], change: Any, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = write(tmp_path, ROWS), write(tmp_path, rows, change)
    with pytest.raises(UserError) as caught:
        compare(a, b)
    assert f"{a} and {b} cannot be compared: {told}" in str(caught.value)
    assert main(["compare", str(a), str(b)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_command_prints_all_and_marks_another_protocol(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write(tmp_path, answered([True] * 30 + [False] * 30))
    b = write(
        tmp_path, answered([False] * 30 + [True] * 30), lambda record: record["task"]["protocol"].update(frames=32)
    )
    c = write(tmp_path, answered([True] * 40 + [False] * 20))
    assert main(["compare", str(a), str(b), str(c)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "egoschema@mini, test: 60 samples of 60 videos"
    assert lines[1] == f"A  {a}  demo, multiple_choice" and lines[2] == f"B  {b}  demo, multiple_choice"
    assert lines[3] == "protocol differs in frames: 16 and 32"
    assert "p of all (Holm)" in lines[5] and lines[6].split()[:4] == ["accuracy", "50.0", "50.0", "+0.0"]
    assert lines[8].startswith("accuracy right -> wrong: 30  (q0, q1, q2,") and lines[8].endswith("q9, ...)")
    assert main(["compare", str(a), str(b), "all=true"]) == 0
    out = capsys.readouterr().out
    assert "q29)" in out and "Holm" not in out
    for words, told in (
        ([str(a)], "compare takes two or more runs"),
        ([str(a), str(b), f"{a}/"], f"{a} and {a} are the same run: nothing to compare"),
        ([str(a), str(b), "al=true"], "compare takes runs and all=true, got al=true. Did you mean 'all=true'?"),
        ([str(a), str(tmp_path / "nowhere")], "nowhere: there is no such folder"),
        ([str(a), str(tmp_path)], f"{tmp_path}: no result.json in it; runs below it: {tmp_path}/run-"),
    ):
        assert main(["compare", *words]) == 2
        error = capsys.readouterr().err
        assert told in error and error.count("\n") == 1


def test_of_what_less_is_better_the_command_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def ranked(best: int) -> list[Row]:
        return [
            Row(f"q{i}", f"v{i}", target=f"v{i}", prediction={"t2v": best + i % 3, "v2t": 1 + i % 2}) for i in range(12)
        ]

    a, b = (write(tmp_path, ranked(best), score=retrieval) for best in (1, 4))
    assert main(["compare", str(a), str(b)]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.startswith("t2v_median_rank, less is better")]
    assert line.split()[4:7] == ["2.0", "5.0", "+3.0"]
    assert any(line.startswith("t2v_R@1  ") for line in lines)
