"""Trains the embedded language model on the mini world's text: a tiny Llama and its sentencepiece vocabulary.

Run by `make weights`, before the encoder and the resampler: python -m evalkit.mini.train FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.nn.functional as F

from evalkit import lm
from evalkit.mini.language import documents
from evalkit.optim import adamw
from evalkit.progress import track

STEPS, BATCH, SEED = 3000, 32, 1
PIECES = 200


def vocabulary(path: Path) -> None:
    """Learns a sentencepiece vocabulary that holds every word of the mini world."""
    path.write_bytes(lm.vocabulary(documents(SEED, 4000), PIECES))


def language_model(folder: Path) -> None:
    """Writes a folder that transformers' Auto classes load: vocabulary, then 3,000 steps of next-token prediction."""
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary(folder / "tokenizer.model")
    tokenizer = LlamaTokenizer.from_pretrained(folder)
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=PIECES,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=lm.PAD,
        bos_token_id=lm.BEGIN,
        eos_token_id=lm.END,
    )
    model = LlamaForCausalLM(config)
    training = adamw(model, 2e-3, 0.01, STEPS)
    optimizer, schedule = training["optimizer"], training["lr_scheduler"]["scheduler"]
    texts = documents(SEED + 1, STEPS * BATCH)
    for step in track(range(STEPS), "language model", STEPS):
        rows = [torch.tensor([*tokenizer.encode(next(texts)), lm.END]) for _ in range(BATCH)]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=lm.PAD)
        logits = model(input_ids=ids).logits
        loss = F.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], ignore_index=lm.PAD)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(f"step {step + 1}: loss {loss.item():.3f}", file=sys.stderr)
    model.to(dtype=torch.float16)  # type: ignore[call-arg]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    language_model(Path(sys.argv[1]))
