"""Tasks for encoders that read: their files are taken whole, and their scores are the official ones."""

import csv
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from sklearn.metrics import average_precision_score, top_k_accuracy_score

from evalkit.api import Task
from evalkit.datasets.actions.videocon import LISTS
from evalkit.errors import UserError
from evalkit.metrics.average_precision import top1_map
from evalkit.metrics.classification import accuracy
from evalkit.results.rows import Row
from evalkit.results.scores import scores
from tests.given import ANNOTATIONS, DATA, make, real, refusal

NEXTQA, MAPS = ANNOTATIONS / "nextqa", ANNOTATIONS / "label_maps"
COLUMNS = ["video", "frame_count", "width", "height", "question", "answer", "qid", "type", "a0", "a1", "a2", "a3", "a4"]


def write(file: Path, rows: Sequence[Sequence[object]]) -> Path:
    """Writes rows as csv; the folder that they are in."""
    with file.open("w", newline="", encoding="utf-8") as lines:
        csv.writer(lines).writerows(rows)
    return file.parent


def question(number: int, answer: object = 3, kind: str = "CW") -> list[object]:
    return ["4010069381", 369, 640, 480, f"why {number}", answer, number, kind, *(f"answer {i}" for i in range(5))]


def nextqa(root: Path) -> Path:
    """Val of NExT-QA: four questions about one video."""
    return write(
        root / "val.csv", [COLUMNS, *(question(i, i, kind) for i, kind in enumerate(("CW", "TN", "TP", "DO")))]
    )


def template_list(root: Path, benchmark: str) -> Path:
    """A list as VideoCon publishes it: every template asked of every video, twelve videos of each."""
    templates = [f"Moving [something] {i} and [something] so, then back" for i in range(LISTS[benchmark][0])]
    asked = [
        [f"videos/{video}.avi", f'Human: <|video|>\nHuman: Does this video entail: "{template}"?\nAI: ', int(match)]
        for video in range(LISTS[benchmark][1])
        for i, template in enumerate(templates)
        for match in [video % len(templates) == i]
    ]
    return write(root / f"eval_{benchmark}.csv", [["videopath", "caption", "match"], *asked])


def moments(root: Path) -> Path:
    """Charades-STA: a video of three moments, of which two share their times, and one of a single sentence."""
    lines = [
        "AO8RW 0.0 6.9##a person is putting a book on a shelf.",
        "3MSZA 24.3 31.4##person turn a light on.",
        "AO8RW 12.0 19.0##a person sits down.",
        "AO8RW 12.0 19.0##a person is putting a book on a shelf.",
    ]
    (root / "charades_sta_test.txt").write_text("\n".join(lines) + "\n")
    return write(root / "Charades_v1_test.csv", [["id", "actions", "length"], ["AO8RW", "", 33], ["3MSZA", "", 30.5]])


def ten_shots(root: Path) -> Path:
    """VideoPrism's lists, with one clip of each class."""
    for split in ("train", "test"):
        entries = [
            {"file": f"vc_data/k400/{split}/{split}{c:03d}.mp4", "label": f"action {c:03d}", "label_idx": c}
            for c in range(400)
        ]
        (root / f"k400_{split}_10shot.json").write_text(json.dumps(entries))
    return root


def hard(root: Path) -> Path:
    (nextqa(root) / "atp-hard-ct4.txt").write_text("2\n0\n")
    return root


ROOTS: dict[str, Callable[[Path], Path]] = {
    "ssv2_temporal": lambda root: template_list(root, "ssv2_temporal"),
    "ssv2_events": lambda root: template_list(root, "ssv2_events"),
    "nextqa": nextqa,
    "nextqa_atp_hard": hard,
    "charades_sta": moments,
    "kinetics400_10shot": ten_shots,
}


@pytest.mark.parametrize("name", ROOTS)
def test_files_as_published_become_a_task(name: str, tmp_path: Path) -> None:
    root = ROOTS[name](tmp_path)
    task = make(name, root)
    assert task.test and task.sizes["test"] and task.license and task.source and task.version == 1
    assert all(example.video.is_relative_to(root) for example in task.test)
    assert bool(task.train) == (name == "kinetics400_10shot")


@pytest.mark.parametrize(("name", "row"), [("ssv2_temporal", 16.1), ("ssv2_events", 11.9), ("charades_sta", 50.0)])
def test_the_printed_numbers_of_videoprism_are_beside_its_tasks(name: str, row: float, tmp_path: Path) -> None:
    published = make(name, ROOTS[name](tmp_path)).published
    assert published["VideoPrism-B"] == row and "VideoPrism-LvT-B (public)" in published


def test_miniatures_share_their_films() -> None:
    videos = {name: {e.video for e in make(name, mini=True).test} for name in (*ROOTS, "ssv2", "egoschema", "diving48")}
    assert videos["nextqa"] == videos["egoschema"] > videos["nextqa_atp_hard"]
    assert videos["charades_sta"] < videos["egoschema"]
    assert videos["ssv2_temporal"] == videos["ssv2"] < videos["kinetics400_10shot"]
    assert videos["ssv2_events"] == videos["diving48"]


# --- nextqa -----------------------------------------------------------------------------------------------------------


def official(name: str) -> dict[str, float]:
    """What NExT-QA's own scorer printed of these predictions."""
    names, values, total = (DATA / "expected/nextqa" / f"expected_{name}.txt").read_text().splitlines()[:3]
    return dict(zip(names.split(), map(float, values.split()), strict=True)) | {"Acc": float(total.split()[1])}


@real
@pytest.mark.parametrize("name", ["HGA-bert-ft-h256-val", "HGA-bert-ft-h256-val-example"])
def test_the_authors_predictions_get_the_published_accuracies(name: str) -> None:
    task = make("nextqa", NEXTQA)
    given = json.loads((NEXTQA / "predictions" / f"{name}.json").read_text())
    assert given.keys() == {example.id for example in task.test}
    assert all(given[example.id]["answer"] == example.target for example in task.test)
    rows = [
        Row(example.id, str(example.video), example.kind, example.target, given[example.id]["prediction"])
        for example in task.test
    ]
    found = {entry["metric"]: round(entry["value"], 2) for entry in scores(task.score, rows, 0)}
    expected = official(name)
    assert found == {
        "accuracy": expected["Acc"],
        "accuracy/causal": expected["Acc_C"],
        "accuracy/temporal": expected["Acc_T"],
        "accuracy/descriptive": expected["Acc_D"],
    }
    assert found["accuracy"] == task.published["HGA"] == 49.74


@real
def test_every_row_of_the_real_nextqa_files_is_a_question() -> None:
    for split, kinds, twins in (("val", (2607, 1612, 777), 3), ("test", (4502, 2657, 1405), 8)):
        task = make("nextqa", NEXTQA, split=split)
        assert len(task.test) == task.sizes["test"] and task.split == split and task.chance == 20
        counted = Counter(example.kind for example in task.test)
        assert (counted["causal"], counted["temporal"], counted["descriptive"]) == kinds
        assert sum(len(set(example.choices)) < 5 for example in task.test) == twins
    first = make("nextqa", NEXTQA).test[0]
    assert (first.id, first.target, first.kind) == ("4010069381_6", 0, "causal")
    assert (first.text, first.choices[0]) == ("how do the two man play the instrument", "roll the handle")
    assert first.video == NEXTQA / "NExTVideo" / "4010069381.mp4"
    assert make("nextqa", NEXTQA, split="test").published == {}


def test_videos_of_nextqa_are_found_in_the_folders_of_vidor(tmp_path: Path) -> None:
    nextqa(tmp_path)
    there = tmp_path / "NExTVideo" / "1106" / "4010069381.mp4"
    there.parent.mkdir(parents=True)
    there.touch()
    assert {example.video for example in make("nextqa", tmp_path).test} == {there}


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (question(9, 5), "class '5': wanted a whole number from 0 to 4"),
        (question(9, ""), ""),
        (question(9, 1, "XX"), "KeyError: 'X'"),
        (question(9, 1, ""), "KeyError: ''"),
        (question(2), "question 4010069381_2 appears twice"),
    ],
)
def test_a_malformed_question_is_told_with_file_and_line(row: list[object], told: str, tmp_path: Path) -> None:
    file = nextqa(tmp_path) / "val.csv"
    with file.open("a", newline="") as lines:
        csv.writer(lines).writerow(row)
    assert refusal("nextqa", tmp_path).startswith(f"{file}, line 6: not as published: {told}")


@real
def test_atp_hard_is_the_same_by_the_numbers_of_rows_and_by_the_rows(tmp_path: Path) -> None:
    lines = (NEXTQA / "val.csv").read_text(encoding="utf-8").splitlines()
    chosen = [*range(0, 4996, 7), 4995]
    (tmp_path / "nextqa-atphard.csv").write_text("\n".join([lines[0], *(lines[1 + i] for i in chosen)]) + "\n")
    by_rows = make("nextqa_atp_hard", tmp_path)
    (tmp_path / "nextqa-atphard.csv").unlink()
    (tmp_path / "val.csv").write_text("\n".join(lines) + "\n")
    for apart in ("\n", " ", ", "):
        (tmp_path / "atp-hard-ct4.txt").write_text(apart.join(map(str, chosen)))
        assert make("nextqa_atp_hard", tmp_path).test == by_rows.test
    assert len(by_rows.test) == len(chosen) and by_rows.published["TACT-B"] == 27.6


@pytest.mark.parametrize("number", ["4", "-1", "4010069381_2"])
def test_a_row_that_val_does_not_have_is_told_with_its_line(number: str, tmp_path: Path) -> None:
    file = hard(tmp_path) / "atp-hard-ct4.txt"
    file.write_text(f"2\n\n{number}\n")
    assert refusal("nextqa_atp_hard", tmp_path).startswith(f"{file}, line 3: not as published: ")


def test_a_list_without_a_number_has_no_example(tmp_path: Path) -> None:
    (hard(tmp_path) / "atp-hard-ct4.txt").write_text("\n")
    task = make("nextqa_atp_hard", tmp_path)
    assert not task.test and task.chance == 0


def test_the_miniature_of_atp_hard_asks_what_one_frame_does_not_tell() -> None:
    assert {example.kind for example in make("nextqa_atp_hard", mini=True).test} == {"motion", "order"}


# --- charades_sta -----------------------------------------------------------------------------------------------------


def test_a_moment_is_asked_among_all_sentences_of_its_video(tmp_path: Path) -> None:
    task = make("charades_sta", moments(tmp_path))
    book, sits = "a person is putting a book on a shelf.", "a person sits down."
    assert [(e.id, e.span, e.choices, e.target) for e in task.test] == [
        ("AO8RW/0", (0.0, 6.9), (book, sits), 0),
        ("AO8RW/1", (12.0, 19.0), (book, sits), 1),
        ("AO8RW/2", (12.0, 19.0), (book, sits), 0),
        ("3MSZA/0", (24.3, 30.5), ("person turn a light on.",), 0),  # annotated until 31.4 s of 30.5
    ]
    assert task.chance == pytest.approx((3 * 50 + 100) / 4)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("AO8RW 0.0 6.9 a person sits.", "not enough values"),
        ("AO8RW 0.0##a person sits.", "not enough values"),
        ("AO8RW 0.0 6.9##", "caption '' is not text"),
        ("AO8RW 0.0 end##a person sits.", "could not convert"),
        ("AO8RW 34.0 39.0##a person sits.", "no moment from 34.0 to 39.0 s in a video of 33 s"),
        ("AO8RW nan 6.9##a person sits.", "no span from nan to 6.9 s"),
        ("OTHER 0.0 6.9##a person sits.", "KeyError: 'OTHER'"),
    ],
)
def test_a_malformed_moment_is_told_with_file_and_line(line: str, told: str, tmp_path: Path) -> None:
    file = moments(tmp_path) / "charades_sta_test.txt"
    with file.open("a") as lines:
        lines.write(line + "\n")
    assert refusal("charades_sta", tmp_path).startswith(f"{file}, line 5: not as published: {told}")


def test_the_lengths_of_the_videos_are_asked_for(tmp_path: Path) -> None:
    (moments(tmp_path) / "Charades_v1_test.csv").unlink()
    assert "has no Charades_v1_test.csv" in refusal("charades_sta", tmp_path)


# --- ssv2_temporal, ssv2_events ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("benchmark", LISTS)
def test_a_list_of_videocon_is_taken_whole(benchmark: str, tmp_path: Path) -> None:
    task = make(benchmark, template_list(tmp_path, benchmark))
    templates, videos = LISTS[benchmark]
    assert len(task.test) == len({example.id for example in task.test}) == videos == task.sizes["test"]
    assert task.classes[2] == "Moving something 2 and something so, then back"
    assert [example.target for example in task.test[:3]] == [(0,), (1,), (2,)]
    assert task.chance == 100 / templates


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (["videos/7.avi", 'entail: "Moving"?', 2], ""),
        (["videos/7.avi", "entail: Moving?", 1], "not enough values"),
    ],
)
def test_a_malformed_row_of_a_list_is_told_with_file_and_line(row: list[object], told: str, tmp_path: Path) -> None:
    file = tmp_path / "eval_ssv2_temporal.csv"
    write(file, [["videopath", "caption", "match"], row])
    assert refusal("ssv2_temporal", tmp_path).startswith(f"{file}, line 2: not as published: {told}")


@pytest.mark.parametrize(("video", "match", "videos"), [(999, 0, 217), (1, 1, 216)])
def test_a_video_without_a_template_or_with_two_is_refused(video: int, match: int, videos: int, tmp_path: Path) -> None:
    file = template_list(tmp_path, "ssv2_temporal") / "eval_ssv2_temporal.csv"
    with file.open("a", newline="") as lines:
        csv.writer(lines).writerow([f"videos/{video}.avi", '"Moving something 0 and something so, then back"', match])
    told = refusal("ssv2_temporal", tmp_path)
    assert told == f"{file}: {videos} videos; wanted one row with match 1 of each"


def test_a_list_with_other_templates_is_refused(tmp_path: Path) -> None:
    template_list(tmp_path, "ssv2_events").joinpath("eval_ssv2_events.csv").rename(tmp_path / "eval_ssv2_temporal.csv")
    assert "its files name 49 classes; wanted 18, as published" in refusal("ssv2_temporal", tmp_path)


def test_accuracy_and_map_are_scikit_learns() -> None:
    truth = [(i % 4,) for i in range(30)]
    predictions = [[((7 * i + 5 * c * c) % 31 + c / 8) / 31 for c in range(4)] for i in range(30)]
    found = top1_map(predictions, truth)
    targets = [target for (target,) in truth]
    assert list(found) == ["top1", "mAP"] and isinstance(found["top1"], list)
    assert fmean(found["top1"]) == pytest.approx(top_k_accuracy_score(targets, predictions, k=1))
    present = [[int(target == c) for c in range(4)] for target in targets]
    assert found["mAP"] == pytest.approx(100 * average_precision_score(present, predictions))


def test_what_failed_is_wrong_and_a_target_is_right() -> None:
    nothing, nan = None, float("nan")
    found = top1_map([(1,), [2], nothing, nan, [nan, nan, nan], [nan, 0.1, 0.2]], [(1,), (2,), (0,), (0,), (0,), (2,)])
    assert found["top1"] == [1, 1, 0, 0, 0, 1]
    with pytest.raises(UserError, match="wanted one score of each class"):
        top1_map([[0.1, 0.2], [0.1, 0.2, 0.3]], [(0,), (1,)])


# --- kinetics400_10shot -----------------------------------------------------------------------------------------------


@real
def test_videoprisms_lists_have_ten_clips_of_each_class() -> None:
    task = make("kinetics400_10shot", MAPS)
    names = (MAPS / "mmaction2_kinetics_label_map_k400.txt").read_text().splitlines()
    assert task.classes == tuple(names)
    for split in (task.train, task.test):
        assert len(split) == 4_000 and set(Counter(example.target for example in split).values()) == {10}
    assert not {e.id for e in task.train} & {e.id for e in task.test}
    assert task.train[0].id == "opcSPMgP0Zs_000394_000404" and task.classes[task.train[0].target] == "abseiling"
    assert task.test[0].video == MAPS / "test" / "-aU-xCCzkT0_000061_000071.mp4"
    numbers = {split: json.loads((MAPS / f"k400_{split}_10shot.json").read_text()) for split in ("train", "test")}
    assert [e.target for e in (*task.train, *task.test)] == [
        row["label_idx"] for own in numbers.values() for row in own
    ]


@real
def test_the_clips_of_videoprisms_test_list_are_of_kinetics_own_test_split() -> None:
    with (MAPS / "activitynet_crawler_kinetics-400_test.csv").open(newline="") as lines:
        published = {row["youtube_id"] for row in csv.DictReader(lines)}
    assert {example.id[:11] for example in make("kinetics400_10shot", MAPS).test} <= published


def test_a_clip_of_the_lists_is_found_in_the_folder_of_its_class(tmp_path: Path) -> None:
    there = ten_shots(tmp_path) / "test" / "action 399" / "test399.mkv"
    there.parent.mkdir(parents=True)
    there.touch()
    assert make("kinetics400_10shot", tmp_path).test[-1].video == there


@pytest.mark.parametrize("entry", [{"label": "abseiling"}, {"file": "a.mp4"}, "a.mp4", {"file": 3, "label": "x"}])
def test_a_malformed_entry_is_told_with_its_number(entry: Any, tmp_path: Path) -> None:
    file = ten_shots(tmp_path) / "k400_test_10shot.json"
    file.write_text(json.dumps([*json.loads(file.read_text()), entry]))
    assert refusal("kinetics400_10shot", tmp_path).startswith(f"{file}, entry 401: not as published: ")


def test_the_miniature_trains_on_ten_of_each_class() -> None:
    task: Task = make("kinetics400_10shot", mini=True)
    assert set(Counter(example.target for example in task.train).values()) == {10} and task.score is not accuracy
