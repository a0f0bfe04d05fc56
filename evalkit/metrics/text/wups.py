"""WUPS of open answers by the rule of NExT-QA's eval_oe.py: similarity of an answer's words to the right one's.

Words are replaced by their base forms and stop words left out. Each word then counts as much as the nearest word of the
other answer, by Wu and Palmer's similarity of the first senses (evalkit/metrics/text/wordnet.py: WordNet 3.0, the rule
of nltk 3.5, which gives the published 21.48 on val and 25.18 on test; that of nltk 3.10 gives 20.38 on val). An
answer's score is the product over its words, words near nothing left out, and the smaller of both ways counts. Answers
to yes-or-no and counting questions are right or wrong. Xiao et al. 2021, https://github.com/doc-doc/NExT-OE; WUPS:
Malinowski and Fritz 2014, https://arxiv.org/abs/1410.0210.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from typing import Any

from evalkit.errors import UserError, install
from evalkit.metrics.classification import is_failed
from evalkit.metrics.text.tokenizer import tokenized
from evalkit.metrics.text.wordnet import wordnet

EXACT = {"DB", "DC"}  # kinds of question: yes or no, how many
_STOP_WORDS = (
    "a about again ain all am an and any are aren aren't as at be because been being but can couldn couldn't d did "
    "didn didn't do does doesn doesn't doing don don't during each for from further had hadn hadn't has hasn hasn't "
    "have haven haven't having he her here hers herself him himself his how i if into is isn isn't it it's its "
    "itself just ll m ma me mightn mightn't most mustn mustn't my myself needn needn't now o of only or other our "
    "ours ourselves own re s shan shan't she she's should should've shouldn shouldn't so some such t than that "
    "that'll the their theirs them themselves then there these they this those through to too until ve very was "
    "wasn wasn't we were weren weren't what when where which while who whom why will with won won't wouldn wouldn't "
    "y you you'd you'll you're you've your yours yourself yourselves"
)
_STOP = frozenset(_STOP_WORDS.split())
_TAGGER = "averaged_perceptron_tagger_eng"


def wups(predictions: Sequence[Any], targets: Sequence[Any]) -> dict[str, list[float]]:
    """`WUPS`, and `WUPS@0.9`, where a similarity below 0.9 counts a tenth.

    Base forms depend on the part of speech that nltk's tagger sees, as in the official script: this needs the
    extra wups and the tagger's weights.

    Args:
        predictions: one text of each; None for a failed one.
        targets: {"kind": of question, such as CW, "answers": [text, ...]}, or a tuple of answers alone, where the kind
            is not known; of several answers the nearest counts.

    Raises:
        UserError: a prediction or a target is not so, or WordNet or the tagger is not there.
    """
    metrics = _scored("wups", predictions, targets, _tagged)
    _nltk(), wordnet()  # raises if they are missing, even if no word was looked up
    return metrics


def wups_untagged(predictions: Sequence[Any], targets: Sequence[Any]) -> dict[str, list[float]]:
    """`WUPS-untagged` and `WUPS-untagged@0.9`: as `wups`, without a tagger; needs WordNet alone.

    A word in -ing or -ed is its verb, any other the noun, else the verb, adjective or adverb that it is a form of. Of
    the published model's answers this gives 21.64 on val and 25.56 on test, where the paper has 21.48 and 25.18.

    Raises:
        UserError: a prediction or a target is not as `wups` has it, or WordNet is not there.
    """
    metrics = _scored("wups_untagged", predictions, targets, _untagged)
    wordnet()
    return {name.replace("WUPS", "WUPS-untagged"): values for name, values in metrics.items()}


def similarity(ours: Sequence[str], theirs: Sequence[str], least: float = 0.0) -> float:
    """The WUPS of two answers' words, in 0..1; a similarity of words below `least` counts a tenth."""
    return min(_covered(ours, theirs, least), _covered(theirs, ours, least))


def _scored(
    metric: str, predictions: Sequence[Any], targets: Sequence[Any], words: Callable[[str], tuple[str, ...]]
) -> dict[str, list[float]]:
    metrics: dict[str, list[float]] = {"WUPS": [], "WUPS@0.9": []}
    for prediction, target in zip(predictions, targets, strict=True):
        kind, answers = _target(metric, target)
        for values, least in zip(metrics.values(), (0.0, 0.9), strict=True):
            if is_failed(prediction) or prediction == target:
                values.append(float(not is_failed(prediction)))
                continue
            if not isinstance(prediction, str):
                raise UserError(f"{metric}: prediction {repr(prediction)[:60]} is not text")
            ours = words(prediction)
            compared = [words(answer) for answer in answers]
            values.append(
                float(ours in compared)
                if kind in EXACT
                else max(similarity(ours, theirs, least) for theirs in compared)
            )
    return metrics


def _target(metric: str, target: Any) -> tuple[str, list[str]]:
    if isinstance(target, tuple):
        target = {"kind": "", "answers": target}
    try:
        kind, answers = target["kind"], list(target["answers"])
    except (KeyError, TypeError):
        answers = []
    if not answers or not all(isinstance(answer, str) for answer in answers):
        raise UserError(f'{metric}: target {repr(target)[:60]} is not {{"kind": text, "answers": [text, ...]}}')
    return str(kind), answers


def _covered(ours: Sequence[str], theirs: Sequence[str], least: float) -> float:
    product, any_near = 1.0, False
    for word in ours:
        nearest = max((_similarity(word, other, least) for other in theirs), default=0.0)
        if nearest:
            product, any_near = product * nearest, True
    return product if any_near else 0.0


@cache
def _similarity(a: str, b: str, least: float) -> float:
    if a == b:
        return 1.0
    first, second = wordnet().first(a), wordnet().first(b)
    similarity = wordnet().similarity(first, second) if first and second else 0.0
    return similarity if similarity >= least else 0.1 * similarity


@cache
def _untagged(text: str) -> tuple[str, ...]:
    forms = []
    for word in tokenized(text).split():
        known = (wordnet().forms(word, part) for part in ("vnar" if word.endswith(("ing", "ed")) else "nvar"))
        forms.append(min(next(filter(None, known), [word]), key=len))
    return tuple(form for form in forms if form not in _STOP)


@cache
def _tagged(text: str) -> tuple[str, ...]:
    tag, stem = _nltk()
    words = []
    for word, tagged in tag(tokenized(text).split()):
        part = _part(tagged) or _part(tag([word])[0][1]) or "n"
        base = min(wordnet().forms(word, part) or [word], key=len)
        if not wordnet().first(base):
            base = stem(word) if wordnet().first(stem(word)) else word
        words.append(base)
    return tuple(word for word in words if word not in _STOP)


def _part(tag: str) -> str:
    """WordNet's part of speech of a Penn Treebank tag; empty if it has none."""
    return {"NN": "n", "VB": "v", "JJ": "a", "RB": "r"}.get(tag[:2], "")


@cache
def _nltk() -> tuple[Callable[[list[str]], list[tuple[str, str]]], Callable[[str], str]]:
    """The tagger of nltk, and Porter's stemmer.

    Raises:
        UserError: nltk is not installed, or has no weights.
    """
    try:
        tagger = import_module("nltk.tag.perceptron").PerceptronTagger()
        return tagger.tag, import_module("nltk.stem.porter").PorterStemmer().stem
    except ImportError:
        how = install("wups")
    except LookupError:
        how = f'python -c "import nltk; nltk.download({_TAGGER!r})"'
    raise UserError(f"WUPS needs nltk's tagger: {how}, or score with evalkit.metrics:wups_untagged")
