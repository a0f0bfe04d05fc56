"""Protocols of papers by name: whole for every benchmark, and what the papers print."""

from dataclasses import replace
from typing import Any, get_args

import pytest

from evalkit.api import Views
from evalkit.config.keys import adapter_defaults
from evalkit.datasets import protocols
from tests.tasks.test_classification import BENCHMARKS

PROTOCOLS = [name for name in get_args(protocols.Name) if name not in ("vjepa2", "mveb")]


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_every_protocol_is_whole_for_every_benchmark(name: Any, benchmark: str) -> None:
    found = protocols.prescribed(name, benchmark)
    settings = found["settings"]
    assert (settings["lr"], settings["weight_decay"], settings["batch_size"]) == (1e-4, 1e-5, 256)
    assert found["augment"].views == 10 <= settings["epochs"]
    assert found["views"].crops == 3 and found["views"].clips == (1 if benchmark == "ssv2" else 4)
    assert found["augment"].flip == (benchmark not in ("ssv2", "charades"))


def test_the_protocols_are_what_the_papers_print() -> None:
    def views(name: Any, benchmark: str) -> Views:
        found = protocols.prescribed(name, benchmark)["views"]
        assert isinstance(found, Views)
        return found

    def cut(sampling: Any, frames: int, size: int, **others: Any) -> Views:
        return Views(sampling, frames, crops=3, resize="crop", size=size, share=0.875, **others)

    assert views("videoglue", "kinetics400") == cut("dense", 16, 224, stride=4, clips=4)
    assert views("videoglue", "ssv2") == cut("segments", 16, 224)
    assert views("videoglue", "charades") == cut("fps", 16, 224, fps=6.0, clips=4)
    assert views("videoprism", "diving48") == cut("dense", 16, 288, stride=4, clips=4)
    assert views("videoprism_8x252", "moments_in_time") == cut("dense", 8, 252, stride=4, clips=4)
    epochs = {name: protocols.prescribed("videoglue", name)["settings"]["epochs"] for name in BENCHMARKS}
    assert list(epochs.values()) == [150, 150, 50, 50, 100, 50]
    # 60,000 steps of 256 over 168,913 videos
    assert protocols.prescribed("videoglue_code", "ssv2")["settings"]["epochs"] == round(60_000 * 256 / 168_913)


def test_fine_tuning_has_strong_augmentation_where_table_10_names_it() -> None:
    for benchmark in BENCHMARKS:
        tuned, frozen = (protocols.prescribed(name, benchmark) for name in ("videoglue_finetune", "videoglue"))
        strong = benchmark in ("kinetics400", "kinetics600", "ssv2")
        assert (tuned["adapter"], frozen["adapter"]) == ("finetune", "") and tuned["views"] == frozen["views"]
        assert tuned["augment"] == replace(frozen["augment"], randaugment=(9, 0.5) if strong else None)
        assert tuned["settings"] == frozen["settings"] | ({"mixup": 0.8, "cutmix": 1.0} if strong else {})
        known = adapter_defaults("finetune")
        assert tuned["settings"].keys() <= known.keys()
