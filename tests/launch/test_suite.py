"""Suites: a paper's tasks with one encoder, and what the paper prints beside them."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from evalkit.cli import main
from evalkit.config import named
from evalkit.datasets import published
from evalkit.datasets import suites as suite_files
from evalkit.datasets.suites import Suite, read, suites
from evalkit.errors import UserError
from evalkit.launch import suite
from evalkit.launch.suite import plan, table
from evalkit.launch.sweep import Done
from evalkit.metrics import videoglue

pytestmark = pytest.mark.usefixtures("decoding_here")

TWO = """# Two tasks of one's own.
cells:
  frozen: [task=./left.py, task=./right.py adapter.head=linear]
"""
TASK = '''"""A task."""
from pathlib import Path
from evalkit.api import Example, Task
from evalkit.metrics import top1_top5
def task(root: Path = Path("films"), start: int = 0) -> Task:
    """Left or right."""
    all = [Example(f"{{i}}", root / f"{{i:02d}}.mp4", i % 2) for i in range(start, 12)]
    return Task(all[4:], top1_top5, train=all[:4], classes=("left", "right"), chance=50.0)
'''


@pytest.fixture
def own(tmp_path: Path, films: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a suite of two tasks and their films, which is the current one."""
    shutil.copytree(films, tmp_path / "films")
    for name in ("left", "right"):
        (tmp_path / f"{name}.py").write_text(TASK.format())
    (tmp_path / "two.yaml").write_text(TWO)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", suites())
def test_every_suite_can_be_planned_as_miniatures(name: str) -> None:
    found = read(name)
    jobs, planned = plan(found, ["ckpt=demo", "mini=true"])
    assert jobs.on == "local" and jobs.count is None
    assert len(planned) == sum(len(lines) for lines in found.cells.values())
    assert all(cell.config.options.mini for _, cell in planned)


@pytest.mark.parametrize("name", suites())
def test_every_row_of_a_suite_is_printed_somewhere(name: str) -> None:
    found = read(name)
    printed = {number.row for number in published.published_numbers()}
    assert {row for rows in (*found.rows.values(), *found.sizes.values()) for row in rows} <= printed
    assert list(found.sizes) == sorted(found.sizes)


@pytest.mark.parametrize("name", suites())
def test_every_suite_says_what_of_its_paper_is_missing(name: str) -> None:
    lines = suites()[name].read_text().splitlines()
    assert len([line for line in lines if line.startswith("# Missing: ")]) == 1
    assert " Missing: " in named.summary(suites()[name])


@pytest.mark.parametrize("name", ["videoglue", "videoprism", "videoglue_score"])
def test_a_suite_of_frozen_encoders_has_a_task_of_every_group(name: str) -> None:
    tasks = {line.split()[0].removeprefix("task=") for line in read(name).cells["frozen"]}
    assert tasks == {task for group in videoglue.GROUPS.values() for task in group}


# --- the VideoGLUE score ----------------------------------------------------------------------------------------------

GFLOPS = {"frozen": 3.72, "mlap": 14.9, "adapter": 6.44, "finetune": 367.0}  # as printed
SCORED = read("videoglue_score")


def printed_of(row: str, how: str) -> dict[str, float]:
    """What is printed of an encoder on the tasks of the suite."""
    tasks = [line.split()[0].removeprefix("task=") for line in SCORED.cells[how]]
    values = [published.rows(task, "mAP" if task in MAP else "top1", how)[row] for task in tasks]
    return dict(zip(tasks, values, strict=True))


MAP = ("charades", "activitynet_tal", "ava", "ava_kinetics")


def ended(
    values: Mapping[str, Mapping[str, float | None]], gflops: Mapping[str, float | None] = GFLOPS, mini: str = ""
) -> list[tuple[str, Done]]:
    """Runs of CLIP-B that came to these scores by adaptation and task; those after the first task cost a thousand."""
    cell: Any = plan(Suite({"frozen": ["task=kinetics400"]}), ["ckpt=demo", "mini=true"])[1][0][1]
    done = []
    for how, of_task in values.items():
        for k, (task, value) in enumerate(of_task.items()):
            cost = gflops[how]
            record = {
                "task": {"name": f"{task}{mini}", "split": "val", "protocol": {}},
                "encoder": {"ckpt": "clip_base", "parameters": 150_000_000},
                "adapter": {"trainable_flops": 1e12 if k else cost and cost * 1e9},
                "scores": [{"metric": "mAP" if task in MAP else "top1", "value": value, "ci95": [None, None], "n": 9}],
                "chance": 0.0,
            }
            done.append((how, Done(cell, record if value is not None else None, "no video")))
    return done


def of_umt() -> dict[str, dict[str, float | None]]:
    return {how: {**printed_of("UMT-B", how)} for how in videoglue.ADAPTATIONS}


def test_every_adaptation_has_its_printed_numbers_its_mean_and_all_have_one_score() -> None:
    assert [*SCORED.cells] == [*videoglue.ADAPTATIONS]
    lines = table(SCORED, ended(of_umt())).splitlines()
    assert len(lines) == 1 + 8 + 8 + 7 + 7 + 4 + 1
    for line, how in zip(lines[1::8], ("frozen", "mlap", "adapter"), strict=False):
        assert line.split()[:2] == ["kinetics400", how]
        clip = published.rows("kinetics400", "top1", how)["CLIP-B"]
        assert line.split()[-2:] == [f"{clip:.1f}", "CLIP-B"]
    means = {line.split()[2]: line.split()[3:] for line in lines if line.startswith("stratified mean")}
    for how, printed, of_clip in (("frozen", 38.0, "32.8"), ("mlap", 45.6, "43.3"), ("adapter", 52.4, "49.3")):
        assert float(means[how][0]) == pytest.approx(printed, abs=0.1) and means[how][1:] == [of_clip, "CLIP-B"]
    # By hand: (38.02 / 0.57054 + 45.62 / 1.17319 + 52.425 / 0.80889 + 55.2625 / 2.56467) / 4.23128; 0.57054 is the
    # logarithm of 3.72, and 4.23128 the sum of 1 / 0.57054 and the others. VideoPrism prints 45.3, too.
    by_hand = (66.6383 + 38.8856 + 64.8114 + 21.5476) / 4.23128
    assert by_hand == pytest.approx(45.3487, abs=1e-3)
    assert lines[-1].split() == ["VideoGLUE", "score", "all", f"{by_hand:.1f}", "41.5", "CLIP-B"]


def test_a_mean_wants_every_task_of_its_adaptation_and_the_score_every_mean() -> None:
    values = of_umt()
    values["mlap"]["ava"] = None
    lines = table(SCORED, ended(values)).splitlines()
    assert [line.split()[2] for line in lines if line.startswith("stratified")] == ["frozen", "adapter", "finetune"]
    assert not any("VideoGLUE score" in line for line in lines)
    assert next(line for line in lines if "failed" in line).startswith("kinetics400")  # the cell of all of them here


@pytest.mark.parametrize(("cost", "told"), [(0.053, "costs 0.053"), (1.0, "costs 1"), (None, "costs nan")])
def test_why_four_means_have_no_score_is_one_line(cost: float | None, told: str) -> None:
    lines = table(SCORED, ended(of_umt(), {**GFLOPS, "frozen": cost}, "@mini")).splitlines()
    assert lines[-1] == (
        f"no VideoGLUE score: adaptation 'frozen' {told}; wanted a number above 1 "
        "(trainable GFLOPs per clip of kinetics400@mini)"
    )
    assert lines[-2].split() == ["stratified", "mean", "finetune", lines[-2].split()[3]]  # nothing in print


def test_miniatures_beside_real_tasks_have_no_mean() -> None:
    values = of_umt()
    done = [*ended({"frozen": values["frozen"]}), *ended({"mlap": values["mlap"]}, mini="@mini")]
    assert "stratified" not in table(SCORED, done)


@pytest.mark.parametrize(
    ("mean", "task", "told"), [("average", "ssv2", "mean: average"), ("stratified", "folder", "'folder' is not one")]
)
def test_a_mean_that_cannot_be_taken_is_told_before_anything_is_run(mean: str, task: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        plan(Suite({"frozen": [f"task={task}"]}, mean=mean), ["ckpt=demo", "mini=true"])


def test_longvivit_has_its_captions_and_summaries_beside_the_fine_tuned_rows() -> None:
    found = read("longvivit")

    def beside(task: str, metric: str, protocol: str) -> tuple[str, str]:
        encoder = {"ckpt": "longvivit_large", "parameters": 300_000_000}
        record = {"task": {"name": task, "split": "val", "protocol": {"name": protocol}}, "encoder": encoder}
        return suite_files.nearest_published(found, "fine-tuned", record | {"scores": [{"metric": metric}]})

    assert beside("activitynet_captions", "ROUGE-L", "paragraph") == ("24.0", "LongViViT")
    assert beside("youcook2_paragraph", "ROUGE-L", "") == ("30.6", "LongViViT")
    assert beside("activitynet_captions", "CIDEr", "given") == ("", "")  # scored over videos: of no paper


def test_the_nearest_row_is_the_encoders_own_else_one_of_its_size() -> None:
    found = read("videoglue")
    assert found.nearest("clip_base", 150_000_000) == ["CLIP-B"]
    assert found.nearest("/runs/mine.ckpt", 90_000_000) == ["VideoPrism-B"]
    assert found.nearest("/runs/mine.ckpt", 1_100_000_000) == ["VideoPrism-g"]


def test_the_table_has_the_printed_number_of_a_real_task_and_none_of_a_miniature() -> None:
    found = read("videoprism")

    def beside(task: str, split: str, metric: str, how: str) -> tuple[str, str]:
        encoder = {"ckpt": "videoprism_lvt_base", "parameters": 248_000_000}
        record = {"task": {"name": task, "split": split}, "encoder": encoder, "scores": [{"metric": metric}]}
        return suite_files.nearest_published(found, how, record)

    assert beside("kinetics400", "val", "top1", "frozen") == ("82.9", "VideoPrism-B (public)")
    assert beside("kinetics400", "val", "top1", "zero-shot") == ("69.2", "VideoPrism-LvT-B (public)")
    assert beside("msrvtt", "1k-A", "t2v_R@1", "zero-shot") == ("50.1", "VideoPrism-LvT-B (public)")
    assert beside("kinetics400@mini", "mini", "top1", "frozen") == ("", "")


def test_a_word_is_for_every_task_or_for_the_one_it_names(own: Path) -> None:
    cells = {"frozen": ["task=kinetics400 adapter.lr=0.1", "task=ssv2"]}
    words = ["ckpt=demo", "mini=true", "seed=3", "ssv2.adapter.lr=0.2", "kinetics400.adapter.epochs=2"]
    _, planned = plan(Suite(cells), words)
    kinetics, ssv2 = (cell.config for _, cell in planned)
    assert (kinetics.adapter, ssv2.adapter) == ({"lr": 0.1, "epochs": 2}, {"lr": 0.2})
    assert kinetics.options.seed == ssv2.options.seed == 3


def test_both_tasks_are_run_and_the_second_time_found(
    own: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", "suite=two.yaml", f"ckpt={tiny}", "canary=false", "adapter.epochs=1"]
    assert main(words) == 0
    first = capsys.readouterr()
    lines = first.out.splitlines()[-3:]
    assert lines[0].split()[:4] == ["task", "how", "metric", "score"]
    assert [line.split()[:3] for line in lines[1:]] == [["left", "frozen", "top1"], ["right", "frozen", "top1"]]
    assert main(words) == 0
    second = capsys.readouterr()
    assert second.out.splitlines() == lines
    assert second.err.count("already there") == 2


def test_a_failed_task_ends_only_its_own_line(own: Path, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own / "left.py").write_text((own / "left.py").read_text().replace('Path("films")', 'Path("nowhere")'))
    assert main(["run", "suite=two.yaml", f"ckpt={tiny}", "canary=false", "adapter.epochs=1"]) == 1
    lines = capsys.readouterr().out.splitlines()[-2:]
    assert "failed: none of the" in lines[0]
    assert lines[1].split()[:3] == ["right", "frozen", "top1"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["suite=videoglu", "ckpt=demo"], "suite=videoglu: there is no such suite. Did you mean 'videoglue'?"),
        (["suite=videoglue", "ckpt=demo", "task=ssv2"], "task=ssv2: a suite has its own tasks"),
        (["suite=videoglue", "ckpt=demo", "lr=1"], "unknown key 'lr'"),
    ],
)
def test_a_wrong_word_is_told_before_anything_is_run(words: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told.replace("?", r"\?")):
        suite.run(words)


def test_a_file_that_is_no_suite_is_refused(tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text("tasks: [a]\n")
    with pytest.raises(UserError, match="is not a suite: .*tasks.*; wanted cells"):
        read(str(tmp_path / "wrong.yaml"))


def test_suites_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "suites"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines() if not line.startswith(" ")] == list(suites())


def test_a_message_names_a_key_as_it_is_typed_in_a_suite() -> None:
    one = read("videoglue")
    for words, told in (
        (
            ["kinetics40.data.root=/d"],
            "unknown key 'kinetics40.data.root': the suite has no task 'kinetics40'. "
            "Did you mean 'kinetics400.data.root'?",
        ),
        (["kinetics400.data.rot=/d"], "unknown key 'kinetics400.data.rot'. Did you mean 'kinetics400.data.root'?"),
        (["ssv2.clip.frames=0"], "ssv2.clip.frames=0: expected a whole number above 0"),
        (["clip.frames=0"], "clip.frames=0: expected a whole number above 0"),
    ):
        with pytest.raises(UserError) as caught:
            plan(one, ["ckpt=demo", *words])
        assert str(caught.value) == told
