"""The board beside what papers print."""

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from evalkit.datasets import published, suites
from evalkit.metrics import activitynet_map, ava_map, captions
from evalkit.metrics.classification import top1_top5
from evalkit.results.rows import Row
from tests.leaderboard.boards import Edit, cells, hits, lines, page, put, texts

comparison = importlib.import_module("evalkit.leaderboard.comparison")


def paper(protocol: str, adapter: str = "probe", parameters: int = 90_000_000, **settings: Any) -> Edit:
    """An edit that makes a record one by a paper's protocol, on the split that papers print."""

    def edit(record: dict[str, Any]) -> None:
        record["task"] |= {"split": "val", "protocol": {"name": protocol, "adapter": adapter}}
        record["adapter"] |= {"name": adapter, "settings": settings}
        record["encoder"]["parameters"] = parameters
        record["task"]["protocol"] |= {"shots": settings["shots"]} if "shots" in settings else {}
        if adapter in ("zero_shot", "own_head") or "probe" in settings:
            record["selection"] = None

    return edit


def beside(results: Path, encoder: str, n: int, edit: Edit) -> dict[str, str]:
    put(results, hits(n, 400), "kinetics400", encoder, edit=edit, score=top1_top5)
    (cell,) = cells(results)
    return {key: cell[key] for key in ("printed", "printed_of", "printed_in", "difference", "verdict")}


def test_what_a_paper_prints_of_the_same_encoder_is_within_the_interval_or_differs(tmp_path: Path) -> None:
    of_clip = {"printed": "75.2", "printed_of": "CLIP-B", "printed_in": "videoprism, table 2/13"}
    near, far = (beside(tmp_path / str(n), "clip_base", n, paper("videoglue")) for n in (300, 200))
    assert near == of_clip | {"difference": "-0.2", "verdict": "within interval"}
    assert far == of_clip | {"difference": "-25.2", "verdict": "differs"}
    assert lines(page(tmp_path / "300"), "| kinetics400, val, frozen, videoglue, top1 |") == [
        "| kinetics400, val, frozen, videoglue, top1 | clip_base | 75.0 (70.8 to 79.2) | 75.2 | CLIP-B "
        "| [videoprism, table 2/13](https://arxiv.org/abs/2402.13217v3) | -0.2 | within interval |"
    ]


@pytest.mark.parametrize(
    ("encoder", "edit", "printed", "of", "verdict"),
    [
        ("clip_base", paper("videoglue", head="mlap"), "77.1", "CLIP-B", "within interval"),
        ("clip_base", paper("videoglue_finetune", "finetune", tune="adapters"), "80.2", "CLIP-B", "differs"),
        ("clip_base", paper("videoglue_finetune", "finetune", tune="all"), "81.0", "CLIP-B", "differs"),
        ("clip_base", paper("videoglue_finetune", "finetune", tune="lora"), "", "", ""),
        ("clip_base", paper("videoglue", "own_head"), "81.0", "CLIP-B", "differs"),
        ("clip_base", paper("videoglue", shots=10), "", "", ""),
        ("videoprism_lvt_base", paper("videoglue", "zero_shot"), "69.2", "VideoPrism-LvT-B (public)", "differs"),
        ("mine", paper("videoprism"), "84.2", "VideoPrism-B", "another encoder"),
    ],
)
def test_a_printed_number_is_of_the_same_adaptation_and_of_no_other_encoder_unsaid(
    tmp_path: Path, encoder: str, edit: Edit, printed: str, of: str, verdict: str
) -> None:
    found = beside(tmp_path, encoder, 300, edit)
    assert (found["printed"], found["printed_of"], found["verdict"]) == (printed, of, verdict)


@pytest.mark.parametrize(
    ("protocol", "settings", "printed"),
    [
        ("vjepa2", {}, ("85.1", "V-JEPA 2 L")),
        ("vjepa2", {"probe": "released.pt"}, ("85.1", "V-JEPA 2 L")),  # a classifier that its authors have trained
        ("videoglue", {}, ("84.2", "VideoPrism-B")),  # another encoder under the same protocol
    ],
)
def test_a_number_of_one_protocol_stands_beside_that_protocol_alone(
    tmp_path: Path, protocol: str, settings: dict[str, Any], printed: tuple[str, str]
) -> None:
    edit = paper(protocol, "attentive_classifier", **settings)
    found = beside(tmp_path, "vjepa2_large", 300, edit)
    assert (found["printed"], found["printed_of"]) == printed


@pytest.mark.parametrize(
    ("protocol", "title"), [("videoglue", "videoglue"), ("videoprism", "videoprism"), ("x", "Other")]
)
def test_a_task_stands_under_the_suite_whose_protocol_it_is(tmp_path: Path, protocol: str, title: str) -> None:
    put(tmp_path, hits(3, 4), "kinetics400", edit=paper(protocol), score=top1_top5)
    assert lines(page(tmp_path), "## ")[0].startswith(f"## {title}")


def test_every_task_of_every_suite_is_asked_for_in_words_that_papers_print_under() -> None:
    wanted = comparison.suites_by_cell()
    assert {name for names in wanted.values() for name in names} == set(suites.suites())
    assert {how for _, how, _ in wanted} <= {number.adaptation for number in published.published_numbers()}


@pytest.mark.parametrize(
    ("adapter", "settings", "printed"),
    [("localizer", {"head": "gtad", "layers": 1}, "32.7"), ("localizer", {"head": "gtad", "layers": 4}, "33.9")],
)
def test_localization_stands_beside_the_numbers_of_its_layers(
    tmp_path: Path, adapter: str, settings: dict[str, Any], printed: str
) -> None:
    rows = [Row(f"q{i}", f"v{i}", target=[[0.0, 1.0, "a"]], prediction=[[0.0, 1.0, "a", 0.5]]) for i in range(4)]
    edit = paper("videoglue", adapter, **settings)
    put(tmp_path, rows, "activitynet_tal", "clip_base", edit=edit, score=activitynet_map)
    assert [cell["printed"] for cell in cells(tmp_path)] == [printed]
    title = "## videoglue:" if settings["layers"] == 1 else "## videoglue_score:"
    assert lines(page(tmp_path), "## ")[0].startswith(title)
    assert "Missing:" not in lines(page(tmp_path), "## ")[0]


def test_the_title_of_a_suite_is_no_advice_for_who_runs_it() -> None:
    for name, file in suites.suites().items():
        title = comparison.title(file)
        assert "=" not in title and "https://arxiv.org/abs/" in title and not title.endswith("."), (name, title)


@pytest.mark.parametrize(("protocol", "printed"), [("videoglue", "21.1"), ("videoglue_truth", "")])
def test_given_boxes_stand_beside_no_number_of_detected_ones(tmp_path: Path, protocol: str, printed: str) -> None:
    box = [0.1, 0.1, 0.5, 0.5, "sit"]
    rows = [Row(f"q{i}", f"v{i}", target=[box], prediction=[[*box, 0.5]]) for i in range(4)]
    put(tmp_path, rows, "ava", "clip_base", edit=paper(protocol, head="box"), score=ava_map)
    assert [cell["printed"] for cell in cells(tmp_path)] == [printed]


@pytest.mark.parametrize(
    ("edit", "printed"),
    [
        (paper("videoglue", head="box", layers=4), "27.7"),
        (paper("videoglue_finetune", "finetune", tune="adapters", head="auto"), "24.5"),
        (paper("videoglue_finetune", "finetune", tune="all", head="box"), "27.1"),
    ],
)
def test_boxes_stand_beside_the_numbers_of_their_adaptation(tmp_path: Path, edit: Edit, printed: str) -> None:
    box = [0.1, 0.1, 0.5, 0.5, "sit"]
    rows = [Row(f"q{i}", f"v{i}", target=[box], prediction=[[*box, 0.5]]) for i in range(4)]
    put(tmp_path, rows, "ava", "clip_base", edit=edit, score=ava_map)
    assert [cell["printed"] for cell in cells(tmp_path)] == [printed]
    assert lines(page(tmp_path), "## ")[0].startswith("## videoglue_score:")


def test_captions_of_all_segments_together_stand_beside_no_number_of_single_ones(tmp_path: Path) -> None:
    for protocol, printed in (("segments", "44.8"), ("given", "")):
        edit = paper(protocol, "captioner")
        put(tmp_path / protocol, texts(4), "activitynet_captions", "shortvivit_large", edit=edit, score=captions)
        (cell,) = cells(tmp_path / protocol)
        assert (cell["metric"], cell["printed"]) == ("CIDEr", printed)


def test_a_miniature_stands_apart_and_beside_no_printed_number(tmp_path: Path) -> None:
    for task in ("kinetics400", "kinetics400@mini"):
        put(tmp_path, hits(300, 400), task, "clip_base", edit=paper("videoglue"), score=top1_top5)
    glue, mini, *_ = re.split("^## ", page(tmp_path), flags=re.MULTILINE)[1:]
    assert glue.startswith("videoglue: ") and "@mini" not in glue and "Beside what papers print" in glue
    assert mini.startswith("Miniatures: ") and "kinetics400<br>" not in mini and "papers" not in mini
