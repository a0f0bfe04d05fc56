"""Layouts of VideoPrism's archive of arrays, and what of it is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from evalkit.api import has_text
from evalkit.errors import UserError
from evalkit.weights import checkpoint
from tests.encoders.test_videoprism import OWN, Arrays, load, read, refusal, video, write

# --- layouts of the archive ------------------------------------------------------------------------------------------


def test_layers_apart_and_layers_stacked_give_the_same_weights(tmp_path: Path) -> None:
    apart: Arrays = {}
    for name, array in read(OWN / "lvt.npz").items():
        if "/x_layers/" in name:
            apart |= {name.replace("/x_layers/", f"/x_layers_{i}/"): part for i, part in enumerate(array)}
        else:
            apart[name] = array
    other = load(write(tmp_path / "apart.npz", apart))
    assert checkpoint.sha256(other) == checkpoint.sha256(load(OWN / "lvt.npz"))
    first = "params/vision_encoder/spatial_encoder/transformers_stack/x_layers_0/"
    less = {name: array for name, array in apart.items() if not name.startswith(first)}
    told = refusal(write(tmp_path / "less.npz", less))  # one layer is left, and it has the second's number
    assert f"missing {first}layer_norm/scale" in told


def test_a_contrastive_model_without_text_and_without_auxiliary_layers_embeds_video(tmp_path: Path) -> None:
    kept = {n: a for n, a in read(OWN / "lvt.npz").items() if "/text_encoder/" not in n and "/auxiliary" not in n}
    encoder = load(write(tmp_path / "video.npz", kept))
    found = encoder(video(read(OWN / "lvt.io.npz")["in/video"]))
    assert not has_text(encoder) and len(encoder.auxiliary) == 0
    assert torch.allclose(found.pooled.norm(dim=1), torch.ones(2))
    with pytest.raises(UserError, match="no text tower"):
        encoder.encode_text(["a"])


def test_half_precision_weights_become_float32(tmp_path: Path) -> None:
    half = {name: array.astype(np.float16) for name, array in read(OWN / "encoder.npz").items()}
    encoder = load(write(tmp_path / "half.npz", half))
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(read(OWN / "classifier.npz")))
def test_every_single_array_is_missed_and_its_shape_checked(tmp_path: Path, name: str) -> None:
    arrays = read(OWN / "classifier.npz")
    wrong = arrays.pop(name)
    told = refusal(write(tmp_path / "missing.npz", arrays))
    assert "(1):" in told and f"missing {name}" in told
    told = refusal(write(tmp_path / "flat.npz", arrays | {name: wrong[None]}))
    assert "(1):" in told and f"{name} is {(1, *wrong.shape)}" in told


def test_a_longer_axis_is_told_of_the_one_array_that_has_it(tmp_path: Path) -> None:
    arrays = read(OWN / "lvt.npz")
    name = "params/vision_encoder/spatial_ln/scale"
    assert f"(1): {name} is (9,), wanted (8,)" in refusal(write(tmp_path / "long.npz", arrays | {name: np.ones(9)}))
    name = "params/text_encoder/unimodal_transformer/x_layers/self_attention/query/b"
    told = refusal(write(tmp_path / "b.npz", arrays | {name: arrays[name][:2]}))
    assert f"(1): {name} is (2, 2, 4), wanted (3, 2, 4)" in told


def test_what_nothing_uses_is_refused_ten_by_name_and_the_rest_by_number(tmp_path: Path) -> None:
    more = {f"params/extra_{i}": np.ones(1, np.float32) for i in range(12)}
    told = refusal(write(tmp_path / "more.npz", read(OWN / "encoder.npz") | more))
    assert "(12): unexpected params/extra_0;" in told and "extra_9 and 2 more" in told and "extra_10" not in told


@pytest.mark.parametrize(
    ("name", "array", "told"),
    [
        ("params/patch_projection/linear/kernel", np.ones((47, 8), np.float32), "47 inputs, wanted 3 x a square"),
        ("params/spatial_pos_emb/emb_var", np.ones((5, 8), np.float32), "5 places, wanted a square"),
        ("params/temporal_pos_emb/emb_var", np.ones((0, 8), np.float32), "is (0, 8), which is empty"),
        ("params/spatial_ln/bias", np.ones(8, np.int32), "params/spatial_ln/bias holds int32, not floats"),
    ],
)
def test_arrays_that_make_no_model_are_refused(tmp_path: Path, name: str, array: NDArray[Any], told: str) -> None:
    assert told in refusal(write(tmp_path / "odd.npz", read(OWN / "encoder.npz") | {name: array}))


def test_pickled_objects_are_refused_and_never_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "boom",))

    arrays = read(OWN / "encoder.npz") | {"params/spatial_ln/scale": np.array([Bomb()], dtype=object)}
    assert "pickled objects" in refusal(write(tmp_path / "bomb.npz", arrays))
    assert not (tmp_path / "boom").exists()


def test_damaged_archives_are_refused_in_one_line(tmp_path: Path) -> None:
    whole = (OWN / "encoder.npz").read_bytes()
    for i, content in enumerate(
        [whole[: len(whole) // 2], b"", b"no archive", whole[:3000] + b"x" * 40 + whole[3040:]]
    ):
        (tmp_path / f"{i}.npz").write_bytes(content)
        assert str(tmp_path / f"{i}.npz") in refusal(tmp_path / f"{i}.npz")
