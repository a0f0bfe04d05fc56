"""Weights that are no floats of memory: refused in one line, in place of a model that is nonsense or a traceback."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from evalkit.errors import UserError
from evalkit.weights import checkpoint, strict


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.bool, torch.complex64])
def test_weights_that_are_stored_as_no_floats_are_refused(dtype: torch.dtype) -> None:
    module = nn.Linear(2, 1)
    weights = {name: value.detach().to(dtype) for name, value in module.named_parameters()}
    kind = str(dtype).removeprefix("torch.")
    with pytest.raises(
        UserError, match=rf"^weights of x do not fit the model \(2\): weight holds {kind}, wanted floats"
    ):
        strict.load_strictly(module, weights, "x")


def test_whole_numbers_stay_whole_and_low_precision_is_taken() -> None:
    module = nn.BatchNorm1d(2)
    weights = {
        name: value.to(torch.float8_e4m3fn) if value.is_floating_point() else value
        for name, value in module.state_dict().items()
    }
    strict.load_strictly(module, weights, "x")
    weights["weight"] = torch.tensor([1.0, float("nan")]).to(torch.float8_e4m3fn)
    with pytest.raises(UserError, match="weight holds 1 of 2 values that are NaN or infinite"):
        strict.load_strictly(module, weights, "x")


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda value: value.to_sparse(), "sparse"),
        (lambda value: value.to_sparse_csr(), "sparse"),
        (lambda value: value.to("meta"), "without content"),
    ],
)
@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_tensors_that_are_not_dense_are_refused(tmp_path: Path, make: Callable[[Tensor], Tensor], kind: str) -> None:
    torch.save({"state_dict": {"a.weight": make(torch.eye(3)), "a.bias": torch.zeros(3)}}, tmp_path / "x.pt")
    for prefix in ("", "a."):
        with pytest.raises(UserError, match=rf"x.pt: a.weight is {kind}; save the model with dense tensors$"):
            checkpoint.read_weights(tmp_path / "x.pt", prefix=prefix)


def test_a_pipe_in_place_of_a_configuration_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").symlink_to("/dev/zero")
    with pytest.raises(UserError, match="it is no regular file"):
        checkpoint.read_json(tmp_path / "config.json")


def test_a_prefix_that_the_file_lacks_is_advised_and_added(tmp_path: Path) -> None:
    """Of a model that wraps what was saved; and the brother, a file that wraps what the model is."""
    file, wanted = tmp_path / "inner.safetensors", {"vision.a.weight": torch.ones(2), "vision.b.weight": torch.zeros(3)}
    save_file({name.removeprefix("vision."): value for name, value in wanted.items()}, file)
    with pytest.raises(UserError, match=r"; give encoder.prefix=\+vis.*: missing vision.a.weight; unexpected a.weight"):
        strict.check_names(wanted, checkpoint.read_weights(file), file)
    strict.check_names(wanted, checkpoint.read_weights(file, prefix="+vision."), file)
    save_file({f"net.{name}": value for name, value in wanted.items()}, file)
    with pytest.raises(UserError, match=r"; give encoder.prefix=net. \(all names"):
        strict.check_names(wanted, checkpoint.read_weights(file), file)
    strict.check_names(wanted, checkpoint.read_weights(file, prefix="net."), file)


@pytest.mark.parametrize("zipped", [True, False])
def test_an_outline_has_names_and_shapes_and_no_values(tmp_path: Path, zipped: bool) -> None:
    state = {"epoch": 3, "model": {"a.weight": torch.ones(2, 3)}, "optimizer": {"a": torch.ones(1)}}
    torch.save(state, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    outline = checkpoint.read_outline(tmp_path / "x.pt")
    assert {name: (tuple(value.shape), value.is_meta) for name, value in outline.items()} == {
        "a.weight": ((2, 3), True)
    }
    (tmp_path / "x.pt").write_bytes(b"torn")
    assert checkpoint.read_outline(tmp_path / "x.pt") == {}


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ({"epoch": 3, "global_step": 1_200, "state_dict": {"w": torch.ones(2)}}, {"epoch": 3, "step": 1_200}),
        ({"model": {"w": torch.ones(2)}, "step": 7}, {"step": 7}),
        ({"epoch": 1.5, "step": -1, "model": {}}, {}),
        ({"w": torch.ones(2)}, {}),
        ([1], {}),
    ],
)
def test_a_training_checkpoint_says_how_far_it_was(state: object, told: dict[str, int], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "last.ckpt")
    assert checkpoint.training_progress(tmp_path / "last.ckpt") == told
    (tmp_path / "cut.ckpt").write_bytes((tmp_path / "last.ckpt").read_bytes()[:100])
    for name in ("cut.ckpt", "gone.ckpt", "x.safetensors"):
        assert checkpoint.training_progress(tmp_path / name) == {}


def test_a_prefix_is_taken_off_and_another_put_before(tmp_path: Path) -> None:
    """A wrapper's names begin otherwise than those of the module that training wrapped."""
    torch.save({"state_dict": {"model.encoder.a.weight": torch.ones(1), "head.b": torch.ones(1)}}, tmp_path / "x.ckpt")
    taken = checkpoint.read_weights(tmp_path / "x.ckpt", prefix="model.encoder.+net.")
    assert [*taken] == ["net.a.weight"]
    plain = checkpoint.read_weights(tmp_path / "x.ckpt", prefix="model.encoder.")
    with pytest.raises(
        UserError, match=r"give encoder\.prefix=model\.encoder\.\+net\. \(the model's names start with net"
    ):
        strict.check_names({"net.a.weight": torch.ones(1)}, plain, "x")
