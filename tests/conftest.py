"""What several test files stand on: a vocabulary, films, an encoder and a language model, all tiny and real."""

import contextlib
import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests import seconds
from tests.processes import pytest_collection, pytest_configure, pytest_runtest_protocol, pytest_xdist_make_scheduler

__all__ = ["pytest_collection", "pytest_configure", "pytest_runtest_protocol", "pytest_xdist_make_scheduler"]

SLOW = {"films", "decoding_here", "java"}


def operators_of_torchvision() -> Any:
    """Two operators that torchvision's build for GPUs, which open_clip and timm import, lacks beside torch's for CPUs.

    It finds none of its own then, and without these two refuses to be imported. Nothing here calls them.
    """
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None or "+cu" not in Path(found.origin).with_name("version.py").read_text():
        return None
    import torch

    if torch.version.cuda:
        return None
    operators = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
    return operators


OPERATORS = operators_of_torchvision()  # for as long as this is referred to


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What films, runs the whole or took long when it was measured is slow; other slow tests say so themselves.

    The files that take longest come first: begun last, one would keep a process busy while the other is done.
    """
    taken = seconds.read()
    for item in items:
        file = item.path.relative_to(seconds.TESTS).as_posix()
        if SLOW & set(getattr(item, "fixturenames", ())) or f"{file}::{getattr(item, 'originalname', '')}" in taken:
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: -taken.get(item.path.relative_to(seconds.TESTS).as_posix(), 0.0))


@pytest.fixture(scope="session", autouse=True)
def core() -> None:
    """A core of its own for each of several test processes: threads of two that share cores wait for one another."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker) % len(cores)]})


def shared_films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the miniatures' films, one for all processes of a run: whoever films first, the bytes are equal."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "mini"


@pytest.fixture(scope="session", autouse=True)
def shown_notes() -> Iterator[None]:
    """Notes go to stderr, as on the command line, so that tests of library code read them there."""
    from evalkit.runtime import notes

    with notes.on_stderr():
        yield


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cache of these tests: no feature or film comes from, or goes to, the user's own."""
    place = tmp_path_factory.mktemp("cache")
    films = shared_films(tmp_path_factory)
    films.mkdir(exist_ok=True)
    (place / "mini").symlink_to(films)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVALKIT_CACHE", str(place))
        yield place


@contextlib.contextmanager
def in_this_process() -> Iterator[None]:
    from evalkit.video import clips
    from evalkit.video.clips import Decoded, Failure, Request
    from evalkit.video.workers import DecodePool

    def read(self: DecodePool, requests: Sequence[Request]) -> Iterator[Decoded | Failure]:
        return (clips.read_clip(*request) for request in requests)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DecodePool, "read", read)
        yield


@pytest.fixture(scope="module")
def decoding_here() -> Iterator[None]:
    """Runs decode in the tests' own process: for files that are not about decoding processes, which start slowly."""
    with in_this_process():
        yield


@pytest.fixture
def decoded_here() -> Iterator[None]:
    """The same for a test in a file with others that need the processes."""
    with in_this_process():
        yield


@pytest.fixture
def module_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes source as a module into what becomes the current folder, and gives its name, which no other test has."""

    def write(source: str) -> str:
        name = f"own_{tmp_path.name.replace('-', '_')}"
        (tmp_path / f"{name}.py").write_text(source)
        monkeypatch.chdir(tmp_path)
        return name

    return write


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentencepiece vocabulary of the mini world."""
    from evalkit.demo.train_language_model import train_vocabulary

    path = tmp_path_factory.mktemp("vocabulary") / "tokenizer.model"
    train_vocabulary(path)
    return path


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of twelve real mp4 files, 00.mp4 to 11.mp4, two seconds each: even ones move left, odd ones right."""
    from evalkit.mini import film, world

    folder = tmp_path_factory.mktemp("films")
    for i in range(12):
        thing = world.Thing(list(world.COLORS)[i % 6], world.SHAPES[i % 5])
        step = world.Step(thing, ("moves left", "moves right")[i % 2], thing, 2.0, 1, 0.5)
        film.write(world.Story((step,), (40, 40, 40)), folder / f"{i:02d}.mp4", fps=8)
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, vocabulary: Path) -> Path:
    """A checkpoint folder: a random ViViT of 4 frames at 32 pixels with a text tower."""
    import torch

    from evalkit.api import Clip
    from evalkit.encoders import Spec, save_encoder

    text = {"vocabulary": 200, "dim": 16, "depth": 1, "heads": 2, "tokens": 32}
    settings = {"dim": 24, "depth": 2, "heads": 3, "hidden": 48, "text": text}
    spec = Spec("longvivit", Clip(frames=4, size=32), settings, vocabulary)
    folder = tmp_path_factory.mktemp("encoders") / "tiny"
    folder.mkdir()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_encoder(spec.build(), spec, folder)
    return folder


@pytest.fixture(scope="session")
def lm(tmp_path_factory: pytest.TempPathFactory, vocabulary: Path) -> Path:
    """A tiny random Llama as transformers saves it, with the mini world's vocabulary."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaTokenizer

    folder = tmp_path_factory.mktemp("lm")
    (folder / "tokenizer.model").write_bytes(vocabulary.read_bytes())
    LlamaTokenizer.from_pretrained(folder).save_pretrained(folder)
    shape: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    config = LlamaConfig(vocab_size=200, num_attention_heads=2, pad_token_id=0, bos_token_id=2, eos_token_id=3, **shape)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder
