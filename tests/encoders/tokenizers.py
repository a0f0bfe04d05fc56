"""Tiny tokenizers of letters, as transformers saves those of CLIP, SigLIP 2 and FLAVA."""

import string
from pathlib import Path

import transformers


def clip_tokenizer(folder: Path) -> None:
    letters = [*string.ascii_lowercase, ","]
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    transformers.CLIPTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[]).save_pretrained(folder)


def gemma_tokenizer(folder: Path) -> None:
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", ",", *string.ascii_letters]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    transformers.GemmaTokenizer(vocab=vocab, merges=[], add_bos_token=False, add_eos_token=True).save_pretrained(folder)


def bert_tokenizer(folder: Path) -> None:
    letters = [*string.ascii_lowercase, ","]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, "##i", "##n", "##g", "##e", "##d"]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    transformers.BertTokenizer(vocab=vocab).save_pretrained(folder)
