"""PEFT adapters (LoRA and others): recognized by their files or their names, and refused with how to merge them.

transformers applies such a folder's adapter where the package peft is installed, and its base weights alone where it is
not, so that one folder would be two models.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from evalkit.errors import UserError
from evalkit.runtime import bounded

CONFIG = "adapter_config.json"
_NAMES = re.compile(r"(^|\.)(base_layer|lora_[AB]|lora_embedding_[AB]|lora_magnitude_vector|modules_to_save)(\.|$)")


def refuse_folder(folder: Path, name: str) -> None:
    """Refuse a folder with a PEFT adapter, with or without its base model's weights.

    Args:
        folder: local.
        name: of it, for the message; where it is not the folder's, it is one of the hub.

    Raises:
        UserError: it does, with a command that merges it.
    """
    if not (folder / CONFIG).is_file():
        return
    values = _read(folder / CONFIG)
    alone = not (folder / "config.json").is_file()
    base = str(values.get("base_model_name_or_path") or "") if alone else str(folder)
    if not re.fullmatch(r"[\w./~ -]{1,300}", base) or base.startswith("-"):
        base = "BASE"
    mapping, architectures = values.get("auto_mapping"), _read(Path(base) / "config.json").get("architectures")
    named = [
        mapping.get("base_model_class") if isinstance(mapping, dict) else None,
        *(architectures if isinstance(architectures, list) else ()),
        "AutoModelForCausalLM" if values.get("task_type") == "CAUSAL_LM" else None,
    ]
    model = next((word for word in named if isinstance(word, str) and re.fullmatch(r"\w{1,80}", word)), "AutoModel")
    merged = f"{folder}-merged" if folder.name in name else f"{name.rpartition('/')[2].partition('@')[0]}-merged"
    new, old = shlex.quote(merged), shlex.quote(base)
    copy = f"hf download {old} --local-dir {new}" if alone and not Path(base).exists() else f"cp -r {old} {new}"
    code = (
        f"import peft, transformers as t; m = t.{model}.from_pretrained({json.dumps(merged)}); peft.PeftModel."
        f"from_pretrained(m, {json.dumps(str(folder))}).merge_and_unload().save_pretrained({json.dumps(merged)})"
    )
    raise UserError(
        f"{name} holds a PEFT adapter ({CONFIG}){' alone' if alone else ' beside the weights of its base'}, which "
        f"evalkit does not apply: merge it, and give {merged} instead: {copy} && rm -f {new}/adapter_* && python -c "
        f"{shlex.quote(code)}"
    )


def refuse_names(names: Iterable[object], source: object) -> None:
    """Refuse weights with the names that PEFT gives to adapters and to the layers under them.

    Raises:
        UserError: there are such names, with how to save the merged weights.
    """
    adapted = next((str(name) for name in names if _NAMES.search(str(name))), None)
    if adapted:
        raise UserError(
            f"{source} holds weights of a PEFT model whose adapter is not merged ({adapted[:120]}), which evalkit does "
            "not apply. Where model is that PEFT model, save it merged: "
            'torch.save(model.merge_and_unload().state_dict(), "merged.pt")'
        )


def _read(file: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if it cannot be read."""
    try:
        values = json.loads(bounded.read_bytes(file).decode())
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}
