"""The classifiers of transformers' ...ForVideoClassification, without the encoder below them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from evalkit.api import FeatureSpec
from evalkit.heads.own_head import OwnHead
from evalkit.weights import huggingface

# What lies between the encoder and the last linear map.
BEFORE = {"VJEPA2ForVideoClassification": ("pooler",), "VideoMAEForVideoClassification": ("fc_norm",)}


class FirstToken(nn.Module):
    """The first of the tokens (B, T', S, D), which a VideoMAE without a norm of its own on their mean classifies by."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens[:, 0, 0]


def attach(encoder: nn.Module, path: Path, model: str) -> None:
    """Gives an encoder `own_head`, a function that reads its classifier, where the folder has one.

    Args:
        encoder: the encoder, whose weights and hash stay as they are.
        path: its folder.
        model: the class in transformers that has the classifier.
    """
    if model in (huggingface.read_config(path).architectures or ()):
        encoder.own_head = partial(_read, path, model)  # type: ignore[assignment]


def _read(path: Path, model: str) -> OwnHead:
    """Load the classifier strictly.

    Raises:
        UserError: weights are missing or of another shape, or the files cannot be read.
    """
    import transformers

    whole: Any = getattr(transformers, model)
    config = huggingface.read_config(path)
    parts = (*BEFORE.get(model, ()), "classifier")

    class Head(whole.__base__):  # type: ignore[misc]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            made = whole(config)
            for part in parts:
                if getattr(made, part) is not None:
                    setattr(self, part, getattr(made, part))
            self.post_init()

    held = huggingface.load(Head, path, rf"(?!({'|'.join(parts)})\.)")
    layers = [getattr(held, part) for part in parts if hasattr(held, part)]
    labels = tuple(config.id2label[number] for number in range(config.num_labels))
    if "pooler" in parts:
        return OwnHead(nn.Sequential(*layers), labels, FeatureSpec("tokens"), joined=True)
    if "fc_norm" in parts and len(layers) == 1:
        return OwnHead(nn.Sequential(FirstToken(), *layers), labels, FeatureSpec("tokens"))
    return OwnHead(nn.Sequential(*layers), labels)
