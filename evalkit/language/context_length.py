"""How many tokens a language model reads, and beyond how many it reads all of a text otherwise."""

from __future__ import annotations

from typing import Any


class ContextLength:
    """The lengths of texts that a language model reads.

    Args:
        config: of the model.
        window: the most tokens that `examine` measured it to read right; None where it found no such limit.

    Attributes:
        most: tokens that it reads; None without a limit.
        original: tokens beyond which all of a text is read with another rotary embedding, the context length before
            LongRoPE (https://arxiv.org/abs/2402.13753) extended it; None where nothing did.
    """

    def __init__(self, config: Any, window: int | None) -> None:
        text = config.get_text_config()
        limits = (getattr(text, "max_position_embeddings", None), window)
        self.most: int | None = min((limit for limit in limits if limit), default=None)
        rope = getattr(text, "rope_parameters", None) or {}
        kinds = [kind for kind in (rope, *rope.values()) if isinstance(kind, dict)]  # one, or one per kind of layer
        originals = [kind["original_max_position_embeddings"] for kind in kinds if kind.get("rope_type") == "longrope"]
        self.original: int | None = min(originals, default=None)

    def crosses(self, length: int, longer: int) -> bool:
        """Whether only the longer of two texts is read otherwise, so that they share neither batch nor cache."""
        return self.original is not None and length <= self.original < longer

    def failure(self, length: int, with_video: bool, cached: int | None = None) -> str:
        """Why the model does not read a text; empty where it does.

        Args:
            length: its tokens, those of the video and the prompt included.
            with_video: there is a video.
            cached: tokens of it that are read before the others; None where it is read at once.
        """
        if self.most is not None and length > self.most:
            what, fewer = ("video, prompt", "fewer adapter.latents, ") if with_video else ("prompt", "")
            return (
                f"the language model reads {self.most:,} tokens, and {what} and text have {length:,}: give {fewer}a "
                "shorter adapter.prompt, or another lm"
            )
        if cached is not None and self.crosses(cached, length - 1):
            return (
                f"the language model changes its rotary embedding beyond {self.original:,} tokens, and a text after "
                f"{cached:,} may go beyond: give a shorter adapter.prompt, or another lm"
            )
        return ""
