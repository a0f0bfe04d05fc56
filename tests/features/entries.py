"""Entries of a store: a key and a tensor for each number."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from evalkit.features.store import Store


def key(i: int) -> bytes:
    return hashlib.sha256(str(i).encode()).digest()


def tensor(i: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(i).standard_normal((1 + i % 7, 50), np.float32))


def fill(folder: Path, numbers: Iterable[int]) -> None:
    with Store(folder) as store:
        for i in numbers:
            store.put(key(i), tensor(i))


def right(store: Store, numbers: range) -> set[int]:
    """Which of these are found; none may be wrong."""
    tensors = store.find(key(i) for i in numbers)
    for i in numbers:
        assert key(i) not in tensors or torch.equal(tensors[key(i)], tensor(i)), i
    return {i for i in numbers if key(i) in tensors}


def files(folder: Path, ending: str) -> list[Path]:
    return sorted(folder.glob(f"*{ending}"))
