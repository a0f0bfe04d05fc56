"""`evalkit verify`: what a card's result says, and what it needs to be run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from evalkit.cli import main
from evalkit.errors import UserError
from evalkit.launch import processes
from evalkit.results import run_folder
from evalkit.studies import cards, verify
from evalkit.weights import huggingface

CARD = cards.read("vjepa2_large_ssv2")
MSRVTT = cards.read("videoprism_lvt_base_msrvtt")


def scored(card: cards.Card, *scores: tuple[str, float, float, float], **data: Any) -> dict[str, Any]:
    """A record with scores: metric, value, and the ends of the interval."""
    return {
        "task": {"name": card.task},
        "encoder": {"parameters": card.preset.parameters, "ckpt": card.encoder},
        "scores": [{"metric": metric, "value": value, "ci95": [low, high]} for metric, value, low, high in scores],
        "data": {"n_expected": 24_777, "n_failed": 0, **data},
    }


def mini(task: str, card: cards.Card, seen: tuple[int, int]) -> dict[str, Any]:
    """A record of a miniature, by an encoder of 16 frames and 288 pixels, with frames and pixels that it saw."""
    record = scored(card, (next(iter(card.expected)), 5.0, 1.0, 9.0))
    views, clip = ({"frames": frames, "size": size} for frames, size in (seen, (16, 288)))
    record["encoder"]["clip"] = clip
    return {**record, "task": {"name": task, "protocol": {"views": views}}}


@pytest.mark.parametrize(
    ("value", "low", "high", "message"),
    [
        (73.5, 73.0, 74.1, "reproduced: top1 73.5 (73.0 to 74.1), -0.2 to the published 73.7"),
        (73.1, 72.6, 73.66, "reproduced: top1 73.1 (72.6 to 73.7), -0.6"),  # as the paper rounds
        (71.2, 70.6, 71.8, "differs: top1 71.2 (70.6 to 71.8), -2.5 to the published 73.7, on 24,777 examples ("),
        (75.0, 74.5, 75.5, "differs: top1 75.0 (74.5 to 75.5), +1.3"),
        (
            70.0,
            65.0,
            75.0,
            "cannot tell: top1 70.0 (65.0 to 75.0), -3.7 to the published 73.7, and the interval is wider",
        ),
        (40.0, 35.0, 45.0, "differs: top1 40.0"),  # no number of examples would mend it
    ],
)
def test_a_sentence_says_whether_the_number_is_reproduced(value: float, low: float, high: float, message: str) -> None:
    sentence, reproduced = verify.verdict(CARD, scored(CARD, ("top1", value, low, high)))
    assert sentence.startswith(f"vjepa2_large_ssv2: {message}") and reproduced == message.startswith("reproduced")
    assert "\n" not in sentence and "https://github.com/facebookresearch/vjepa2" in sentence


def test_all_numbers_of_a_card_count_and_the_worst_decides() -> None:
    good, bad = ("t2v_R@1", 50.0, 47.0, 53.0), ("v2t_R@1", 40.0, 37.0, 43.0)
    sentence, reproduced = verify.verdict(MSRVTT, scored(MSRVTT, good, bad))
    assert (
        not reproduced and "differs: t2v_R@1 50.0 (47.0 to 53.0), -0.1 to the published 50.1; v2t_R@1 40.0" in sentence
    )
    sentence, reproduced = verify.verdict(MSRVTT, scored(MSRVTT, good))
    assert not reproduced and "cannot tell: " in sentence and "v2t_R@1 was not scored, 49.8 is published" in sentence


def test_a_tolerance_of_the_source_takes_the_intervals_place(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    text = cards.cards()["vjepa2_large_ssv2"].read_text()
    file.write_text(f"{text}tolerance: 0.3\n")
    card = cards.read(str(file))
    assert verify.verdict(card, scored(card, ("top1", 73.4, 60.0, 80.0)))[1]
    sentence, reproduced = verify.verdict(card, scored(card, ("top1", 73.3, 60.0, 80.0)))
    assert not reproduced and "differs: " in sentence and "published 73.7 ± 0.3" in sentence


def test_what_was_measured_on_other_weights_or_examples_is_told() -> None:
    record = scored(CARD, ("top1", 73.5, 73.0, 74.1))
    record["encoder"]["parameters"] = 86_000_000
    sentence, reproduced = verify.verdict(CARD, record)
    assert not reproduced and "cannot tell: the checkpoint has 86,000,000 parameters, and vjepa2_large 303," in sentence
    sizes = [{"split": "test", "examples": 20_000, "published": 24_777}]
    record = scored(CARD, ("top1", 73.5, 73.0, 74.1), n_expected=20_000, size_differences=sizes, n_failed=3)
    assert "on 20,000 examples of 24,777 published, 3 of which failed" in verify.verdict(CARD, record)[0]
    record["scores"][0]["ci95"] = [None, None]
    assert "cannot tell: top1 73.5, -0.2 to the published 73.7, without an interval" in verify.verdict(CARD, record)[0]


@pytest.mark.parametrize(
    "word", ["adapter.lr=1", "clip.frames=8", "task=diving48", "data.protocol=videoglue", "config=x"]
)
def test_a_word_that_would_change_what_is_verified_is_refused(word: str) -> None:
    with pytest.raises(UserError) as caught:
        verify.line(CARD, [word])
    assert f"{word.partition('=')[0]}= would change what is verified; evalkit run takes it" in str(caught.value)
    for wrong, near in (("data.rot", "data.root"), ("adapter.prob", "adapter.probe")):
        with pytest.raises(UserError, match=f"verify {CARD.name}: unknown key '{wrong}'. Did you mean '{near}'"):
            verify.line(CARD, [f"{wrong}=x"])
    with pytest.raises(UserError, match="given twice"):
        verify.line(CARD, ["seed=1", "seed=1"])
    taken = ["data.root=x", "ckpt=here.pt", "adapter.probe=p.pt", "precision=bf16", "encoder.heads=16", "out=o"]
    words = verify.line(CARD, taken)
    assert set(taken) < set(words) and "adapter=attentive_classifier" in words and "ckpt=vjepa2_large" not in words


def test_what_is_missing_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(huggingface, "is_cached", lambda name: False)
    assert main(["verify", "vjepa2_large_ssv2", f"data.root={tmp_path / 'none'}"]) == 2
    message = capsys.readouterr().err
    assert f"missing: data set ssv2, not at {tmp_path / 'none'} (data.root=FOLDER); adapter.probe=FILE, publ" in message
    assert "weights, 1.2 GB of facebook/vjepa2-vitl-fpc64-256 on the hub, or ckpt=PATH" in message
    assert main(["verify", "vjepa2_large_ssv2", f"data.root={tmp_path}", "adapter.probe=none.pt", "ckpt=a.pt"]) == 2
    assert capsys.readouterr().err.endswith(
        "missing: adapter.probe=none.pt, no such file, published at "
        "https://dl.fbaipublicfiles.com/vjepa2/evals/ssv2-vitl-16x2x3.pt\n"
    )
    assert main(["verify", "vjepa2_large_svs2"]) == 2 and "Did you mean 'vjepa2_large_ssv2'?" in capsys.readouterr().err


def test_the_line_is_run_and_its_result_judged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records: list[Mapping[str, Any]] = [
        scored(MSRVTT, ("t2v_R@1", 50.0, 47.0, 53.0), ("v2t_R@1", 49.0, 46.0, 52.0)),
        scored(MSRVTT, ("t2v_R@1", 40.0, 37.0, 43.0), ("v2t_R@1", 49.0, 46.0, 52.0)),
        mini("msrvtt@mini", MSRVTT, (16, 288)),
    ]
    lines: list[tuple[str, ...]] = []

    def run(config: Any) -> Path:
        lines.append(config.words)
        return tmp_path

    monkeypatch.setattr(processes, "run", run)
    monkeypatch.setattr(run_folder, "load", lambda folder: records[len(lines) - 1])
    name = "videoprism_lvt_base_msrvtt"
    assert main(["verify", name, f"data.root={tmp_path}"]) == 0 and "reproduced" in capsys.readouterr().out
    assert main(["verify", name, f"data.root={tmp_path}", "ckpt=weights"]) == 1
    assert "differs" in capsys.readouterr().out
    assert main(["verify", name, "mini=true"]) == 0
    assert capsys.readouterr().out.endswith("t2v_R@1 5.0, which says nothing of the published 50.1\n")
    assert lines == [
        ("task=msrvtt", "ckpt=videoprism_lvt_base", f"data.root={tmp_path}"),
        ("task=msrvtt", "ckpt=weights", "trained_on=webli:captions", f"data.root={tmp_path}"),
        ("task=msrvtt", "ckpt=demo", "mini=true"),
    ]
    trained = verify.line(CARD, ["mini=true"])
    assert "adapter.epochs=1" in trained and "data.protocol=vjepa2" in trained
    assert "adapter.epochs=1" not in verify.line(CARD, ["mini=true", "adapter.probe=p.pt", "ckpt=tiny.pt"])
    probed = verify.line(CARD, ["mini=true", "adapter.probe=p.pt", "ckpt=tiny.pt"])
    assert {"clip.frames=8", "clip.size=112"} < set(probed) and "clip.size=112" not in trained
    assert "adapter.epochs=1" not in verify.line(MSRVTT, ["mini=true"])
    assert "clip.size=64" in verify.line(MSRVTT, ["mini=true", "clip.size=64"])  # which verifies nothing


def test_a_miniature_with_a_checkpoint_keeps_how_it_is_read() -> None:
    card = cards.read("vjepa2_large_epic_kitchens_anticipation")
    assert "encoder.ahead=4" in verify.line(card, ["mini=true", "ckpt=tiny.pt", "adapter.probe=p.pt"])
    assert "encoder.ahead=4" not in verify.line(card, ["mini=true"])
    assert "encoder.ahead=4" in verify.line(card, ["ckpt=vitl.pt", "adapter.probe=p.pt"])
    card = cards.read("umt_large_25m_msrvtt")
    assert "adapter.rerank=128" in verify.line(card, ["mini=true", "ckpt=tiny.pth"])
    assert "adapter.rerank=128" not in verify.line(card, ["mini=true"])


def test_each_of_several_files_that_one_key_takes_is_looked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "vision.bin").touch()
    words = [f"data.root={tmp_path}", f"encoder.parts=[{tmp_path}/vision.bin,{tmp_path}/text.pt]"]
    assert main(["verify", "internvideo2_clip_small_kinetics600", *words]) == 2
    message = capsys.readouterr().err
    assert f"missing: encoder.parts={tmp_path}/text.pt, no such file, published at https://hugg" in message
    assert "; encoder.tokenizer=FILE, published at " in message and "; ckpt=FILE, published at " in message
    assert main(["verify", "internvideo2_clip_small_kinetics600", f"data.root={tmp_path}"]) == 2
    assert "missing: encoder.parts=[FILE,FILE], published at https://hugg" in capsys.readouterr().err


def test_a_card_can_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "vjepa2_large_ssv2", "--help"]) == 0
    message = capsys.readouterr().out
    assert (
        "evalkit run task=ssv2 ckpt=vjepa2_large data.protocol=vjepa2 adapter=attentive_classifier data.root="
        in message
    )
    assert "303,885,312 parameters, MIT" in message and "148,662 clips of 1,656 GFLOP" in message
    assert main(["verify"]) == 2 and "verify takes the name of one card, or list" in capsys.readouterr().err


def test_a_miniature_says_on_which_clips_the_line_ran_where_they_are_not_the_encoders_own() -> None:
    sentence, ran = verify.mini_verdict(CARD, mini("ssv2@mini", CARD, (8, 112)))
    assert ran and " on clips of 8 x 112 (the encoder's own: 16 x 288), top1 5.0, which says nothing of the" in sentence
    assert "clips of" not in verify.mini_verdict(CARD, mini("ssv2@mini", CARD, (16, 288)))[0]
