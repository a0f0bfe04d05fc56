"""What is assumed of a model whose files do not state it, and what is made of it for other clips, is said."""

import logging
from pathlib import Path
from typing import Any

import pytest
from transformers import Dinov2Config, Dinov2Model, DINOv3ViTConfig, DINOv3ViTModel, VideoMAEConfig, VideoMAEModel

from evalkit.api import Views
from evalkit.config.parse import resolve
from evalkit.pipeline.setup import load_runner, make_extractor
from tests.saved import IMAGENET, SQUARE, preprocessor, save


def test_a_model_without_its_preprocessors_file_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shape: dict[str, Any] = {
        "hidden_size": 12,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    model = VideoMAEModel(VideoMAEConfig(image_size=32, num_frames=4, patch_size=16, **shape))
    folder = save(tmp_path / "mae", model, preprocessor(SQUARE, IMAGENET))
    config = resolve("canary", [f"ckpt={folder}", "device=cpu"])
    load_runner(config)
    assert "assumed" not in capsys.readouterr().err
    (folder / "preprocessor_config.json").unlink()
    load_runner(config)
    told = capsys.readouterr().err
    assert (
        f"{folder} has no preprocessor_config.json; assuming videomae's mean (0.485, 0.456, 0.406) and std (0.229"
        in told
    )


def noted(caplog: pytest.LogCaptureFixture, ckpt: str, views: Views) -> list[str]:
    """What is said of an encoder's positions with such clips."""
    config = resolve("canary", [f"ckpt={ckpt}", "device=cpu"])
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="evalkit"):
        make_extractor(config, views, load_runner(config)).close()
    return [message for message in caplog.messages if "positions" in message]


def test_positions_that_are_interpolated_are_noted(tiny: Path, caplog: pytest.LogCaptureFixture) -> None:
    interpolated = "the encoder's positions are interpolated, from "
    assert noted(caplog, str(tiny), Views("uniform")) == []
    assert noted(caplog, str(tiny), Views("uniform", frames=8)) == [f"{interpolated}4 to 8 frames"]
    both = [f"{interpolated}4 to 2 frames and from 32 to 64 pixels"]
    assert noted(caplog, str(tiny), Views("uniform", frames=2, size=64)) == both


def test_of_single_frames_their_size_alone_and_of_rotations_nothing_is_noted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shape: dict[str, Any] = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 1, "image_size": 32}
    views = Views("uniform", frames=4, size=64)
    dinov2 = save(tmp_path / "2", Dinov2Model(Dinov2Config(patch_size=16, **shape)), preprocessor(SQUARE, IMAGENET))
    assert noted(caplog, str(dinov2), views) == [
        "the encoder's positions are interpolated, from 32 to 64 pixels",
    ]
    dinov3 = save(tmp_path / "3", DINOv3ViTModel(DINOv3ViTConfig(**shape)), preprocessor(SQUARE, IMAGENET))
    assert noted(caplog, str(dinov3), views) == []
