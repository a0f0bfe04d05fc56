"""A run that is killed while it predicts, and the same run, or another, after it."""

import errno
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from evalkit import load_encoder, plugins
from evalkit.api import Example, Prediction
from evalkit.cli import main
from evalkit.pipeline import journal, predict
from evalkit.pipeline.journal import Journal
from evalkit.results import run_folder, validate
from evalkit.weights import trained_adapter

pytestmark = pytest.mark.usefixtures("decoding_here")

TASK = '''
from pathlib import Path

from evalkit.api import Example, Task
from evalkit.metrics import captions

ADAPTER = "captioner"


def task(root: Path, question: str = "What happens?") -> Task:
    """Tells halves of films."""
    films = sorted(root.glob("*.mp4"))
    test = [
        Example(f"{film.stem}-{half}", film, (f"a shape moves {half}",), span=(half, half + 1.0), text=question)
        for film in [*films, root / "gone.mp4"]
        for half in (0, 1)
    ]
    train = [Example(f"train-{film.stem}", film, ("a shape moves",), text=question) for film in films[:4]]
    return Task(test=test, train=train, score=captions, controls=("blind", "shuffled"))
'''
FILMS, BATCH = 9, 4  # of the examples, those of one film cannot be decoded, and those of another are not there


@pytest.fixture
def world(tmp_path: Path, films: Path, tiny: Path, lm: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a task, its films, an encoder, a language model and a cache of its own."""
    root = tmp_path / "world"
    (root / "films").mkdir(parents=True)
    (root / "my_task.py").write_text(TASK)
    for number, film in enumerate(sorted(films.glob("*.mp4"))[: FILMS + 1]):
        (root / "films" / film.name).write_bytes(film.read_bytes() if number < FILMS else b"no film at all")
    shutil.copytree(tiny, root / "tiny")
    shutil.copytree(lm, root / "lm")
    monkeypatch.setenv("EVALKIT_CACHE", str(root / "cache"))
    return root


def words(world: Path, out: str = "out") -> list[str]:
    given = [f"task={world / 'my_task.py'}", f"data.root={world / 'films'}", f"ckpt={world / 'tiny'}"]
    given += [f"lm={world / 'lm'}", f"out={world / out}", "adapter.latents=4", "adapter.epochs=0"]
    return [*given, "adapter.max_tokens=4", f"batch={BATCH}", "workers=1", "threads=1", "canary=false"]


def with_words(given: Sequence[str], *more: str) -> list[str]:
    """Words of which some are replaced."""
    keys = {word.partition("=")[0] for word in more}
    return [*(word for word in given if word.partition("=")[0] not in keys), *more]


class Asked:
    """What the captioner is asked, call by call; it is interrupted at one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[bool, list[str]]] = []
        self.last = -1
        kind = plugins.module_and_factory("adapter", "captioner")[0].Captioner
        own = kind.predict

        def spy(adapter: Any, examples: Sequence[Example], features: Any) -> Any:
            if features is not None or len(examples) > 1:  # one alone is asked without a video to see if that works
                if len(self.calls) == self.last:
                    raise KeyboardInterrupt
                self.calls.append((features is not None, [example.id for example in examples]))
            return own(adapter, examples, features)

        monkeypatch.setattr(kind, "predict", spy)

    def run(self, given: Sequence[str], last: int = -1) -> list[tuple[bool, list[str]]]:
        """What a run asks; it is interrupted after `last` calls."""
        self.calls, self.last = [], last
        assert main(["run", *given]) == (130 if last >= 0 else 0)
        return list(self.calls)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(monkeypatch)


def made(world: Path, out: str) -> tuple[bytes, Any, Any]:
    """The predictions, scores and controls of the one run there."""
    (folder,) = {file.parent for file in (world / out).glob("*/*/[!.]*/result.json")}
    record = run_folder.load(folder)
    assert validate.validate(folder) == []
    return (folder / "predictions.jsonl").read_bytes(), record["scores"], record["controls"]


def journals(world: Path) -> list[Path]:
    return sorted((world / "cache" / "journals").glob("*"))


# --- the same run ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_run_that_was_cut_short_goes_on_after_what_it_predicted(
    world: Path, asked: Asked, capsys: pytest.CaptureFixture[str], epochs: int
) -> None:
    """Fitted or not; controls are gone on with, too."""
    given = with_words(words(world), f"adapter.epochs={epochs}")
    whole = asked.run(with_words(given, f"out={world / 'whole'}"))
    test = [call for call in whole if call[1][0][:5] != "train"]
    fitting = whole[: len(whole) - len(test)]
    assert len(test) == 3 * 5 and journals(world) == []  # eighteen examples in fours, as they are, shuffled and blind
    shutil.rmtree(world / "cache")
    before = asked.run(given, last=len(fitting) + 7)
    assert before == whole[: len(fitting) + 7] and len(journals(world)) == 1
    assert not list((world / "out").glob("*/*/*"))
    capsys.readouterr()
    after = asked.run(given)
    assert after == fitting + test[7:]
    assert f"predict: {3 * BATCH} of 22 are known from a run that was cut short" in capsys.readouterr().err
    assert made(world, "out") == made(world, "whole")
    assert journals(world) == []  # what is done is not gone on with


def test_a_run_that_was_killed_at_any_moment_ends_as_if_it_had_not_been(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = with_words(words(world), "adapter.max_tokens=16", "batch=2")
    assert main(["run", *with_words(given, f"out={world / 'whole'}")]) == 0
    monkeypatch.setenv("EVALKIT_CACHE", str(world / "other"))
    rng = random.Random()
    processes = multiprocessing.get_context("forkserver")  # which imports once
    processes.set_forkserver_preload(
        ["evalkit.pipeline.runner", "evalkit.adapters.captioner", "transformers.models.llama"]
    )
    entries = _entries(world / "other") + rng.randint(1, 6)
    process = processes.Process(target=_start, args=(str(world / "other"), given))
    process.start()
    while process.is_alive() and _entries(world / "other") < entries:
        time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.05))
    assert process.pid
    os.killpg(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not list((world / "out").glob("*/*/*"))
    assert _entries(world / "other") >= entries
    assert main(["run", *given]) == 0
    assert made(world, "out") == made(world, "whole")


def _start(cache: str, given: Sequence[str]) -> None:
    os.setsid()  # with the processes that decode
    os.environ["EVALKIT_CACHE"] = cache
    sys.exit(main(["run", *given]))


def _entries(cache: Path) -> int:
    return sum(file.read_bytes().count(b"\n") for file in (cache / "journals").glob("*"))


def test_torn_and_damaged_entries_are_predicted_again(world: Path, asked: Asked) -> None:
    whole = asked.run(with_words(words(world), f"out={world / 'whole'}"))
    asked.run(words(world), last=7)
    (file,) = journals(world)
    entries = file.read_bytes().split(b"\n")
    assert len(entries) == 8 and entries[0] == b""
    entries[2] = entries[2].replace(b'"ended": false', b'"ended": true ')  # still JSON
    file.write_bytes(b"\n".join(entries)[:-9])
    after = asked.run(words(world))
    assert after == [whole[1], *whole[6:]]
    assert made(world, "out") == made(world, "whole")


def test_a_full_disk_is_told_in_one_line_and_loses_nothing(
    world: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = asked.run(with_words(words(world), f"out={world / 'whole'}"))
    calls = 0

    def full(path: Path, mode: str) -> Any:
        nonlocal calls
        calls += 1
        if calls < 6:
            return open(path, mode)
        with open(path, mode) as file:
            file.write(b'\n01234567 ["", {"0')
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(journal, "open", full, raising=False)
        capsys.readouterr()
        assert main(["run", *words(world)]) == 2
    (file,) = journals(world)
    told = f"evalkit: no space left for {file}: free some, or point out= or EVALKIT_CACHE elsewhere\n"
    assert capsys.readouterr().err.endswith(told)
    assert asked.run(words(world)) == whole[5:]
    assert made(world, "out") == made(world, "whole")


def test_a_cache_that_cannot_be_written_and_one_that_is_off_have_no_journal(
    world: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path, mode: str) -> Any:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(journal, "open", refused, raising=False)
        asked.run(words(world))
    asked.run(with_words(words(world), "cache=off"), last=3)
    assert journals(world) == []


def test_training_leaves_no_journal(world: Path, asked: Asked) -> None:
    given = [word for word in words(world) if not word.startswith("out=")]
    assert main(["adapt", *with_words(given, "adapter.epochs=1"), f"out={world / 'learned'}"]) == 0
    assert asked.calls and journals(world) == []


# --- another run -----------------------------------------------------------------------------------------------------


def changed_weights(folder: Path) -> None:
    (file,) = folder.glob("*.safetensors")
    weights = load_file(file)
    name = max(weights, key=lambda one: weights[one].numel())
    save_file({**weights, name: weights[name] * 1.5}, file, {"format": "pt"})


def learned(world: Path) -> Path:
    """The folder of a captioner that might have been trained."""
    task = plugins.factory("task", str(world / "my_task.py"))(world / "films")
    torch.manual_seed(3)
    settings = {"lm": str(world / "lm"), "latents": 4, "max_tokens": 4}
    adapter = plugins.factory("adapter", "captioner")(load_encoder(world / "tiny"), task, **settings)
    trained_adapter.save_adapter(
        adapter, trained_adapter.adapter_folder(world / "learned", "captioner"), {"settings": settings}
    )
    return world / "learned"


def test_what_was_predicted_with_other_weights_is_never_taken(
    world: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [word for word in words(world) if not word.startswith("adapter.epochs")]
    given += [f"adapter.from={learned(world)}"]
    asked.run(given, last=7)
    changed_weights(world / "learned" / "adapters" / "captioner")
    every = asked.run(given)
    assert len(every) == 3 * 5
    assert len(journals(world)) == 1  # of the run that was cut short
    monkeypatch.setenv("EVALKIT_CACHE", str(world / "clean"))
    assert asked.run(with_words(given, f"out={world / 'clean out'}")) == every
    assert made(world, "out") == made(world, "clean out")


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> Callable[[Sequence[str]], str]:
    """The name of the journal of a run, which ends there."""
    names: list[str] = []

    def caught(name: str) -> None:
        names.append(name)
        raise KeyboardInterrupt

    def name(given: Sequence[str]) -> str:
        with monkeypatch.context() as patch:
            patch.setattr(predict, "Journal", caught)
            assert main(["run", *given]) == 130
        return names[-1]

    return name


def test_other_words_have_another_journal(world: Path, named: Callable[[Sequence[str]], str]) -> None:
    other = ["data.question=What then?", "adapter.prompt=Say {question}", "adapter.max_tokens=3", "adapter.beams=2"]
    other += ["clip.frames=2", "clip.resize=squash", "seed=1", "batch=3", "controls=false", "precision=bf16"]
    names = [named(with_words(words(world), word)) for word in [f"out={world / 'other'}", *other]]
    assert len(set(names)) == len(names) and all(len(name) == 64 for name in names)
    assert named([*reversed(words(world))]) == names[0]  # whatever the order of the words, and the place of the result
    assert named(with_words(words(world), "cache=off")) == ""


def test_other_files_have_another_journal(world: Path, named: Callable[[Sequence[str]], str]) -> None:
    (world / "lm" / "tokenizer.model").unlink()  # else tokenizer.json would not be read
    names = [named(words(world))]
    for folder in ("tiny", "lm"):
        changed_weights(world / folder)
        names.append(named(words(world)))
    file = world / "lm" / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    pieces = tokenizer["model"]["vocab"]
    last, other = sorted(pieces, key=lambda piece: pieces[piece])[-2:]
    pieces[last], pieces[other] = pieces[other], pieces[last]
    file.write_text(json.dumps(tokenizer))
    names.append(named(words(world)))
    film = world / "films" / "08.mp4"
    film.write_bytes((world / "films" / "01.mp4").read_bytes())
    names.append(named(words(world)))
    film.unlink()
    names.append(named(words(world)))
    assert len(set(names)) == len(names)


def test_a_journal_is_kept_only_where_what_was_learned_is_known(
    world: Path, named: Callable[[Sequence[str]], str]
) -> None:
    rows = [f"{world / 'films' / f'{i:02d}.mp4'},{'ab'[i % 2]},{('train', 'test')[i // 4]}" for i in range(5)]
    (world / "videos.csv").write_text("\n".join(["path,label,split", *rows]) + "\n")
    given = ["task=folder", f"data.root={world / 'videos.csv'}", f"ckpt={world / 'tiny'}", f"out={world / 'out'}"]
    given += ["workers=1", "threads=1", "canary=false"]
    assert len(named([*given, "adapter.epochs=1"])) == 64
    assert named([*given, "adapter=knn", "adapter.k=1"]) == ""  # its examples are no weights


# --- a journal alone -------------------------------------------------------------------------------------------------


def test_what_json_would_give_back_as_something_else_is_not_kept() -> None:
    kept = Journal("plain")
    kept.add("", {"a": [0.1 + 0.2, "ü\n", None, {"b": [True]}]})
    for value in ((1, 2), float("nan"), torch.zeros(2), {1: 2}):
        kept.add("", {"a": value})
    assert Journal("plain").known == {"": {"a": [0.1 + 0.2, "ü\n", None, {"b": [True]}]}}
    kept.remove()
    assert Journal("plain").known == {} and Journal("").known == {}


def test_predictions_are_recalled_as_a_whole_with_what_decoded_them() -> None:
    first = predict.Predictions({"": {}}, {}, {"a": "pyav, from the start"}, Journal("recalled"))
    first.add("", {"a": Prediction(1, {"said": "B"}), "b": Prediction(0)})
    a, b, c = (Example(name, Path(name)) for name in "abc")
    again = predict.Predictions({"": {}, "blind": {}}, {}, {}, Journal("recalled"))
    assert not again.recall([""], [a, c]) and not again.recall(["", "blind"], [a]) and again.scored == {}
    assert again.recall([""], [a, b])
    assert (again.by_control, again.decoders) == ({"": first.scored, "blind": {}}, first.decoders)
    again.journal.remove()


def test_the_journals_of_runs_that_nobody_started_again_go() -> None:
    for name in ("old", "young"):
        Journal(name).add("", {"a": 1})
    old = Journal("old").path
    assert old
    then = time.time() - journal.DAYS * 86_400 - 1
    os.utime(old, (then, then))
    Journal("other")
    assert not old.exists() and Journal("young").known == {"": {"a": 1}}
    Journal("young").remove()
