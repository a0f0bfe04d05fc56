"""A run knows what its encoder was trained on."""

import json
import logging
from pathlib import Path

import pytest

from evalkit.config.parse import resolve
from evalkit.errors import UserError
from evalkit.pipeline.described import tell_seen, training_data_of


def of(*words: str) -> dict[str, str] | None:
    return training_data_of(resolve("run", ["task=ssv2", *words]))


def test_the_users_word_goes_before_the_presets() -> None:
    assert of("ckpt=videomae_base") == of("ckpt=MCG-NJU/videomae-base") == {"kinetics400": "videos"}
    assert of("ckpt=videomae_base", "trained_on=ssv2:labels") == {"ssv2": "labels"}
    assert of("ckpt=videomae_base", "trained_on=none") == of("ckpt=random:videomae_base") == {}
    assert of("ckpt=demo") is of("ckpt=own/model") is None
    with pytest.raises(UserError, match="Did you mean 'ssv2'"):
        of("ckpt=demo", "trained_on=ssv22")


def test_what_evalkit_adapted_is_read_from_its_folder_and_a_pointer_is_followed(tmp_path: Path) -> None:
    trained, pointing = tmp_path / "trained", tmp_path / "pointing"
    adapter = trained / "adapters" / "contrastive"
    adapter.mkdir(parents=True)
    (trained / "config.json").write_text("{}")
    assert of(f"ckpt={trained}") is None
    stored = {"vatex": "captions", "webvid": "captions", "evil\n": "labels", "ssv2": "everything"}
    (adapter / "adapter.json").write_text(json.dumps({"settings": {}, "trained_on": stored}))
    assert of(f"ckpt={trained}") == {"vatex": "captions", "webvid": "captions"}
    pointing.mkdir()
    (pointing / "encoder.json").write_text(json.dumps({"ckpt": str(trained), "sha256": "0" * 64}))
    assert of(f"ckpt={pointing}") == {"vatex": "captions", "webvid": "captions"}
    (pointing / "encoder.json").write_text(json.dumps({"ckpt": "vivit_b_kinetics", "sha256": "0" * 64}))
    assert of(f"ckpt={pointing}") == {"kinetics400": "labels"}


def test_a_run_notes_what_of_its_task_the_encoder_has_seen(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="evalkit"):
        tell_seen("kinetics600", {"kinetics400": "labels", "webvid": "captions"})
        tell_seen("ssv2", {"kinetics400": "labels"})
        tell_seen("ssv2", None)
    assert caplog.messages == ["the encoder was trained on kinetics400 (labels), whose videos task kinetics600 has"]
