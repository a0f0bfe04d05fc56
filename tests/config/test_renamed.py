"""Former names: an error of one line says the new one, and saved encoders still load."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from torch import nn

from evalkit.config.parse import resolve
from evalkit.encoders._load import load_encoder
from evalkit.encoders._spec import _parse
from evalkit.errors import UserError, one_line
from evalkit.pipeline.task_data import load_task

ROOT = Path(__file__).parents[2]
TASK = '''
from evalkit.api import {imported}


def task():
    """A task of a former release."""
    {body}
'''


@pytest.mark.parametrize("adapter", ["ridge", "logistic"])
def test_a_renamed_key_is_told_with_its_new_name(adapter: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve("run", ["task=folder", "ckpt=demo", f"adapter={adapter}", "adapter.standardise=false"])
    assert str(caught.value) == "unknown key 'adapter.standardise'. Did you mean 'adapter.standardize'?"


def test_a_renamed_preset_is_told_with_its_new_name() -> None:
    with pytest.raises(UserError) as caught:
        load_encoder("random:factorised_vivit_base")
    assert "Did you mean 'factorized_vivit_base'?" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("imported", "body", "renamed"),
    [
        ("Task", "return Task([], score=len, licence='CC0')", "license"),
        ("Task", "return Task([], score=len, provide=None)", "prepare_videos"),
        ("Clip", "return Clip().normalise", "normalize"),
        ("Kept", "return Kept()", "FeatureSpec"),
        ("Encoded", "return Encoded(None, None)", "EncoderOutput"),
    ],
)
def test_a_task_with_a_former_name_is_told_the_new_one_in_one_line(
    tmp_path: Path, imported: str, body: str, renamed: str
) -> None:
    (tmp_path / "former.py").write_text(TASK.format(imported=imported, body=body))
    with pytest.raises(UserError) as caught:
        load_task(resolve("check", [f"task={tmp_path / 'former.py'}"]))
    message = str(caught.value)
    assert message.endswith(f" It is called {renamed!r} now.") and "\n" not in message and "former.py" in message


def test_other_errors_name_nothing() -> None:
    assert one_line(AttributeError("'Clip' object has no attribute 'colour'")) == (
        "AttributeError: 'Clip' object has no attribute 'colour'"
    )
    assert one_line(ValueError("unexpected keyword argument 'licence'")).endswith("'licence'")


def test_an_encoder_that_was_saved_as_vivit_loads_as_longvivit(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    shutil.copytree(tiny, folder)
    config = json.loads((folder / "config.json").read_text())
    assert config["encoder"] == "longvivit"
    (folder / "config.json").write_text(json.dumps({**config, "encoder": "vivit"}))
    saved, encoder = load_encoder(folder), load_encoder(tiny)
    assert isinstance(saved, nn.Module) and isinstance(encoder, nn.Module)
    former, present = saved.state_dict(), encoder.state_dict()
    assert former.keys() == present.keys() and all((former[name] == present[name]).all() for name in present)


def test_a_setting_that_was_saved_in_british_spelling_is_read(tmp_path: Path) -> None:
    preset = yaml.safe_load((ROOT / "configs" / "factorized_vivit_base.yaml").read_text())
    former = {**preset, "encoder": "vivit", "settings": {**preset["settings"], "attention": "factorised"}}
    assert _parse(former, tmp_path, None) == _parse(preset, tmp_path, None)
