"""X-CLIP as transformers keeps it: CLIP whose frames exchange messages, and a transformer over the frames.

https://arxiv.org/abs/2208.02816, from a Hugging Face folder with CLIP's tokenizer beside the weights.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from evalkit.api import Clip, EncoderOutput, Loading, as_texts
from evalkit.encoders._tubelets import cover, last_states
from evalkit.errors import UserError
from evalkit.weights import huggingface
from evalkit.weights.huggingface import Weights
from evalkit.weights.preprocessor import IMAGENET, read_clip

MODEL_TYPES = ("xclip",)


class XCLIP(nn.Module):
    """Video (B, T, 3, H, W), scaled as its clip says -> tokens, frames and pooled; texts -> embeddings.

    tokens (B, T, S, D) are the patches of each frame as the vision tower's last block gives them: its norm was trained
    on class tokens alone. frames (B, T, E) are the frames' class tokens, projected to the texts' width, after the
    transformer over the frames; pooled (B, E) is their mean, transformers' `get_video_features`. `encode_text` is its
    `get_text_features`. X-CLIP's own scores also refine each text by the video it is compared with; those weights are
    loaded and not used, since one vector per text must do for all videos. T is the number of frames that the model was
    trained on; H and W may be any multiples of the patch: positions are interpolated.
    """

    interpolates = ("size",)

    def __init__(self, clip: Clip, model: Any, tokenizer: Path | None) -> None:
        super().__init__()
        self.clip, self.model, self.tokenizer = clip, model, tokenizer
        self.dim, self.pooled_dim = model.config.vision_config.hidden_size, model.config.projection_dim
        self.frames, self.patch = model.config.vision_config.num_frames, model.config.vision_config.patch_size
        self._words: Any = None  # the tokenizer, once it was needed

    def forward(self, video: Tensor, layers: int = 1) -> EncoderOutput:
        """See the class; `layers` last layers' tokens come along where it is above 1."""
        cover(video, (1, self.patch, self.patch))
        batch, frames = video.shape[:2]
        if frames != self.frames:
            raise ValueError(f"video of {frames} frames: X-CLIP takes {self.frames}; set clip.frames={self.frames}")
        vision = self.model.vision_model
        x = vision.pre_layernorm(vision.embeddings(video.flatten(0, 1), interpolate_pos_encoding=True))
        states = last_states(vision.encoder.layers, x, layers, None)
        vectors = vision.post_layernorm(states[-1][:, 0]).reshape(batch, frames, -1)
        mixed = self.model.mit(self.model.visual_projection(vectors))
        tokens = tuple(state[:, 1:].reshape(batch, frames, -1, self.dim) for state in states)
        return EncoderOutput(tokens[-1], mixed.pooler_output, tokens if layers > 1 else (), mixed.last_hidden_state)

    def encode_text(self, texts: list[str]) -> Tensor:
        """Embeddings (B, E) of texts, comparable with pooled by their cosine; longer ones are cut at 77 tokens.

        Raises:
            UserError: there is no tokenizer.
        """
        if self._words is None:
            self._words = _read_tokenizer(self.tokenizer)
        length = self.model.config.text_config.max_position_embeddings
        words = self._words(as_texts(texts), padding=True, truncation=True, max_length=length, return_tensors="pt")
        words = {name: words[name].to(self.model.logit_scale.device) for name in ("input_ids", "attention_mask")}
        return self.model.get_text_features(**words).pooler_output  # type: ignore[no-any-return]


def encoder(clip: Clip, tokenizer: Path | None = None, *, model_type: str = "xclip", **config: Any) -> XCLIP:
    """X-CLIP with random weights.

    Args:
        clip: what the encoder sees.
        tokenizer: folder with the files of CLIP's tokenizer; None where there is none yet.
        model_type: xclip, the only one.
        config: transformers' own names and values; the rest is the family's default.

    Raises:
        TypeError, ValueError: there is no such name, or transformers does not take the value.
    """
    from transformers import XCLIPModel

    if model_type not in MODEL_TYPES:
        raise ValueError(f"model_type={model_type!r}: wanted xclip")
    return XCLIP(clip, XCLIPModel(huggingface.make_config(model_type, config)), tokenizer)


def pretrained(path: Path, loading: Loading, weights: Weights = None) -> XCLIP:
    """Load the encoder in a Hugging Face folder strictly, with the clip that its files state.

    Raises:
        UserError: weights are missing, unexpected or of another shape, or the files cannot be read.
    """
    from transformers import XCLIPModel

    vision = huggingface.read_config(path).vision_config
    clip = read_clip(path, replace(IMAGENET, frames=vision.num_frames, size=vision.image_size))
    return XCLIP(clip, huggingface.load(XCLIPModel, path, weights=weights), loading.tokenizer or path)


def _read_tokenizer(folder: Path | None) -> Any:
    from transformers import CLIPTokenizer

    files = "tokenizer.json, or vocab.json and merges.txt"
    if folder is None:
        raise UserError(
            f"this encoder has no tokenizer, so it cannot embed text: encoder.tokenizer= a folder with {files}"
        )
    if not (folder / "tokenizer.json").is_file() and not all(
        (folder / f).is_file() for f in ("vocab.json", "merges.txt")
    ):
        raise UserError(f"{folder} has no tokenizer, so this encoder cannot embed text: put {files} there")
    try:
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the library's own, json's
        raise UserError(f"cannot read the tokenizer in {folder}: {' '.join(str(error).split())[:300]}") from error
