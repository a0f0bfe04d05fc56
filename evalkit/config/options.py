"""The keys without a section, and those of trainer.*."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval, Lt

Command = Literal["run", "adapt", "canary", "check", "features"]
Tracker = Literal["csv", "tensorboard", "wandb", "mlflow", "trackio"]
SECTIONS = ("encoder", "data", "clip", "adapter", "trainer")


@dataclass(frozen=True)
class Options:
    """The keys without a section.

    Attributes:
        task: the benchmark: a name that `evalkit list tasks` shows, or a file such as ./my_task.py
        ckpt: the encoder: a name that `evalkit list encoders` shows, a folder or file, organization/model on the
            Hugging Face hub, random:NAME, or package.module:function
        encoder_name: what results call the encoder; empty: the name of the checkpoint's folder or file
        adapter: what joins encoder and task: a name that `evalkit list adapters` shows; empty: the task's own
        mini: take the task's own miniature data, generated on first use
        lm: a causal language model for adapters that take one: a folder, GGUF file, hub id or http://HOST:PORT/v1#MODEL;
            empty: the adapter's own; ckpt=none asks it alone, without video
        lm_precision: of the language model's weights and arithmetic; bf16 and 16 take half the memory
        adapter_from: folder of a trained adapter, written by `evalkit adapt`; empty: the checkpoint's own, if it has
            one; none: fit a new one
        log: trackers that the run is shown in as well: csv, tensorboard, wandb, mlflow, trackio, with commas between
            several
        log_dir: folder of what trackers keep on this machine
        log_group: what runs that belong together are grouped by in the trackers; a sweep, suite or study names its own
        log_online: send what is logged, where the tracker is told to; else it stays on this machine, unless the
            tracker's own environment variable says otherwise
        out: folder that the result, or the trained adapter, is written into
        seed: of everything random
        device: where to compute; auto: a GPU where there is one
        devices: processes on this machine that share the run, each with a GPU, or with its part of the cores
        nodes: machines that share the run, with so many devices each; srun or torchrun starts evalkit on them
        workers: processes that decode; 0: one per core
        threads: of the encoder's arithmetic on a CPU; 0: OMP_NUM_THREADS if that is set, else one per core
        batch: clips encoded at once; auto: many, and half as many each time the memory does not suffice
        precision: of the encoder's arithmetic; bf16 and 16 are faster on a GPU and move the features slightly
        compile: let torch compile the encoder, which takes a minute once and then makes it faster
        cache: on stores what was encoded and takes it from there; off encodes anew and stores nothing
        cache_also: cache folders of others, with commas between them: features that are stored there are read, and
            nothing is written there
        canary: put a few clips through the encoder first, and stop where it is not fed what it was trained on
        trained_on: data sets that the encoder was trained on, as ssv2:labels,webvid:captions, or none; empty: as
            its preset says; scores on them are marked
        trust: load a pickled checkpoint that can run code, or a folder that names code; only where you trust the maker
        confirm: go on without asking where features fit nowhere, so that each epoch encodes them anew
        controls: also score the task's controls, such as blind
        time_limit: seconds that decoding one video may take
        decoder: what reads frames where it is exact, PyAV elsewhere; another than pyav only to match another pipeline
    """

    task: str
    ckpt: str
    encoder_name: str = ""
    adapter: str = ""
    mini: bool = False
    lm: str = ""
    lm_precision: Literal["32", "bf16", "16"] = "32"
    adapter_from: str = ""
    log: tuple[Tracker, ...] = ()
    log_dir: Path = Path("logs")
    log_group: str = field(default="", compare=False)
    log_online: bool = False
    out: Path = Path("results")
    seed: Annotated[int, Ge(0), Lt(2**32)] = 0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: Annotated[int, Gt(0)] = 1
    nodes: Annotated[int, Gt(0)] = 1
    workers: Annotated[int, Ge(0)] = 0
    threads: Annotated[int, Ge(0)] = 0
    batch: Annotated[int, Gt(0)] | Literal["auto"] = "auto"
    precision: Literal["32", "bf16", "16"] = "32"
    compile: bool = False
    cache: Literal["on", "off"] = "on"
    cache_also: str = ""
    canary: bool = True
    trained_on: str = ""
    trust: bool = False
    confirm: bool = False
    controls: bool = True
    time_limit: Annotated[float, Gt(0)] = 120.0
    decoder: Literal["pyav", "decord", "torchcodec"] = "pyav"


@dataclass(frozen=True)
class FeatureOptions(Options):
    """The keys without a section of `evalkit features`.

    Attributes:
        form: of the files: npz, safetensors, parquet; faiss is npz with an index of each split for search beside it
        split: of the task, that features are made of
        part: of the encoder's output: one vector a clip (float32), or every token (float16)
        adapter: with a name, also the vectors of all texts that it embeds, as zero_shot and retrieval do
        out: folder that the files are written into, which must be empty
    """

    form: Literal["npz", "safetensors", "parquet", "faiss"] = "npz"
    split: Literal["all", "train", "val", "test"] = "all"
    part: Literal["pooled", "frames", "tokens"] = "pooled"


@dataclass(frozen=True)
class Trainer:
    """How an adapter is fitted.

    Attributes:
        precision: of the arithmetic, in Lightning's words
        max_minutes: stop fitting after this many minutes; 0: no limit
        views: augmented views of each training clip, one per epoch in turn; 0: none, fit on the views of the test;
            task: as the task says
        shots: fit on so many examples of each class, drawn by the seed, and choose on as many of val; 0: on all
        share: fit on this share of the examples of each class, at least one, drawn by the seed, and choose on this
            share of val
    """

    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    max_minutes: Annotated[float, Ge(0)] = 0.0
    views: Annotated[int, Ge(0)] | Literal["task"] = "task"
    shots: Annotated[int, Ge(0)] = 0
    share: Annotated[float, Interval(gt=0, le=1)] = 1.0


# Of commands that have more keys than a run.
OPTIONS: dict[Command, type[Options]] = {"features": FeatureOptions}
