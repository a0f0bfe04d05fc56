"""Runs to look at: of a probe, of questions and of captions' videos, by a tiny encoder on films of two seconds."""

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from evalkit.features.forward import EncoderRunner
from tests.conftest import in_this_process
from tests.pipeline import tiny_world
from tests.pipeline.tiny_world import choice_words, run

world = tiny_world.world


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """The width of the terminal in which the tests run changes nothing."""
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture(scope="session")
def labeled(tmp_path_factory: pytest.TempPathFactory, films: Path) -> Path:
    """A csv of twelve films and of one that is broken, six of them and the broken one in the test."""
    root = tmp_path_factory.mktemp("labeled")
    (root / "broken.mp4").write_bytes(b"no film at all")
    rows = ["path,label,split", "broken.mp4,left,test"]
    for number, film in enumerate(sorted(films.glob("*.mp4"))):
        rows.append(f"{film},{('left', 'right')[number % 2]},{'test' if number < 6 else 'train'}")
    (root / "videos.csv").write_text("\n".join(rows) + "\n")
    return root / "videos.csv"


@pytest.fixture(scope="session")
def given() -> list[Tensor]:
    """The clips that the `probed` run gave to its encoder, one by one in order, filled by it."""
    return []


@pytest.fixture(scope="session")
def probed(
    tmp_path_factory: pytest.TempPathFactory, labeled: Path, tiny: Path, given: list[Tensor], cache: Path
) -> Path:
    """A run of an attentive probe, of which one test film is broken."""
    encode = EncoderRunner.encode

    def spy(self: EncoderRunner, pixels: Tensor, *rest: Any) -> Any:
        given.extend(pixels.clone())
        return encode(self, pixels, *rest)

    words = ["task=folder", f"data.root={labeled}", f"ckpt={tiny}", "adapter.epochs=2", "workers=1", "batch=1"]
    with in_this_process():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(EncoderRunner, "encode", spy)
            run(tmp_path_factory.mktemp("spied"), *words, "controls=false", "cache=off")  # whatever others have stored
        return run(tmp_path_factory.mktemp("probed"), *words, "controls=false")


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory, films: Path, tiny: Path, cache: Path) -> Path:
    """A run of retrieval by the encoder's own text tower, six films with two captions each."""
    root = tmp_path_factory.mktemp("searched")
    rows = ["path,caption"]
    for number, film in enumerate(sorted(films.glob("*.mp4"))[:6]):
        rows += [f"{film},a shape moves {('left', 'right')[number % 2]} ({number})", f"{film},film {number}"]
    (root / "captions.csv").write_text("\n".join(rows) + "\n")
    with in_this_process():
        return run(root / "out", "task=retrieval", f"data.root={root / 'captions.csv'}", f"ckpt={tiny}", "workers=1")


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory, world: Path, tiny: Path, lm: Path) -> Path:
    """A run of questions of a task in a file of its own, with a broken and a missing film."""
    with in_this_process():
        return run(tmp_path_factory.mktemp("asked"), *choice_words(world, tiny, lm))
