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
from evalkit.weights import huggingface, peft_adapters, strict

MAGIC, VERSIONS = b"GGUF", (2, 3)


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
    reader = _header(file)
    peft_adapters.refuse_folder(file.parent, str(file.parent))
    try:
        # transformers' progress bar of a GGUF file heeds none of its settings
        with huggingface.quietly(), contextlib.redirect_stderr(io.StringIO()):
            return _load(file, reader, dtype)
    except UserError:
        raise
    except Exception as error:  # gguf's, transformers', tokenizers', numpy's
        raise UserError(f"transformers cannot read this GGUF file: {one_line(error)}") from error


def _header(file: Path) -> Any:
    """The reader of a file whose header is whole, and whose tensors lie within the file.

    Raises:
        UserError: it is no such file, or one of a version or of a byte order that is not read.
    """
    from gguf import GGUFReader

    with file.open("rb") as opened:
        magic, version = opened.read(len(MAGIC)), opened.read(4)
    if magic != MAGIC:
        raise UserError("it does not begin as a GGUF file does: it is damaged, or of another kind")
    number = int.from_bytes(version, "little")
    if len(version) == 4 and number not in VERSIONS:
        what = "of big-endian numbers" if int.from_bytes(version, "big") in VERSIONS else f"version {number}"
        read = " and ".join(map(str, VERSIONS))
        raise UserError(f"this GGUF file is {what}; versions {read} with little-endian numbers are read: convert it")
    try:
        reader = GGUFReader(file)
        architecture = reader.fields["general.architecture"].contents()
    except Exception as error:  # gguf's, numpy's, of whatever the bytes are taken for
        if "cannot reshape array of size" in str(error):  # numpy's, of fewer bytes than a tensor has
            raise UserError("the file is cut off: a tensor goes past its end; get it again") from error
        size = f"{file.stat().st_size:,} bytes"
        raise UserError(f"the header of this GGUF file ({size}) is damaged or cut off: get the file again") from error
    if not isinstance(architecture, str):
        raise UserError(f"general.architecture in its header is {architecture!r:.60}, no text: the file is damaged")
    return reader


def _load(file: Path, reader: Any, dtype: torch.dtype) -> tuple[nn.Module, Any]:
    import transformers

    # Its functions are typed for other calls than these.
    auto: Any = transformers
    numbers = {key: _value(field) for key, field in reader.fields.items() if len(field.data) == 1}
    # Before anything is made of them; blocks are layers.
    huggingface.refuse_huge({key.replace("block_count", "block_count (layers)"): n for key, n in numbers.items()})
    named: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
    config = auto.AutoConfig.from_pretrained(file.parent, trust_remote_code=False, **named)
    huggingface.refuse_kernels(config, str(file))
    make = auto.AutoModelForCausalLM.from_config
    # Quantized to two bits a value at least.
    strict.refuse_oversized(lambda: make(config), 2 * file.stat().st_size, file)
    tokenizer = auto.AutoTokenizer.from_pretrained(file.parent, trust_remote_code=False, **named)
    model, info = auto.AutoModelForCausalLM.from_pretrained(
        file.parent,
        trust_remote_code=False,
        **named,
        dtype=dtype,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    strict.raise_problems(
        [
            *(f"missing {name}" for name in sorted(info["missing_keys"])),
            *(f"unexpected {name}" for name in sorted({*info["unexpected_keys"], *_unread(reader, model)})),
            *(f"{name} is {tuple(has)}, wanted {tuple(wants)}" for name, has, wants in sorted(info["mismatched_keys"])),
        ],
        file,
    )
    strict.check_finite(dict(model.named_parameters()), file)
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
