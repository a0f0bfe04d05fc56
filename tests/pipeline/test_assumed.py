"""Mean and std that no file of a model states are said to be assumed, once it is loaded."""

from pathlib import Path
from typing import Any

import pytest
from transformers import VideoMAEConfig, VideoMAEModel

from evalkit.config.parse import resolve
from evalkit.pipeline.setup import load_runner
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
