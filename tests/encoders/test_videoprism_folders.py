"""VideoPrism in folders of transformers gives what transformers gives."""

import json
from pathlib import Path
from typing import Any

import torch

from evalkit.api import Clip
from tests.encoders.test_videoprism import OWN, TOLERANCE, distance, load, refusal

SHAPE: dict[str, Any] = {
    "image_size": 8,
    "num_frames": 3,
    "tubelet_size": (1, 4, 4),
    "hidden_size": 8,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "num_spatial_layers": 2,
    "num_temporal_layers": 1,
    "num_auxiliary_layers": 1,
}
CLIPS = torch.rand(2, 5, 3, 12, 8, generator=torch.Generator().manual_seed(3))


def scrambled(model: Any) -> Any:
    """The model with no weight left at the value that every new one has."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def preprocessor(folder: Path) -> None:
    size = {"size": {"height": 8, "width": 8}, "do_normalize": False, "rescale_factor": 1 / 255}
    (folder / "video_preprocessor_config.json").write_text(json.dumps(size))


def test_a_folder_of_the_vision_model_gives_transformers_tokens(tmp_path: Path) -> None:
    from transformers import VideoPrismVisionConfig, VideoPrismVisionModel

    model = scrambled(VideoPrismVisionModel(VideoPrismVisionConfig(**SHAPE)))
    model.save_pretrained(tmp_path)
    preprocessor(tmp_path)
    encoder = load(tmp_path)
    assert encoder.clip == Clip(frames=3, size=8, resize="squash")
    with torch.no_grad():
        wanted = model(CLIPS, interpolate_pos_encoding=True).last_hidden_state
    found = encoder(CLIPS)
    assert found.tokens.shape == (2, 5, 6, 8) and distance(found.tokens, wanted) <= TOLERANCE


def test_a_folder_of_the_clip_model_gives_transformers_embeddings(tmp_path: Path, vocabulary: Path) -> None:
    from transformers import VideoPrismClipModel, VideoPrismConfig

    text = {"vocab_size": 200, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 16}
    config = VideoPrismConfig(vision_config=SHAPE, text_config=text | {"num_hidden_layers": 2})
    model = scrambled(VideoPrismClipModel(config))
    model.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(vocabulary.read_bytes())
    encoder = load(tmp_path)
    assert encoder.clip == Clip(frames=3, size=8, resize="squash")
    ids = torch.tensor([[5, 6, 7, 0], [9, 0, 0, 0]])
    with torch.no_grad():
        video_wanted = model.get_video_features(CLIPS, interpolate_pos_encoding=True).pooler_output
        text_wanted = model.get_text_features(input_ids=ids, attention_mask=(ids > 0).long()).pooler_output
    assert distance(encoder(CLIPS).pooled, video_wanted) <= TOLERANCE
    assert distance(encoder.encode_token_ids(ids, (ids == 0).float()), text_wanted) <= TOLERANCE
    assert encoder.encode_text(["a red ring"]).shape == (1, 8)


def test_a_folder_of_the_classifier_gives_transformers_logits(tmp_path: Path) -> None:
    from transformers import VideoPrismForVideoClassification, VideoPrismVisionConfig

    model = scrambled(VideoPrismForVideoClassification(VideoPrismVisionConfig(**SHAPE | {"num_labels": 5})))
    model.save_pretrained(tmp_path)
    encoder = load(tmp_path)
    with torch.no_grad():
        wanted = model(CLIPS, interpolate_pos_encoding=True).logits
    assert wanted.shape[-1] == 5 and distance(encoder.classify(encoder(CLIPS).pooled), wanted) <= TOLERANCE


def test_a_folder_whose_weights_or_shape_do_not_fit_is_refused(tmp_path: Path) -> None:
    from transformers import VideoPrismVisionConfig, VideoPrismVisionModel

    VideoPrismVisionModel(VideoPrismVisionConfig(**SHAPE)).save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(values | {"num_temporal_layers": 2}))
    assert "missing temporal_layers.1" in refusal(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(values | {"image_size": [8, 16]}))
    assert "wanted a square" in refusal(tmp_path)


def test_the_tokenizer_that_transformers_writes_serves_too(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"[unk]": 0, "red": 7, "ring": 9, ".": 3}, unk_token="[unk]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.enable_padding(length=5)
    words.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "lvt.npz").write_bytes((OWN / "lvt.npz").read_bytes())
    encoder = load(tmp_path / "lvt.npz")
    wanted = encoder.encode_token_ids(torch.tensor([[7, 9, 3]]), torch.zeros(1, 3))
    assert distance(encoder.encode_text(["Red ring"]), wanted) <= 1e-6
