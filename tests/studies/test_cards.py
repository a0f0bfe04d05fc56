"""Reference cards: each card's line parses, its numbers are printed, and its encoder costs what it says."""

import functools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.videomae import modeling_videomae

from evalkit import encoders
from evalkit.api import Views
from evalkit.config.config import Config
from evalkit.config.parse import resolve
from evalkit.datasets import protocols
from evalkit.datasets.actions import videocon
from evalkit.errors import UserError
from evalkit.features.sources import resolve_views
from evalkit.studies import cards, verify
from evalkit.weights import presets
from tests.given import library

ALL = {card.name: card for card in cards.every()}
# Training and test videos as they are published, not counting what had vanished when a paper fetched them.
VIDEOS = {
    "kinetics400": (246_534, 19_906),
    "moments_in_time": (802_264, 33_900),
    "ssv2": (168_913, 24_777),
    "ssv2_mc": (0, 24_777),
    "diving48": (15_027, 1_970),
    "charades": (7_811, 1_863),
    "epic_kitchens_anticipation": (67_217, 9_668),  # of which the few are left out that have an action of their own
    "msrvtt": (0, 1_000),
    "didemo": (0, 1_004),
    "msvd": (0, 670),
    "lsmdc": (0, 1_000),
    "vatex": (0, 6_000),
    "activitynet": (0, 4_917),
    "charades_sta": (0, 3_720),
    "nextqa_atp_hard": (0, 2_269),
    **{name: (0, videos) for name, (_, videos) in videocon.LISTS.items()},
}


@functools.cache
def configured(name: str) -> Config:
    card = ALL[name]
    return resolve("run", verify.line(card, ["data.root=x", *card.file_words]))


def protocol(config: Config) -> dict[str, Any]:
    """The fields of the task that its protocol prescribes; of a task without one, its uniform views."""
    task, name = config.options.task, config.data.get("protocol", "videoglue")
    if task in (protocols.VJEPA2 if name == "vjepa2" else protocols.VIDEOGLUE):
        return protocols.prescribed(name, task)
    return {"views": Views("uniform"), "adapter": ""}


@functools.cache
def views_of(name: str) -> Views:
    config = configured(name)
    return resolve_views(protocol(config)["views"], encoders.read_preset(ALL[name].encoder).clip, config.clip)


@pytest.mark.parametrize("name", ALL)
def test_a_card_names_a_line_that_parses_and_numbers_that_are_printed(name: str) -> None:
    card = ALL[name]
    config = configured(name)
    assert set(card.run) <= {word.partition("=")[0] for word in config.words}
    assert {number.metric for number in card.numbers} == set(card.expected), "published.csv has the same numbers"
    assert card.preset.license and card.weights and card.title.endswith(".")
    fields = protocol(config)
    assert not fields["adapter"] or fields["adapter"] == config.options.adapter
    if card.parameters:  # test_presets.py builds each preset, and counts
        assert abs(card.preset.parameters - card.parameters) <= 0.01 * card.parameters


@pytest.mark.parametrize("name", [name for name, card in ALL.items() if card.clips])
def test_a_card_counts_the_clips_that_the_encoder_sees(name: str) -> None:
    card = ALL[name]
    train, test = VIDEOS[card.task]
    views, augment = views_of(name), protocol(configured(name)).get("augment")
    of_train = 0
    if augment and card.run.get("adapter") not in ("zero_shot", "own_head") and not card.files:
        of_train = train * augment.views * (views.clips if augment.all_clips else 1)
    assert card.clips == test * views.clips * views.crops + of_train


def gflops(encoder: str, frames: int, size: int) -> float:
    """Of one clip: what an encoder of one block costs, and each further block."""
    spec = encoders.read_preset(encoder)

    def count(**changes: Any) -> int:
        with torch.device("meta"):
            module = replace(spec, settings={**spec.settings, **changes}).build().requires_grad_(False)
            with FlopCounterMode(display=False) as counter:
                module(torch.empty(1, frames, 3, size, size))
        return int(counter.get_total_flops())

    if spec.family == "open_clip":  # whose models have names, and no settings
        library("open_clip")
        return count() / 1e9
    part = next((name for name in ("vision_config", "image_config") if name in spec.settings), "")
    inner = spec.settings.get(part)
    spec = replace(spec, settings={key: value for key, value in spec.settings.items() if key not in ("text", "fusion")})
    known = inner or spec.settings
    depth = next(name for name in ("spatial_depth", "num_hidden_layers", "depth") if name in known)
    shallow = [{part: {**inner, depth: n}} if inner else {depth: n} for n in (1, 2)]
    one, two = (count(**settings) for settings in shallow)
    blocks = (inner or spec.settings)[depth]
    return float(one + (blocks - 1) * (two - one)) / 1e9


def shape(name: str) -> tuple[str, int, int]:
    """Encoder, frames and size of the clips of a card."""
    views = views_of(name)
    assert views.frames and views.size
    return ALL[name].encoder, views.frames, views.size


@pytest.mark.parametrize(("encoder", "frames", "size"), sorted({shape(name) for name in ALL if ALL[name].clips}))
def test_cards_state_what_a_clip_costs(encoder: str, frames: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # VideoMAE's table of positions holds no weights, and takes seconds.
    monkeypatch.setattr(modeling_videomae, "get_sinusoid_encoding_table", lambda n, dim: torch.zeros(1, n, dim))
    stated = {card.gflops for name, card in ALL.items() if card.clips and shape(name) == (encoder, frames, size)}
    assert len(stated) == 1 and stated.pop() == pytest.approx(gflops(encoder, frames, size), rel=0.01)


def test_the_list_of_cards_is_read_without_torch() -> None:
    code = "import sys; from evalkit.cli import main; main(['verify', 'list']); assert 'torch' not in sys.modules"
    lines = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[0].split("  ")[0] == "card" and lines[0].endswith("minutes")
    row = next(line for line in lines if line.startswith("vjepa2_large_ssv2 "))
    assert row.split() == ["vjepa2_large_ssv2", "ssv2", "1.2", "GB", "+", "1", "file", "MIT", "top1", "73.7", "41"]
    assert {line.partition(" ")[0] for line in lines} >= set(ALL)
    assert "top1 85.1 (quoted)" in next(line for line in lines if line.startswith("vjepa2_large_kinetics400 "))


CARD = """\
# A test.
run: task=ssv2 ckpt=vjepa2_large
expected: {top1: 73.7}
source: vjepa2-code
row: V-JEPA 2 L
"""


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("expected:", "expect:", "unknown key 'expect'. Known: run, expected"),
        ("row: V-JEPA 2 L\n", "", "the key 'row' is missing"),
        ("ckpt=vjepa2_large", "vjepa2_large", "run: expected words key=value, got 'vjepa2_large'"),
        ("ckpt=vjepa2_large", "ckpt=vjepa3", "encoder: no preset named 'vjepa3'."),
        ("vjepa2-code", "memory", "source: 'memory' is not one of longvivit, "),
        ("{top1: 73.7}", "{top1: many}", "expected: 'many' is no number from 0 on"),
        ("{top1: 73.7}", "{top1: .nan}", "expected: nan is no number from 0 on"),
        ("{top1: 73.7}", "73.7", "expected: wanted names with values, {name: value}, got 73.7"),
        (
            "{top1: 73.7}",
            "{top1: 73.8}",
            "expected: top1 73.8 is not what leaderboard/published.csv has of V-JEPA 2 L on ssv2: top1 73.7",
        ),
        (
            "V-JEPA 2 L",
            "V-JEPA 2 XL",
            "row: vjepa2-code has no model 'V-JEPA 2 XL' in leaderboard/pub",
        ),
        ("task=ssv2 ", "", "run: it names no task: add task=NAME"),
        ("ckpt=vjepa2_large", "", "run: it names no ckpt: add ckpt=NAME"),
        ("task=ssv2 ckpt=vjepa2_large", "[1]", "run: expected words key=value, got '[1]'"),
        ("row:", "tolerance: -1\nrow:", "tolerance: -1 is no number from 0 on"),
        ("row:", "tolerance: half a point\nrow:", "tolerance: 'half a point' is no number from 0 on"),
        ("row:", "clips: many\nrow:", "clips: 'many' is no number from 0 on"),
        ("row:", "parameters: true\nrow:", "parameters: True is no number from 0 on"),
        ("row:", "files: x.pt\nrow:", "files: wanted names with values, {name: value}, got 'x.pt'"),
        ("row:", "files: {probe: x}\nrow:", "files: 'probe' is no key of the line, such as adapter.probe"),
        ("# A test.", "- a list", "while parsing"),
        ("task=ssv2", "task='ssv2", "run: No closing quotation"),
        ("vjepa2-code", "[vjepa2-code]", "source: ['vjepa2-code'] is not one of longvivit, "),
        ("# A test.", "a: [", "while parsing"),
    ],
)
def test_a_wrong_card_is_told(tmp_path: Path, before: str, after: str, message: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(CARD)
    assert cards.read(str(file)).expected == {"top1": 73.7}
    file.write_text(CARD.replace(before, after))
    with pytest.raises(UserError) as caught:
        cards.read(str(file))
    assert str(caught.value).startswith(f"{file}: no card: {message}") and "\n" not in str(caught.value)


def test_a_card_of_a_checkpoint_without_a_preset_names_one_of_its_shape(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(CARD.replace("ckpt=vjepa2_large", "ckpt=me/mine") + "encoder: vjepa2_large\n")
    card = cards.read(str(file))
    assert card.run["ckpt"] == "me/mine" and card.preset == presets.card(presets.presets()["vjepa2_large"])
    assert card.minutes is None
