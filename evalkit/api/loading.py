"""Options for loading a checkpoint: the keys of `encoder.*`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge

Positions = Literal["auto", "rotary", "sincos", "sincos_uniform"]


@dataclass(frozen=True)
class Loading:
    """How a checkpoint becomes an encoder: the keys of `encoder.*`.

    Attributes:
        model: what the weights belong to, where nothing beside them says: a preset's name, a folder with config.json,
            or package.module:function
        prefix: of the names of the encoder's weights in a training checkpoint: model.encoder.; +vision. adds one
        tokenizer: of the text tower, where none lies beside the weights: a sentencepiece model, or a folder with a
            tokenizer as transformers saves it
        heads: attention heads, for weights that do not tell (facebookresearch's V-JEPA 2); 0: by their size
        positions: of V-JEPA's files that do not tell: rotary is V-JEPA 2, sincos_uniform and sincos are V-JEPA 1
        parts: files with the rest of an encoder that is published in several: [VISION.pt,TEXT.pth] (InternVideo2 CLIP)
        trust: load a pickle that can run code, or a folder that names code of its own; only where you trust the maker
    """

    model: str = ""
    prefix: str = ""
    tokenizer: Path | None = None
    heads: Annotated[int, Ge(0)] = 0
    positions: Positions = "auto"
    parts: tuple[Path, ...] = ()
    trust: bool = False
