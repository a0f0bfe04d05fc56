"""Weights inside what training loops save: parts, prefixes, and advice that works when it is followed."""

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from evalkit.errors import UserError
from evalkit.weights import checkpoint
from tests.encoders import test_hf_video
from tests.saved import load, refusal

State = dict[str, Tensor]


@pytest.fixture
def state(tiny: Path) -> State:
    return load_file(tiny / "model.safetensors")


@pytest.fixture
def save(tiny: Path, tmp_path: Path) -> Callable[[Any], Path]:
    """Writes anything as a file of weights beside the tiny encoder's config.json."""

    def write(content: Any) -> Path:
        shutil.copytree(tiny, tmp_path, dirs_exist_ok=True)
        torch.save(content, tmp_path / "run.pt")
        return tmp_path / "run.pt"

    return write


def before(state: State, prefix: str) -> State:
    return {prefix + name: value for name, value in state.items()}


def other(state: State) -> State:
    """Weights of the same shapes that are not the same."""
    return {name: value + 1 for name, value in state.items()}


def follow(message: str, ckpt: Path) -> Any:
    """The encoder that is loaded as a message says: with the words at its end."""
    words = dict(word.split("=", 1) for word in shlex.split(message) if "=" in word and word.split("=")[0] in KEYS)
    return load(words.pop("ckpt", ckpt), **{key.removeprefix("encoder."): value for key, value in words.items()})


KEYS = ("ckpt", "encoder.prefix", "encoder.model")
PREFIXES = [
    "module.",
    "_orig_mod.",
    "module._orig_mod.",
    "_orig_mod.module.",
    "model.",
    "encoder.",
    "backbone.",
    "a.b.c.",
]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_that_all_names_share_is_told_and_following_that_loads(
    prefix: str, state: State, save: Callable[[Any], Path], tiny: Path
) -> None:
    file = save(before(state, prefix))
    message = refusal(file)
    assert f"; give encoder.prefix={prefix} (all names that the model wants start with {prefix} there)" in message
    assert checkpoint.sha256(follow(message, file)) == checkpoint.sha256(load(tiny))


def test_what_else_the_file_holds_does_not_hide_the_prefix(
    state: State, save: Callable[[Any], Path], tiny: Path
) -> None:
    file = save({"head.weight": torch.zeros(2), "module.head.bias": torch.zeros(2), **before(state, "module.net.")})
    assert checkpoint.sha256(follow(refusal(file), file)) == checkpoint.sha256(load(tiny))


@pytest.mark.parametrize("ending", [".safetensors", ".bin"])
def test_the_advice_for_a_folder_of_transformers_names_its_file(tmp_path: Path, ending: str) -> None:
    folder = test_hf_video.folder(tmp_path, "videomae")
    known = checkpoint.sha256(load(folder))
    weights = before(load_file(folder / "model.safetensors"), "module.")
    (folder / "model.safetensors").unlink()
    if ending == ".bin":
        torch.save(weights, folder / "pytorch_model.bin")
    else:
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
    message = refusal(folder)
    assert re.search(rf"give ckpt={folder}/\w+{ending} encoder.prefix=module. \(all", message)
    assert checkpoint.sha256(follow(message, folder)) == known


@pytest.mark.parametrize(
    "part", ["state_dict", "model", "module", "model_state_dict", "state_dict_ema", "model_ema", "x.y"]
)
def test_the_only_weights_in_a_file_are_found_whatever_they_are_called(
    part: str, state: State, save: Callable[[Any], Path], tiny: Path
) -> None:
    content: Any = state
    for name in reversed(part.split(".")):
        content = {name: content, "epoch": 3, "args": {"lr": 1e-3}}
    optimizer = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1}]}
    assert checkpoint.sha256(load(save({**content, "optimizer": optimizer}))) == checkpoint.sha256(load(tiny))


@pytest.mark.parametrize(("first", "second"), [("state_dict", "state_dict_ema"), ("model", "model_ema")])
def test_of_a_model_and_its_average_the_model_is_taken_and_the_average_told_with_its_key(
    first: str, second: str, state: State, save: Callable[[Any], Path], tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = save({second: other(state), first: state})
    assert checkpoint.sha256(load(file)) == checkpoint.sha256(load(tiny))
    line = capsys.readouterr().err.strip()
    assert line == f"{file}: took {first}, and not {second}. encoder.prefix={second}. takes {second}"
    taken = follow(line.replace(" takes", "  takes"), file)
    assert torch.equal(taken.state_dict()["norm.bias"], state["norm.bias"].float() + 1)
    assert not capsys.readouterr().err


def test_of_teacher_and_student_nobody_guesses(state: State, save: Callable[[Any], Path], tiny: Path) -> None:
    file = save({"teacher": before(state, "module."), "student": other(state)})
    message = refusal(file)
    assert message == (
        f"{file} holds several sets of weights: teacher, student. encoder.prefix=teacher. takes teacher; "
        "encoder.prefix=student. takes student"
    )
    message = refusal(file, prefix="teacher.")
    assert "give encoder.prefix=teacher.module. (all names" in message
    assert checkpoint.sha256(follow(message, file)) == checkpoint.sha256(load(tiny))


@pytest.mark.parametrize(
    "content",
    [{1: torch.zeros(2)}, {"a": {2: torch.zeros(2)}}, {("a", 1): torch.zeros(2)}, {}, [1], {"state_dict": {"a": 1}}, 3],
)
def test_a_file_without_names_of_tensors_is_told_in_one_line(content: Any, save: Callable[[Any], Path]) -> None:
    for words in ({}, {"prefix": "model."}):
        assert "it holds no state_dict" in refusal(save(content), **words)


def test_an_infinite_nest_ends(save: Callable[[Any], Path]) -> None:
    nest: dict[str, Any] = {}
    for _ in range(200):
        nest = {"a": nest}
    assert "it holds no state_dict" in refusal(save(nest))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_told_by_name(
    value: float, state: State, save: Callable[[Any], Path], tmp_path: Path
) -> None:
    state["blocks.1.mlp.0.weight"][0, 0] = value
    assert ": blocks.1.mlp.0.weight holds 1 of 1,152 values that are NaN or infinite" in refusal(save(state))
    folder = test_hf_video.folder(tmp_path / "hf", "videomae")
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("layer.0.attention.attention.query.weight"))
    weights[name][:] = value
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert "query.weight holds" in refusal(folder)


def test_a_configuration_with_other_layers_than_the_weights_is_refused(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path, dirs_exist_ok=True)
    config = (tiny / "config.json").read_text()
    for depth, told in ((1, "unexpected blocks.1."), (3, "missing blocks.2.")):
        (tmp_path / "config.json").write_text(config.replace('"depth": 2', f'"depth": {depth}'))
        assert told in refusal(tmp_path)


def test_a_whole_module_is_read_where_it_is_trusted(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 3), tmp_path / "whole.pt")
    assert checkpoint.read_weights(tmp_path / "whole.pt", trust=True).keys() == {"weight", "bias"}
    with pytest.raises(UserError, match="^refused "):
        checkpoint.read_weights(tmp_path / "whole.pt")
