"""Results on the hub, against a server on loopback that speaks the endpoints of a pull request."""

import importlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from evalkit.cli import main
from evalkit.metrics.classification import accuracy
from evalkit.results import validate
from evalkit.results.run_folder import write
from tests.leaderboard.hub_server import Hub
from tests.records import result_of, rows_of

with_index = importlib.import_module("evalkit.leaderboard.hub").with_index
CARD = """---
license: mit
model-index:
- name: theirs
  results:
  - task: {type: text-generation}
    dataset: {type: cais/hle, name: HLE}
    metrics: [{type: accuracy, value: 3.0}]
---
# Theirs

A text with --- in it.
"""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    server = Hub()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)  # these two are what HF_ENDPOINT sets at the import
    template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("HF_TOKEN", "right")
    monkeypatch.chdir(tmp_path)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of EgoSchema that validates, in results/demo/egoschema/run."""
    return save(tmp_path, "egoschema")


def save(folder: Path, task: str, ckpt: str = "demo", right: int = 6) -> Path:
    rows = rows_of(right, 3)
    record = result_of(rows, accuracy)
    record["task"]["name"] = task
    record["encoder"] |= {"name": ckpt, "ckpt": ckpt}
    return write(folder / "results" / ckpt / task / "run", record, rows, "")


PUSH = ["push", "repo=them/there"]


def test_nothing_is_sent_before_it_is_confirmed(hub: Hub, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["as=eval_results", "dataset=lmms-lab/egoschema"], ["as=model_index"], ["as=dataset"]):
        assert main([*PUSH, *words]) == 0
        printed = capsys.readouterr().out
        assert "nothing was sent: " in printed and "confirm=true" in printed
        shown = {"eval_results": "id: lmms-lab/egoschema", "model_index": "type: accuracy", "dataset": '"schema": 1'}
        assert shown[words[0].removeprefix("as=")] in printed
    assert main(["submit", str(run), "to=them/there"]) == 0
    printed = capsys.readouterr().out
    assert "--- demo/egoschema/run/predictions.jsonl" in printed and run.joinpath("config.yaml").exists()
    assert hub.asked == []


def test_a_headline_goes_to_the_models_page_as_a_pull_request(
    hub: Hub, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*PUSH, "dataset=lmms-lab/egoschema", "confirm=true"]) == 0
    assert capsys.readouterr().out == f"{hub.url}/them/there/discussions/1\n"
    ((repo, title, files),) = hub.commits
    assert (repo, title, list(files)) == ("models", "Add 1 evalkit result", [".eval_results/egoschema.yaml"])
    (entry,) = yaml.safe_load(files[".eval_results/egoschema.yaml"])
    assert entry["dataset"] == {"id": "lmms-lab/egoschema", "task_id": "test"}
    assert entry["value"] == pytest.approx(100 * 6 / 9) and str(entry["date"]) == "2026-02-01"


def test_the_card_of_a_model_keeps_all_that_is_not_ours(hub: Hub, run: Path) -> None:
    hub.card = CARD
    assert main([*PUSH, "as=model_index", "confirm=true"]) == 0
    card = hub.commits[0][2]["README.md"].decode()
    _, front, body = card.split("---\n", 2)
    metadata = yaml.safe_load(front)
    assert body == "# Theirs\n\nA text with --- in it.\n" and metadata["license"] == "mit"
    (index,) = metadata["model-index"]
    assert [result["dataset"]["type"] for result in index["results"]] == ["cais/hle", "egoschema"]
    hub.card = card  # and once more: in place of what was there
    assert main([*PUSH, "as=model_index", "confirm=true"]) == 0
    assert hub.commits[1][2]["README.md"].decode() == card


def test_a_model_without_a_card_gets_one(hub: Hub, run: Path) -> None:
    assert main([*PUSH, "as=model_index", "confirm=true"]) == 0
    card = hub.commits[0][2]["README.md"].decode()
    assert yaml.safe_load(card.strip("-\n"))["model-index"][0]["name"] == "there"


@pytest.mark.parametrize("front", ["---\n- a\n- b\n---\n", "---\nmodel-index: 3\n---\n", "---\na: [\n---\n"])
def test_a_front_matter_that_is_another_thing_is_not_touched(
    hub: Hub, run: Path, front: str, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.card = front
    assert main([*PUSH, "as=model_index", "confirm=true"]) == 2
    assert "README.md there has a front matter that nothing can be added to" in capsys.readouterr().err
    assert hub.commits == []


def test_runs_go_to_a_data_set_as_they_lie_and_validate_there(hub: Hub, run: Path, tmp_path: Path) -> None:
    save(tmp_path, "egoschema@mini", "other")
    assert main([*PUSH, "as=dataset", "confirm=true"]) == 0
    ((repo, _, files),) = hub.commits
    assert repo == "datasets" and {path.partition("/")[0] for path in files} == {"demo", "other"}
    for path, data in files.items():
        (tmp_path / "copy" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / path).write_bytes(data)
    assert validate.validate(tmp_path / "copy") == []
    assert files["demo/egoschema/run/predictions.jsonl"] == (run / "predictions.jsonl").read_bytes()


def test_a_result_is_submitted_to_a_folder_once_and_signed(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["submit", str(run), f"to={tmp_path / 'board'}"]
    (tmp_path / "board").mkdir()
    if shutil.which("ssh-keygen"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
        words.append(f"key={tmp_path / 'key'}")
    assert main(words) == 0
    there = tmp_path / "board/demo/egoschema/run"
    assert (there / "result.json.sig").exists() == bool(shutil.which("ssh-keygen"))
    assert capsys.readouterr().out.splitlines()[0] == str(there / "result.json") and validate.validate(there) == []
    assert main(words[:3]) == 0  # the same once more
    (there / "config.yaml").write_text("other")
    assert main(words[:3]) == 2
    assert f"{there / 'config.yaml'} is there already, and differs: nothing is overwritten" in capsys.readouterr().err


def test_a_result_is_submitted_to_a_board_of_the_hub(hub: Hub, run: Path) -> None:
    assert main(["submit", str(run / "result.json"), "to=them/there", "confirm=true"]) == 0
    ((repo, title, files),) = hub.commits
    assert (repo, title) == ("datasets", "Add demo on egoschema") and "demo/egoschema/run/result.json" in files


def test_a_result_that_was_changed_is_not_submitted(
    hub: Hub, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = json.loads((run / "result.json").read_text())
    record["scores"][0]["value"] = 99.0
    (run / "result.json").write_text(json.dumps(record))
    assert main(["submit", str(run), "to=them/there", "confirm=true"]) == 2
    assert "evalkit: not submitted: " in capsys.readouterr().err
    assert main([*PUSH, "confirm=true"]) == 2
    assert "no run validates, so there is nothing to push" in capsys.readouterr().err and hub.asked == []


@pytest.mark.parametrize(
    ("token", "repo", "message"),
    [
        ("", "them/there", "the hub wants a token of yours, and there is none: `hf auth login`, or set HF_TOKEN"),
        ("wrong", "them/there", "repo=them/there: the hub does not accept your token; `hf auth login` gives a new one"),
        ("right", "no/such", "repo=no/such: the hub has no such model, or your token may not see it"),
        ("reader", "them/there", "repo=them/there: your token may not open a pull request there; it needs the right"),
    ],
)
def test_what_the_hub_refuses_is_one_line_without_the_token(
    hub: Hub,
    run: Path,
    token: str,
    repo: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    assert main(["push", f"repo={repo}", "dataset=a/b", "confirm=true"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"evalkit: {message}") and err.count("\n") == 1
    assert hub.commits == [] and not (token and token in err.replace("right to write", ""))


def test_a_hub_that_does_not_answer_is_one_line(
    hub: Hub, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert main([*PUSH, "dataset=a/b", "confirm=true"]) == 2
    assert capsys.readouterr().err == "evalkit: repo=them/there: the hub cannot be reached (ConnectError)\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["repo=there"], "repo=there: expected OWNER/NAME, a repository of the hub that is there"),
        (["repo=ä/b"], "repo=ä/b: expected OWNER/NAME, a repository of the hub that is there"),
        (["repo=a/b", "as=card"], "as=card: expected one of eval_results, model_index, dataset"),
        (["repo=a/b", "confirm=yes"], "confirm=yes: expected true, which sends, or false"),
        (["repo=a/b", "rsults=x"], "unknown word 'rsults=x': known are results=, repo=, as=, dataset=, confirm=. Did"),
        (
            ["repo=a/b"],
            "a model's page has the results of one encoder, and these are of evalkit/demo, local/other: name the "
            "folder of one, such as results=results/",
        ),
        (["repo=a/b", "results=results/other"], "egoschema@mini is a miniature, and says nothing on a model's page"),
        (
            ["repo=a/b", "dataset=c/d", "as=dataset"],
            "dataset=c/d names the benchmark of one task, with as=eval_results",
        ),
    ],
)
def test_what_cannot_be_pushed_is_one_line(
    run: Path,
    tmp_path: Path,
    words: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    save(tmp_path, "egoschema@mini", "other")
    assert main(["push", *words]) == 2
    assert capsys.readouterr().err.startswith(f"evalkit: {message}")


def test_submit_needs_a_run_and_a_place(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "to=a/b"]) == 2
    assert "submit takes one run and to=FOLDER or to=OWNER/NAME; got to=a/b" in capsys.readouterr().err
    assert main(["submit", str(run), f"to={tmp_path}/none/there"]) == 2
    assert "there is no such folder, and it is not an OWNER/NAME of the hub" in capsys.readouterr().err
