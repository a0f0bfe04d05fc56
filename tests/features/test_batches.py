"""A head is trained alike on features in memory, from the store and from the videos, and on the views it should be."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from evalkit.api import Augment, Batch, EncoderOutput, Example, FeatureSpec
from evalkit.config.parse import resolve
from evalkit.errors import UserError
from evalkit.features.batches import InMemoryFeatures, StreamedFeatures, _ahead, gather
from evalkit.features.sources import Source, sources
from evalkit.pipeline.setup import Experiment, prepare
from evalkit.pipeline.training import fit, trainer
from evalkit.pipeline.training.examples import Examples, TrainingBatches
from evalkit.pipeline.training.fit import fit_adapter
from evalkit.results.scores import headline
from evalkit.runtime import machine
from evalkit.video.augment import augmented_views
from evalkit.weights import trained_adapter

pytestmark = pytest.mark.usefixtures("decoded_here")

TASK = '''
from pathlib import Path

from evalkit.api import Augment, Example, Task, Views
from evalkit.metrics import top1_top5


def task(root: Path, augment: bool = True) -> Task:
    """Which way a shape moves.

    Args:
        root: folder of the films.
        augment: whether training views differ.
    """
    films = [Example(film.stem, film, i % 2) for i, film in enumerate(sorted(root.glob("*.mp4")))]
    return Task(
        test=films[:1],
        train=films[1:8],
        val=films[8:],
        score=top1_top5,
        classes=("left", "right"),
        views=Views("dense", clips=2),
        augment=Augment(views=2) if augment else None,
    )
'''


@pytest.fixture
def words(tmp_path: Path, films: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A probe on the films with a cache of its own; 7 videos to train on, 4 to choose on."""
    (tmp_path / "films.py").write_text(TASK)
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    settings = ["adapter.epochs=3", "adapter.batch_size=3", "adapter.lr=1e-2"]
    return [f"task={tmp_path / 'films.py'}", f"data.root={films}", f"ckpt={tiny}", *settings]


def fitted(*words: str) -> tuple[dict[str, Any], dict[str, Tensor], Experiment]:
    """The record of a fit, what was learned, and the parts."""
    config = resolve("run", words)
    with prepare(config) as experiment:
        return (
            fit_adapter(experiment, config.trainer, config.options.seed)[0],
            trained_adapter.adapter_state(experiment.adapter),
            experiment,
        )


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no memory left."""
    monkeypatch.setattr(machine, "free_memory", lambda: 0)


# --- where features come from ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["adapter.head=linear", "adapter.stored=int8"])
def test_a_head_ends_the_same_on_features_in_memory_from_the_store_and_from_the_videos(
    words: list[str], setting: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*words, setting]
    record, learned, held = fitted(*words)
    assert held.extractor.cost.encoder_forwards == 7 * 2 + 4 * 2 and held.extractor.cost.cache_misses == 7 * 2 + 4
    assert "of memory free" not in capsys.readouterr().err
    monkeypatch.setattr(machine, "free_memory", lambda: 1)
    again, from_store, stored = fitted(*words)
    assert again == record and same(from_store, learned)
    cost = stored.extractor.cost
    assert (cost.cache_hits, cost.cache_misses, cost.encoder_forwards) == (18, 0, 0)
    told = capsys.readouterr().err
    assert told.count(": they are read from the store for every batch\n") == 2 and "encode train: " in told
    again, from_videos, streamed = fitted(*words, "cache=off")
    assert again == record and same(from_videos, learned)
    assert streamed.extractor.cost.encoder_forwards >= 3 * (7 + 4 * 2)
    told = capsys.readouterr().err
    assert ": 7 parts of videos are decoded and encoded again in each epoch; cache=on stores them\n" in told


def test_a_store_too_small_for_the_features_is_told_and_the_videos_are_read_instead(
    words: list[str],
    full: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    words = [*words, "adapter.stored=int8"]
    record, learned, _ = fitted(*words)
    capsys.readouterr()
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "small"))
    monkeypatch.setenv("EVALKIT_CACHE_GB", "3e-6")
    again, found, experiment = fitted(*words)
    assert again == record and same(found, learned)
    assert "encoded again in each epoch; EVALKIT_CACHE_GB= above 3.14e-06 GB stores them" in capsys.readouterr().err
    assert experiment.extractor.cost.encoder_forwards > 7 * 2 + 4 * 2


def before_each_score(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Acts while a head is fitted, whenever val is scored."""

    def scored(*args: Any) -> float:
        act()
        return headline(*args)

    monkeypatch.setattr(trainer, "headline", scored)


def test_what_was_evicted_is_encoded_again(
    words: list[str], full: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    record, learned, _ = fitted(*words)

    def evict() -> None:
        for file in (tmp_path / "cache" / "features").iterdir():
            file.unlink()

    before_each_score(monkeypatch, evict)
    again, found, experiment = fitted(*words)
    assert again == record and same(found, learned)
    assert experiment.extractor.cost.encoder_forwards > 0


def test_what_is_damaged_while_a_head_is_fitted_is_encoded_again(
    words: list[str], full: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    record, learned, _ = fitted(*words)

    def damage() -> None:
        for data in (tmp_path / "cache" / "features").glob("*.data"):
            data.write_bytes(bytes(data.stat().st_size))

    before_each_score(monkeypatch, damage)
    again, found, experiment = fitted(*words)
    assert again == record and same(found, learned)
    assert experiment.extractor.cost.encoder_forwards > 0


def test_a_video_that_vanishes_while_a_head_is_fitted_is_told_in_one_line(
    words: list[str], full: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, films: Path
) -> None:
    own = tmp_path / "films"
    own.mkdir()
    for film in films.glob("*.mp4"):
        (own / film.name).write_bytes(film.read_bytes())
    before_each_score(monkeypatch, (own / "03.mp4").unlink)
    with pytest.raises(UserError, match=r"03\.mp4: .*no such file.*, though it could be decoded before$") as caught:
        fitted(*[f"data.root={own}" if word.startswith("data.root") else word for word in words], "cache=off")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cache", ["on", "off"])
def test_what_cannot_be_decoded_is_left_out_wherever_features_come_from(
    words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, films: Path, cache: str
) -> None:
    own = tmp_path / "films"
    own.mkdir()
    for film in films.glob("*.mp4"):
        (own / film.name).write_bytes(b"no film" if film.stem in ("01", "05", "08") else film.read_bytes())
    words = [f"data.root={own}" if word.startswith("data.root") else word for word in words]
    record, learned, _ = fitted(*words, f"cache={cache}")
    monkeypatch.setattr(machine, "free_memory", lambda: 0)
    again, found, _ = fitted(*words, f"cache={cache}")
    assert again == record and same(found, learned)
    assert [Path(one["video"]).stem for one in record["undecodable"]] == ["01", "05", "08"]


def test_rows_come_by_batch_in_any_order_and_several_times(words: list[str], full: None) -> None:
    config = resolve("run", words)
    with prepare(config) as experiment:
        wanted = sources(experiment.task.train)
        rows, first, failed = gather(experiment.reader, wanted, augmented_views(Augment(views=2), 0), "encode")
        assert isinstance(rows, StreamedFeatures) and not failed and list(first.values()) == list(range(0, 14, 2))
        (every,) = rows.read([range(14)])
        batches = [[3, 3, 0], [13], [0, 1, 3]]
        for batch, found in zip(batches, rows.read(batches), strict=True):
            assert torch.equal(found, every[batch])
            assert torch.equal(next(InMemoryFeatures(every).read([batch])), found)
        assert len({row.numpy().tobytes() for row in every}) == 14


def test_an_encoder_is_read_in_evaluation_though_what_holds_it_is_training(words: list[str]) -> None:
    with prepare(resolve("run", words)) as experiment:
        experiment.encoder.module.train()
        experiment.reader.keep(torch.zeros(1, 4, 3, 32, 32, dtype=torch.uint8))
        assert not any(module.training for module in experiment.encoder.module.modules())


def test_a_read_that_is_given_up_ends_its_thread(words: list[str], full: None) -> None:
    config = resolve("run", words)
    with prepare(config) as experiment:
        rows, _, _ = gather(experiment.reader, sources(experiment.task.train), (None,), "encode")
        before = threading.active_count()
        reading: Any = rows.read([[i] for i in range(7)])
        next(reading)
        assert threading.active_count() == before + 1
        reading.close()
        assert threading.active_count() == before


def test_an_error_of_what_reads_ahead_reaches_the_caller() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise UserError("the disk is full")

    reading = _ahead(items())
    assert next(reading) == 1
    with pytest.raises(UserError, match="the disk is full"):
        next(reading)


# --- which views -----------------------------------------------------------------------------------------------------


def numbered(n: int, views: int) -> Examples:
    """Examples whose features are their rows' numbers."""
    examples = [Example(str(i), Path(str(i)), 0) for i in range(n)]
    index = {Source(one.video, None): views * i for i, one in enumerate(examples)}
    return Examples(examples, InMemoryFeatures(torch.arange(n * views).view(-1, 1, 1)), index, views)


def test_each_epoch_trains_on_the_next_view_in_a_new_order() -> None:
    batches = TrainingBatches(numbered(10, 3), 4, seed=0)
    epochs = [list(batches) for _ in range(5)]
    assert len(batches) == 3
    for epoch, found in enumerate(epochs):
        assert [len(batch.examples) for batch in found] == [4, 4, 2]
        for batch in found:
            assert batch.features.shape == (len(batch.examples), 1, 1)
            expected = [3 * int(one.id) + epoch % 3 for one in batch.examples]
            assert batch.features.flatten().tolist() == expected
        assert sorted(int(one.id) for batch in found for one in batch.examples) == list(range(10))
    orders = {tuple(one.id for batch in found for one in batch.examples) for found in epochs}
    assert len(orders) == 5


def test_all_views_of_all_examples_are_the_whole() -> None:
    whole = numbered(4, 3).whole()
    assert isinstance(whole, Batch) and whole.features.tolist() == [
        [[3 * i], [3 * i + 1], [3 * i + 2]] for i in range(4)
    ]


def test_views_are_those_of_the_task_or_of_the_trainer_and_no_more_than_there_are_epochs(words: list[str]) -> None:
    def seen(*more: str) -> list[int | None]:
        with prepare(resolve("run", [*words, *more])) as experiment:
            return [look and look.number for look in fit._training_views(experiment, experiment.adapter, 0)]

    assert seen() == [0, 1]
    assert seen("trainer.views=5") == [0, 1, 2]  # three epochs
    assert seen("trainer.views=1") == [0]
    assert seen("trainer.views=0") == seen("data.augment=false") == [None]
    plain, augmented = (fitted(*words, "adapter.head=linear", *more) for more in (["trainer.views=0"], []))
    assert not same(plain[1], augmented[1])
    # One clip of each of two views; or both clips that the test has.
    assert (
        plain[2].extractor.cost.encoder_forwards
        == augmented[2].extractor.cost.encoder_forwards + 4 * 2
        == 7 * 2 + 4 * 2
    )


def test_views_of_a_task_that_says_not_how_they_differ_are_refused(words: list[str]) -> None:
    with pytest.raises(UserError, match="^trainer.views=3: task .* says not how training views differ") as caught:
        prepare(resolve("run", [*words, "data.augment=false", "trainer.views=3"]))
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="^trainer.views=-1: expected a whole number of at least 0"):
        resolve("run", [*words, "trainer.views=-1"])


def test_one_seed_gives_one_fit_and_another_seed_other_views(words: list[str]) -> None:
    words = [*words, "adapter.head=linear"]
    one, two = fitted(*words), fitted(*words)
    assert one[0] == two[0] and same(one[1], two[1]) and two[2].extractor.cost.encoder_forwards == 0
    other = fitted(*words, "seed=1")
    assert other[2].extractor.cost.encoder_forwards == 7 * 2  # val is as it was


@pytest.mark.parametrize("free", [1 << 40, 0])
def test_an_adapter_that_trains_the_encoder_gets_uint8_video_of_one_view(
    words: list[str], free: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "free_memory", lambda: free)
    config = resolve("adapt", [*[word for word in words if "lr" not in word], "adapter=contrastive", "out=unused"])
    with prepare(config) as experiment:
        seen: list[Tensor] = []
        step: Any = experiment.adapter.training_step

        def training_step(batch: Batch, *index: int) -> Tensor:
            seen.append(batch.features)
            return step(batch, *index)  # type: ignore[no-any-return]

        monkeypatch.setattr(experiment.adapter, "training_step", training_step)
        fit_adapter(experiment, config.trainer, config.options.seed)
    assert {(one.dtype, one.shape[1:]) for one in seen} == {(torch.uint8, (1, 4, 3, 32, 32))}
    videos = [one.numpy().tobytes() for batch in seen for one in batch]
    assert len(videos) == 3 * 7 and len(set(videos)) == 2 * 7  # the third epoch is the first view again
    assert (": 7 parts of videos are decoded again in each epoch\n" in capsys.readouterr().err) == (free == 0)


# --- what is kept ----------------------------------------------------------------------------------------------------


def encoded(steps: int, spaces: int) -> EncoderOutput:
    layers = tuple(torch.randn(2, steps, spaces, 5, generator=torch.Generator().manual_seed(i)) for i in range(2))
    return EncoderOutput(layers[-1], torch.ones(2, 5), layers)


@pytest.mark.parametrize("grid", [1, 2, 3, 6])
def test_tokens_on_a_grid_are_the_means_of_its_fields(grid: int) -> None:
    given = encoded(3, 36)
    kept = FeatureSpec("tokens", layers=2, grid=grid).take(given)
    assert kept.shape == (2, 2, 3, grid * grid, 5)
    for layer, tokens in enumerate(given.layers):
        square = tokens.flatten(0, 1).mT.reshape(6, 5, 6, 6)
        expected = adaptive_avg_pool2d(square, grid).flatten(-2).mT.reshape(2, 3, grid * grid, 5)
        torch.testing.assert_close(kept[:, layer], expected)
    mean = FeatureSpec("tokens", steps=0, grid=grid, dtype="float16").take(given)
    assert mean.shape == (2, 1, grid * grid, 5) and mean.dtype == torch.float16


@pytest.mark.parametrize(
    ("spaces", "grid", "told"),
    [
        (36, 4, "tokens kept on a grid of 4: the encoder's are 6 x 6; use 1, 2, 3, 6"),
        (36, 12, "tokens kept on a grid of 12: the encoder's are 6 x 6; use 1, 2, 3, 6"),
        (35, 5, "tokens kept on a grid of 5: the encoder's 35 are no square"),
    ],
)
def test_a_grid_that_does_not_divide_the_tokens_is_told(spaces: int, grid: int, told: str) -> None:
    with pytest.raises(UserError) as caught:
        FeatureSpec("tokens", grid=grid).take(encoded(1, spaces))
    assert str(caught.value) == told


def test_a_probe_keeps_what_its_settings_say_and_each_way_is_stored_by_itself(words: list[str]) -> None:
    def experiment(*more: str) -> Experiment:
        return prepare(resolve("run", [*words, *more]))

    keys = set()
    for more, kept in (
        ([], FeatureSpec("tokens", dtype="float16")),
        (["adapter.token_grid=2"], FeatureSpec("tokens", grid=2, dtype="float16")),
        (["adapter.stored=int8"], FeatureSpec("tokens", dtype="int8")),
        (["adapter.stored=float32"], FeatureSpec("tokens")),
        (["adapter.head=linear"], FeatureSpec("pooled")),
        (["adapter.head=linear", "adapter.stored=float16"], FeatureSpec("pooled", dtype="float16")),
    ):
        with experiment(*more) as found:
            assert found.adapter.feature_spec == kept and found.reader.cache
            assert found.reader.cache.key.feature_spec == kept
            keys.add(found.reader.cache.keys(sources(found.task.train)[:1], [""])[0])
    assert len(keys) == 6
    with pytest.raises(UserError, match="^adapter.token_grid=2 has no effect with adapter.head=linear$"):
        experiment("adapter.head=linear", "adapter.token_grid=2")
    with pytest.raises(UserError, match="^tokens kept on a grid of 5: the encoder's are 2 x 2; use 1, 2$"):
        fitted(*words, "adapter.token_grid=5")
