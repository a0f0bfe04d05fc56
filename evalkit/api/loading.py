"""Options for loading a checkpoint: the keys of `encoder.*`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge

# How weights are read into the module of a function; other names are the function's parameters.
READING = ("model", "prefix", "trust")
Positions = Literal["auto", "rotary", "sincos", "sincos_uniform"]


@dataclass(frozen=True)
class Loading:
    """How a checkpoint is loaded as an encoder: the options `encoder.*`.

    Attributes:
        model: architecture of the weights, if no file beside them states it: a preset's name, a folder with
            config.json, or package.module:function
        prefix: prefix of the encoder's weights in a training checkpoint, such as model.encoder.; +vision. adds a prefix
        tokenizer: tokenizer of the text tower, if it is not in the checkpoint: a sentencepiece model, or a folder saved
            by transformers
        heads: attention heads, if the weights do not determine them (facebookresearch's V-JEPA 2); 0: by the model's
            size
        positions: position embeddings of a V-JEPA file that does not state them: rotary is V-JEPA 2, sincos_uniform and
            sincos are V-JEPA 1
        ahead: V-JEPA 2's predictor adds the tokens of one time step, this many steps after the clip's end; 4 are one
            second of clips at 8 frames per second (EPIC-KITCHENS); 0: none
        text_tokens: tokens at which BERT's tower in a file of UMT or InternVideo2 cuts texts, up to 512; 0: as it was
            trained, at 32 and 40
        parts: files with the other parts of an encoder published in several files: [VISION.pt,TEXT.pth] (InternVideo2
            CLIP)
        trust: load a pickle that can run code, or a folder that names code; only if you trust its author
    """

    model: str = ""
    prefix: str = ""
    tokenizer: Path | None = None
    heads: Annotated[int, Ge(0)] = 0
    positions: Positions = "auto"
    ahead: Annotated[int, Ge(0)] = 0
    text_tokens: Annotated[int, Ge(0)] = 0
    parts: tuple[Path, ...] = ()
    trust: bool = False
