"""Encoders that are taken out of training checkpoints."""

from pathlib import Path

import lightning
import pytest
import torch
from safetensors.torch import load_file

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
