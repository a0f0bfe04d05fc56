"""`evalkit run` from the words to the record, on a tiny world of its own: real films, a random encoder and LM."""

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from evalkit.cli import main
from evalkit.config.options import Options
from evalkit.features.sources import Source
from evalkit.pipeline.described import encoder_name
from evalkit.results import run_folder, validate
from evalkit.video.workers import DecodePool
from tests.given import DATA, real
from tests.patience import wait_until
from tests.pipeline import tiny_world
from tests.pipeline.tiny_world import choice_words, command, probe_words, run, scored

pytestmark = pytest.mark.slow

world = tiny_world.world


@pytest.fixture(scope="module")
def asked() -> list[Source]:
    """What the `chosen` run decoded, filled by it."""
    return []


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory, world: Path, tiny: Path, lm: Path, asked: list[Source]) -> Path:
    """A run of my_task.py with one broken and one missing film."""

    def spy(pool: DecodePool, requests: Sequence[Any]) -> Any:
        asked.extend(Source(request.video, request.span) for request in requests)
        return read(pool, requests)

    read = DecodePool.read
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DecodePool, "read", spy)
        return run(tmp_path_factory.mktemp("chosen"), *choice_words(world, tiny, lm), "canary=true")


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory, world: Path, tiny: Path) -> Path:
    """A run of a probe on the csv of films."""
    return run(tmp_path_factory.mktemp("probed"), *probe_words(world, tiny))


# --- the record ------------------------------------------------------------------------------------------------------


def test_a_run_is_a_valid_record_that_scores_the_same_again(
    chosen: Path, probed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in (chosen, probed):
        assert validate.validate(folder) == []
        assert main(["score", str(folder)]) == 0
        assert main(["validate", str(folder)]) == 0
    files = ["config.yaml", "evidence.jsonl", "predictions.jsonl", "result.json"]
    assert sorted(path.name for path in chosen.iterdir()) == files
    lines = [json.loads(line) for line in (probed / "evidence.jsonl").read_text().splitlines()]
    selection = run_folder.load(probed)["selection"]
    assert sum(line["split"] == "val" for line in lines) == selection["n_val"] > 0
    assert sum(line["split"] == "test" for line in lines) == len(run_folder.load_rows(probed))
    controls = [entry["name"] for entry in run_folder.load(chosen)["controls"]]
    first = json.loads((chosen / "evidence.jsonl").read_text().splitlines()[0])
    assert list(first["controls"]) == controls and controls


def test_what_cannot_be_decoded_counts_as_wrong_with_its_reason_and_shows_in_the_bounds(chosen: Path) -> None:
    record = run_folder.load(chosen)
    assert record["status"] == "partial"
    data = record["data"]
    assert (data["n_expected"], data["n_scored"], data["n_failed"]) == (11, 9, 2)
    assert [failure["id"] for failure in data["failures"]] == ["07", "gone"]
    assert all(failure["reason"] and "\n" not in failure["reason"] for failure in data["failures"])
    headline = record["scores"][0]
    assert headline["n"] == 10 and headline["n_clusters"] == 9  # "secret" has no answer, "again" is about film 00
    low, high = headline["bounds"]
    assert low == headline["value"] and high - low == pytest.approx(100 * 2 / 10)
    assert [entry["metric"] for entry in record["scores"]] == ["accuracy", "accuracy/again", "accuracy/direction"]


def test_an_example_without_an_answer_gets_a_prediction_and_no_score(chosen: Path) -> None:
    rows = {row.id: row for row in run_folder.load_rows(chosen)}
    assert rows["secret"].target is None and rows["secret"].prediction in range(4) and rows["secret"].failure is None
    assert rows["gone"].prediction is None and rows["gone"].failure


def test_rows_name_their_video_without_the_place_where_it_lies(chosen: Path) -> None:
    rows = {row.id: row for row in run_folder.load_rows(chosen)}
    assert rows["00"].video == rows["again"].video == "00.mp4"
    assert {row.video for row in rows.values()} == {*(f"{i:02d}.mp4" for i in range(8)), "gone.mp4"}


def test_every_video_is_decoded_once_and_encoded_once_per_variant(chosen: Path, asked: list[Source]) -> None:
    seen_by_canary, asked = asked[:2], asked[2:]
    assert len(asked) == len(set(asked)) == 9 and set(seen_by_canary) < set(asked)  # of eleven questions
    cost = run_folder.load(chosen)["cost"]
    assert cost["encoder_forwards"] == 7 * 3  # as it is, shuffled, single frame; blind and option order need none
    assert cost["fit_s"] == 0 and cost["decode_s"] > 0 and cost["encode_s"] > 0
    assert cost["wall_s"] > cost["decode_s"] + cost["encode_s"]


def test_every_control_of_the_task_is_recorded(chosen: Path) -> None:
    controls = {control["name"]: control for control in run_folder.load(chosen)["controls"]}
    assert set(controls) == {"blind", "shuffled", "single_frame", "option_order"}
    assert all(control["metric"] == "accuracy" and 0 <= control["value"] <= 80 for control in controls.values())


def test_the_record_names_what_made_it(chosen: Path, tiny: Path, lm: Path) -> None:
    record = run_folder.load(chosen)
    assert record["task"]["name"] == "my_task" and record["task"]["score"] == "evalkit.metrics:accuracy"
    assert record["encoder"]["name"] == "tiny" and record["encoder"]["architecture"] == "ViViT"
    assert record["encoder"]["clip"]["frames"] == record["task"]["protocol"]["views"]["frames"] == 4
    assert record["adapter"]["settings"]["latents"] == 4 and len(record["adapter"]["settings"]["lm"]) == 64
    assert record["selection"] is None  # nothing was fitted
    assert record["provenance"]["command"][:2] == ["evalkit", "run"] or "run" in record["provenance"]["command"]


def test_the_chosen_epoch_and_what_it_was_chosen_by_are_recorded(probed: Path, world: Path) -> None:
    record = run_folder.load(probed)
    assert record["status"] == "complete"  # the broken film is one of train
    selection = record["selection"]
    assert len(selection["val_scores"]) == selection["chosen"]["epochs"] == 3
    assert selection["val_score"] == max(selection["val_scores"])
    best = [i for i, score in enumerate(selection["val_scores"], 1) if score == selection["val_score"]]
    assert selection["chosen"]["epoch"] == best[-1]
    assert selection["n_train"] + selection["n_val"] == 8  # those that can be read
    assert [one["video"] for one in selection["undecodable"]] == [str(world / "films" / "07.mp4")]
    assert [score["metric"] for score in record["scores"]] == ["top1", "top5"]


# --- the same again --------------------------------------------------------------------------------------------------


def test_one_seed_gives_one_result_whatever_the_number_of_workers(
    chosen: Path, probed: Path, world: Path, tiny: Path, lm: Path
) -> None:
    again = run(chosen.parents[2], *choice_words(world, tiny, lm)[:-1], "workers=2")
    assert again != chosen and again.parent == chosen.parent  # beside the first, which is as it was
    assert scored(again) == scored(chosen)
    assert (again / "predictions.jsonl").read_bytes() == (chosen / "predictions.jsonl").read_bytes()
    again = run(probed.parents[2], *probe_words(world, tiny)[:-1], "workers=2")
    assert scored(again) == scored(probed)
    assert (again / "predictions.jsonl").read_bytes() == (probed / "predictions.jsonl").read_bytes()
    assert validate.validate(chosen.parents[2]) == validate.validate(probed.parents[2]) == []


@pytest.mark.usefixtures("decoded_here")
def test_another_seed_gives_other_predictions(
    probed: Path, world: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = run(tmp_path, *probe_words(world, tiny), "seed=1")
    assert (other / "predictions.jsonl").read_bytes() != (probed / "predictions.jsonl").read_bytes()


@pytest.mark.usefixtures("decoded_here")
def test_the_written_configuration_runs_again(chosen: Path, tmp_path: Path) -> None:
    again = run(tmp_path, f"config={chosen / 'config.yaml'}", "controls=false")
    assert (again / "predictions.jsonl").read_bytes() == (chosen / "predictions.jsonl").read_bytes()
    assert run_folder.load(again)["controls"] == []
    text = (chosen / "config.yaml").read_text()
    for key, value in (("fps", "8.0"), ("stride", "2")):  # as before such a word was refused
        assert (idle := f"# clip.{key}: ") in text
        text = text.replace(idle, f"clip.{key}: {value}  # ", 1)
    (tmp_path / "old.yaml").write_text(text)
    old = run(tmp_path, f"config={tmp_path / 'old.yaml'}", "controls=false")
    assert (old / "predictions.jsonl").read_bytes() == (chosen / "predictions.jsonl").read_bytes()


def children(pid: int) -> list[int]:
    return [
        int(line) for line in subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout.split()
    ]


def alive(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")


def test_a_killed_run_leaves_nothing_and_runs_again_to_the_same_scores(
    probed: Path, world: Path, tiny: Path, tmp_path: Path
) -> None:
    words = [*probe_words(world, tiny), f"out={tmp_path}"]
    killed = command(*words)
    assert wait_until(lambda: children(killed.pid), 60)  # its decoding processes have started
    workers = children(killed.pid)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert wait_until(lambda: not any(alive(pid) for pid in workers), 30)
    assert not [path for path in tmp_path.rglob("*") if not path.name.startswith(".")]
    assert scored(run(tmp_path, *probe_words(world, tiny))) == scored(probed)


@pytest.mark.usefixtures("decoded_here")
def test_a_run_killed_while_it_writes_shows_no_result(
    probed: Path, world: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_folder, "flush", die)
    assert main(["run", *probe_words(world, tiny), f"out={tmp_path}"]) == 130
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


# --- real input ------------------------------------------------------------------------------------------------------


@real
@pytest.mark.usefixtures("decoded_here")
def test_real_questions_with_five_real_videos_are_partial_and_give_no_submission(
    tiny: Path, lm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, annotations = tmp_path / "egoschema", DATA / "annotations" / "egoschema"
    (root / "videos").mkdir(parents=True)
    (root / "questions.json").write_bytes((annotations / "questions_500.rebuilt.json").read_bytes())
    (root / "subset_answers.json").write_bytes((annotations / "subset_answers.json").read_bytes())
    videos = [
        "intel-sample-videos/asl_gestures__bird.mkv",
        "torchcodec/h265_video.mp4",
        "decord/tests__test_data__video_90.mov",
        "derived/broken_random_bytes.mp4",
        "moviepy/chaplin.mp4",
    ]
    uids = list(json.loads((root / "subset_answers.json").read_text()))
    for uid, name in zip(uids[10:], videos, strict=False):
        (root / "videos" / f"{uid}.mp4").symlink_to(DATA / "videos" / name)
    words = ["task=egoschema", f"data.root={root}", f"ckpt={tiny}", f"lm={lm}", "adapter.epochs=0", "workers=1"]
    folder = run(tmp_path / "out", *words)
    record = run_folder.load(folder)
    data = record["data"]
    assert record["status"] == "partial" and record["task"]["split"] == "subset"
    assert (data["n_expected"], data["n_scored"], data["n_failed"]) == (500, 4, 496)
    reasons = {failure["id"]: failure["reason"] for failure in data["failures"]}
    assert len(reasons) == 496 and all(reasons.values())
    assert uids[13] in reasons and reasons[uids[13]] != reasons[uids[0]]
    low, high = record["scores"][0]["bounds"]
    assert record["scores"][0]["n"] == 500 and high - low == pytest.approx(99.2)
    assert not list(folder.glob("submission*"))
    assert "no submission written: 496 of 500 questions without an answer" in capsys.readouterr().err
    assert validate.validate(folder) == []


@real
def test_real_videos_are_probed_and_the_broken_ones_are_failures(tiny: Path, tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "real_videos_csv.py"
    subprocess.run([sys.executable, script, DATA / "videos", tmp_path / "videos.csv"], check=True, capture_output=True)
    lines = (tmp_path / "videos.csv").read_text().splitlines()
    kept = [
        line
        for line in lines
        if line.rpartition(",")[0].rpartition(",")[2] in ("label", "derived", "moviepy", "decord")
    ]
    assert len(kept) > 60
    (tmp_path / "videos.csv").write_text("\n".join(kept) + "\n")
    words = ["task=folder", f"data.root={tmp_path / 'videos.csv'}", f"ckpt={tiny}", "adapter.epochs=2", "workers=2"]
    folder = run(tmp_path / "out", *words)
    record = run_folder.load(folder)
    assert record["status"] == "partial" and validate.validate(folder) == []
    failed = {Path(failure["id"]).name: failure["reason"] for failure in record["data"]["failures"]}
    left_out = {Path(one["video"]).name: one["reason"] for one in record["selection"]["undecodable"]}
    assert {name for name in failed if name.startswith("broken_")}
    assert {"broken_empty.mp4", "broken_text.mp4", "audio_only.mp4"} <= {**failed, **left_out}.keys()
    assert all(reason and "\n" not in reason for reason in {**failed, **left_out}.values())
    assert record["data"]["n_expected"] == sum(line.endswith(",test") for line in kept)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("hub/vit/model.safetensors", "vit"),
        ("run.ckpt", "FOLDER-run"),
        ("vjepa/vitl16.pt", "vitl16"),
        ("seed1/checkpoints/epoch=9.ckpt", "seed1-epoch-9"),
        ("seed1/checkpoints/last.ckpt", "seed1-last"),
        ("seed2/best.pth", "seed2-best"),
        ("hub/vit", "vit"),
        ("organization/model", "model"),
    ],
)
def test_an_encoder_is_called_by_what_tells_its_checkpoint_from_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if Path(file).suffix:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).touch()
    assert encoder_name(Options("folder", file)) == name.replace("FOLDER", tmp_path.name)
    assert encoder_name(Options("folder", file, encoder_name="mine / 2")) == "mine---2"
