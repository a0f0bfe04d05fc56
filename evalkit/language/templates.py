"""Chat templates: what an instruct model wants around a question, and how its answer goes on from there.

A template is a Jinja program of whoever made the model. It is rendered twice for a model, with words that stand for
question and answer, by transformers' sandbox in a process of its own with limits of time and memory; each question is
then put where these words stand.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from evalkit.errors import UserError, in_line
from evalkit.runtime.processes import ProcessPool

TemplateChoice = Literal["auto", "none", "chat"]

QUESTION, ANSWER = "QUESTION7f3a", "ANSWER7f3a"  # stand for what is asked and said
DATE = datetime(2024, 7, 26, tzinfo=UTC)  # of templates that state one: else every day would have another prompt
_NOW = re.compile(r"""\bstrftime_now\(\s*(['"])(.*?)\1\s*\)""")
TIME_LIMIT_S = 20.0
MOST_TEMPLATE, MOST_RENDERED = 1_000_000, 100_000  # characters


class Template(NamedTuple):
    """What stands around a question, and between question and answer.

    Attributes:
        before: the question.
        after: it.
        joint: between that and the answer: a blank after plain text, mostly nothing after a chat template.
        special: whether the tokenizer adds its own tokens, such as a first one that begins a text.
        end: what the template puts after an answer; empty where that is unknown.
        name: none, or chat and a hash of what it renders.
    """

    before: str = ""
    after: str = ""
    joint: str = " "
    special: bool = True
    end: str = ""
    name: str = "none"

    def __call__(self, question: str) -> str:
        """The whole prompt."""
        return f"{self.before}{question.strip()}{self.after}" if self.name != "none" else question


PLAIN = Template()


def choose_template(choice: TemplateChoice, tokenizer: Any) -> Template:
    """The tokenizer's chat template where it is asked for, or `auto` and there; else plain text.

    Raises:
        UserError: there is none, or it fails.
    """
    if choice == "none":
        return PLAIN
    if getattr(tokenizer, "chat_template", None) is None:
        if choice == "chat":
            raise UserError("adapter.template=chat: the language model's tokenizer has no chat template; use none")
        return PLAIN
    try:
        source = tokenizer.get_chat_template()
        if len(source) > MOST_TEMPLATE:
            raise ValueError(f"it has {len(source):,} characters, at most {MOST_TEMPLATE:,} are read")
        tokens = {name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
        with ProcessPool(1, "rendering", "transformers.utils.chat_template_utils") as pool:
            (rendered,) = pool.map(
                _render, [(source, tokens)], time_limit=TIME_LIMIT_S, lost=lambda reason: (reason, "", "")
            )
        reason, prompt, whole = rendered
        if reason:
            raise ValueError(reason)
        return _read(prompt, whole, str(tokenizer.bos_token or ""))
    except Exception as error:  # a tokenizer's own, of what a file says
        raise UserError(
            f"the language model's chat template fails: {in_line(error)[:300]}; adapter.template=none asks without it"
        ) from error


def _render(source: str, tokens: dict[str, str]) -> tuple[str, str, str]:
    """Why a template fails, else a prompt as it renders it, and a whole conversation."""
    from transformers.utils.chat_template_utils import render_jinja_template

    asked = [{"role": "user", "content": QUESTION}]
    dated = _NOW.sub(lambda call: repr(DATE.strftime(call[2])), source)
    options: dict[str, Any] = {"chat_template": dated, "date_string": DATE.strftime("%d %b %Y"), **tokens}
    said = [*asked, {"role": "assistant", "content": ANSWER}]
    try:
        prompt = str(render_jinja_template(conversations=[asked], add_generation_prompt=True, **options)[0][0])
    except Exception as error:  # jinja's, or what the template raises
        return f"{type(error).__name__}: {in_line(error)[:300]}", "", ""
    try:
        whole = str(render_jinja_template(conversations=[said], **options)[0][0])
    except Exception:  # it takes no answer: then none shows how one goes on
        whole = ""
    if len(prompt) > MOST_RENDERED or len(whole) > MOST_RENDERED:
        return f"it renders {max(len(prompt), len(whole)):,} characters, at most {MOST_RENDERED:,} are read", "", ""
    return "", prompt, whole


def _read(prompt: str, whole: str, begin: str) -> Template:
    """The template that renders such a prompt and conversation.

    Raises:
        ValueError: the question is not once in the prompt.
    """
    if prompt.count(QUESTION) != 1:
        raise ValueError(f"the question stands {prompt.count(QUESTION)} times in what it renders, wanted once")
    before, _, after = prompt.partition(QUESTION)
    joint = end = ""
    if whole.startswith(prompt) and ANSWER in whole[len(prompt) :]:
        joint, _, end = whole[len(prompt) :].partition(ANSWER)
    if joint.strip():  # such as an empty thought, which the answer comes after
        after, joint = after + joint, ""
    digest = hashlib.sha256("\0".join((before, after, joint)).encode()).hexdigest()[:12]
    special = not (begin and before.startswith(begin))
    return Template(before, after, joint, special, end.strip(), f"chat {digest}")
