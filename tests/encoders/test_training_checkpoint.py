"""Encoders that are taken out of training checkpoints."""

import re
import shlex
import sys
from argparse import Namespace
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from safetensors.torch import load_file

from evalkit import load_encoder
from evalkit.config.parse import resolve
from evalkit.errors import UserError
from evalkit.weights import checkpoint
from tests.encoders import test_hf_video
from tests.encoders.test_load import load, refusal


class Training(lightning.LightningModule):
    """What a user trains: the encoder is a part of it."""

    def __init__(self, encoder: torch.nn.Module) -> None:
        super().__init__()
        self.save_hyperparameters({"note": "x"})
        self.model = torch.nn.ModuleDict({"encoder": encoder, "head": torch.nn.Linear(24, 3)})


@pytest.fixture
def trained(tiny: Path, tmp_path: Path) -> Path:
    """A checkpoint that Lightning's Trainer wrote."""
    file = tmp_path / "epoch=3-step=100.ckpt"
    trainer = lightning.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", max_epochs=0)
    trainer.strategy.connect(Training(load(tiny)))
    trainer.save_checkpoint(file)
    return file


def test_the_encoder_is_taken_out_of_a_training_checkpoint_by_its_prefix(trained: Path, tiny: Path) -> None:
    known = checkpoint.sha256(load(tiny))
    assert checkpoint.sha256(load(trained, model=str(tiny), prefix="model.encoder.")) == known
    (trained.parent / "config.json").write_bytes((tiny / "config.json").read_bytes())
    assert checkpoint.sha256(load(trained, prefix="model.encoder.")) == known


def test_a_prefix_that_no_weight_has_is_told_with_those_there_are(trained: Path, tiny: Path) -> None:
    with pytest.raises(UserError, match=r"prefix=encoder\.: no weight of .* starts so. Found: model.encoder., model.h"):
        load(trained, model=str(tiny), prefix="encoder.")
    with pytest.raises(UserError, match="do not fit the model"):
        load(trained, model=str(tiny))


def test_weights_that_do_not_say_their_model_ask_for_it(trained: Path) -> None:
    assert "does not say which model it belongs to: put its config.json beside it, or give encoder.model=" in refusal(
        trained
    )
    with pytest.raises(UserError, match="^encoder.model=shortvivit_bas: wanted a .* Did you mean 'shortvivit_b"):
        load(trained, model="shortvivit_bas")


class Notes:
    """What a user may keep among hyperparameters; when it is loaded, it says so."""

    loaded = False

    def __setstate__(self, state: dict[str, Any]) -> None:
        type(self).loaded = True


@pytest.mark.parametrize(
    ("value", "name"), [(Namespace(lr=1e-4), "argparse.Namespace"), (Notes(), f"{__name__}.Notes")]
)
def test_a_class_among_the_hyperparameters_is_named_and_the_weights_are_saved_without_as_advised(
    value: Any, name: str, trained: Path, tiny: Path
) -> None:
    Notes.loaded = False
    known = checkpoint.sha256(load(tiny))
    state = torch.load(trained)
    torch.save({**state, "hyper_parameters": {"args": value}}, trained)
    with pytest.raises(UserError, match=rf"^refused .*: it holds {re.escape(name)}, which can run code") as caught:
        load(trained, model=str(tiny), prefix="model.encoder.")
    assert not Notes.loaded
    words = shlex.split(str(caught.value).partition(" only its weights: ")[2].rpartition("; trust=true")[0])
    assert words[:2] == ["python", "-c"]
    exec(words[2])
    kept = trained.with_name("epoch=3-step=100-weights.ckpt")
    assert checkpoint.sha256(load(kept, model=str(tiny), prefix="model.encoder.")) == known
    assert checkpoint.sha256(load(trained, model=str(tiny), prefix="model.encoder.", trust=True)) == known


def test_a_class_in_a_folder_of_transformers_is_named(tmp_path: Path) -> None:
    saved = test_hf_video.folder(tmp_path, "videomae")
    file = saved / "model.safetensors"
    torch.save({**load_file(file), "args": Namespace(lr=1e-4)}, saved / "pytorch_model.bin")
    file.unlink()
    told = "its file of weights holds argparse.Namespace, which can run code when loaded. Save the weights again with"
    assert told in refusal(saved)


def test_a_training_checkpoint_of_a_transformers_model_needs_only_its_config(tmp_path: Path) -> None:
    saved = test_hf_video.folder(tmp_path, "videomae")
    state = load_file(saved / "model.safetensors")
    file = tmp_path / "run.ckpt"
    torch.save({"state_dict": {f"model.encoder.{name}": value for name, value in state.items()}}, file)
    known = checkpoint.sha256(load(saved))
    (saved / "model.safetensors").rename(tmp_path / "kept.safetensors")
    assert checkpoint.sha256(load(file, model=str(saved), prefix="model.encoder.")) == known
    (saved / "run.ckpt").write_bytes(file.read_bytes())
    assert checkpoint.sha256(load(saved / "run.ckpt", prefix="model.encoder.")) == known
    assert checkpoint.sha256(load(tmp_path / "kept.safetensors", model=str(saved))) == known
    with pytest.raises(UserError, match=r"^encoder.prefix=model.encoder: .* Did you mean model.encoder.\?$"):
        load(file, model=str(saved), prefix="model.encoder")


OWN = '''
import torch
from evalkit.api import Clip


class Own(torch.nn.Module):
    def __init__(self, frames, width):
        super().__init__()
        self.clip, self.dim = Clip(frames, 32, (0.5,) * 3, (0.5,) * 3), width
        self.layer = torch.nn.Linear(3, width)


def make(frames: int = 4, width: int = 8, heads: int = 2):
    """An encoder.

    Args:
        frames: of a clip
        heads: of attention
    """
    return Own(frames, width)
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A training checkpoint of an encoder whose function lies in the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("own_model.py").write_text(OWN)
    weights = {"encoder.layer.weight": torch.ones(16, 3), "encoder.layer.bias": torch.zeros(16)}
    torch.save({"state_dict": weights}, "run.ckpt")
    yield Path("run.ckpt")
    sys.modules.pop("own_model", None)


def test_arguments_of_the_function_that_model_names_are_settings(own: Path) -> None:
    encoder = load_encoder(own, model="own_model:make", prefix="encoder.", width=16, frames=12)
    assert encoder.clip.frames == 12 and encoder.dim == 16
    with pytest.raises(
        UserError, match=r"^encoder.model=own_model:make: TypeError: make\(\) got an .* argument 'depth'"
    ):
        load_encoder(own, model="own_model:make", prefix="encoder.", depth=3)
    with pytest.raises(UserError, match="^encoder.model=own_model:mke: .* Did you mean 'make'"):
        load_encoder(own, model="own_model:mke", prefix="encoder.")


def test_a_model_in_a_file_of_code_is_told_how_to_name_its_function(own: Path) -> None:
    for model in ("own_model.py", "own_model", "own_model.make", "./own_model.py"):
        with pytest.raises(UserError, match=f"^encoder.model={re.escape(model)}: .* encoder.model=own_model:make$"):
            load_encoder(own, model=model, prefix="encoder.")
    Path("own_model.py").write_text(OWN + "\n\ndef make_large():\n    return make(width=16)\n\n\ndef _own(): ...\n")
    with pytest.raises(UserError, match="encoder.model=own_model:FUNCTION, one of make, make_large$"):
        load_encoder(own, model="own_model.py", prefix="encoder.")
    Path("own_model.py").write_text("def (")
    with pytest.raises(UserError, match="encoder.model=own_model:FUNCTION$"):
        load_encoder(own, model="own_model.py", prefix="encoder.")


def test_a_model_by_an_entry_points_name_takes_its_arguments(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("mine", "own_model:make", "evalkit.encoders")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: (point,) if group == point.group else ())
    monkeypatch.syspath_prepend(".")
    assert load_encoder(own, model="mine", prefix="encoder.", width=16, frames=12).clip.frames == 12


def test_arguments_of_the_function_that_model_names_are_keys_with_types(own: Path) -> None:
    words = ["task=folder", "mini=true", f"ckpt={own}", "encoder.model=own_model:make", "encoder.prefix=encoder."]
    config = resolve("run", [*words, "encoder.frames=12", "encoder.heads=4"])
    assert config.encoder == {"model": "own_model:make", "prefix": "encoder.", "frames": 12, "heads": 4}
    assert config.built_by == ("own_model:make",)
    Path("again.yaml").write_text(config.to_yaml())
    assert resolve("run", ["config=again.yaml"]) == config and "# encoder.width: 8" in config.to_yaml()
    with pytest.raises(UserError, match="^encoder.frames=many: expected a whole number"):
        resolve("run", [*words, "encoder.frames=many"])
    with pytest.raises(UserError, match="^unknown key 'encoder.frame'. Did you mean 'encoder.frames'"):
        resolve("run", [*words, "encoder.frame=12"])
    takes = "encoder.frames, encoder.heads, encoder.width, encoder.model, encoder.prefix"
    with pytest.raises(UserError, match=f"^unknown key 'encoder.lr': encoder own_model:make takes {takes}$"):
        resolve("run", [*words, "encoder.lr=12"])
    with pytest.raises(
        UserError, match="^unknown key 'encoder.width': encoder run.ckpt takes encoder.model, .* adds its"
    ):
        resolve("run", [*words[:3], "encoder.width=12"])


def test_settings_of_the_preset_that_model_names_change_it(tmp_path: Path) -> None:
    small = {"frames": 8, "dim": 32}
    written: Any = load_encoder("random:vivit_demo", **small)
    torch.save(
        {"state_dict": {f"net.{name}": value for name, value in written.state_dict().items()}}, tmp_path / "a.ckpt"
    )
    again: Any = load_encoder(tmp_path / "a.ckpt", model="vivit_demo", prefix="net.", **small)
    assert checkpoint.sha256(again) == checkpoint.sha256(written) and again.clip.frames == 8
    config = resolve("run", ["task=folder", "mini=true", "ckpt=a.ckpt", "encoder.model=vivit_demo", "encoder.dim=32"])
    assert config.encoder == {"model": "vivit_demo", "dim": 32} and config.built_by == ()
    with pytest.raises(UserError, match="^unknown setting 'dims' of an encoder of family .* Did you mean 'dim'"):
        load_encoder(tmp_path / "a.ckpt", model="vivit_demo", prefix="net.", dims=32)
