"""Encoders of the user's own: functions, entry points and their settings."""

from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from evalkit.config import parse
from evalkit.config.keys import known_keys
from evalkit.encoders import load_encoder
from evalkit.errors import UserError
from tests.encoders.test_load import load, refusal, video

OWN = """
import torch

from evalkit.api import Clip, EncoderOutput


class Mean(torch.nn.Module):
    clip = Clip(frames=2, size=8)
    dim = 3

    def forward(self, video):
        tokens = video.mean((-1, -2))[:, :, None]
        return EncoderOutput(tokens, tokens.mean((1, 2)))


def make():
    return Mean().train()


def number():
    return 7


def torn():
    raise RuntimeError("no wheels on this")


def worded():
    from evalkit.errors import UserError

    raise UserError("give it wheels")
"""


def test_a_function_of_ones_own_gives_the_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_tower.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)  # found there, as a file would be
    encoder = load("own_tower:make")
    assert not encoder.training and encoder(video(encoder)).pooled.shape == (2, 3)
    assert refusal("own_tower:number") == "ckpt=own_tower:number gives a int; wanted a torch module with .clip and .dim"
    assert refusal("own_tower:torn") == "ckpt=own_tower:torn: RuntimeError: no wheels on this"
    assert refusal("own_tower:worded") == "give it wheels"
    assert refusal("own_tower:gone").startswith("ckpt=own_tower:gone: AttributeError: ")
    assert refusal("no_such_tower:make").startswith("ckpt=no_such_tower:make: ModuleNotFoundError: ")


# --- the user's own --------------------------------------------------------------------------------------------------

OWN_FUNCTION = '''
import torch
from evalkit.api import Clip, EncoderOutput

class Own(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.clip, self.dim = Clip(frames=2, size=8), width
        self.map = torch.nn.Linear(3, width)

    def forward(self, video):
        tokens = self.map(video.mean((3, 4)))[:, :, None]
        return EncoderOutput(tokens, tokens.mean((1, 2)))

def make(width: int = 5) -> Own:
    """My encoder.

    Args:
        width: of its tokens.
    """
    return Own(width)

number = 3
'''


@pytest.fixture
def own(module_here: Callable[[str], str]) -> str:
    """The name of a module in the current folder that makes an encoder."""
    return module_here(OWN_FUNCTION)


def test_a_function_of_the_users_own_takes_its_own_settings(own: str) -> None:
    encoder = load_encoder(f"{own}:make", width=7)
    assert encoder.dim == 7 and encoder(video(encoder)).tokens.shape == (2, 2, 1, 7)
    keys = known_keys("run", ckpt=f"{own}:make")
    assert keys["encoder.width"].default == 5 and keys["encoder.width"].meaning == "of its tokens."
    assert "encoder.prefix" not in keys and "encoder.prefix" in known_keys("run", ckpt="demo")
    settled = parse.resolve("canary", [f"ckpt={own}:make", "encoder.width=6"])
    assert settled.encoder == {"width": 6}


def test_a_setting_that_no_encoder_knows_is_told_with_the_nearest(own: str) -> None:
    with pytest.raises(UserError, match=r"^unknown setting 'prefx' of an encoder. Did you mean 'prefix'\?$"):
        load_encoder("demo", prefx="x")
    with pytest.raises(UserError, match="^unknown key 'encoder.heads': encoder own.*:make takes encoder.width$"):
        parse.resolve("canary", [f"ckpt={own}:make", "encoder.heads=6"])
    with pytest.raises(UserError, match="^unknown key 'encoder.wdth'. Did you mean 'encoder.width'\\?$"):
        parse.resolve("canary", [f"ckpt={own}:make", "encoder.wdth=6"])
    with pytest.raises(UserError, match="number is a int; wanted a function"):
        load_encoder(f"{own}:number")
    with pytest.raises(UserError, match="unexpected keyword argument 'depth'"):
        load_encoder(f"{own}:make", depth=1)


def test_an_entry_points_name_is_a_checkpoint(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("mine", f"{own}:make", "evalkit.encoders")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: (point,) if group == point.group else ())
    monkeypatch.syspath_prepend(".")
    assert load_encoder("mine", width=9).dim == 9


def test_a_file_of_code_is_told_how_to_name_its_function(module_here: Callable[[str], str]) -> None:
    name = module_here(OWN)
    for ckpt, told in (
        (name, f"name its function, ckpt={name}:FUNCTION, one of make, number, torn, worded"),
        (f"{name}.py", f"name its function, ckpt={name}:FUNCTION, one of make, number, torn, worded"),
        (f"./{name}.py", f"name its function, ckpt={name}:FUNCTION, one of make, number, torn, worded"),
        (f"{name}.make", f"name its function, ckpt={name}:make"),
        (f"{name}.mak", f"name its function, ckpt={name}:make"),
        (f"{name}.Men", f"name its function, ckpt={name}:Mean"),
        (f"{name}.py:make", f"is named without .py: ckpt={name}:make"),
        (f"./{name}.py:make", f"name its function, ckpt={name}:make"),
        (f"./{name}.py:mak()", f"name its function, ckpt={name}:make"),
        (f"{name}:mak", f"{name}' has no attribute 'mak'. Did you mean 'make'?"),
    ):
        with pytest.raises(UserError) as caught:
            load_encoder(ckpt)
        assert told in str(caught.value)
    load_encoder(f"{name}:make")  # as advised
