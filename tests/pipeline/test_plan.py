"""What a run would take: its counts are those of the run, and what does not fit is said with what would."""

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from evalkit.api import Example, Prediction, Task, Views
from evalkit.cli import main
from evalkit.commands.runs import plan as command
from evalkit.errors import UserError
from evalkit.metrics import accuracy
from evalkit.pipeline import plan, rates
from evalkit.pipeline.plan import Plan
from evalkit.pipeline.rates import Rates, Reading
from evalkit.pipeline.training import examples
from evalkit.results import run_folder, scores
from evalkit.runtime import machine
from tests.pipeline.tiny_world import probe_words, run, world

__all__ = ["world"]

READING = Reading("train", parts=1_000, clips=2, stored=0.25, bytes=10**9)
RATES = Rates(sample=64, clips=2, decode_s=0.1, encode_s=0.2, both_s=0.5)


@pytest.fixture
def words(world: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of a run with an empty cache."""
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    return [*probe_words(world, tiny), "threads=1"]


@pytest.mark.slow
@pytest.mark.usefixtures("decoding_here")
def test_a_plan_counts_what_the_run_then_reads_and_writes_nothing(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planning = ["plan", *words, "canary=false", f"out={tmp_path / 'out'}"]
    assert main(planning) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    parts = {line[0]: int(line[1]) for line in lines if line and line[0] in ("train", "val", "test")}
    assert parts == {"train": 8, "val": 1, "test": 4}
    phases = {line[0] for line in lines if len(line) > 1}
    assert {"start", "encode", "fit", "predict", "score", "all"} <= phases
    assert not [*(tmp_path / "out").rglob("*")] and not [*(tmp_path / "cache" / "features").rglob("*.data")]
    cost = run_folder.load(run(tmp_path / "out", *words))["cost"]
    assert cost["cache_misses"] == sum(parts.values())
    assert main(planning) == 0  # what cannot be decoded is never stored
    stored = [line.split()[3] for line in capsys.readouterr().out.splitlines() if line.startswith(("train", "test"))]
    assert stored == ["88%", "100%"]


@pytest.mark.parametrize(
    ("device", "batch", "measured"), [("cpu", 8, 0.65), ("cpu", 2, 0.65), ("cuda", 8, 0.65), ("cuda", 2, 0.4)]
)
def test_a_sample_is_measured_without_its_first_batch_where_a_gpu_waits_for_it_and_another_one_comes(
    monkeypatch: pytest.MonkeyPatch, device: str, batch: int, measured: float
) -> None:
    """All features of a batch come at once, so that none has a time of its own."""
    clock = [0.0]
    monkeypatch.setattr("evalkit.pipeline.rates.time.monotonic", lambda: clock[0])

    class Extractor(SimpleNamespace):
        def encode(self, sample: list[int], *_: object) -> Iterator[int]:
            for k in sample:
                if k == 0:
                    clock[0] += 1.5
                if k % batch == 0:
                    clock[0] += 0.4 * batch if k + batch <= len(sample) else 0.4 * (len(sample) - k)
                yield k

    monkeypatch.setattr(rates, "replace", lambda extractor, **_: extractor)
    made = Extractor(views=SimpleNamespace(clips=1, crops=1), batch=batch)
    reader = SimpleNamespace(cache=None, keep=None)
    experiment: Any = SimpleNamespace(extractor=made, reader=reader, device=torch.device(device))
    wanted: Any = list(range(6))
    assert rates._with_store(experiment, wanted)[0] == pytest.approx(measured)


def test_on_gpus_the_slower_of_decoding_and_encoding_bounds_and_on_cpus_the_cores_are_shared() -> None:
    assert RATES.seconds(READING, 1, 1, on_gpu=True) == pytest.approx(750 * 0.5)
    assert RATES.seconds(READING, 8, 1, on_gpu=True) == pytest.approx(750 * 0.1)  # decoding
    assert RATES.seconds(READING, 8, 4, on_gpu=True) == pytest.approx(750 * 0.1 / 4)
    assert RATES.seconds(READING, 2, 1, on_gpu=False) == pytest.approx(750 * 0.5)
    controlled = replace(READING, clips=6)  # two controls change the pixels of two clips each
    assert RATES.seconds(controlled, 1, 1, on_gpu=True) == pytest.approx(750 * (0.5 + 4 * 0.2))
    assert RATES.seconds(replace(READING, times=30), 1, 1, on_gpu=True) == pytest.approx(30 * 750 * 0.5)


@pytest.mark.parametrize(
    ("phases", "bound"),
    [
        ({"start": 4.1, "canary": 0.1, "encode train": 0.5, "fit": 0.8, "predict": 0.1}, "start"),
        ({"start": 4.1, "canary": 5.0, "fit": 0.8, "score": 0.1}, "canary"),
        ({"start": 4.1, "encode train": 30.0, "encode test": 2.0, "fit": 19.0}, "encode"),
        ({"start": 4.1, "encode train": 30.0, "encode test": 2.0, "fit": 21.0}, "fit"),
    ],
)
def test_what_takes_most_is_any_phase(phases: dict[str, float], bound: str) -> None:
    encoding = {"decode": 12.0, "encode": 20.0} if "encode train" in phases and phases["encode train"] > 1 else {}
    assert plan._bound(phases, {"reading the store": 0.2, **encoding}) == bound


@pytest.mark.parametrize(("devices", "seconds"), [(1, 400), (2, 300)])
def test_what_is_made_of_all_predictions_grows_by_the_adapters_own_measure(
    devices: int, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As re-ranking does, by pairs; one process does it, for each control but the order of options.

    100 examples are asked as they are, blind, and in two more orders of their options, half a second each: 200 s by one
    device. Twice, 10,000 pairs take 0.01 s each.
    """
    clock = [0.0]

    class Squared(SimpleNamespace):
        trains_encoder, feature_spec, points = False, "pooled", 1

        def predict_all(self, some: list[Example], _: object) -> list[list[Prediction]]:
            clock[0] += 0.5 * len(some)
            return [[Prediction(0) for _ in some]]

        def finalize(self, some: list[Example], predictions: list[Prediction]) -> list[Prediction]:
            clock[0] += 0.01 * len(some) ** 2
            return predictions

        def finalize_steps(self, some: list[Example]) -> int:
            return len(some) ** 2

    def seconds_of(work: Callable[[], object]) -> float:
        started = clock[0]
        work()
        return clock[0] - started

    monkeypatch.setattr(plan, "seconds_of", seconds_of)
    monkeypatch.setattr(examples, "check_predictions", lambda _, predictions, count: predictions)
    test = [Example(str(k), Path(f"{k}.mp4"), 0, choices=("a", "b", "c")) for k in range(100)]
    task = Task(test=test, score=accuracy)
    experiment: Any = SimpleNamespace(
        task=task,
        adapter=Squared(),
        needs_fit=False,
        device=torch.device("cuda"),
        extractor=SimpleNamespace(views=Views("uniform")),
    )
    config: Any = SimpleNamespace(options=SimpleNamespace(devices=devices, nodes=1, seed=0))
    rows: Any = {"pooled": torch.zeros(8, 1, 4)}
    splits = plan._Splits([], [], test)
    monkeypatch.setattr(scores, "scores", lambda *_: {})
    planned = plan._fit_predict_score(experiment, splits, ["blind", "option_order"], rows, config)
    assert planned["predict"] == pytest.approx(seconds)


def test_what_is_stored_is_read_once_and_once_an_epoch_where_memory_does_not_hold_it() -> None:
    rates = RATES._replace(stored_s=0.01)
    assert rates.seconds(READING, 1, 1, on_gpu=False) == pytest.approx(750 * 0.5 + 250 * 0.01)
    assert rates.seconds(replace(READING, again=30), 1, 2, on_gpu=True) == pytest.approx(
        (750 * 0.5 + (250 + 30 * 1000) * 0.01) / 2
    )


@pytest.mark.parametrize(
    ("limit", "mend"), [(50 * 10**9, "give EVALKIT_CACHE_GB=8502,"), (None, "give cache=on, or store less")]
)
def test_features_that_fit_nowhere_are_said_with_what_to_do(limit: int | None, mend: str) -> None:
    train = replace(READING, bytes=85 * 10**11, times=30)
    planned = Plan(
        [train, replace(READING, name="test", bytes=2 * 10**9)], RATES, {"fit": 60.0}, limit, 10**10, "encode"
    )
    (line,) = command.advice(planned)
    assert line.startswith("The features of train fit neither in memory (10 GB) nor in the store (") and mend in line
    assert command.advice(replace(planned, readings=[READING])) == []


@pytest.mark.slow
@pytest.mark.usefixtures("decoding_here")
def test_a_long_run_says_in_a_line_what_it_is_about_to_encode(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plan, "LONG", 10)
    run(tmp_path / "out", *words)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("to encode: ")]
    assert line.startswith("to encode: 13 parts of videos, about 0.0 h on this device; their features take ")
    assert line.endswith(" GB of 50 GB (evalkit plan says more)")
    run(tmp_path / "again", *words)
    assert "to encode: " not in capsys.readouterr().err


class Asked(io.StringIO):
    """What a user types, or sees, at a terminal."""

    def isatty(self) -> bool:
        return True


def test_at_a_terminal_the_user_is_asked_before_each_epoch_encodes_anew() -> None:
    outlook = plan.Outlook("to encode: 9 parts", "EVALKIT_CACHE_GB= above 70 GB stores them")
    for answer in ("y\n", "Yes\n"):
        plan.confirm(outlook, Asked(answer), seen := Asked())
        assert seen.getvalue().endswith("EVALKIT_CACHE_GB= above 70 GB stores them. Go on? [y/N]\n")
    for answer in ("n\n", "\n", ""):
        with pytest.raises(
            UserError, match=r"^nothing was begun; confirm=true goes on all the same, and EVALKIT_CACHE_"
        ):
            plan.confirm(outlook, Asked(answer), Asked())


@pytest.mark.parametrize("stdin", [None, io.StringIO("y\n")])
def test_where_nobody_can_be_asked_a_word_says_yes(stdin: io.StringIO | None) -> None:
    with pytest.raises(UserError) as caught:
        plan.confirm(plan.Outlook("to encode: 9 parts, about 30 h", "cache=on stores them"), stdin, Asked())
    assert str(caught.value) == (
        "nothing was begun, since each epoch would encode the videos again: to encode: 9 parts, about 30 h; "
        "confirm=true goes on all the same, and cache=on stores them"
    )


@pytest.mark.slow
@pytest.mark.usefixtures("decoding_here")
def test_a_piped_run_that_would_encode_in_each_epoch_needs_confirm(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plan, "LONG", 10)
    monkeypatch.setattr(machine, "free_memory", lambda: 0)
    monkeypatch.setenv("EVALKIT_CACHE_GB", "1e-6")
    words = ["run", *words, f"out={tmp_path / 'out'}", "canary=false"]
    assert main(words) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert "and each epoch encodes train again" in told and "; confirm=true goes on all the same, and EVALKIT_C" in told
    assert main([*words, "confirm=true"]) == 0


@pytest.mark.slow
@pytest.mark.usefixtures("decoding_here")
def test_a_short_run_looks_nothing_up_for_that_line(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> float:
        raise AssertionError("looked up")

    monkeypatch.setattr(plan, "_stored", refuse)
    run(tmp_path / "out", *words)
