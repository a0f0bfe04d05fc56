"""Arithmetic on several cores at once."""

import threading

import pytest
import torch

from evalkit.runtime.arithmetic import map_on_cores


def test_each_item_has_a_core_of_its_own() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        together = threading.Barrier(3, timeout=30)  # as many at once as there are threads; fewer would wait in vain

        def of(item: int) -> tuple[int, int]:
            together.wait()
            return item, torch.get_num_threads()

        assert [*map_on_cores(of, range(6))] == [(item, 1) for item in range(6)]
        assert torch.get_num_threads() == 3
        with pytest.raises(ZeroDivisionError):
            [*map_on_cores(lambda item: 1 // item, [1, 0])]
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
