"""What one step of training costs, measured in the first steps of the fit itself.

Nothing of the training changes by being measured: no number is drawn, no kernel is chosen otherwise, and no step is
taken twice.
"""

from __future__ import annotations

import contextlib
import statistics
import time
import weakref
from collections.abc import Iterator
from typing import Any, cast

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from evalkit.heads.adapter import Adapter
from evalkit.runtime import machine

MEASURED_PEAK = 2  # steps: in the second one the optimizer's means are there, too


class _Kept:
    """A tensor while autograd keeps it."""

    __slots__ = ("__weakref__", "tensor")

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class SavedBytes:
    """Context that counts the bytes that autograd saves for the backward pass.

    Each storage counts once; parameters and buffers are not counted, nor what autograd let go of again. What fused
    attention notes beside its inputs and its output differs from kernel to kernel: it counts as one float per query
    and head, whatever is noted, so that the number is the same on each device. Arithmetic on it changes nothing.

    Args:
        module: whose parameters and buffers are there anyway.
        inputs: tensors of the batch, which may be parts of something larger; they count by their own size.
    """

    def __init__(self, module: nn.Module, inputs: tuple[Tensor, ...] = ()) -> None:
        self.there = {_place(value) for value in (*module.parameters(), *module.buffers())}
        self.inputs = {_place(value) for value in inputs}
        self.kept: weakref.WeakSet[_Kept] = weakref.WeakSet()
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, lambda kept: kept.tensor)

    def __enter__(self) -> SavedBytes:
        self.hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.hooks.__exit__(*error)

    def _keep(self, tensor: Tensor) -> _Kept:
        kept = _Kept(tensor.detach())  # else an output would hold its own graph
        self.kept.add(kept)
        return kept

    def count(self, loss: Tensor) -> int:
        """The bytes, once the loss is computed and before it is differentiated."""
        sizes: dict[int, int] = {}
        notes = 0
        for node in _nodes(loss):
            if "ScaledDotProduct" in node.name() and hasattr(node, "_saved_query"):
                for name in dir(node):
                    parts = ("query", "key", "value", "output", "out", "attn_mask", "attn_bias")
                    if name.startswith("_saved_") and name.removeprefix("_saved_") not in parts:
                        value = getattr(node, name)
                        sizes |= {_place(value): 0} if isinstance(value, Tensor) else {}
                notes += 4 * node._saved_query[..., 0].numel()
        for tensor in (kept.tensor for kept in self.kept):
            place = _place(tensor)
            if place in self.inputs:
                sizes[place] = max(sizes.get(place, 0), tensor.nbytes)
            elif place not in self.there:
                sizes.setdefault(place, tensor.untyped_storage().nbytes())
        return sum(sizes.values()) + notes


def _place(tensor: Tensor) -> int:
    """A number of the tensor's storage, of those that are there at the same time."""
    return int(tensor.untyped_storage()._cdata)


def _nodes(loss: Tensor) -> Iterator[Any]:
    """The nodes of a graph, once each."""
    waiting, seen = [loss.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [before for before, _ in node.next_functions]
            yield node


class Flops(TorchDispatchMode):
    """Counts the operations of what is computed inside, two per multiply-add, by torch's own formulas.

    torch.utils.flop_counter.FlopCounterMode may compute an operation as its parts; here each runs as it would.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        if packet in flop_registry:
            self.total += flop_registry[packet](*args, **(kwargs or {}), out_val=out)
        elif "for_cpu" in str(packet):  # which torch has no formula for
            self.total += _cpu_attention(str(packet), args)
        return out


def _cpu_attention(name: str, args: Any) -> int:
    """Operations of fused attention on a CPU, as torch counts those of its kernels on a GPU.

    Two products of queries and keys or values; in the backward pass five, since the first is computed again.
    """
    if "scaled_dot_product" not in name:
        return 0
    backward = "backward" in name
    query, key, value = (x.shape for x in (args[1:4] if backward else args[:3]))
    forward = int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]
    return forward // 2 * 5 if backward else forward


class TrainingCost(Callback):
    """Measures the first steps of a fit; `record` says what they cost."""

    def __init__(self) -> None:
        self.saved_bytes: int | None = None
        self.flops: int | None = None
        self.peak_bytes: int | None = None
        self.times: list[float] = []
        self.batch = self.trainable = self.points = 0
        self.device = torch.device("cpu")
        self.open = contextlib.ExitStack()
        self.hooks: SavedBytes | None = None
        self.counted: Flops | None = None

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        first = not self.times
        if first:
            self.device = pl_module.device
            self.batch, self.points = len(batch.examples), cast(Adapter, pl_module).points
            self.trainable = sum(value.numel() for value in pl_module.parameters() if value.requires_grad)
            self._reset_peak()
            compiled = any(getattr(part, "_compiled_call_impl", None) is not None for part in pl_module.modules())
            if not compiled:  # else counting would make it run as it was written
                self.counted = self.open.enter_context(Flops())
            self.hooks = self.open.enter_context(SavedBytes(pl_module, (batch.features,)))
        self.started = time.monotonic()

    def on_before_backward(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, loss: Tensor
    ) -> None:
        if self.hooks:
            self.saved_bytes = self.hooks.count(loss)
            self.hooks.kept.clear()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.close()
        self.times.append(time.monotonic() - self.started)
        if len(self.times) <= MEASURED_PEAK:
            on_gpu = self.device.type == "cuda"
            self.peak_bytes = torch.cuda.max_memory_allocated(self.device) if on_gpu else machine.peak_memory()

    def _reset_peak(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            machine.reset_peak_memory()

    def close(self) -> None:
        """Ends what counts, also where a step failed."""
        self.open.close()
        if self.counted:
            self.flops, self.counted = self.counted.total, None
        self.hooks = None

    def record(self) -> dict[str, Any] | None:
        """The value of `cost.training` in a record; None if no step was taken."""
        if not self.times:
            return None
        of_device = self.device.type == "cuda"
        return {
            "saved_bytes": self.saved_bytes,
            "peak_bytes": self.peak_bytes,
            "peak_of": "device" if of_device else "process",
            "seconds": statistics.median(self.times[1:] or self.times),  # the first one was counted in
            "flops": self.flops,
            "trainable": self.trainable,
            "batch": self.batch,
            **({"points": self.points} if self.points > 1 else {}),
        }
