"""Values of wrong types in the files of a checkpoint's folder: one line for each, never a traceback."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from evalkit.api import Clip
from evalkit.video.crop import check_clip
from tests import hostile
from tests.encoders import test_hf_image, test_hf_image_text, test_vjepa2
from tests.saved import refusal, save

told = hostile.told
WRONG: list[Any] = ["x", None, [], [1], {}, {"a": {"b": 1}}, True, -1, 10**30, 1e308, float("nan"), float("inf")]
DEEP = '{"a":' * 100_000


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny, tmp_path / "copy")
    return tmp_path / "copy"


def write(folder: Path, file: str, values: Any, *place: str, value: Any) -> None:
    """Writes a JSON file with another value at one place."""
    changed = json.loads(json.dumps(values))
    inner = changed
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    (folder / file).write_text(json.dumps(changed))


def is_one_line(folder: Path) -> None:
    assert len(refusal(folder)) < 1000


@pytest.mark.parametrize(
    "place",
    [
        *(("clip", name) for name in ("frames", "size", "mean", "std", "value_range", "resize", "share")),
        *(("clip", name) for name in ("interpolation", "center")),
        *(("settings", name) for name in ("dim", "depth", "heads", "hidden", "tubelet", "attention", "tubes", "lora")),
        *(("settings", "text", name) for name in ("vocabulary", "dim", "depth", "heads", "tokens")),
        ("clip",),
        ("settings",),
        ("encoder",),
    ],
)
def test_config_json_of_evalkit(copy: Path, place: tuple[str, ...]) -> None:
    values = json.loads((copy / "config.json").read_text())
    for value in WRONG:
        if (place[-1], value) in ALLOWED or (place[-1] == "tubes" and not value):
            continue
        write(copy, "config.json", values, *place, value=value)
        is_one_line(copy)


ALLOWED = [("share", True), ("heads", True)]
# Numbers for all three channels.
FINE = [("image_mean", -1), *((name, value) for name in ("image_mean", "image_std") for value in (10**30, 1e308))]


def test_a_clip_says_what_is_wrong_with_it(copy: Path) -> None:
    values = json.loads((copy / "config.json").read_text())
    for name, value, words in (
        ("size", "big", "size='big': expected a whole number"),
        ("mean", [0.5], r"mean='[0.5]': expected 3 values [a,b], each a number"),
        ("share", 2, "share=2.0: wanted above 0 and up to 1"),
        ("resize", "stretch", "resize='stretch': expected one of crop, squash, squash_crop"),
    ):
        write(copy, "config.json", values, "clip", name, value=value)
        assert words in refusal(copy)


@pytest.mark.parametrize("place", ["ckpt", "sha256", "seed", "settings"])
def test_encoder_json(tmp_path: Path, place: str) -> None:
    values = {"ckpt": "random:vivit_demo", "sha256": "0" * 64, "seed": 0, "settings": {}}
    for value in WRONG:
        if (place, value) not in (("settings", {}),):
            write(tmp_path, "encoder.json", values, place, value=value)
            is_one_line(tmp_path)


@pytest.mark.parametrize("name", ["heads", "prefix", "model", "tokenizer", "nonsense"])
def test_settings_in_encoder_json(tmp_path: Path, tiny: Path, name: str) -> None:
    values = {"ckpt": str(tiny), "sha256": "0" * 64, "settings": {}}
    for value in WRONG:
        write(tmp_path, "encoder.json", values, "settings", name, value=value)
        is_one_line(tmp_path)


@pytest.mark.parametrize("kind", ["clip", "vjepa2"])  # one with settings per tower, one without
def test_config_json_and_preprocessor_of_transformers(tmp_path: Path, kind: str) -> None:
    if kind == "vjepa2":
        save(tmp_path, test_vjepa2.model(), test_vjepa2.PREPROCESSOR)
    else:
        save(tmp_path, test_hf_image_text.model(kind), test_hf_image_text.PREPROCESSORS[kind])
    values = json.loads((tmp_path / "config.json").read_text())
    tower = ("vision_config",) if kind == "clip" else ()
    for name in ("hidden_size", "num_hidden_layers", "patch_size", "hidden_act"):
        for value in WRONG:
            write(tmp_path, "config.json", values, *tower, name, value=value)
            is_one_line(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(values))
    stated = json.loads((tmp_path / "preprocessor_config.json").read_text())
    for name in ("size", "image_mean", "image_std", "rescale_factor", "resample"):
        for value in WRONG:
            write(tmp_path, "preprocessor_config.json", stated, name, value=value)
            if value is not None and (name, value) not in FINE:
                is_one_line(tmp_path)


@pytest.mark.parametrize("file", ["config.json", "encoder.json", "preprocessor_config.json"])
def test_a_deep_nest_or_a_bare_value_is_told_with_its_file(
    tmp_path: Path, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path, test_hf_image.model("vit"), test_hf_image.PREPROCESSORS["vit"])
    for content in (DEEP, "[" * 100_000, "[1]", "3", "null", '"x"', "", "\0", '{"a": 1' + "0" * 5000 + "}"):
        (tmp_path / file).write_text(content)
        assert str(tmp_path / file) in refusal(tmp_path)
    assert told(capsys, "canary", f"ckpt={tmp_path}").startswith(f"evalkit: cannot read {tmp_path / file}: ")


def test_a_clip_that_nothing_can_be_shown_by_is_refused() -> None:
    for wrong in ({"frames": 0}, {"size": -1}, {"share": 0.0}, {"std": (1.0, 0.0, 1.0)}, {"mean": (0.0,)}):
        with pytest.raises(ValueError, match="wanted|above"):
            check_clip(Clip(**wrong))
