"""Every family of encoders through a whole run, fed as its own files say."""

import json
from pathlib import Path
from typing import Any

import pytest

from evalkit.cli import main
from evalkit.results import run_folder, validate
from tests.encoders import test_hf_image, test_hf_image_text, test_hf_video, test_hf_video_text, test_vjepa2
from tests.saved import save

pytestmark = pytest.mark.usefixtures("decoding_here")

NPZ = {path.name: path for path in (Path(__file__).parents[1] / "fixtures" / "videoprism").glob("*.params.npz")}
IMAGES = (test_hf_image, test_hf_image_text)
FAMILIES = [*test_hf_video.KINDS, *(kind for one in IMAGES for kind in one.KINDS), "xclip", "vjepa2", *sorted(NPZ)]


def saved(family: str, path: Path) -> Path:
    """A tiny encoder of a family with random weights, as its makers save it."""
    if family in NPZ:
        return NPZ[family]
    if family in test_hf_video.KINDS:
        return test_hf_video.folder(path, family)
    if family == "xclip":
        return test_hf_video_text.folder(path)
    if family == "vjepa2":
        return test_vjepa2.folder(path)
    of = next(one for one in IMAGES if family in one.KINDS)
    return save(path, of.model(family), of.PREPROCESSORS[family])


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, films: Path) -> Path:
    """A csv of twelve films, eight to train on."""
    rows = [f"{film},{i % 2},{'train' if i < 8 else 'test'}" for i, film in enumerate(sorted(films.glob("*.mp4")))]
    file = tmp_path_factory.mktemp("table") / "labels.csv"
    file.write_text("\n".join(["path,label,split", *rows]) + "\n")
    return file


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_runs_end_to_end_and_is_fed_as_its_files_say(
    family: str, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ckpt = saved(family, tmp_path / "encoder")
    words = ["task=folder", f"data.root={table}", f"ckpt={ckpt}", f"out={tmp_path / 'out'}", "trust=false"]
    # Noise for weights: what the canary says of such an encoder is tested elsewhere.
    settings = ["adapter.head=linear", "adapter.epochs=1", "canary=false", "controls=false"]
    assert main(["run", *words, *settings]) == 0, capsys.readouterr().err
    (run,) = [path.parent for path in (tmp_path / "out").rglob("result.json")]
    assert validate.validate(run) == []
    found: dict[str, Any] = run_folder.load(run)
    assert found["status"] == "complete" and found["data"]["n_scored"] == found["data"]["n_expected"] == 4
    clip, views = found["encoder"]["clip"], found["task"]["protocol"]["views"]
    assert (views["frames"], views["size"], views["resize"]) == (clip["frames"], clip["size"], clip["resize"])
    stated = ckpt / "preprocessor_config.json" if ckpt.is_dir() else None
    if stated and stated.is_file():
        values = json.loads(stated.read_text())
        assert (clip["mean"], clip["std"]) == (values["image_mean"], values["image_std"])
