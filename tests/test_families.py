"""Every family of encoders through a whole run, fed as its own files say."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evalkit import result
from evalkit.cli import main
from tests import test_hf_image, test_hf_image_text, test_hf_video, test_hf_video_text, test_vjepa2
from tests.saved import save

NPZ = Path(__file__).parent / "fixtures" / "videoprism"
FOLDERS: dict[str, Callable[[Path], Path]] = {
    **{kind: lambda path, kind=kind: test_hf_video.folder(path, kind) for kind in test_hf_video.KINDS},
    **{
        kind: lambda path, kind=kind: save(path, test_hf_image.model(kind), test_hf_image.PREPROCESSORS[kind])
        for kind in test_hf_image.KINDS
    },
    **{
        kind: lambda path, kind=kind: save(path, test_hf_image_text.model(kind), test_hf_image_text.PREPROCESSORS[kind])
        for kind in test_hf_image_text.KINDS
    },
    "xclip": test_hf_video_text.folder,
    "vjepa2": test_vjepa2.folder,
    **{f"videoprism {path.name}": lambda _, path=path: path for path in sorted(NPZ.glob("*.params.npz"))},
}


@pytest.mark.parametrize("family", FOLDERS)
def test_every_family_runs_end_to_end_and_is_fed_as_its_files_say(
    family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ckpt = FOLDERS[family](tmp_path / "encoder")
    words = ["task=kinetics400", "mini=true", f"ckpt={ckpt}", f"out={tmp_path / 'out'}", "trust=false"]
    # Noise for weights: what the canary says of such an encoder is tested elsewhere.
    settings = ["adapter.head=linear", "adapter.epochs=1", "canary=false", "controls=false"]
    assert main(["run", *words, *settings]) == 0, capsys.readouterr().err
    (run,) = [path.parent for path in (tmp_path / "out").rglob("result.json")]
    assert result.validate(run) == []
    found: dict[str, Any] = result.load(run)
    assert found["status"] == "complete" and found["data"]["n_scored"] == found["data"]["n_expected"] == 100
    clip, views = found["encoder"]["clip"], found["task"]["protocol"]["views"]
    assert (views["frames"], views["size"], views["resize"]) == (clip["frames"], clip["size"], clip["resize"])
    stated = ckpt / "preprocessor_config.json" if ckpt.is_dir() else None
    if stated and stated.is_file():
        values = json.loads(stated.read_text())
        assert (clip["mean"], clip["std"]) == (values["image_mean"], values["image_std"])
