import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalkit.errors import UserError
from evalkit.metrics.text import wordnet as reader
from evalkit.metrics.text import wups as scorer
from evalkit.metrics.text.wordnet import WordNet, wordnet
from evalkit.metrics.text.wups import EXACT, _similarity, _tagged, _untagged, similarity, wups, wups_untagged
from tests.given import DATA, real, wordnet_is_here

EXPECTED = DATA / "expected" / "nextqa"
# Synsets of a small WordNet: words, and the first words of what is above.
NOUNS = {
    "entity": [],
    "matter": ["entity"],
    "thing": ["entity"],
    "body": ["thing", "matter"],
    "animal": ["body"],
    "dog": ["animal"],
    "cat": ["animal"],
    "pet": ["thing"],
    "puppy": ["dog", "pet"],
    "rain": ["matter"],
    "leaf": ["thing"],
    "man child": ["animal"],
}
VERBS = {"go": [], "run jog": ["go"], "walk": ["go"], "eat": [], "leave": ["go"], "sit": []}


def write(folder: Path, part: str, name: str, synsets: dict[str, list[str]]) -> None:
    """A part of speech as WordNet's own files have it: data by place, and an index of the words."""
    text = "  1 This is not WordNet.\n"
    places: dict[str, int] = {}
    senses: dict[str, list[int]] = {}
    for words, above in synsets.items():
        places[words.split()[0]] = len(text)
        said = " ".join(f"{word} 0" for word in words.split())
        links = "".join(f"@ {places[one]:08} {part} 0000 " for one in above)
        for word in words.split():
            senses.setdefault(word, []).append(len(text))
        head = f"{len(text):08} 00 {part} {len(words.split()):02x} {said} {len(above):03}"
        text += f'{head} {links}| a meaning; "said @ so"\n'
    index = "  1 This is not WordNet.\n"
    for word, offsets in sorted(senses.items()):
        index += f"{word} {part} {len(offsets)} 1 @ {len(offsets)} 0 {' '.join(f'{at:08}' for at in offsets)}  \n"
    (folder / f"data.{name}").write_text(text)
    (folder / f"index.{name}").write_text(index)
    (folder / f"{name}.exc").write_text({"noun": "leaves leaf\nmen man\n", "verb": "ran run\nsat sit\n"}.get(name, ""))


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WordNet:
    """A small WordNet, which is the one that is found."""
    write(tmp_path, "n", "noun", NOUNS)
    write(tmp_path, "v", "verb", VERBS)
    write(tmp_path, "a", "adj", {"quick": [], "red": []})
    write(tmp_path, "r", "adv", {"well": []})
    monkeypatch.setenv("EVALKIT_WORDNET", str(tmp_path))
    for kept in (_similarity, _untagged, _tagged):
        kept.cache_clear()
    return wordnet()


def near(found: WordNet, a: str, b: str) -> float:
    first, second = found.first(a), found.first(b)
    assert first and second
    return found.similarity(first, second)


def test_base_forms_are_found_by_exceptions_and_endings(small: WordNet) -> None:
    assert small.forms("dogs", "n") == ["dog"] and small.forms("leaves", "n") == ["leaf"]
    assert small.forms("leaves", "v") == ["leave"] and small.forms("running", "v") == []
    assert small.forms("ran", "v") == ["run"] and small.forms("walked", "v") == ["walk"]
    assert small.forms("puppies", "n") == ["puppy"] and small.forms("quickest", "a") == ["quick"]
    assert small.forms("zebra", "n") == []


def test_a_noun_comes_before_a_verb_and_an_unknown_word_has_no_sense(small: WordNet) -> None:
    found = [small.first(word) for word in ("leaves", "Jogs", "red", "well", "zebra")]
    assert [one.part if one else None for one in found] == ["n", "v", "a", "r", None]


def test_similarity_is_that_of_wu_and_palmer_by_nltk_3_5(small: WordNet) -> None:
    assert near(small, "dog", "dog") == 1
    # animal is 3 below the top: 2 x 4 / (5 + 5)
    assert near(small, "dog", "cat") == 2 * 4 / (1 + 1 + 2 * 4)
    assert near(small, "puppy", "dog") == 2 * 5 / (1 + 2 * 5)
    # Of puppy's two ways up the shorter is by pet, and with rain it meets at the top only.
    assert near(small, "puppy", "rain") == 2 * 2 / (1 + 4 + 2 * 2)
    assert near(small, "cat", "leaf") == 2 * 2 / (3 + 1 + 2 * 2)
    assert near(small, "go", "run") == 2 * 1 / (1 + 2 * 1)


def test_verbs_have_a_root_which_the_first_word_decides(small: WordNet) -> None:
    assert near(small, "run", "eat") == 2 * 1 / (2 + 1 + 2 * 1)
    assert near(small, "run", "walk") == 2 * 1 / (2 + 2 + 2 * 1)  # go is as deep as the root, which comes first
    assert near(small, "eat", "rain") == 2 * 1 / (1 + 3 + 2 * 1)
    assert small.similarity(small.first("rain"), small.first("eat")) == 0  # type: ignore[arg-type]
    assert near(small, "red", "quick") == 0


def test_an_answers_words_are_near_as_their_product_and_the_smaller_way_counts(small: WordNet) -> None:
    assert similarity(["dog", "leaf"], ["dog", "leaf"]) == 1
    assert similarity(["dog", "leaf"], ["dog"]) == near(small, "leaf", "dog") < similarity(["dog"], ["dog"])
    assert similarity(["zebra"], ["dog"]) == 0 == similarity([], ["dog"])
    assert similarity(["zebra", "dog"], ["dog"]) == 1  # a word near nothing is left out
    assert similarity(["dog"], ["cat"], 0.9) == pytest.approx(0.1 * 0.8)


def test_without_a_tagger_verbs_in_ing_and_ed_are_their_base_form(small: WordNet) -> None:
    found = wups_untagged(
        ["the man is walking", "two dogs", "leaves", None, "dog"],
        [
            {"kind": "CW", "answers": ["men walked"]},
            {"kind": "DO", "answers": ["a cat", "two dog"]},
            {"kind": "DC", "answers": ["leaf"]},
            {"kind": "CH", "answers": ["dog"]},
            {"kind": "DB", "answers": ["cat"]},
        ],
    )
    assert found == {"WUPS-untagged": [1, 1, 1, 0, 0], "WUPS-untagged@0.9": [1, 1, 1, 0, 0]}


def test_a_target_in_place_of_an_answer_is_right_even_where_it_has_stop_words_only(small: WordNet) -> None:
    target = {"kind": "CW", "answers": ["to her"]}
    assert wups_untagged([target, "to her"], [target, target])["WUPS-untagged"] == [1, 0]


def test_with_a_tagger_each_word_is_the_part_of_speech_that_it_says(
    small: WordNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    tags = {"leaves": "VBZ", "his": "PRP$", "dogs": "NNS", "doggy": "JJ", "walking": "VBG", "else": "RB"}
    stems = {"doggy": "dog", "his": "hi", "else": "els"}
    tagger = (lambda words: [(word, tags.get(word, "NN")) for word in words]), lambda word: stems.get(word, word)
    monkeypatch.setattr(scorer, "_nltk", lambda: tagger)
    # As the official script: what is no word of WordNet becomes its stem, if that is one; stop words go after that.
    assert _tagged("leaves his dogs") == ("leave", "dog")
    assert _tagged("doggy walking else") == ("dog", "walk", "else")
    assert wups(["leaves"], [{"kind": "CW", "answers": ["leaves"]}]) == {"WUPS": [1], "WUPS@0.9": [1]}


def absent(error: Exception) -> Callable[[str], Any]:
    def importing(name: str) -> Any:
        raise error

    return importing


@pytest.mark.parametrize(
    ("error", "mend"),
    [
        (ImportError(), r"pip install 'video-evalkit\[wups\]'"),
        (LookupError(), "python -c .*averaged_perceptron_tagger_eng"),
    ],
)
def test_without_nltks_tagger_one_line_says_what_to_do(
    error: Exception, mend: str, small: WordNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorer, "import_module", absent(error))
    with pytest.raises(UserError, match=f"^WUPS needs nltk's tagger: {mend}"):
        wups(["a dog"], [{"kind": "CW", "answers": ["a cat"]}])


def test_without_wordnet_one_line_says_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALKIT_WORDNET", str(tmp_path))
    with pytest.raises(UserError, match=r"no WordNet database .*name the folder with data\.noun in EVALKIT_WORDNET"):
        wordnet()
    monkeypatch.delenv("EVALKIT_WORDNET")
    monkeypatch.setattr(reader, "_DEBIAN", tmp_path / "none")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"WordNet 3\.0 is not found in .*nltk_data"):
        wordnet()


@pytest.mark.parametrize("target", ["a dog", {"kind": "CW"}, {"kind": "", "answers": []}, {"kind": "", "answers": [3]}])
def test_what_is_no_question_is_refused_in_one_line(target: Any) -> None:
    with pytest.raises(UserError, match=r'wups_untagged: target .* is not \{"kind": text, "answers": \[text, '):
        wups_untagged(["a"], [target])


@pytest.fixture
def full() -> WordNet:
    """WordNet 3.0 itself."""
    return wordnet_is_here()


@real
def test_pairs_of_words_are_as_near_as_by_nltk_3_5(full: WordNet) -> None:
    for one in json.loads((EXPECTED / "wup_pairs_nltk3.5_wn3.0.json").read_text()):
        assert similarity([one["a"]], [one["b"]]) == min(one["wup0"], one["wup0_swapped"])
        assert _similarity(one["a"], one["b"], 0.0) == one["wup0"]
        assert _similarity(one["a"], one["b"], 0.9) == one["wup9"]
        assert _similarity(one["b"], one["a"], 0.0) == one["wup0_swapped"]


@real
def test_answers_of_nextqa_in_base_forms_score_as_published(full: WordNet) -> None:
    total = 0.0
    items = json.loads((EXPECTED / "per_item_val_nltk3.5_wn3.0.json").read_text())
    for one in items:
        ours, theirs = one["pred_norm"].split(), one["answer_norm"].split()
        assert similarity(ours, theirs) == pytest.approx(one["wups0"], abs=1e-12)
        assert similarity(ours, theirs, 0.9) == pytest.approx(one["wups9"], abs=1e-12)
        total += ours == theirs if one["type"] in EXACT else similarity(ours, theirs)
    assert round(100 * total / len(items), 2) == 21.48


@real
def test_base_forms_are_the_official_ones_by_some_parts_of_speech(
    full: WordNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    stem = pytest.importorskip("nltk.stem.porter", reason="needs video-evalkit[wups]").PorterStemmer().stem

    def forms(word: str) -> set[tuple[str, ...]]:
        """What a word may become: the tagger's weights, which would tell, are not part of nltk."""
        found = set()
        for tag in ("NN", "VB", "JJ", "RB"):
            monkeypatch.setattr(scorer, "_nltk", lambda tag=tag: (lambda words: [(one, tag) for one in words], stem))
            _tagged.cache_clear()
            found.add(_tagged(word))
        return found

    known = cache(forms)
    for one in json.loads((EXPECTED / "per_item_val_nltk3.5_wn3.0.json").read_text())[::5]:
        for said, official in ((one["pred"], one["pred_norm"]), (one["answer"], one["answer_norm"])):
            texts: set[tuple[str, ...]] = {()}
            for word in str(said).split():
                texts = {(*before, *form) for before in texts for form in known(word)}
            assert tuple(official.split()) in texts, said


@real
def test_without_a_tagger_nine_answers_of_ten_score_the_same(full: WordNet) -> None:
    items = json.loads((EXPECTED / "per_item_val_nltk3.5_wn3.0.json").read_text())
    found = wups_untagged(
        [one["pred"] for one in items], [{"kind": one["type"], "answers": [str(one["answer"])]} for one in items]
    )["WUPS-untagged"]
    official = [
        float(one["pred_norm"] == one["answer_norm"]) if one["type"] in EXACT else one["wups0"] for one in items
    ]
    assert round(100 * np.mean(found), 2) == 21.64
    assert np.mean(np.abs(np.subtract(found, official)) <= 0.005) > 0.9
