"""Retrieval: how it searches, how it is trained, and what the command line records of it."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from evalkit import load_encoder, plugins
from evalkit.api import Batch, Clip, Example, Prediction, Task
from evalkit.cli import main
from evalkit.datasets.captions import CaptionedVideo, CaptionSplits, retrieval_task
from evalkit.errors import UserError
from evalkit.weights import trained_adapter
from tests.given import make, make_adapter, write

pytestmark = pytest.mark.usefixtures("decoding_here")

CAPTIONS = ["a red circle moves left", "a blue square grows", "a green ring blinks", "a white cross moves up"]


# --- the adapter -----------------------------------------------------------------------------------------------------


def searched(films: Path, n: int = 4, several: bool = False) -> Task:
    """Films with captions that need not be true."""
    rows = [
        CaptionedVideo(f"v{i}", films / f"{i:02d}.mp4", [text, f"{text} again"] if several else [text])
        for i, text in enumerate(CAPTIONS[:n])
    ]
    return retrieval_task(CaptionSplits(rows, rows))


def adapter(encoder: Any, task: Task, **settings: Any) -> Any:
    return make_adapter("retrieval", encoder, task, **settings).eval()


def test_zero_shot_ranks_are_those_of_the_encoders_own_vectors(tiny: Path, films: Path) -> None:
    encoder: Any = load_encoder(tiny)
    task = searched(films, several=True)
    mine = adapter(encoder, task)
    assert mine.epochs == 0 and not trained_adapter.adapter_state(mine) and mine.frozen == {}
    views = torch.randn(4, 3, encoder.dim, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        given = mine.predict(task.test, views.repeat_interleave(2, 0))
        found = mine.finalize(task.test, given)
        text = F.normalize(encoder.encode_text([e.text for e in task.test]), dim=1)
    similarity = text @ F.normalize(views.mean(1), dim=1).T  # (8 captions, 4 videos)
    for i, one in enumerate(found):
        own = similarity[i, i // 2]
        assert one.value["t2v"] == 1 + (similarity[i] > own).sum()
        best = similarity[i // 2 * 2 : i // 2 * 2 + 2, i // 2].max()
        assert one.value["v2t"] == 1 + (similarity[:, i // 2] > best).sum()
        assert one.detail == {
            "nearest": [f"v{k}" for k in similarity[i].argsort(descending=True).tolist()],
            "similarity": pytest.approx(float(own), abs=2e-6),
        }


def test_a_video_is_embedded_once_however_many_captions_ask_for_it(tiny: Path, films: Path) -> None:
    encoder: Any = load_encoder(tiny)
    task = searched(films, several=True)
    mine = adapter(encoder, task)
    seen: list[int] = []
    mine.video.register_forward_hook(lambda module, args, out: seen.append(len(out)))
    mine.predict(task.test, torch.randn(8, 1, encoder.dim))
    assert seen == [4]


def test_a_vector_that_is_not_finite_is_a_miss_and_told(
    tiny: Path, films: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = searched(films)
    mine = adapter(load_encoder(tiny), task)
    vectors = torch.eye(4)
    broken = torch.full((4,), math.nan)
    given = [Prediction((vectors[i], broken if i == 1 else vectors[i])) for i in range(4)]
    values = [one.value for one in mine.finalize(task.test, given)]
    assert "1 of 4 texts and 1 of 4 videos" in capsys.readouterr().err
    scored = task.score(values, [e.target for e in task.test])
    assert scored["t2v_R@1"] == scored["v2t_R@1"] == [1.0, 0.0, 1.0, 1.0]


def test_retrieval_has_no_blind_control(tiny: Path, films: Path) -> None:
    assert adapter(load_encoder(tiny), searched(films)).needs_video


def test_what_cannot_be_meant_is_refused(tiny: Path, films: Path, tmp_path: Path) -> None:
    encoder: Any = load_encoder(tiny)
    task = searched(films)
    with pytest.raises(UserError, match="needs a task of captions"):
        adapter(encoder, replace(task, test=[replace(task.test[0], target=3)]))
    with pytest.raises(UserError, match=r"no effect zero-shot: adapter\.train=true"):
        adapter(encoder, task, pool="mean")
    encoder.text = None
    with pytest.raises(UserError, match=r"this encoder embeds no text: adapter\.text="):
        adapter(encoder, task)
    write(tmp_path / "config.json", {"model_type": "vit"})
    with pytest.raises(UserError, match="adapter.text=|cannot read"):
        adapter(encoder, task, text=str(tmp_path))


def test_the_attentive_pooler_is_torchs_cross_attention_with_one_query(tiny: Path, films: Path) -> None:
    mine = adapter(load_encoder(tiny), searched(films), train=True, dim=10).video
    tokens = torch.randn(5, 2, 4, 24, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        mine.norm.weight.normal_()
        mine.norm.bias.normal_()
        mine.query.normal_()
    theirs = nn.MultiheadAttention(24, mine.heads, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([torch.eye(24), mine.key.weight, mine.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([torch.zeros(48), mine.value.bias]))
        theirs.out_proj.weight.copy_(torch.eye(24))
        theirs.out_proj.bias.zero_()
        normed = mine.norm(tokens.flatten(1, 2))
        attended, _ = theirs(mine.query.expand(5, 1, -1), normed, normed)
        torch.testing.assert_close(mine(tokens), mine.project(attended[:, 0]), rtol=1e-4, atol=1e-5)


def loss_of(mine: Any, examples: Sequence[Example], features: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = mine.training_step(Batch(examples, features), 0)
    return found


def test_the_loss_is_the_symmetric_cross_entropy_of_the_batch(tiny: Path, films: Path) -> None:
    encoder: Any = load_encoder(tiny)
    task = searched(films)
    mine = adapter(encoder, task, train=True, pool="pooled", temperature=0.1)
    features = torch.randn(4, 1, encoder.dim, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        text = F.normalize(encoder.encode_text(CAPTIONS), dim=1)
    logits = F.normalize(features[:, 0], dim=1) @ text.T / 0.1
    target = torch.arange(4)
    wanted = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    torch.testing.assert_close(loss_of(mine, task.test, features), wanted)


def test_what_is_right_for_another_caption_of_the_batch_is_no_negative(tiny: Path, films: Path) -> None:
    encoder: Any = load_encoder(tiny)
    task = searched(films, several=True)
    mine = adapter(encoder, task, train=True, pool="pooled", temperature=0.1)
    features = torch.randn(4, 1, encoder.dim, generator=torch.Generator().manual_seed(0)).repeat_interleave(2, 0)
    alone = [loss_of(mine, task.test[i : i + 2], features[i : i + 2]) for i in (0, 2)]
    assert [one.item() for one in alone] == [0.0, 0.0], "two captions of one video leave nothing to tell apart"
    assert loss_of(mine, task.test[:4], features[:4]).item() > 0
    echoes = [replace(task.test[0], text="the same words"), replace(task.test[2], text="the same words")]
    assert loss_of(mine, echoes, features[[0, 2]]).item() == 0.0, "nor do the same words of two videos"


@pytest.mark.parametrize("pool", ["attentive", "mean", "pooled"])
@pytest.mark.parametrize("words", ["own", "lm", "tuned", "tuned lm"])
def test_training_pulls_captions_to_their_videos_and_leaves_the_frozen_parts(
    tiny: Path, films: Path, lm: Path, pool: str, words: str
) -> None:
    from evalkit.weights import checkpoint

    torch.manual_seed(0)
    encoder: Any = load_encoder(tiny)
    before = checkpoint.sha256(encoder)
    task = searched(films)
    text = str(lm) if "lm" in words else ""
    mine = adapter(encoder, task, train=True, text=text, tune_text="tuned" in words, pool=pool, lr=1e-2)
    features = torch.randn(4, 2, *((encoder.dim,) if pool == "pooled" else (2, 3, encoder.dim)))
    frozen = checkpoint.sha256(mine.words)
    optimizer = torch.optim.AdamW([p for p in mine.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(40):
        loss = loss_of(mine.train(), task.test, features)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 < losses[0]
    mine.eval()
    with torch.inference_mode():
        found = mine.finalize(task.test, mine.predict(task.test, features))
    assert [one.value for one in found] == [{"t2v": 1.0, "v2t": 1.0}] * 4
    assert (checkpoint.sha256(encoder), checkpoint.sha256(mine.words)) == (before, frozen)
    own = {name.partition(".")[0] for name in trained_adapter.adapter_state(mine)}
    assert own == {"video", "text", "log_scale"} | ({"tuned"} if "tuned" in words else set())


def test_tuning_the_encoders_own_text_tower_touches_no_weight_of_the_video_tower(tiny: Path, films: Path) -> None:
    encoder: Any = load_encoder(tiny)
    mine = adapter(encoder, searched(films), tune_text=True, pool="pooled")
    tower = {f"encoder/text/{name.replace('.', '/')}" for name, _ in encoder.text.named_parameters()}
    assert set(mine.tuned) and set(mine.tuned) <= tower
    assert all("/text/" in name for name in mine.tuned)


def test_what_was_trained_comes_back_and_another_text_model_is_refused(
    tiny: Path, films: Path, lm: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    encoder: Any = load_encoder(tiny)
    task = searched(films)
    mine = adapter(encoder, task, text=str(lm), tune_text=True, pool="mean")
    with torch.no_grad():
        for value in trained_adapter.adapter_state(mine).values():
            value.copy_((value + 0.1 * torch.randn_like(value)).half())
    trained_adapter.save_adapter(mine, tmp_path / "adapters" / "retrieval", {})
    again = adapter(encoder, task, text=str(lm), tune_text=True, pool="mean")
    trained_adapter.restore_adapter(again, tmp_path / "adapters" / "retrieval")
    features = torch.randn(4, 1, 1, 3, encoder.dim)
    with torch.inference_mode():
        for a, b in zip(mine.predict(task.test, features), again.predict(task.test, features), strict=True):
            torch.testing.assert_close(a.value, b.value)
    other = tmp_path / "other"
    model: Any = AutoModelForCausalLM.from_pretrained(lm)
    with torch.no_grad():
        model.get_input_embeddings().weight.add_(1)
    model.save_pretrained(other)
    for file in (*lm.glob("token*"), *lm.glob("special*")):
        (other / file.name).write_bytes(file.read_bytes())
    with pytest.raises(UserError, match="was trained with text"):
        trained_adapter.restore_adapter(
            adapter(encoder, task, text=str(other), tune_text=True, pool="mean"), tmp_path / "adapters" / "retrieval"
        )


def test_a_text_model_with_heads_is_read_and_padding_changes_nothing(tmp_path: Path, lm: Path) -> None:
    """A BERT as pretraining saves it: heads that are left out, and no pooler."""
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

    config = BertConfig(
        vocab_size=200,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    folder = tmp_path / "bert"
    BertForMaskedLM(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(lm).save_pretrained(folder)
    words = plugins.module_and_factory("adapter", "retrieval")[0].ModelWords(str(folder))
    assert words.width == 16
    with torch.no_grad():
        together = words(["a red circle", "a red circle moves left and then a blue square grows"])
        alone = words(["a red circle"])
    torch.testing.assert_close(together[:1], alone)


# --- from the command line -------------------------------------------------------------------------------------------


@pytest.fixture
def csv_of_films(films: Path, tmp_path: Path) -> Path:
    """Twelve films: eight to train on, four to find, one of them missing."""
    rows = [f"{films / f'{i:02d}.mp4'},{CAPTIONS[i % 4]} {i},{'train' if i < 8 else 'test'}" for i in range(12)]
    rows.append("missing.mp4,a yellow ring moves down,test")
    return write(tmp_path / "films.csv", "\n".join(["path,caption,split", *rows]) + "\n")


def result(out: Path) -> dict[str, Any]:
    (file,) = out.rglob("result.json")
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_a_zero_shot_run_scores_again_from_its_predictions(
    csv_of_films: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results"
    words = [f"data.root={csv_of_films}", f"ckpt={tiny}", f"out={out}", "workers=1", "canary=false"]
    assert main(["run", "task=retrieval", *words]) == 0
    found = result(out)
    scores = {one["metric"]: one for one in found["scores"]}
    assert next(iter(scores)) == "t2v_R@1" and scores["t2v_R@10"]["value"] == scores["v2t_R@10"]["value"] == 80.0
    assert found["data"]["n_failed"] == 1 and scores["t2v_R@10"]["bounds"] == [80.0, 100.0]
    assert {one["name"] for one in found["controls"]} == {"shuffled", "single_frame"} and found["chance"] == 20
    (predictions,) = out.rglob("predictions.jsonl")
    rows = [json.loads(line) for line in predictions.read_text().splitlines()]
    assert set(rows[0]["prediction"]) == {"t2v", "v2t"} and len(rows[0]["detail"]["nearest"]) == 4
    assert rows[-1]["prediction"] is None and rows[-1]["failure"]
    capsys.readouterr()
    assert main(["score", str(predictions.parent)]) == 0
    assert "t2v_R@1" in capsys.readouterr().out
    assert main(["validate", str(predictions.parent)]) == 0


def test_the_dual_softmax_is_marked_in_the_result_and_has_a_column_of_its_own(
    csv_of_films: Path, tiny: Path, tmp_path: Path
) -> None:
    for name, words in (("plain", []), ("dual", ["adapter.dual_softmax=0.01"])):
        common = [f"data.root={csv_of_films}", f"ckpt={tiny}", "workers=1", "canary=false", "controls=false"]
        assert main(["run", "task=retrieval", *common, *words, f"out={tmp_path / 'results' / name}"]) == 0
    plain, dual = (result(tmp_path / "results" / name)["task"] for name in ("plain", "dual"))
    assert dual["protocol"]["transductive"] is True and dual["protocol"]["settings"]["dual_softmax"] == 0.01
    assert "transductive" not in plain["protocol"] and "dual_softmax" not in plain["protocol"]["settings"]
    assert main(["leaderboard", f"results={tmp_path / 'results'}", f"out={tmp_path / 'board.md'}"]) == 0
    text = (tmp_path / "board.md").read_text()
    assert "<br>zero-shot<br>" in text and "<br>zero-shot, transductive<br>" in text


def test_what_only_training_reads_is_refused_zero_shot(
    tiny: Path, films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.csv").write_text(f"path,caption\n{films}/00.mp4,a red circle moves left\n")
    words = ["task=retrieval", f"data.root={tmp_path / 'mine.csv'}", f"ckpt={tiny}", "adapter.lr=1e-3"]
    assert main(["run", *words]) == 2
    assert "adapter.lr has no effect: the adapter is not trained with these settings" in capsys.readouterr().err


def test_an_encoder_without_text_is_trained_with_a_language_model_chosen_on_val_and_used_again(
    csv_of_films: Path, lm: Path, tmp_path: Path
) -> None:
    from evalkit.encoders import Spec, save_encoder

    spec = Spec("longvivit", Clip(frames=4, size=32), {"dim": 24, "depth": 1, "heads": 3, "hidden": 48}, None)
    deaf = tmp_path / "deaf"
    deaf.mkdir()
    torch.manual_seed(0)
    save_encoder(spec.build(), spec, deaf)
    common = ["task=retrieval", f"data.root={csv_of_films}", "workers=1", "canary=false"]
    words = [f"adapter.text={lm}", "adapter.epochs=2", "adapter.batch_size=4"]
    assert main(["run", *common, f"ckpt={deaf}", *words, f"out={tmp_path / 'one'}"]) == 0
    found = result(tmp_path / "one")
    assert len(found["selection"]["val_scores"]) == 2 and found["selection"]["n_val"] == 1
    assert found["adapter"]["trainable_parameters"] > 0 and len(found["adapter"]["settings"]["text"]) == 64
    assert main(["adapt", *common, f"ckpt={deaf}", *words, f"out={tmp_path / 'adapted'}"]) == 0
    assert main(["run", *common, f"ckpt={tmp_path / 'adapted'}", f"out={tmp_path / 'two'}"]) == 0
    assert result(tmp_path / "two")["selection"] is None


def test_a_table_of_captions_without_rows_is_told(tmp_path: Path) -> None:
    file = write(tmp_path / "captions.csv", "path,caption")
    with pytest.raises(UserError, match=f"^{file} has no rows below its header$"):
        make("retrieval", root=file)


def test_a_caption_that_a_video_has_twice_is_a_query_each_time_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = "path,caption\na.mp4,a cat\nb.mp4,a cat\na.mp4,a dog\n./a.mp4,a cat \na.mp4,a dog\n"
    file = write(tmp_path / "captions.csv", rows)
    task = make("retrieval", file)
    assert [example.text for example in task.test] == ["a cat", "a dog", "a cat", "a dog", "a cat"]
    assert f"2 rows repeat a caption of the same video, first {file}, line 5: a.mp4; each is a query" in caplog.text
    caplog.clear()
    make("retrieval", write(tmp_path / "captions.csv", "path,caption\na.mp4,a cat\nb.mp4,a cat\n"))
    assert not caplog.text  # of two videos the same caption is no mistake
