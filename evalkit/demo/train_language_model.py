"""Training of the embedded language model on the mini world's text: a tiny Llama and its sentencepiece vocabulary.

Run by `make weights`, before the encoder and the resampler: python -m evalkit.demo.train_language_model FOLDER
"""

from __future__ import annotations

import itertools
import logging
import random
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evalkit.heads.optim import adamw
from evalkit.language import models
from evalkit.mini import language
from evalkit.runtime import notes
from evalkit.runtime.progress import track

logger = logging.getLogger("evalkit")

# Steps, peak learning rate, and what is read in them.
STAGES = ((8000, 2e-3, language.COMPARED), (2000, 1e-3, language.TOLD))
BATCH, SEED = 32, 1
POOL = 16  # batches of texts that are sorted by length
PIECES = 200


def train_vocabulary(path: Path) -> None:
    """Learn a sentencepiece vocabulary that holds every word of the mini world."""
    path.write_bytes(models.vocabulary(language.documents(SEED, 4000), PIECES))


def batches(rows: Iterable[list[int]]) -> Iterator[Tensor]:
    """Yield batches (BATCH, L) int64 of texts of similar length, since padding costs as much as text."""
    rng, rows = random.Random(SEED), iter(rows)
    while pool := sorted(itertools.islice(rows, BATCH * POOL), key=len):
        some = [pool[i : i + BATCH] for i in range(0, len(pool), BATCH)]
        for batch in rng.sample(some, len(some)):
            yield torch.nn.utils.rnn.pad_sequence(list(map(torch.tensor, batch)), True, models.PAD)


def learn(model: nn.Module, lessons: Iterator[Tensor], steps: int, lr: float, answer: Tensor) -> None:
    """Next-token prediction, the learning rate warmed up to its peak and down to nothing.

    The word after "Answer:", whose tokens (2,) are given, counts as much as all others of a text together, or it would
    be learned last of all.
    """
    training = adamw(model, lr, 0.01, steps)
    optimizer, schedule = training["optimizer"], training["lr_scheduler"]["scheduler"]
    for step, ids in enumerate(track(lessons, "language model", steps)):
        logits = model(input_ids=ids).logits
        losses = F.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")
        answers = F.pad((ids.unfold(1, 2, 1)[:, :-1] == answer).all(-1), (1, 0))
        loss = losses[ids[:, 1:] != models.PAD].mean()
        if answers.any():
            loss = loss + losses[answers].mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            logger.info(f"step {step + 1}: loss {loss.item():.3f}")


def language_model(folder: Path) -> None:
    """Write a folder that transformers' Auto classes load: vocabulary, then two stages of next-token prediction."""
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    train_vocabulary(folder / "tokenizer.model")
    tokenizer = LlamaTokenizer.from_pretrained(folder)
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=PIECES,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=models.PAD,
        bos_token_id=models.BEGIN,
        eos_token_id=models.END,
    )
    model = LlamaForCausalLM(config)
    answer = torch.tensor(tokenizer.encode("Answer:")[-2:])
    for number, (steps, lr, shares) in enumerate(STAGES, 1):
        texts = language.documents(SEED + number, steps * BATCH, shares)
        learn(model, batches([*tokenizer.encode(text), models.END] for text in texts), steps, lr, answer)
    model.to(dtype=torch.float16)  # type: ignore[call-arg]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    with notes.on_stderr():
        language_model(Path(sys.argv[1]))
