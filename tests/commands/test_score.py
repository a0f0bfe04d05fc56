"""`evalkit score task=NAME predictions=FILE`: from a file that somebody made to a record that validates."""

import importlib
import json
from pathlib import Path

import pytest

from evalkit.cli import main
from evalkit.errors import UserError
from evalkit.pipeline.foreign.record import score_predictions
from evalkit.results import run_folder
from evalkit.results.validate import rescore, validate
from tests.given import write

columns = importlib.import_module("evalkit.leaderboard.columns")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """EgoSchema's files, four questions, of three videos with an answer."""
    uids = ["q1", "q2", "q3", "q4"]
    questions = [{"q_uid": uid, "question": "What?", **{f"option {i}": f"{i}" for i in range(5)}} for uid in uids]
    write(tmp_path / "ego" / "questions.json", questions)
    write(tmp_path / "ego" / "subset_answers.json", {uid: 1 for uid in uids})
    return tmp_path / "ego"


def test_missing_examples_count_as_wrong_and_the_record_validates(root: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "their run.json", {"q1": 1, "q2": 1, "q3": 0, "unknown": 2})
    words = ["task=egoschema", f"data.root={root}", f"predictions={file}", f"out={tmp_path / 'out'}"]
    folder = score_predictions(words)
    record = run_folder.load(folder)
    assert folder.relative_to(tmp_path / "out").parts[:2] == ("their-run", "egoschema")
    (score,) = record["scores"]
    assert (score["metric"], score["value"], score["bounds"], score["n"]) == ("accuracy", 50.0, [50.0, 75.0], 4)
    assert record["status"] == "partial"
    assert record["data"]["failures"] == [{"id": "q4", "reason": "no prediction in their run.json"}]
    assert record["adapter"]["settings"]["other_ids"] == 1 and record["encoder"]["sha256"] is None
    assert columns.adaptation(record) == "made elsewhere"
    assert validate(tmp_path / "out") == [] and not rescore(folder)["differences"]
    named = run_folder.load(score_predictions([*words, "name=THEIRS"]))
    assert named["encoder"]["name"] == "THEIRS"
    assert named["task"]["protocol_sha256"] == record["task"]["protocol_sha256"]


TAL = """
from pathlib import Path
from evalkit.api import Example, Task
from evalkit.localization.segments import read_segments
from evalkit.metrics import activitynet_map


def task(root: Path) -> Task:
    '''Segments.'''
    videos = read_segments(root)
    examples = [Example(v.name, root.parent / f"{v.name}.mp4", v.segments) for v in videos.of("validation")]
    return Task(test=examples, score=activitynet_map, classes=videos.classes)
"""


def test_the_command_scores_segments_on_a_task_of_the_user_s_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = {"duration": 9.0, "subset": "validation", "annotations": [{"segment": [1, 5], "label": "run"}]}
    truth = write(tmp_path / "truth.json", {"database": {"a": entry, "b": entry, "c": entry}})
    segment = {"segment": [1, 5], "label": "run", "score": 0.5}
    file = write(tmp_path / "p.json", {"results": {"a": [segment], "b": []}})
    task = write(tmp_path / "tal.py", TAL)
    words = [f"task={task}", f"data.root={truth}", f"predictions={file}", f"out={tmp_path / 'out'}"]
    assert main(["score", *words]) == 0
    printed = capsys.readouterr().out
    (folder,) = (tmp_path / "out" / "p" / "tal").iterdir()
    assert str(folder / "result.json") in printed and "1 of 3 examples failed" in printed
    scores = {entry["metric"]: entry for entry in json.loads((folder / "result.json").read_text())["scores"]}
    assert scores["mAP"]["value"] == pytest.approx(100 / 3, abs=1e-5)
    assert scores["mAP"]["bounds"][1] == pytest.approx(200 / 3, abs=1e-5)
    assert scores["missed_error"]["value"] == pytest.approx(200 / 3, abs=1e-5)
    assert validate(folder) == []
    assert main(["score", str(folder)]) == 0


CAPTION = """
from pathlib import Path
from evalkit.api import Example, Task
from evalkit.metrics import captions


def task(root: Path) -> Task:
    return Task(test=[Example("a", root / "a.mp4", "a dog runs")], score=captions, published={})
"""


def test_what_a_metric_cannot_say_is_told_where_the_run_is_made_and_by_no_later_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "own.py", CAPTION)
    for name in ("one.json", "two.json"):
        write(tmp_path / name, [{"video_id": "a", "caption": "a dog runs"}])
        assert main(["score", "task=own.py", "data.root=.", f"predictions={name}"]) == 0
        assert capsys.readouterr().err.count("CIDEr of one caption is undefined") == 1
    runs = sorted(str(file.parent) for file in tmp_path.glob("results/*/*/*/result.json"))
    commands = [["score", runs[0]], ["validate", "results"], ["show", runs[0]], ["compare", *runs]]
    commands += [["leaderboard", "out=board.csv"], ["export", "to=csv", "out=exported"]]
    for command in commands:
        main([*command, "task=own.py"])
        out, err = capsys.readouterr()
        assert out + err and "CIDEr of one caption" not in out + err, command


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("outt=x", "got outt=x. Did you mean 'out'?"),
        ("out=", "out=: wanted a value"),
        ("ckpt=demo", "score predictions=FILE takes task="),
        ("data.subst=false", "unknown key 'data.subst'. Did you mean 'data.subset'?"),
    ],
)
def test_a_wrong_word_is_told(root: Path, tmp_path: Path, word: str, why: str) -> None:
    file = write(tmp_path / "p.json", {"q1": 1})
    with pytest.raises(UserError) as caught:
        score_predictions(["task=egoschema", f"data.root={root}", f"predictions={file}", word])
    assert why in str(caught.value)
