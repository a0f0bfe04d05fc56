from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evalkit import plugins
from evalkit.cli import main
from evalkit.metrics.bootstrap import mean
from evalkit.metrics.power import detectable_difference, required_samples
from evalkit.metrics.significance import exchange_test


@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_that_many_samples_find_the_difference_in_80_percent_of_trials(correlation: float) -> None:
    n = required_samples(10, 50, correlation)
    generator = np.random.default_rng(0)
    both = 0.5 * 0.6 + correlation * (0.5 * 0.5 * 0.6 * 0.4) ** 0.5  # chance that both are right
    found = 0
    for seed in range(600):
        drawn = generator.random(n)
        a, b = drawn < 0.5, (drawn < both) | ((drawn >= 0.5) & (drawn < 0.5 + 0.6 - both))
        found += exchange_test(mean(a), mean(b), range(n), seed, 399) <= 0.05
    assert found / 600 == pytest.approx(0.8, abs=0.05)  # simulation error +-0.033


def test_what_a_size_can_show_takes_that_size() -> None:
    for n in (100, 500, 5031):
        found = detectable_difference(n, 50, 0.5)
        assert required_samples(found, 50, 0.5) == pytest.approx(n, abs=1)
    assert np.isnan(detectable_difference(2, 90, 0))


def test_runs_that_differ_disagree_however_alike_they_are() -> None:
    assert (
        required_samples(10, 50, 1)
        == required_samples(10, 50, 0.95)
        == pytest.approx((1.96 * 0.1**0.5 + 0.8416 * 0.3) ** 2 / 0.01, abs=1)
    )


def test_the_command_prints_samples_and_what_a_task_can_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["power", "difference=2", "baseline=50", "correlation=0.5"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["0.5", f"{required_samples(2, 50, 0.5):,}"]
    assert main(["power", "task=egoschema", "mini=true"]) == 0
    out = capsys.readouterr().out
    assert (
        "egoschema@mini: 100 samples of 100 videos" in out
        and f"{detectable_difference(100, 50, 0.9):.1f} points" in out
    )


def test_the_number_of_samples_stands_for_a_task_whose_data_are_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["power", "samples=5031", "correlation=0.5"]) == 0
    assert f"{detectable_difference(5031, 50, 0.5):.1f} points" in capsys.readouterr().out
    assert main(["power", "task=nextqa", "data.root=/nowhere"]) == 2
    assert "or give power the number of its test samples, samples=500" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["samples=0.5"], "samples=0.5: expected a whole number from 2"),
        (["samples=50", "task=egoschema"], "samples=50: leave it out, task=egoschema counts them itself"),
        (["diference=2"], "Did you mean 'difference'?"),
        (["difference=x"], "difference=x: expected a number"),
        (["diff=2"], "got diff=2. Did you mean 'difference'?"),
        (["difference=60"], "baseline from 0 to 40"),
        (["difference=0"], "above 0"),
        (["difference=1e-300"], "difference=1e-300: wanted at least 0.001 percent points"),
        (["difference=1e300"], "a baseline from 0 to below 100"),
        (["correlation=2"], "wanted -1 to 1"),
        (["task=egoshema"], "no task named 'egoshema'"),
    ],
)
def test_a_mistake_is_told_in_one_line(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["power", *words]) == 2
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1


def test_a_task_whose_size_is_published_needs_no_data(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    module = plugins.module_and_factory("task", "egoschema")[0]
    assert main(["power", "task=egoschema"]) == 0
    told = capsys.readouterr().out
    assert "egoschema as published, each sample taken as of a video of its own: 500 samples of 500 videos" in told
    assert main(["power", "task=egoschema", "data.root=nowhere"]) == 2  # which is meant
    monkeypatch.setattr(module, "DATA", replace(module.DATA, sizes={}))
    assert main(["power", "task=egoschema"]) == 2
