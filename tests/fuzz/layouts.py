"""Small annotation files of every task in their published layouts: a function of a folder that gives data.root."""

from collections.abc import Callable
from pathlib import Path

from tests.given import write
from tests.tasks import (
    caption_files,
    test_action_lists,
    test_answering,
    test_ava,
    test_behavior,
    test_chimpact,
    test_classification,
    test_epic_kitchens,
    test_zero_shot,
)


def _egoschema(root: Path) -> Path:
    questions = [
        {"q_uid": f"u{k}", "question": "What?", **{f"option {i}": f"o{i}" for i in range(5)}} for k in range(3)
    ]
    write(root / "questions.json", questions)
    write(root / "subset_answers.json", {f"u{k}": k for k in range(3)})
    return root


def _folder(root: Path) -> Path:
    rows = [
        f"{split}/{label}{k}.mp4,{label},{split}" for split in ("train", "test") for label in "ab" for k in range(2)
    ]
    return write(root / "videos.csv", "\n".join(["path,label,split", *rows]) + "\n")


def _kinetics(classes: int) -> Callable[[Path], Path]:
    def layout(root: Path) -> Path:
        for split in ("train", "val"):
            rows = [f"action {c:03d},{split}{c:03d}_x,{c},{c + 10},{split},0" for c in range(classes)]
            write(root / f"{split}.csv", "\n".join(["label,youtube_id,time_start,time_end,split,is_cc", *rows]) + "\n")
        return root

    return layout


def _chimpact(root: Path) -> Path:
    for name in [*test_chimpact.ALL, test_chimpact.TRAIN]:
        write(root / "labels" / f"{name}.json", test_chimpact.labels([0], test_chimpact.ONE))
    return root


def _detected(annotations: Callable[[Path], Path]) -> Callable[[Path], Path]:
    def layout(root: Path) -> Path:
        test_ava.persons(annotations(root), "v,0902,0.1,0.2,0.5,0.9,,0.95", "w,0904,0.1,0.2,0.5,0.9,,0.85")
        return root

    return layout


def _next_open(root: Path) -> Path:
    test_answering.next_rows(root)
    write(root / "test.csv", (root / "val.csv").read_text())
    return root


def _activitynet_captions(root: Path) -> Path:
    write(root / "val_2.json", (caption_files.activitynet(root) / "val_1.json").read_text())
    return root


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    **test_action_lists.LAYOUTS,
    "activitynet": caption_files.activitynet,
    "activitynet_captions": _activitynet_captions,
    "activitynet_qa": test_answering.activitynet_qa,
    "ava": _detected(test_ava.ava),
    "ava_kinetics": _detected(test_ava.ava_kinetics),
    "calms21": test_behavior.calms21,
    "charades": test_classification.charades,
    "charades_sta": test_zero_shot.moments,
    "chimpact": _chimpact,
    "crim13": test_behavior.crim13,
    "didemo": caption_files.didemo,
    "diving48": test_classification.diving,
    "egoschema": _egoschema,
    "epic_kitchens": test_epic_kitchens.epic_kitchens,
    "epic_kitchens_anticipation": test_epic_kitchens.epic_kitchens,
    "fly_vs_fly": test_behavior.fly_vs_fly,
    "folder": _folder,
    "kabr": test_behavior.kabr,
    "kinetics400": _kinetics(400),
    "kinetics400_10shot": test_zero_shot.ten_shots,
    "kinetics600": _kinetics(600),
    "moments_in_time": test_classification.moments,
    "msrvtt": caption_files.msrvtt,
    "msrvtt_caption": caption_files.msrvtt,
    "msrvtt_qa": test_answering.xu,
    "msvd_qa": test_answering.xu,
    "nextqa": test_zero_shot.nextqa,
    "nextqa_atp_hard": test_zero_shot.hard,
    "nextqa_open": _next_open,
    "retrieval": caption_files.own,
    "ssv2": test_classification.something,
    "ssv2_events": lambda root: test_zero_shot.template_list(root, "ssv2_events"),
    "ssv2_temporal": lambda root: test_zero_shot.template_list(root, "ssv2_temporal"),
    "tgif_qa": test_answering.tgif,
    "vatex": caption_files.vatex,
    "vatex_caption": caption_files.vatex,
    "youcook2": caption_files.youcook2,
    "youcook2_dense": caption_files.youcook2,
    "youcook2_paragraph": caption_files.youcook2,
    "youcook2_retrieval": caption_files.youcook2,
}
