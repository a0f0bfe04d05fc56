"""Layers of second stages (UMT, InternVideo2) that match texts with videos, and retrieval that re-ranks by them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from evalkit.api import FeatureSpec, Task, has_match
from evalkit.cli import main
from evalkit.encoders import opengvlab
from evalkit.errors import UserError
from evalkit.features.forward import EncoderRunner
from evalkit.mini import captions
from evalkit.results import run_folder, validate
from evalkit.video.clips import Decoded, read_clip
from tests.encoders import opengvlab_files as files
from tests.encoders.test_opengvlab import film, vocabulary_of_bert
from tests.given import make, write
from tests.saved import load, refusal, same

pytestmark = pytest.mark.usefixtures("decoding_here")
HEADS, START = files.HEADS, "vision_encoder."


@pytest.fixture(autouse=True)
def seeded() -> None:
    files.DRAWN.manual_seed(11)


def second_stage(kind: str, layers: int = 2, fused: int = 2, words: int = 12) -> files.Weights:
    """A released file's weights."""
    if kind == "umt":
        vision = files.masked(1, f"{START}encoder.") | files.norm(f"{START}pool_norm", files.DIM)
        vision |= files.linear("vision_proj", files.DIM, 20)
    else:
        vision = files.internvideo2(START) | files.linear("vision_proj", files.POOLED, 20)
    return vision | files.bert(layers, fused, words=words) | {"temp": files.drawn()}


def seen(video: Tensor, weights: files.Weights, kind: str) -> tuple[Tensor, Tensor]:
    """By the definition, what the layers read of a clip (1, T, 3, H, W), (L, DIM), and its vector of length 1."""
    vision = files.renamed(weights, f"{START}encoder." if kind == "umt" else START)
    x = files.states(video, vision)
    if kind == "internvideo2":
        vector = files.through(files.pooled(x, vision), weights, "vision_proj")
        return x[0], F.normalize(vector[0], dim=0)
    x = files.normed(x, vision, "norm", 1e-6)
    means = files.normed(x.reshape(video.shape[1], -1, files.DIM).mean(1), weights, f"{START}pool_norm", 1e-6)
    each = F.normalize(files.through(means, weights, "vision_proj"), dim=1)
    return x[0], F.normalize(each.mean(0), dim=0)


@pytest.mark.parametrize("kind", ["umt", "internvideo2"])
def test_a_text_matches_a_video_as_the_definition_says(tmp_path: Path, kind: str) -> None:
    weights = second_stage(kind)
    path = files.save(tmp_path / "second.pth", weights, "model")
    encoder: Any = load(path, heads=HEADS, tokenizer=vocabulary_of_bert(tmp_path))
    assert has_match(encoder)
    clips = film(4 if kind == "umt" else files.TIMES, batch=2)
    encoded = encoder(clips)
    assert same(encoder.pool(encoded.sequence), encoded.pooled, 1e-6)
    # "A red ball!" is cleaned: [CLS] a red ball [SEP]; red-balls is red ball ##s
    texts, ids = ["A red ball!", "rings", "red-balls, a."], [[2, 5, 9, 10, 3], [2, 6, 8, 3], [2, 9, 10, 8, 5, 3]]
    states = encoder.text_states(texts)
    assert [len(each) for each in states] == [5, 4, 6]
    for row in range(2):
        sequence, _ = seen(clips[row : row + 1], weights, kind)
        assert same(encoded.sequence[row].flatten(0, 1), sequence, 1e-5)
        wanted = [files.match(sequence, files.bert_states(each, weights, 2), weights, 2, 2) for each in ids]
        together = encoder.match(encoded.sequence[row], states)
        assert together.tolist() == pytest.approx(wanted, abs=1e-5)
        assert encoder.match(encoded.sequence[row], states[1:2]).item() == pytest.approx(wanted[1], abs=1e-5)
        assert max(wanted) - min(wanted) > 1e-2, "texts are told apart"
    projected = [files.through(files.bert_states(each, weights, 2)[0], weights, "text_proj") for each in ids]
    assert same(encoder.encode_text(texts), torch.stack(projected), 1e-5)


def test_what_the_layers_read_is_kept_in_half_floats_whatever_the_precision(tmp_path: Path) -> None:
    encoder = load(files.save(tmp_path / "x.pth", second_stage("umt")), heads=HEADS)
    pixels = torch.randint(0, 256, (3, 2, 3, 32, 32), generator=files.DRAWN, dtype=torch.uint8)
    spec = FeatureSpec("sequence", dtype="float16")
    full = EncoderRunner(encoder, "", torch.device("cpu"), 2, True)(pixels, spec)
    half = EncoderRunner(encoder, "", torch.device("cpu"), 2, True, "bf16")(pixels, spec)
    assert full.dtype == half.dtype == torch.float16 and full.shape == half.shape == (3, 2, 4, files.DIM)
    assert not torch.equal(full, half) and same(full.float(), half.float(), 0.1)
    with pytest.raises(UserError, match="re-ranking reads the encoder's sequence, and it gives none"):
        spec.take(encoder(encoder.clip.normalize(pixels))._replace(sequence=None))


def test_layers_and_head_go_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = second_stage("internvideo2", layers=1, fused=2)
    path = tmp_path / "x.pt"

    def refused(changed: Mapping[str, Tensor], heads: int = HEADS) -> str:
        return refusal(files.save(path, changed), heads=heads)

    def without(*starts: str) -> files.Weights:
        return {name: value for name, value in weights.items() if not name.startswith(starts)}

    layer = "text_encoder.bert.encoder.layer."
    assert refused(without("itm_head.")) == (
        f"{path} has 2 layers with crossattention and no itm_head, which go together: get the file again"
    )
    assert "has itm_head and no layers with crossattention" in refused(without(f"{layer}1.", f"{layer}2."))
    assert "missing fusion.layer.1.crossattention.self.key.weight" in refused(without(f"{layer}2.crossattention."))
    narrow = {f"{layer}1.crossattention.self.key.weight": files.drawn(128, files.DIM - 1)}
    assert f"is (128, {files.DIM - 1}), wanted (128, {files.DIM})" in refused(weights | narrow)
    assert "NaN" in refused(weights | {"itm_head.bias": torch.tensor([0.0, torch.nan])})
    monkeypatch.setattr(opengvlab.released, "HEADS", {(files.DIM, 2): HEADS})
    monkeypatch.setattr(opengvlab.released, "FUSION_DEPTHS", {128: 2})
    assert has_match(load(files.save(path, weights)))
    assert "has 1 layers with crossattention, and those of their width that are published are 2" in refused(
        without(f"{layer}2."), heads=0
    )
    first_stage = files.save(path, {name: weights[name] for name in weights if name.startswith(START)})
    assert not has_match(load(first_stage, heads=HEADS))


def test_texts_are_cut_where_it_is_said(tmp_path: Path) -> None:
    weights = second_stage("umt", layers=1, fused=1)
    path, vocabulary = files.save(tmp_path / "x.pth", weights), vocabulary_of_bert(tmp_path)
    lengths = {}
    for tokens in (0, 40, 5):
        encoder: Any = load(path, heads=HEADS, tokenizer=vocabulary, text_tokens=tokens)
        lengths[tokens] = len(encoder.text_states(["a ring " * 30])[0])
    assert lengths == {0: 32, 40: 40, 5: 5}
    assert refusal(path, heads=HEADS, text_tokens=41) == f"encoder.text_tokens=41: wanted 3 to 40 with {path}"
    assert "encoder.text_tokens=-1: expected a whole number from 0 on" in refusal(path, heads=HEADS, text_tokens=-1)
    silent = files.save(tmp_path / "first.pth", files.masked(1))
    assert "which has no BERT: leave it out" in refusal(silent, heads=HEADS, text_tokens=64)
    assert refusal("demo", text_tokens=64).startswith("encoder.text_tokens=64 has no effect on ckpt=demo: leave it out")


# --- a run -----------------------------------------------------------------------------------------------------------

TOKENS, FIRST = 40, 3
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def ranks_by_definition(similarity: Tensor, logit: Mapping[tuple[int, int], float]) -> list[dict[str, float]]:
    """Ranks of each text's video and each video's text, which have the same number, by sorting."""

    def rank(row: int, near: Tensor, text_first: bool) -> float:
        order = near.argsort(descending=True).tolist()
        ahead = sorted(order[:FIRST], key=lambda other: -logit[(row, other) if text_first else (other, row)])
        return 1.0 + [*ahead, *order[FIRST:]].index(row)

    rows = range(len(similarity))
    return [{"t2v": rank(i, similarity[i], True), "v2t": rank(i, similarity[:, i], False)} for i in rows]


def second_stage_of(kind: str, words: set[str], folder: Path) -> tuple[list[str], files.Weights, list[str]]:
    """A file in the folder that knows these words: vocabulary, weights, and the words of a run that re-ranks by it."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(words)]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    weights = second_stage(kind, layers=1, fused=1, words=len(vocabulary))
    line = [f"ckpt={files.save(folder / 'second.pt', weights)}", f"encoder.tokenizer={folder / 'vocab.txt'}"]
    line += [f"encoder.heads={HEADS}", f"encoder.text_tokens={TOKENS}", f"adapter.rerank={FIRST}"]
    return vocabulary, weights, [*line, "controls=false", "cache=off"]


def re_ranks_as_the_definition_does(kind: str, task: Task, clips: int, words: Sequence[str], folder: Path) -> None:
    """Runs the line with these words, and sorts anew.

    Each video is its clips of 224 pixels: its vector is the mean of theirs, its logit the mean of theirs.
    """
    texts = [re.findall("[a-z]+", example.text.lower()) for example in task.test]
    vocabulary, weights, given = second_stage_of(kind, {word for text in texts for word in text}, folder)
    assert main(["run", *words, *given, "canary=false", f"clip.clips={clips}", f"out={folder / 'out'}"]) == 0
    (run,) = [file.parent for file in (folder / "out").rglob("result.json")]
    assert validate.validate(run) == []
    record, rows = run_folder.load(run), run_folder.load_rows(run)
    assert record["task"]["protocol"]["settings"]["rerank"] == FIRST and record["status"] == "complete"

    clip = load(folder / "second.pt", heads=HEADS).clip
    views = replace(task.views, resize="squash", clips=clips)
    sequences, videos, states, vectors = [], [], [], []
    for example, text in zip(task.test, texts, strict=True):
        read = read_clip(example.video, example.span, views, clip.frames, clip.size, clip=clip)
        assert isinstance(read, Decoded)
        each = [seen(view[None], weights, kind) for view in clip.normalize(read.pixels)]
        sequences.append([sequence for sequence, _ in each])
        videos.append(F.normalize(torch.stack([vector for _, vector in each]).mean(0), dim=0))
        ids = [vocabulary.index(word) for word in text][: TOKENS - 2]
        states.append(files.bert_states([2, *ids, 3], weights, 1))
        vectors.append(F.normalize(files.through(states[-1][0], weights, "text_proj"), dim=0))
    similarity = torch.stack(vectors) @ torch.stack(videos).T
    near = {(i, int(j)) for i in range(len(texts)) for j in similarity[i].topk(FIRST).indices}
    near |= {(int(i), j) for j in range(len(videos)) for i in similarity[:, j].topk(FIRST).indices}
    logit = {
        (i, j): sum(files.match(sequence, states[i], weights, 1, 1) for sequence in sequences[j]) / clips
        for i, j in near
    }
    assert [row.prediction for row in rows] == ranks_by_definition(similarity, logit)


def captioned_films(films: Path, file: Path) -> Path:
    """A csv of the films with a number each as its caption."""
    rows = [f"{films / f'{i:02d}.mp4'},{number},test" for i, number in enumerate(NUMBERS)]
    return write(file, "\n".join(["path,caption,split", *rows]) + "\n")


def test_msrvtt_is_re_ranked_as_the_definition_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(captions.SEARCHED, "test", 24)  # a quarter of the miniature, for time
    words = ["task=msrvtt", "mini=true"]
    re_ranks_as_the_definition_does("internvideo2", make("msrvtt", mini=True), 1, words, tmp_path)
    printed = capsys.readouterr()
    assert "the first 3 by the cosine, ordered by layers that see video and text" in printed.out
    assert "re-rank videos: 24 of 24" in printed.err


def test_two_clips_of_a_video_are_re_ranked_as_the_definition_does(films: Path, tmp_path: Path) -> None:
    file = captioned_films(films, tmp_path / "films.csv")
    words = ["task=retrieval", f"data.root={file}"]
    re_ranks_as_the_definition_does("umt", make("retrieval", file), 2, words, tmp_path)


def test_a_first_stage_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = second_stage("umt", layers=1, fused=0)
    bare = {name: value for name, value in weights.items() if not name.startswith("itm_head.")}
    path = files.save(tmp_path / "x.pth", bare)
    words = [f"encoder.heads={HEADS}", f"encoder.tokenizer={vocabulary_of_bert(tmp_path)}", "adapter.rerank=128"]
    assert main(["run", "task=msrvtt", "mini=true", f"ckpt={path}", *words]) == 2
    assert "adapter.rerank=128: this encoder has no layers that see a video and a text" in capsys.readouterr().err
