"""Language models and tokenizers in GGUF files, as llama.cpp writes them, read through transformers."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from pathlib import Path
from typing import Any

import torch
from torch import nn

from evalkit.errors import UserError, install, one_line
from evalkit.weights import checkpoint, huggingface, peft_adapters

MAGIC = b"GGUF"


def find(place: Path) -> Path | None:
    """The GGUF file that a path names: itself, or the one in a folder without config.json; None where it is neither.

    Raises:
        UserError: several are in the folder.
    """
    if place.suffix.lower() == ".gguf":
        return place
    if not place.is_dir() or (place / "config.json").is_file():
        return None
    files = sorted(place.glob("*.gguf"))
    if len(files) > 1:
        names = ", ".join(file.name for file in files[:10])
        raise UserError(f"several GGUF files are there ({names}); give one, as lm={files[0]}")
    return files[0] if files else None


def load(file: Path, dtype: torch.dtype) -> tuple[nn.Module, Any]:
    """Load the model and the tokenizer of a GGUF file; quantized weights are as the file's numbers say, in `dtype`.

    Raises:
        UserError: the package gguf or accelerate is not installed, or the file is damaged, of a kind that transformers
            does not read, or does not hold exactly the weights of its model.
    """
    if not file.is_file():
        raise UserError("no such file")
    for package in ("gguf", "accelerate"):  # transformers asks for both
        if importlib.util.find_spec(package) is None:
            raise UserError(f"a GGUF file needs the package {package}, which is not installed: {install('gguf')}")
    with file.open("rb") as opened:
        if opened.read(len(MAGIC)) != MAGIC:
            raise UserError("it does not begin as a GGUF file does: it is damaged, or of another kind")
    peft_adapters.refuse_folder(file.parent, str(file.parent))
    try:
        # transformers' progress bar of a GGUF file heeds none of its settings
        with huggingface.quietly(), contextlib.redirect_stderr(io.StringIO()):
            return _load(file, dtype)
    except UserError:
        raise
    except Exception as error:  # gguf's, transformers', tokenizers', numpy's
        if "cannot reshape array of size" in str(error):  # numpy's, of fewer bytes than a tensor has
            raise UserError("the file is cut off: a tensor goes past its end; get it again") from error
        raise UserError(f"transformers cannot read this GGUF file: {one_line(error)}") from error


def _load(file: Path, dtype: torch.dtype) -> tuple[nn.Module, Any]:
    import transformers
    from gguf import GGUFReader

    # Its functions are typed for other calls than these.
    auto: Any = transformers
    reader = GGUFReader(file)
    numbers = {key: _value(field) for key, field in reader.fields.items() if len(field.data) == 1}
    # Before anything is made of them; blocks are layers.
    huggingface.refuse_huge({key.replace("block_count", "block_count (layers)"): n for key, n in numbers.items()})
    named: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
    config = auto.AutoConfig.from_pretrained(file.parent, trust_remote_code=False, **named)
    huggingface.refuse_kernels(config, str(file))
    make = auto.AutoModelForCausalLM.from_config
    # Quantized to two bits a value at least.
    checkpoint.refuse_oversized(lambda: make(config), 2 * file.stat().st_size, file)
    tokenizer = auto.AutoTokenizer.from_pretrained(file.parent, trust_remote_code=False, **named)
    model, info = auto.AutoModelForCausalLM.from_pretrained(
        file.parent,
        trust_remote_code=False,
        **named,
        dtype=dtype,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    checkpoint.raise_problems(
        [
            *(f"missing {name}" for name in sorted(info["missing_keys"])),
            *(f"unexpected {name}" for name in sorted({*info["unexpected_keys"], *_unread(reader, model)})),
            *(f"{name} is {tuple(has)}, wanted {tuple(wants)}" for name, has, wants in sorted(info["mismatched_keys"])),
        ],
        file,
    )
    checkpoint.check_finite(dict(model.named_parameters()), file)
    return model.eval(), tokenizer


def _value(field: Any) -> Any:
    """A number of a GGUF field; None for everything else."""
    value = field.parts[field.data[0]].tolist()
    return value[0] if len(value) == 1 and type(value[0]) is int else None


def _unread(reader: Any, model: nn.Module) -> list[str]:
    """The file's tensors that transformers passes over, such as factors of the rotary embedding."""
    from transformers import modeling_gguf_pytorch_utils

    reading: Any = modeling_gguf_pytorch_utils
    config: Any = model.config
    kind = str(reader.fields["general.architecture"].contents())
    processor = reading.TENSOR_PROCESSORS.get(kind, reading.TensorProcessor)(config=config.to_dict())
    names = reading.get_gguf_hf_weights_map(model, processor)
    # Experts that the file holds in one tensor are taken apart by the processor.
    return [tensor.name for tensor in reader.tensors if tensor.name not in names and "_exps" not in tensor.name]
