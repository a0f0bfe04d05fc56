"""What a language model is asked, as token ids: prompts in a template, and options cut at their common prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evalkit.errors import UserError
from evalkit.language.continuations import Continuation, Row
from evalkit.language.templates import PLAIN, Template


class Prompts:
    """A tokenizer that puts a template around each prompt.

    Args:
        tokenizer: of the language model.

    Attributes:
        template: what stands around each prompt; plain text until it is set.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.template: Template = PLAIN

    def encode(self, prompt: str) -> list[int]:
        """Token ids of a text that another text will follow."""
        return self._encode(self.template(prompt))

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=self.template.special)
        return ids[:-1] if ids and ids[-1] == self.tokenizer.eos_token_id else ids  # some end every text by themselves

    def split_options(self, context: str, texts: Sequence[str]) -> tuple[list[int], list[list[int]]]:
        """Token ids of a context and of each text after it, encoded as one: each tokenizer places the space itself.

        A token may span the end of the context and the start of a text. All texts are cut where the context's own
        tokens end in each of them, so that their likelihoods are those of the same event: what follows the same prompt.

        Args:
            context: what stands before the texts.
            texts: one space after it, or as the template goes on; each has at least one token.

        Raises:
            UserError: no token of the context stays its own.
        """
        before = self.encode(context)
        prompt = f"{self.template(context)}{self.template.joint}"
        wholes = [self._encode(f"{prompt}{text}") for text in texts]
        n = min((_common(before, whole[:-1]) for whole in wholes), default=len(before))
        if not n:
            raise UserError(f"prompt {context!r}: nothing of it stands before the text; say more in adapter.prompt")
        return before[:n], [whole[n:] for whole in wholes]

    def rows(self, continuations: Sequence[Continuation], with_video: bool) -> list[Row]:
        """Token ids of each continuation, those of one example and context cut alike.

        Args:
            continuations: video, context and text of each.
            with_video: each row reads the visual tokens of its own video; else there are none, or one for all.
        """
        asked: dict[tuple[int, str], list[int]] = {}
        for place, (video, context, _) in enumerate(continuations):
            asked.setdefault((video, context), []).append(place)
        rows: dict[int, Row] = {}
        for (video, context), places in asked.items():
            ids, texts = self.split_options(context, [continuations[place].text for place in places])
            for place, text in zip(places, texts, strict=True):
                rows[place] = Row(ids, text, video if with_video else 0, place)
        return [rows[place] for place in range(len(rows))]


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))
