"""open_clip and timm run no code that came with a model, whatever the model's files tell them."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from evalkit.api import Loading
from evalkit.encoders import open_clip, timm
from evalkit.errors import UserError


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """A file that code in the folder `model` of a stranger makes, where it is run."""
    folder, file = tmp_path / "model", tmp_path / "mark"
    folder.mkdir()
    code = f"open({str(file)!r}, 'w').close()\nclass Evil:\n    from_pretrained = from_config = classmethod(dict)\n"
    (folder / "evil.py").write_text(code)
    names = {name: "evil.Evil" for name in ("AutoConfig", "AutoModel")} | {"AutoTokenizer": ["evil.Evil", None]}
    for name in ("config.json", "tokenizer_config.json"):
        (folder / name).write_text(json.dumps({"model_type": "evil", "tokenizer_class": "Evil", "auto_map": names}))
    return file


@pytest.mark.parametrize("trust", [{"trust_remote_code": True}, {}])
def test_a_tokenizer_of_open_clip_is_not_trusted_for_what_its_folder_says(
    mark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trust: dict[str, bool]
) -> None:
    def get_tokenizer(name: str) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(name.removeprefix("local-dir:"), **trust)  # `tokenizer_kwargs` of a file

    monkeypatch.setitem(sys.modules, "open_clip", SimpleNamespace(get_tokenizer=get_tokenizer))
    with pytest.raises(UserError, match="^no tokenizer of open_clip's local-dir:"):
        open_clip.Texts(f"local-dir:{tmp_path / 'model'}", nn.Identity())(["a cat"])
    assert not mark.exists()


@pytest.mark.parametrize("reader", ["AutoConfig", "AutoModel"])
def test_a_text_tower_of_open_clip_is_not_trusted_for_what_its_folder_says(
    mark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    def create_model(name: str, **settings: Any) -> Any:
        import transformers

        return getattr(transformers, reader).from_pretrained(tmp_path / "model", trust_remote_code=True)

    monkeypatch.setitem(sys.modules, "open_clip", SimpleNamespace(create_model=create_model))
    with pytest.raises(UserError, match="^ckpt=open_clip:"):
        open_clip.pretrained_name(str(tmp_path / "model"), Loading())
    assert not mark.exists()


def test_pickles_of_timm_run_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "mark"),)

    torch.save(Evil(), tmp_path / "pytorch_model.bin")

    def create_model(name: str, **settings: Any) -> Any:  # as former versions of timm
        return torch.load(tmp_path / "pytorch_model.bin", weights_only=False)

    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=create_model))
    with pytest.raises(UserError, match="^ckpt=timm:"):
        timm.pretrained_name(str(tmp_path), Loading())
    assert not (tmp_path / "mark").exists()
