"""Released files of OpenGVLab's models through whole runs on miniatures, by their own classifiers and their texts."""

from pathlib import Path

import pytest

from evalkit.cli import main
from evalkit.results import run_folder, validate
from tests.encoders import opengvlab_files as files
from tests.encoders.test_opengvlab import meanings, vocabulary_of_bert
from tests.given import make

pytestmark = pytest.mark.usefixtures("decoding_here")
QUICK = ["clip.frames=2", "clip.size=112", "clip.clips=1", "clip.crops=1", "canary=false", "controls=false"]


@pytest.mark.parametrize("kind", ["internvideo2", "umt", "videomae_v2"])
def test_a_classifier_scores_kinetics_by_the_names_of_its_labels(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files.DRAWN.manual_seed(3)
    classes = [*reversed(make("kinetics400", mini=True).classes), "a label of another data set"]
    weights = meanings()[kind]
    width = files.POOLED if kind == "internvideo2" else files.DIM
    tuned = {name: value for name, value in weights.items() if not name.startswith("norm.")}
    path = files.save(tmp_path / "tuned.pth", tuned | files.classifier(width, len(classes)))
    (tmp_path / "labels.txt").write_text("\n".join(classes) + "\n")
    words = ["task=kinetics400", "mini=true", f"ckpt={path}", f"encoder.heads={files.HEADS}", f"out={tmp_path / 'out'}"]
    head = ["adapter=own_head", f"adapter.labels={tmp_path / 'labels.txt'}", "adapter.subset=true"]
    assert main(["run", *words, *head, *QUICK, "trust=false"]) == 0, capsys.readouterr().err
    (run,) = [file.parent for file in (tmp_path / "out").rglob("result.json")]
    assert validate.validate(run) == []
    found = run_folder.load(run)
    assert found["status"] == "complete" and found["data"]["n_scored"] == found["data"]["n_expected"] > 0
    assert found["encoder"]["clip"]["mean"] == [0.485, 0.456, 0.406]


def test_a_second_stage_names_what_it_sees_by_its_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files.DRAWN.manual_seed(3)
    vision = files.internvideo2("vision_encoder.") | files.linear("vision_proj", files.POOLED, 20)
    path = files.save(tmp_path / "second.pt", vision | files.bert(1, 1))
    words = ["task=kinetics400", "mini=true", f"ckpt={path}", f"encoder.heads={files.HEADS}", f"out={tmp_path / 'out'}"]
    vocabulary = f"encoder.tokenizer={vocabulary_of_bert(tmp_path)}"
    assert main(["run", *words, vocabulary, "adapter=zero_shot", *QUICK]) == 0, capsys.readouterr().err
    (file,) = (tmp_path / "out").rglob("result.json")
    found = run_folder.load(file.parent)
    assert found["status"] == "complete" and found["task"]["protocol"]["views"]["frames"] == 2
