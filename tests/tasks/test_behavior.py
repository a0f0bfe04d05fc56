"""What animals do: frames become clips, published files examples, and the mean leaves the background out."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalkit import plugins
from evalkit.api import Task, Views
from evalkit.config.keys import adapter_defaults
from evalkit.datasets import behavior
from evalkit.errors import UserError
from evalkit.metrics.average_precision import foreground_map
from evalkit.mini import film, world
from evalkit.video.clips import Decoded, read_clip
from tests.given import make, refusal

NAMES = ("calms21", "crim13", "fly_vs_fly", "kabr")


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def shoot(file: Path, fps: int, seconds: float = 3.0) -> Path:
    """A real mp4 file of a moving square."""
    thing = world.Thing("red", "square")
    film.write(world.Story((world.Step(thing, "moves left", thing, seconds, 1, 0.5),), (40, 40, 40)), file, fps)
    return file


# --- frames become clips ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fps", "stride"), [(25, 1), (30, 1), (30, 5)])
def test_a_clip_shows_the_frames_around_its_own(fps: int, stride: int, tmp_path: Path) -> None:
    video = shoot(tmp_path / "film.mp4", fps, 4.0)
    n, length = 4 * fps, 16 * stride
    views = Views("dense", frames=16, stride=stride, resize="squash")
    examples = list(behavior.frame_clips("film", video, range(n), fps, 1, stride))
    assert [example.target for example in examples] == list(range(n))
    for middle in (0, 1, length // 2, length // 2 + 1, n // 2, n - length // 2, n - 1):
        read = read_clip(video, examples[middle].span, views, 16, 16)
        assert isinstance(read, Decoded)
        first = min(max(0, middle - length // 2), n - length)
        assert [round(time * fps) for time in read.times[0]] == list(range(first, first + length, stride))


def test_a_step_as_long_as_a_clip_divides_the_video() -> None:
    examples = list(behavior.frame_clips("v", Path("v.mp4"), range(48), 1.0, 16))
    assert [example.span for example in examples] == [(0, 16), (16, 32), (32, 48)]
    assert [example.id for example in examples] == ["v/8", "v/24", "v/40"]


def test_a_video_shorter_than_a_step_has_one_example_and_one_shorter_than_a_clip_is_one() -> None:
    (one,) = behavior.frame_clips("v", Path("v.mp4"), range(20), 1.0, 80)
    assert (one.target, one.span) == (10, (2, 18))
    (one,) = behavior.frame_clips("v", Path("v.mp4"), range(5), 1.0, 80, 5)
    assert (one.target, one.span) == (2, (0, 5))


def test_a_frame_without_a_label_is_no_example() -> None:
    assert [one.target for one in behavior.frame_clips("v", Path("v.mp4"), [0, None, 2], 1.0, 1)] == [0, 2]


@pytest.mark.parametrize("name", NAMES)
def test_a_step_of_no_frame_is_refused(name: str, roots: Callable[[str], Path]) -> None:
    step = "step" if name == "kabr" else "train_step"
    assert refusal(name, roots(name), **{step: 0}).startswith("0 frames from one example to the next; ")


# --- published files --------------------------------------------------------------------------------------------------


def calms21(root: Path) -> Path:
    vocabulary = {"attack": 0, "investigation": 1, "mount": 2, "other": 3}
    for split, labels in (("train", [3] * 10 + [0] * 10 + [2] * 10), ("test", [3, 1, 1])):
        sequence = {"keypoints": [], "scores": [], "annotations": labels, "metadata": {"vocab": vocabulary}}
        content = {"annotator-id_0": {f"task1/{split}/mouse_{split}": sequence}}
        write(root / "task1_classic_classification" / f"calms21_task1_{split}.json", json.dumps(content))
    return root


BEHAVIORS = ["approach", "attack", "chase", "circle", "clean", "copulation", "drink", "eat", "human", "other", "sniff"]
BEHAVIORS += ["up", "walk_away"]


def annotation(*bouts: tuple[int, int, str]) -> str:
    lines = [f"{start}\t{end}\t{behavior}" for start, end, behavior in bouts]
    kinds = [f"{behavior}\t{behavior[0]}" for behavior in BEHAVIORS]
    head = ["Caltech Behavior Annotator - Annotation File", "", "Configuration file:", *kinds, ""]
    return "\n".join(
        [*head, "S1:\tstart\tend\ttype", "-" * 29, *lines, "", "S2: start end type", "-" * 29, "1 9 up", ""]
    )


def crim13(root: Path) -> Path:
    all_of_them = [(10 * i + 1, 10 * i + 10, behavior) for i, behavior in enumerate(BEHAVIORS)]
    write(root / "CRIM13_train1" / "010609_A02.txt", annotation(*all_of_them))
    write(root / "CRIM13_train2" / "readme.txt", "of another kind")
    write(root / "CRIM13_test1" / "020609_A03_s.txt", annotation((1, 2, "other"), (3, 3, "sniff")))
    write(root / "CRIM13_test1" / "020609_A03_t.txt", annotation((1, 3, "eat")))
    write(root / "CRIM13_validation" / "030609_A04.txt", annotation((1, 3, "dancing")))
    return root


def fly_vs_fly(root: Path) -> Path:
    for split, movie in (("train", "Aggression/movie1"), ("test", "Courtship/movie7")):
        with (root / f"{split}.txt").open("w") as file:
            file.write(movie + "\n")
        fly(root / movie, [("lunge", 0, [(2, 3)]), ("wing_threat", 1, [(3, 4)]), ("touch", 0, [(1, 6)])], hidden=5)
    return root


def fly(folder: Path, bouts: list[tuple[str, int, list[tuple[int, int]]]], frames: int = 6, hidden: int = 0) -> None:
    """Writes a movie's MATLAB files: bouts of a behavior and a fly, in frames from 1, one of which has no tracking."""
    from scipy.io import savemat  # type: ignore[import-untyped]

    behaviors = sorted({behavior for behavior, _, _ in bouts})
    cells = np.empty((2, len(behaviors)), dtype=object)
    for row, column in np.ndindex(cells.shape):
        cells[row, column] = np.zeros((0, 3))
    for name, row, stretches in bouts:
        cells[row, behaviors.index(name)] = np.array([[*one, 1] for one in stretches], dtype=np.float64)
    data = np.zeros((2, frames, 4))
    if hidden:
        data[1, hidden - 1, 2] = np.nan
    folder.mkdir(parents=True, exist_ok=True)
    named = np.array(behaviors, dtype=object)[None]
    savemat(folder / f"{folder.name}_actions.mat", {"behs": named, "bouts": cells})
    savemat(folder / f"{folder.name}_feat.mat", {"feat": {"names": named, "data": data}})


KABR = ("Walk", "Graze", "Browse", "Head Up", "Auto-Groom", "Trot", "Run", "Occluded")


def kabr(root: Path) -> Path:
    write(root / "annotation" / "classes.json", json.dumps({name: i for i, name in enumerate(KABR)}))
    for split, videos in (("train", {"ZG0001.1": 0, "G0002.1": 6}), ("val", {"ZP0003.1": 3})):
        rows = ["original_vido_id video_id frame_id path labels"]
        for number, (name, label) in enumerate(videos.items(), 1):
            labels = [7] * 50 + [label] * 50
            rows += [f"{name} {number} {i} {name}/{i}.jpg {one}" for i, one in enumerate(labels, 1)]
        write(root / "annotation" / f"{split}.csv", "\n".join(rows) + "\n")
    return root


@pytest.fixture
def roots(tmp_path: Path) -> Callable[[str], Path]:
    """A tiny sample of a benchmark, laid out as published."""
    return lambda name: {"calms21": calms21, "crim13": crim13, "fly_vs_fly": fly_vs_fly, "kabr": kabr}[name](tmp_path)


def named(task: Task, examples: Any) -> list[tuple[str, ...]]:
    return [tuple(task.classes[c] for c in one.target) for one in examples]


@pytest.mark.parametrize("name", NAMES)
def test_files_as_published_become_videoprisms_task(name: str, roots: Callable[[str], Path]) -> None:
    task = make(name, roots(name))
    assert task.published["VideoPrism-g"] == {"fly_vs_fly": 92.0, "calms21": 91.5, "crim13": 65.9, "kabr": 63.3}[name]
    assert task.views == Views("dense", frames=16, stride=5 if name == "kabr" else 1, resize="squash")
    assert (task.settings["lr"], task.settings["dropout"]) == (5e-6 if name == "kabr" else 5e-5, 0.5)
    assert set(task.settings) <= set(adapter_defaults("probe"))
    assert task.classes[0] == ("Walk" if name == "kabr" else behavior.BACKGROUND) and task.augment is None


def test_each_frame_of_calms21_has_one_behavior(roots: Callable[[str], Path]) -> None:
    task = make("calms21", roots("calms21"))
    assert named(task, task.test) == [("(other)",), ("investigation",), ("investigation",)]
    assert [one.id for one in task.test] == ["mouse_test/0", "mouse_test/1", "mouse_test/2"]
    assert [(one.id, one.span) for one in task.train] == [
        ("mouse_train/8", (0, 16 / 30)),
        ("mouse_train/24", (14 / 30, 1)),
    ]
    assert named(task, task.train) == [("(other)",), ("mount",)]


def test_the_first_stream_of_crim13_names_each_frame_in_the_wanted_view(roots: Callable[[str], Path]) -> None:
    root = roots("crim13")
    side, top = (make("crim13", root, view=view, train_step=1) for view in ("side", "top"))
    assert named(side, side.test) == [("(other)",), ("(other)",), ("sniff",)] and named(top, top.test) == [("eat",)] * 3
    assert [one.video for one in side.test][:1] == [root / "CRIM13_test1" / "020609_A03_s.mp4"]
    assert {one.video for one in top.train} == {root / "CRIM13_train1" / "010609_A02_t.mp4"}
    assert Counter(named(side, side.train)) == {
        (behavior.BACKGROUND if one == "other" else one,): 10 for one in BEHAVIORS
    }
    assert (side.split, top.split, top.published["VideoPrism-g"]) == ("side", "top", 66.8)


def test_a_gap_in_crim13_is_no_frame_of_any_behavior(roots: Callable[[str], Path]) -> None:
    root = roots("crim13")
    write(root / "CRIM13_test1" / "020609_A03_s.txt", annotation((2, 2, "other"), (4, 5, "sniff")))
    assert [one.id for one in make("crim13", root).test] == ["020609_A03/1", "020609_A03/3", "020609_A03/4"]


def test_two_flies_share_the_labels_of_a_frame_and_untracked_frames_are_left_out(roots: Callable[[str], Path]) -> None:
    task = make("fly_vs_fly", roots("fly_vs_fly"))
    assert named(task, task.test) == [
        (behavior.BACKGROUND,),
        ("lunge",),
        ("lunge", "wing threat"),
        ("wing threat",),
        (behavior.BACKGROUND,),
    ]
    assert [one.id.rpartition("/")[2] for one in task.test] == ["0", "1", "2", "3", "5"]
    assert task.test[0].video.parts[-3:] == ("Courtship", "movie7", "movie7.mp4")


def test_clips_of_kabr_have_the_class_of_their_middle(roots: Callable[[str], Path]) -> None:
    task = make("kabr", roots("kabr"))
    assert task.classes == KABR
    assert [(one.id, one.target, one.span) for one in task.train] == [
        ("ZG0001.1/40", 7, (0, 80 / 30)),
        ("G0002.1/40", 7, (0, 80 / 30)),
    ]
    assert [one.target for one in make("kabr", task.test[0].video.parents[2], step=50).test] == [7, 3]


# --- what is wrong with them ------------------------------------------------------------------------------------------

CRIM = ("crim13", "CRIM13_test1/020609_A03_s.txt")
BROKEN = [
    ("kabr", "annotation/val.csv", "ZP0003.1 1 101 x.jpg 8", "line 102: not as published: "),
    ("kabr", "annotation/val.csv", "ZP0003.1 1 103 x.jpg 3", "line 102: not as published: frame 103 after"),
    ("kabr", "annotation/val.csv", "ZP0003.1 1 101 x.jpg", "line 102: 4 values; wanted 5"),
    (*CRIM, annotation((1, 3, "other"), (3, 4, "eat")), "line 21: not as published: frames 3 to 4 after f"),
    (*CRIM, annotation((1, 3, "other"), (5, 4, "eat")), "line 21: not as published: frames 5 to 4 after f"),
    (*CRIM, annotation((0, 3, "other")), "line 20: not as published: frames 0 to 3 after frame 0"),
    (*CRIM, annotation((1, 3, "walk away")), "line 20: not as published: "),
]


@pytest.mark.parametrize(("name", "file", "row", "told"), BROKEN)
def test_a_malformed_row_is_told_with_file_and_line(
    name: str, file: str, row: str, told: str, roots: Callable[[str], Path]
) -> None:
    path = roots(name) / file
    write(path, row if name == "crim13" else path.read_text() + row + "\n")
    assert refusal(name, path.parents[1]).startswith(f"{path}, {told}")


@pytest.mark.parametrize("changed", [{"annotations": [0, 4]}, {"annotations": ["attack"]}, {"metadata": {}}])
def test_a_malformed_sequence_of_calms21_is_told_with_its_name(
    changed: dict[str, Any], roots: Callable[[str], Path]
) -> None:
    file = roots("calms21") / "task1_classic_classification" / "calms21_task1_test.json"
    content = json.loads(file.read_text())
    content["annotator-id_0"]["task1/test/mouse_test"].update(changed)
    write(file, json.dumps(content))
    told = refusal("calms21", file.parents[1])
    assert told.startswith(f"{file}, task1/test/mouse_test: not as published: KeyError")
    write(file, json.dumps(content | {"annotator-id_0": 3}))
    assert refusal("calms21", file.parents[1]).startswith(f"{file}, annotator-id_0: not as published: AttributeError")


def test_malformed_files_of_fly_vs_fly_are_told(roots: Callable[[str], Path]) -> None:
    root = roots("fly_vs_fly")
    movie = root / "Courtship" / "movie7"
    fly(movie, [("lunging", 0, [(5, 6)])])
    told = f"{movie}/movie7_actions.mat: not as published: a behavior 'lunging'"
    assert refusal("fly_vs_fly", root) == told
    fly(movie, [("lunge", 0, [(5, 7)])])
    assert refusal("fly_vs_fly", root).endswith("actions.mat: not as published: lunge in frames 5 to 7 of 6")
    write(movie / "movie7_feat.mat", "no such thing")
    assert refusal("fly_vs_fly", root).startswith(f"cannot read {movie}/movie7_feat.mat as a MATLAB file: ")
    write(root / "test.txt", "Courtship/movie8\n")
    assert refusal("fly_vs_fly", root) == f"{root}/test.txt, line 1: no folder {root}/Courtship/movie8"
    (root / "test.txt").unlink()
    assert refusal("fly_vs_fly", root).startswith(f"data.root={root} has no test.txt")


def test_classes_that_are_missing_or_two_annotations_of_one_session_are_told(roots: Callable[[str], Path]) -> None:
    root = roots("crim13")
    again = write(root / "CRIM13_test2" / "020609_A03_s.txt", annotation((1, 3, "up")))
    told = refusal("crim13", root)
    assert told.startswith("two annotations of 020609_A03: ") and told.endswith(f"{again}; leave one there")
    again.unlink()
    write(root / "CRIM13_train1" / "010609_A02.txt", annotation((1, 9, "up")))
    assert refusal("crim13", root).startswith(f"data.root={root}: its files name 3 classes; wanted 13, as published")


@pytest.mark.parametrize(
    ("name", "file", "split"), [("kabr", "annotation/val.csv", "test"), ("fly_vs_fly", "train.txt", "train")]
)
def test_a_split_without_a_frame_is_told(name: str, file: str, split: str, roots: Callable[[str], Path]) -> None:
    path = roots(name) / file
    write(path, path.read_text().splitlines()[0] if name == "kabr" else "")
    reason = f"{name}: its files have no labeled frame of {split}"
    if name == "kabr":
        reason = f"{path} has no rows below its header"
    assert refusal(name, path.parents[file.count("/")]) == reason


RAW = {
    "calms21": ("task1_videos_seq/train/mouse_train.seq", "task1_videos_mp4/train/mouse_train.mp4"),
    "crim13": ("CRIM13_train1/seq/010609_A02_s.seq", "CRIM13_train1/seq/010609_A02_s.mp4"),
    "fly_vs_fly": ("Aggression/movie1/movie1.seq", "Aggression/movie1/movie1.mp4"),
    "kabr": ("dataset/image/ZG0001.1/1.jpg", "dataset/video/ZG0001.1.mp4"),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_video_that_no_decoder_reads_is_told_with_what_to_make_of_it(name: str, roots: Callable[[str], Path]) -> None:
    root = roots(name)
    raw, wanted = (root / path for path in RAW[name])
    write(raw, "")
    told = refusal(name, root)
    assert told.startswith(str(raw.parent if name == "kabr" else raw)) and f"to {wanted}, each frame once" in told
    write(wanted, "")
    assert make(name, root).train[0].video == wanted


def test_a_video_whose_rate_is_not_that_of_its_labels_is_told_before_it_is_read(roots: Callable[[str], Path]) -> None:
    task = make("calms21", roots("calms21"))
    assert task.prepare_videos
    task.prepare_videos(task.train)  # one that is missing is counted when it is read
    write(task.train[0].video, "damaged")
    task.prepare_videos(task.train)
    shoot(task.train[0].video, 30)
    task.prepare_videos(task.train)
    shoot(task.train[0].video, 25)
    with pytest.raises(UserError, match=r"mouse_train.mp4: 25 frames a second; its labels count 30: convert it again"):
        task.prepare_videos(task.train)


# --- miniatures -------------------------------------------------------------------------------------------------------


def test_miniatures_share_films_and_have_a_background_where_the_real_ones_do() -> None:
    minis = {name: plugins.factory("task", name)(mini=True) for name in NAMES}
    for name in ("calms21", "crim13", "fly_vs_fly"):
        task = minis[name]
        assert task.classes[0] == behavior.BACKGROUND and task.score is foreground_map
        held = Counter(c for one in task.test for c in one.target)
        assert set(held) == set(range(len(task.classes)))
        assert all(one.target == (0,) or 0 not in one.target for one in task.test)
    assert max(len(one.target) for one in minis["fly_vs_fly"].test) > 1
    videos = {name: {one.video for one in task.test} for name, task in minis.items()}
    assert videos["calms21"] == videos["crim13"] == videos["kabr"]
    diving = plugins.factory("task", "diving48")(mini=True)
    assert videos["fly_vs_fly"] == {one.video for one in diving.test}
