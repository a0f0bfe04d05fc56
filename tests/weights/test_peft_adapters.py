"""Folders and weights of PEFT: refused with a command that merges them, which works."""

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file

from evalkit.errors import UserError
from evalkit.language.models import load as load_lm
from evalkit.weights import checkpoint, huggingface
from tests.encoders import test_hf_video
from tests.saved import load, refusal


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_lm(str(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def follow(message: str) -> Path:
    """What the command in a message makes: files copied as `cp` and `rm` do, Python's code run here."""
    command = message.split(" instead: ", 1)[1]
    copy, remove, python = (shlex.split(part) for part in command.split(" && "))
    assert copy[:2] == ["cp", "-r"] and remove[:2] == ["rm", "-f"] and python[:2] == ["python", "-c"]
    merged = Path(copy[3])
    shutil.copytree(copy[2], merged)
    for file in merged.glob(Path(remove[2]).name):
        file.unlink()
    exec(python[2], {})
    return merged


def adapted(model: Any, folder: Path, targets: list[str], **more: Any) -> Any:
    """A PEFT model whose adapter changes something, saved in a folder."""
    torch.manual_seed(0)
    tuned = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=targets, init_lora_weights=False, **more))
    tuned.save_pretrained(str(folder))
    return tuned


def beside(folder: Path, **values: Any) -> Path:
    """The folder with an adapter's files, of which nothing is read but what is shown."""
    (folder / "adapter_config.json").write_text(json.dumps(values))
    (folder / "adapter_model.safetensors").write_bytes(b"")
    return folder


def test_base_weights_with_an_adapter_beside_are_refused_whether_or_not_peft_is_there(tmp_path: Path, lm: Path) -> None:
    folder = beside(test_hf_video.folder(tmp_path, "videomae"))
    message = refusal(folder)
    assert message.startswith(
        f"{folder} holds a PEFT adapter (adapter_config.json) beside the weights of its base, which evalkit does not "
        f"apply: merge it, and give {folder}-merged instead: cp -r {folder} {folder}-merged && rm -f "
    )
    assert "merge_and_unload().save_pretrained" in message
    shutil.copytree(lm, tmp_path / "lm")
    assert "t.LlamaForCausalLM.from_pretrained" in refused(beside(tmp_path / "lm"))


def test_the_base_alone_is_read_where_its_file_is_named(tmp_path: Path) -> None:
    folder = test_hf_video.folder(tmp_path, "videomae")
    known = checkpoint.sha256(load(folder))
    assert checkpoint.sha256(load(beside(folder) / "model.safetensors")) == known


@pytest.mark.parametrize(
    "content", ["[1]", "{", '"x"', "null", '{"base_model_name_or_path": [1], "auto_mapping": 3}', "[" * 9999]
)
def test_any_adapter_config_is_answered_in_one_line(content: str, tmp_path: Path, lm: Path) -> None:
    shutil.copytree(lm, tmp_path / "lm")
    for folder in (tmp_path / "lm", test_hf_video.folder(tmp_path, "videomae")):
        (folder / "adapter_config.json").write_text(content)
    assert "holds a PEFT adapter" in refusal(tmp_path / "model")
    assert "holds a PEFT adapter" in refused(tmp_path / "lm")


def test_an_adapter_alone_says_where_its_base_goes_and_quotes_what_it_is_called(tmp_path: Path) -> None:
    for name, shown in (("org/base-1", "hf download org/base-1 --local-dir"), ("x; rm -rf ~\n$(id)", "BASE"), (7, "7")):
        beside(tmp_path, base_model_name_or_path=name, task_type="CAUSAL_LM")
        message = refusal(tmp_path)
        assert "(adapter_config.json) alone" in message and shown in message and "$(id)" not in message
        assert "t.AutoModelForCausalLM" in message
        assert "(adapter_config.json) alone" in refused(tmp_path)


def test_a_model_of_the_hub_is_refused_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beside(tmp_path, base_model_name_or_path="org/base")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path))
    with pytest.raises(UserError, match=r"^org/lora holds a PEFT adapter .* and give lora-merged instead: hf download"):
        huggingface.fetch("org/lora")
    with pytest.raises(UserError, match="^lm=org/lora: org/lora holds a PEFT adapter"):
        load_lm("org/lora")


@pytest.mark.filterwarnings("ignore")  # transformers' and peft's about each other
def test_the_advice_merges_an_encoders_adapter(tmp_path: Path) -> None:
    folder = test_hf_video.folder(tmp_path, "videomae")
    plain = load(folder)
    base = transformers.VideoMAEModel.from_pretrained(folder)
    tuned = adapted(base, folder, ["query", "value"])
    merged = load(follow(refusal(folder)))
    assert merged.clip == plain.clip and checkpoint.sha256(merged) != checkpoint.sha256(plain)
    whole = tuned.merge_and_unload().state_dict()
    name = next(name for name in whole if name.endswith("layer.0.attention.attention.query.weight"))
    assert torch.allclose(merged.model.state_dict()[name], whole[name], atol=1e-6)


@pytest.mark.filterwarnings("ignore")  # transformers' and peft's about each other
def test_the_advice_merges_a_language_models_adapter_that_lies_alone(tmp_path: Path, lm: Path) -> None:
    base = transformers.LlamaForCausalLM.from_pretrained(lm)
    tuned = adapted(base, tmp_path / "lora", ["q_proj"], task_type="CAUSAL_LM")
    message = refused(tmp_path / "lora")
    model, _ = load_lm(str(follow(message)))
    name = "model.layers.0.self_attn.q_proj.weight"
    assert torch.allclose(model.state_dict()[name], tuned.merge_and_unload().state_dict()[name], atol=1e-6)
    assert not torch.equal(model.state_dict()[name], load_file(lm / "model.safetensors")[name])


@pytest.mark.filterwarnings("ignore")  # transformers' and peft's about each other
def test_weights_that_are_not_merged_say_how_they_are_saved(tmp_path: Path) -> None:
    folder = test_hf_video.folder(tmp_path, "videomae")
    model = adapted(transformers.VideoMAEModel.from_pretrained(folder), tmp_path / "lora", ["query"])
    torch.save(model.state_dict(), folder / "run.pt")
    message = refusal(folder / "run.pt")
    assert "PEFT model whose adapter is not merged (base_model.model." in message
    code = re.search(r"torch\.save\(.*\)$", message)
    assert code
    exec(code[0].replace("merged.pt", str(folder / "merged.pt")), {"torch": torch, "model": model})
    assert load(folder / "merged.pt").dim == 24


@pytest.mark.parametrize(
    "name", ["a.lora_A.weight", "a.lora_B.default.weight", "a.base_layer.bias", "a.lora_embedding_A"]
)
def test_names_of_peft_are_known_in_any_file(name: str, tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "tiny")
    torch.save({"state_dict": {name: torch.zeros(2)}}, tmp_path / "tiny/run.pt")
    assert "whose adapter is not merged" in refusal(tmp_path / "tiny/run.pt")
    torch.save({name: torch.zeros(2)}, tmp_path / "alone.pt")
    assert "whose adapter is not merged" in refusal(tmp_path / "alone.pt")
