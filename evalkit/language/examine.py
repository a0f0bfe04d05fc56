"""What a causal language model does with its inputs, measured on a few tokens before it is used."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from evalkit.canary.finding import Finding
from evalkit.errors import UserError, one_line

LENGTH = 7  # tokens of the sequences that are read
SHARED = 4  # of these, those that the cache holds
SHORT = 3  # tokens of an attention window that is shorter than what the cache holds
# What configurations and layers call the tokens that a layer attends to.
WINDOWS = ("sliding_window", "sliding_window_size", "attention_window_size", "attention_chunk_size")


class Traits(NamedTuple):
    """What was measured of a causal language model.

    Attributes:
        embeddings: it reads `inputs_embeds` as the words that they are of; without, join=prefix is impossible.
        cache: several texts go on from one cached context, as if each was read with it from the start.
        rows: the last layer is computed at chosen positions alone, with the same logits.
        window: the most tokens that it is given, where it reads what is beyond its attention window otherwise with a
            cache than without; else None.
        findings: what the record of a run shows of it.
    """

    embeddings: bool
    cache: bool
    rows: bool
    window: int | None
    findings: tuple[Finding, ...]


_KNOWN: WeakKeyDictionary[nn.Module, Traits] = WeakKeyDictionary()


def traits(lm: nn.Module) -> Traits:
    """What `examine` measures of a model, once."""
    if lm not in _KNOWN:
        _KNOWN[lm] = examine(lm)
    return _KNOWN[lm]


def accepts(lm: nn.Module, name: str) -> bool:
    """Whether a model's forward has a parameter of this name."""
    return name in inspect.signature(lm.forward).parameters


def options(lm: nn.Module, **values: Any) -> dict[str, Any]:
    """Those of the arguments that a model's forward has."""
    return {name: value for name, value in values.items() if accepts(lm, name)}


@contextmanager
def rows_of_head(lm: nn.Module, rows: Tensor, columns: Tensor) -> Iterator[None]:
    """Within the block, the layer that gives logits sees these positions alone, as one sequence (1, M, width)."""
    head = lm.get_output_embeddings()  # type: ignore[operator]

    def choose(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return args[0][rows, columns][None], *args[1:]

    hook = head.register_forward_pre_hook(choose)
    try:
        yield
    finally:
        hook.remove()


@torch.no_grad()
def examine(lm: nn.Module) -> Traits:
    """Measure a model in evaluation mode on two sequences of seven tokens.

    Raises:
        UserError: it does not read text by itself, a token changes what is said before it (it is not causal), or what
            is said depends on padding.
    """
    try:
        ids = _tokens(lm)
        logits = _read(lm, input_ids=ids)
    except Exception as error:  # of a model that needs an image, an encoder's states, another length
        raise UserError(f"{type(lm).__name__} does not read text by itself: {one_line(error)}") from error
    if logits.shape[:2] != ids.shape:
        raise UserError(f"{type(lm).__name__} gives no logits of each token, but a tensor {tuple(logits.shape)}")
    if not bool(logits.isfinite().all()):
        raise UserError(f"{type(lm).__name__} gives logits that are NaN or infinite, of a plain text already")
    whole = next(lm.parameters()).dtype == torch.float32
    tolerance, leak = (1e-3, 1e-4) if whole else (5e-2, 5e-2)  # tiny random masked models leak 2e-3, causal ones 1e-6
    scale = float(logits.std())
    changed = ids.clone()
    changed[:, -1] = ids[:, 0]
    moved = (_read(lm, input_ids=changed) - logits).abs()
    share = float(moved[:, :-1].max() / moved[:, -1].max().clamp(min=1e-12))
    if share > leak:
        raise UserError(
            f"{type(lm).__name__} is not causal: a change of the last token moved the logits before it by {share:.1%} "
            "of what it moved its own. Give a language model that reads from left to right; a masked one, such as "
            "BERT, sees the answer that it is asked about"
        )

    def differs(measure: Callable[[], Tensor], wanted: Tensor) -> float:
        try:
            return float((measure() - wanted).abs().max()) / max(scale, 1e-12)
        except Exception:  # whatever a model raises of what it does not take
            return float("inf")

    zero = logits.new_zeros(())
    padded = differs(lambda: _padded(lm, ids), zero)
    if max(tolerance, 1e-2) < padded < math.inf:  # ProphetNet's moves by 3e-3; infinite where it does not read so much
        raise UserError(
            f"{type(lm).__name__} reads a text otherwise where a batch pads it: its logits move by {padded:.1%} of "
            "their standard deviation, so that an answer would depend on the questions beside it; take another lm="
        )
    off = {
        "inputs_embeds": differs(lambda: _embedded_logits(lm, ids), logits),
        "cache": differs(lambda: _continued(lm, ids), logits[[0, 0, 1], SHARED:]),
        "rows": differs(lambda: _chosen(lm, ids), logits[[0, 1, 1], [2, 0, 5]]),
    }
    can = {name: value <= tolerance for name, value in off.items()}
    causal = f"a change of the last token moved the logits before it by {share:.1e} of its own"
    words = {
        "inputs_embeds": ("equal those of the tokens", "differ from those of the tokens: join=prefix is refused"),
        "cache": ("after a cached context are the same", "after a cached context differ: every text is read whole"),
    }
    findings = [Finding("causal", "ok", causal)]
    for name, (same, other) in words.items():
        shown = f"logits {same if can[name] else other} (by {off[name]:.1e} of their standard deviation)"
        findings.append(Finding(name, "ok" if can[name] else "unknown", shown))
    window = None
    with _short_windows(lm) as shortest:
        if shortest and can["cache"]:
            beyond = differs(lambda: _continued(lm, ids) - _read(lm, input_ids=ids)[[0, 0, 1], SHARED:], zero)
            window = shortest if tolerance < beyond < math.inf else None
            same = f"differ with a cache: texts of more than {shortest:,} tokens fail" if window else "are the same"
            shown = f"logits beyond an attention window {same} (by {beyond:.1e} of their standard deviation)"
            findings.append(Finding("window", "unknown" if window else "ok", shown))
    return Traits(can["inputs_embeds"], can["cache"], can["rows"], window, tuple(findings))


@contextmanager
def _short_windows(lm: nn.Module) -> Iterator[int]:
    """Within the block, attention windows are of SHORT tokens; yields the shortest as it was before, 0 without any.

    A text that is longer than the windows of real models, of 128 to 8,192 tokens, would take too long to read.
    """
    parts = [part for module in lm.modules() for part in (module, getattr(module, "config", None))]
    settings = {id(part): vars(part) for part in parts if hasattr(part, "__dict__")}
    windows = [
        (values, name, size)
        for values in settings.values()
        for name in WINDOWS
        if type(size := values.get(name)) is int and size > 0
    ]
    try:
        for values, name, size in windows:
            values[name] = min(size, SHORT)
        yield min((size for *_, size in windows), default=0)
    finally:
        for values, name, size in windows:
            values[name] = size


def _tokens(lm: nn.Module) -> Tensor:
    """Two sequences of tokens (2, LENGTH), different ones where the vocabulary is large enough, none special."""
    config: Any = lm.config
    words: nn.Embedding = lm.get_input_embeddings()  # type: ignore[operator]
    special: set[Any] = set()
    for name, value in [*vars(config).items(), *vars(config.get_text_config()).items()]:
        if name.endswith(("token_id", "token_index")):
            special.update(value if isinstance(value, list) else [value])
    plain = sorted({*range(words.weight.shape[0])[:10_000]} - special)
    return (
        torch.tensor([plain[(k * 7919 + 11) % len(plain)] for k in range(2 * LENGTH)])
        .view(2, LENGTH)
        .to(words.weight.device)
    )


def _embedded_logits(lm: nn.Module, ids: Tensor) -> Tensor:
    """Logits of the words' embeddings; embeddings that are no word's, as a video's are, must be read, too."""
    embedded = lm.get_input_embeddings()(ids)  # type: ignore[operator]
    _read(lm, inputs_embeds=(embedded + embedded.flip(1)) / 2)
    return _read(lm, inputs_embeds=embedded)


def _read(lm: nn.Module, **inputs: Tensor) -> Tensor:
    shape = next(iter(inputs.values())).shape[:2]
    mask = torch.ones(shape, dtype=torch.long, device=next(iter(inputs.values())).device)
    return lm(**inputs, attention_mask=mask, **options(lm, use_cache=False)).logits.float()  # type: ignore[no-any-return]


def _padded(lm: nn.Module, ids: Tensor) -> Tensor:
    """How far padding moves the logits (3 * LENGTH - SHARED, vocabulary) of a text beside a longer one."""
    ids = ids.repeat(1, 3)
    alone, mask = ids[1:, :-SHARED], torch.ones_like(ids)
    mask[1, -SHARED:] = 0
    beside = lm(input_ids=ids, attention_mask=mask, **options(lm, use_cache=False)).logits[1, :-SHARED].float()
    return beside - _read(lm, input_ids=alone)[0]  # type: ignore[no-any-return]


def _continued(lm: nn.Module, ids: Tensor) -> Tensor:
    """Logits (3, LENGTH - SHARED, vocabulary) of what follows a cached context: of the first twice, of the second."""
    rows = torch.tensor([0, 0, 1], device=ids.device)
    mask = torch.ones_like(ids)
    past = lm(input_ids=ids[:, :SHARED], attention_mask=mask[:, :SHARED], use_cache=True).past_key_values
    past = repeated(past, rows)
    after = lm(input_ids=ids[rows, SHARED:], attention_mask=mask[rows], past_key_values=past, use_cache=True)
    return after.logits.float()  # type: ignore[no-any-return]


def repeated(cache: Any, rows: Tensor) -> Any:
    """A copy of a cache with these rows of its batch."""
    other = copy.deepcopy(cache)
    other.reorder_cache(rows)
    return other


def _chosen(lm: nn.Module, ids: Tensor) -> Tensor:
    with rows_of_head(lm, torch.tensor([0, 1, 1]), torch.tensor([2, 0, 5])):
        logits = lm(input_ids=ids, attention_mask=torch.ones_like(ids), **options(lm, use_cache=False)).logits
    if logits.shape[:2] != (1, 3):
        raise ValueError("its last layer is not the one that gives logits")
    return logits[0].float()  # type: ignore[no-any-return]
