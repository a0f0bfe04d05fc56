"""Every way of `ckpt=`: what it gives, and what it says when it cannot."""

import errno
import json
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import evalkit
from evalkit import encoders
from evalkit.api import Clip
from evalkit.encoders import Spec, load_encoder, save_encoder, spec_of
from evalkit.encoders.longvivit import ViViT
from evalkit.errors import UserError
from evalkit.weights import checkpoint
from tests.encoders import test_hf_video


def load(ckpt: object, **settings: Any) -> Any:
    return load_encoder(str(ckpt), **settings)


def refusal(ckpt: object) -> str:
    with pytest.raises(UserError) as caught:
        load_encoder(str(ckpt))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint to change."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for file in tiny.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def video(encoder: Any, n: int = 2) -> torch.Tensor:
    clip = encoder.clip
    pixels = torch.randint(
        0, 256, (n, clip.frames, 3, clip.size, clip.size), generator=torch.Generator().manual_seed(1)
    )
    return clip.normalize(pixels.to(torch.uint8))  # type: ignore[no-any-return]


# --- what a checkpoint gives -----------------------------------------------------------------------------------------


def test_a_loaded_encoder_is_frozen_and_gives_the_same_every_time(tiny: Path) -> None:
    first, second = load(tiny), load(tiny, seed=5)
    assert isinstance(first, ViViT) and not first.training
    assert not any(parameter.requires_grad for parameter in first.parameters())
    assert {parameter.dtype for parameter in first.parameters()} == {torch.float32}  # although the file is fp16
    assert {value.dtype for value in load_file(tiny / "model.safetensors").values()} == {torch.float16}
    state = torch.get_rng_state()
    for key in ("tokens", "pooled"):
        assert torch.equal(getattr(first(video(first)), key), getattr(second(video(first)), key))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.encode_text(["a red ring grows"]), second.encode_text(["a red ring grows"]))


def test_the_public_name_of_the_loader_is_evalkit_load_encoder(tiny: Path) -> None:
    assert evalkit.load_encoder(str(tiny)).clip == Clip(frames=4, size=32)


@pytest.mark.parametrize("ending", [".safetensors", ".pt", ".pth", ".ckpt", ".bin"])
def test_a_weights_file_in_the_folder_is_a_checkpoint_too(copy: Path, tiny: Path, ending: str) -> None:
    state = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    file = copy / f"epoch=3-step=100{ending}"
    if ending == ".safetensors":
        save_file(state, file)
    else:
        torch.save({"state_dict": state} if ending == ".ckpt" else state, file)
    assert checkpoint.sha256(load(file)) == checkpoint.sha256(load(tiny))
    assert encoders.folder_of(str(file)) == copy


def test_the_home_folder_is_understood(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(copy.parent))
    assert load("~/copy").dim == 24 and encoders.folder_of("~/copy") == copy


def test_what_is_saved_is_loaded_as_it_was_but_for_half_precision(vocabulary: Path, tmp_path: Path) -> None:
    text = {"vocabulary": 200, "dim": 16, "depth": 1, "heads": 2, "tokens": 32}
    clip = Clip(frames=2, size=16, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), value_range=(-1.0, 1.0))
    spec = Spec("longvivit", clip, {"dim": 16, "depth": 1, "heads": 2, "hidden": 16, "text": text}, vocabulary)
    module: Any = spec.build()
    save_encoder(module, spec, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors", "tokenizer.model"]
    assert spec_of(str(tmp_path)) == replace(spec, tokenizer=tmp_path / "tokenizer.model")
    loaded = load(tmp_path)
    assert loaded.clip == clip
    for name, value in module.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value.half().float()), name


# --- what cannot be loaded -------------------------------------------------------------------------------------------


def test_a_name_that_is_nothing_is_answered_with_the_nearest() -> None:
    every = "`evalkit list encoders` shows all"
    assert refusal("deno") == f"ckpt=deno: no such file or folder, and no such name. Did you mean 'demo'? {every}"
    shape = ", whose shape random weights could have"
    assert refusal("random:vivit_dem") == f"no preset named 'vivit_dem'{shape}. Did you mean 'vivit_demo'? {every}"
    assert refusal("random:demo") == f"no preset named 'demo'{shape}. Did you mean 'vivit_demo'?"
    assert refusal("vivit_demo") == (
        "ckpt=vivit_demo names a preset whose weights are not published: give a folder with weights, or "
        "ckpt=random:vivit_demo for random ones"
    )
    assert refusal("/no/where").startswith("ckpt=/no/where: no such file or folder")


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ("{", "cannot read {}: Expecting property name"),
        ("[]", "cannot read {}: wanted a JSON object, found a list"),
        ("{}", "{} does not describe an encoder: wanted evalkit's own encoder, clip, settings, or model_type"),
        ('{"model_type": "videomea"}', "{}: no encoder family reads model_type 'videomea'. Did you mean 'videomae'?"),
        ('{"encoder": "longvivit", "clip": 3, "settings": {}}', "{} does not describe an encoder of evalkit's"),
        (
            '{"encoder": "longvivit", "clip": {"fps": 3}, "settings": {}}',
            "{} does not describe an encoder of evalkit's",
        ),
        (
            '{"encoder": "longvivi", "clip": {}, "settings": {}}',
            "no encoder named 'longvivi'. Did you mean 'longvivit'?",
        ),
        (
            '{"encoder": "longvivit", "clip": {"size": 50}, "settings": {}}',
            "clip.size=50 is not a multiple of the tubelet's",
        ),
        (
            '{"encoder": "longvivit", "clip": {}, "settings": {"width": 3}}',
            "encoder longvivit cannot be built as its settings",
        ),
        (
            '{"encoder": "longvivit", "clip": {}, "settings": {"dim": "x"}}',
            "encoder longvivit cannot be built as its settings",
        ),
    ],
)
def test_a_description_that_is_none_is_told_with_its_file(copy: Path, config: str, told: str) -> None:
    (copy / "config.json").write_text(config)
    assert refusal(copy).startswith(told.replace("{}", str(copy / "config.json")))


def test_an_encoder_without_its_tokenizer_says_so_when_asked_for_text(copy: Path) -> None:
    (copy / "tokenizer.model").unlink()
    with pytest.raises(UserError, match=r"no tokenizer.model beside its weights"):
        load(copy).encode_text(["a"])


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return Path.touch, (self.place,)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a pickle that runs code": lambda file: torch.save({"a": Bomb(file.parent / "boom")}, file),
    "an old pickle that runs code": lambda file: torch.save(
        {"a": Bomb(file.parent / "boom")}, file, _use_new_zipfile_serialization=False
    ),
    "a bare pickle that runs code": lambda file: file.write_bytes(pickle.dumps(Bomb(file.parent / "boom"))),
    "text": lambda file: file.write_text("hello world\n"),
    "nothing": lambda file: file.touch(),
    "half a file": lambda file: file.write_bytes((file.parent / "model.safetensors").read_bytes()[:600]),
    "a list": lambda file: torch.save([torch.zeros(2)], file),
    "a number among tensors": lambda file: torch.save({"a": torch.zeros(2), "step": 3}, file),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_file_that_holds_no_weights_is_refused_and_not_run(copy: Path, how: str) -> None:
    DAMAGE[how](copy / "model.pt")
    told = refusal(copy / "model.pt")
    assert told.startswith((f"refused {copy / 'model.pt'}: ", f"cannot read weights {copy / 'model.pt'}: "))
    assert "runs code" not in how or told.startswith("refused ")
    assert not (copy / "boom").exists()


def test_a_damaged_file_is_one_line_wherever_the_damage_is(copy: Path) -> None:
    torch.save(load_file(copy / "model.safetensors"), copy / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("model.safetensors", "old.pt"):
        whole = (copy / name).read_bytes()
        for place in range(0, 400, 7):
            torn = bytearray(whole)
            torn[place] ^= 0x55
            (copy / name).write_bytes(bytes(torn))
            try:
                load(copy / name)
            except UserError as error:
                assert "\n" not in str(error), (name, place)


def test_weights_that_do_not_fit_are_listed_ten_and_counted(copy: Path) -> None:
    file = copy / "model.safetensors"
    state = load_file(file)
    save_file({f"module.{name}": value for name, value in state.items()}, file)
    told = refusal(copy)
    assert told.startswith(
        f"weights of {file} do not fit the model ({2 * len(state)}); give encoder.prefix=module. (all names"
    )
    assert told.count("missing ") == told.count("unexpected ") == 5 and told.endswith(
        f" and {2 * len(state) - 10} more"
    )
    del state["norm.bias"]
    save_file({**state, "norm.gain": torch.zeros(24), "norm.weight": torch.zeros(5)}, file)
    assert refusal(copy) == (
        f"weights of {file} do not fit the model (3): missing norm.bias; unexpected norm.gain; "
        "norm.weight is (5,), wanted (24,)"
    )


# --- the hash --------------------------------------------------------------------------------------------------------


def test_the_hash_is_of_the_weights_and_not_of_their_file(copy: Path, tiny: Path) -> None:
    known = checkpoint.sha256(load(tiny))
    state = load_file(copy / "model.safetensors")
    backwards = OrderedDict(reversed(state.items()))
    torch.save(backwards, copy / "backwards.pt")
    torch.save(backwards, copy / "old.pt", _use_new_zipfile_serialization=False)
    save_file({name: value.float() for name, value in state.items()}, copy / "model.safetensors", {"note": "fp32"})
    for ckpt in (copy / "backwards.pt", copy / "old.pt", copy):
        assert checkpoint.sha256(load(ckpt)) == known
    assert json.loads((tiny / "config.json").read_text())["encoder"] == "longvivit"


def test_the_hash_changes_with_one_weight_a_name_a_shape_or_a_type(tiny: Path) -> None:
    module = load(tiny)
    known = checkpoint.sha256(module)
    with torch.no_grad():
        module.blocks[1].mlp[0].bias[7] += 1e-3
    assert checkpoint.sha256(module) != known
    linear = torch.nn.Linear(2, 2, bias=False)
    torch.nn.init.ones_(linear.weight)
    hashes = [checkpoint.sha256(torch.nn.ModuleDict({name: linear})) for name in "ab"]
    long = torch.nn.Linear(4, 1, bias=False)
    torch.nn.init.ones_(long.weight)
    hashes += [checkpoint.sha256(torch.nn.ModuleDict({"a": long})), checkpoint.sha256(linear.double())]
    assert len(set(hashes)) == 4


def test_a_pickle_that_runs_code_is_loaded_only_where_it_is_trusted(copy: Path, tiny: Path) -> None:
    class Note:
        def __reduce__(self) -> Any:
            return (print, ("ran",))

    torch.save({"state_dict": load_file(tiny / "model.safetensors"), "note": Note()}, copy / "run.ckpt")
    assert refusal(copy / "run.ckpt").endswith("trust=true loads it all the same, if you trust who made it")
    assert checkpoint.sha256(load(copy / "run.ckpt", trust=True)) == checkpoint.sha256(load(tiny))


# --- what Python's callers write -------------------------------------------------------------------------------------


def test_paths_and_text_are_both_taken(tiny: Path, vocabulary: Path) -> None:
    for tokenizer in (vocabulary, str(vocabulary)):
        encoder: Any = load_encoder(tiny, tokenizer=tokenizer)
        assert encoder.encode_text(["a red ring grows"]).shape == (1, 24)
    with pytest.raises(UserError, match="encoder.heads='2': expected a whole number"):
        load_encoder(tiny, heads="2")
    with pytest.raises(UserError, match="^encoder.tokenizer=/no/such: no such file or folder$"):
        load_encoder(tiny, tokenizer="/no/such")


@pytest.mark.parametrize(
    ("setting", "random"), [({"prefix": "a."}, True), ({"model": "clip_base"}, True), ({"heads": 3}, False)]
)
def test_a_setting_that_would_do_nothing_is_refused(setting: dict[str, Any], random: bool, tmp_path: Path) -> None:
    """Random weights have the heads that they are given."""
    saved = test_hf_video.folder(tmp_path, "videomae")
    for ckpt in (str(saved), *(["random:vivit_demo"] if random else [])):
        with pytest.raises(UserError, match=rf"^encoder\.{next(iter(setting))}=.* has no effect on .*: leave it out$"):
            load_encoder(ckpt, **setting)


@pytest.mark.parametrize("texts", ["abc", []])
def test_one_text_is_not_taken_for_its_letters(texts: Any) -> None:
    with pytest.raises(ValueError, match="wanted a list of at least one text"):
        load("demo").encode_text(texts)


@pytest.mark.parametrize("ckpt", ["", "a\nb", "a" * 5000, "a/" * 1500, "x" * 300])
def test_a_name_that_no_file_can_have_is_told_in_one_short_line(ckpt: str) -> None:
    assert len(refusal(ckpt)) < 5000


def test_a_folder_that_may_not_be_read_is_told_so(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path) -> bool:  # as the system answers who is not root
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "is_file", denied)
    assert "cannot be read: Permission denied" in refusal(copy)


# --- the hub ---------------------------------------------------------------------------------------------------------


def test_a_hub_name_that_cannot_be_reached_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    told = refusal("nobody/nothing-at-all")
    assert told.startswith(
        "nobody/nothing-at-all: no such file or folder here, nor in the cache of the hub, and HF_HUB"
    )
    assert told.endswith("give a local folder, or fetch it where there is a network: hf download nobody/nothing-at-all")
