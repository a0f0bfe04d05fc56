"""Fine-tuned checkpoints score as transformers' own forward pass says, whatever the order of their labels."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from evalkit.api import Example, Task, Views
from evalkit.errors import UserError
from evalkit.metrics.classification import top1_top5
from evalkit.weights import checkpoint
from tests.encoders import test_hf_video, test_vjepa2
from tests.given import make_adapter
from tests.saved import change, load, same, save, video

LABELS = ("Spinning [something]", "air_drumming", "c", "d", "e", "f")  # the checkpoint's
CLASSES = ("f", "e", "air drumming", "spinning something", "d", "c")  # the data set's
TASK = Task(test=(), score=top1_top5, classes=CLASSES)
KINDS = ["videomae", "videomae without its norm", "vivit", "timesformer", "vjepa2"]


def folder(path: Path, kind: str, labels: tuple[str, ...] = LABELS) -> Path:
    """A tiny fine-tuned model as transformers saves it."""
    names = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
    torch.manual_seed(0)
    if kind == "vjepa2":
        whole = test_vjepa2.model("VJEPA2ForVideoClassification", **names)
        return save(path / "model", whole, test_vjepa2.PREPROCESSOR)
    name = kind.split()[0]
    settings = {**test_hf_video.SETTINGS[name], **names}
    if name == "videomae":
        settings["use_mean_pooling"] = kind == "videomae"
    config = transformers.AutoConfig.for_model(name, **settings)
    factory: Any = transformers.AutoModelForVideoClassification
    whole = factory.from_config(config)
    return save(path / "model", whole, test_hf_video.PREPROCESSORS[name])


def reference(path: Path, inputs: Tensor) -> Tensor:
    """The logits of transformers' own forward pass, in the order of the task's classes."""
    whole: Any = transformers.AutoModelForVideoClassification.from_pretrained(path)
    with torch.no_grad():
        logits: Tensor = whole.eval()(inputs).logits
    return logits[:, [LABELS.index(label) for label in ("f", "e", "air_drumming", "Spinning [something]", "d", "c")]]


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_transformers_own(tmp_path: Path, kind: str) -> None:
    path = folder(tmp_path, kind)
    encoder = load(path)
    adapter = make_adapter("own_head", encoder, TASK)
    inputs = video(path, encoder)
    views = torch.stack([inputs, inputs.flip(1)], 1)  # (B, 2 views, T, 3, H, W)
    task = replace(TASK, views=Views(crops=3))  # of which these are two
    adapter = make_adapter("own_head", encoder, task)
    features = adapter.feature_spec.take(encoder(views.flatten(0, 1))).unflatten(0, (2, 2))
    wanted = torch.stack([reference(path, inputs), reference(path, inputs.flip(1))], 1)
    assert same(adapter(features), wanted, 1e-5)
    likely = wanted.softmax(-1).mean(1).sort(descending=True)
    examples = [Example(str(i), Path(str(i))) for i in range(2)]
    for predicted, classes, values in zip(adapter.predict(examples, features), *reversed(likely), strict=True):
        assert predicted.value == classes[:5].tolist()
        assert predicted.detail["probabilities"] == pytest.approx(values[:5].tolist(), abs=1e-5)
    assert adapter.epochs == 0 and not [value for value in adapter.parameters() if value.requires_grad]


def test_v_jepa_2_reads_the_tokens_of_all_clips_together(tmp_path: Path) -> None:
    path = folder(tmp_path, "vjepa2")
    encoder = load(path)
    adapter = make_adapter("own_head", encoder, replace(TASK, views=Views("dense", clips=2, crops=3)))
    inputs = video(path, encoder, 6)
    tokens = encoder(inputs).tokens  # (6 clips, T', S, D): of one video, the crops of its first clip first
    whole: Any = transformers.VJEPA2ForVideoClassification.from_pretrained(path)
    whole.eval()
    with torch.no_grad():
        joined = torch.cat([tokens[:3].flatten(1, 2), tokens[3:].flatten(1, 2)], 1)
        wanted = whole.classifier(whole.pooler(joined))
    names = ["f", "e", "air_drumming", "Spinning [something]", "d", "c"]
    assert same(adapter(tokens[None])[0], wanted[:, [LABELS.index(name) for name in names]], 1e-5)


@pytest.mark.parametrize("kind", ["videomae", "vjepa2"])
def test_the_encoder_is_the_same_with_and_without_its_head(tmp_path: Path, kind: str) -> None:
    path = folder(tmp_path, kind)
    encoder = load(path)
    before = checkpoint.sha256(encoder)
    make_adapter("own_head", encoder, TASK)
    assert checkpoint.sha256(encoder) == before and not any("classifier" in name for name in encoder.state_dict())


def refusal(encoder: Any, task: Task = TASK, **settings: Any) -> str:
    with pytest.raises(UserError) as caught:
        make_adapter("own_head", encoder, task, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_labels_without_names_are_given_in_a_file(tmp_path: Path) -> None:
    path = folder(tmp_path, "vivit", tuple(f"LABEL_{i}" for i in range(6)))
    encoder, file = load(path), tmp_path / "names.txt"
    assert "does not name its 6 classes (LABEL_0, LABEL_1, LABEL_2): give adapter.labels=FILE" in refusal(encoder)
    file.write_text("\n".join(LABELS) + "\n")
    adapter = make_adapter("own_head", encoder, TASK, labels=file)
    inputs = video(path, encoder)
    assert same(adapter(encoder(inputs).pooled[:, None])[:, 0], reference(path, inputs), 1e-5)
    file.write_text("a\nb\n")
    told = f"adapter.labels={file} has 2 names, and the checkpoint 6 classes: give a name for each, one in each line"
    assert refusal(encoder, labels=file) == told
    assert "wanted a text file with a name in each line" in refusal(encoder, labels=tmp_path / "none")


def test_labels_beyond_the_data_sets_classes_are_left_out_on_request(tmp_path: Path) -> None:
    path = folder(tmp_path, "timesformer")
    encoder, fewer = load(path), replace(TASK, classes=CLASSES[:4])
    told = refusal(encoder, fewer)
    assert "2 of its 6 labels are no class of the data set" in told and "adapter.subset=true leaves" in told
    inputs = video(path, encoder)
    pooled = encoder(inputs).pooled[:, None]
    adapter = make_adapter("own_head", encoder, fewer, subset=True)
    assert same(adapter(pooled)[:, 0], reference(path, inputs)[:, :4], 1e-5)
    missing = replace(TASK, classes=("f", "air drums"))
    with pytest.raises(UserError, match="1 of the data set's 2 classes are no label of the checkpoint"):
        make_adapter("own_head", encoder, missing, subset=True)


def test_names_that_do_not_match_and_checkpoints_without_a_head_are_refused(tmp_path: Path) -> None:
    path = folder(tmp_path, "timesformer")
    other = replace(TASK, classes=("f", "e", "air drums", "spinning something", "d", "c"))
    assert "1 of its 6 labels are no class of the data set ('air_drumming', nearest 'air drums')" in refusal(
        load(path), other
    )
    assert "this task has none" in refusal(load(path), replace(TASK, classes=()))
    change(path, lambda weights: weights.pop("classifier.bias"))
    assert "missing classifier.bias" in refusal(load(path))
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"architectures": ["TimesformerModel"]}))
    assert "this encoder has none" in refusal(load(path))
    assert "this encoder has none" in refusal(load("random:vivit_demo"))
