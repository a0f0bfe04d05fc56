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
    """The options without a section.

    Attributes:
        task: the benchmark: a name from `evalkit list tasks`, or a file such as ./my_task.py
        ckpt: the encoder: a name from `evalkit list encoders`, a folder or file, organization/model on the Hugging Face
            hub, random:NAME, or package.module:function
        encoder_name: the encoder's name in results; empty: the name of the checkpoint's folder or file
        adapter: the head that connects encoder and task: a name from `evalkit list adapters`; empty: the task's default
        mini: use the task's generated miniature data set
        lm: causal language model for adapters that use one: a folder, GGUF file, hub id or http://HOST:PORT/v1#MODEL;
            empty: the adapter's default; with ckpt=none it is evaluated alone, without video
        lm_precision: precision of the language model; bf16 and 16 need half the memory
        adapter_from: folder of a trained adapter, written by `evalkit adapt`; empty: the checkpoint's own, if it has
            one; none: train a new one
        log: experiment trackers: csv, tensorboard, wandb, mlflow, trackio, separated by commas
        log_dir: folder for the trackers' local files
        log_group: name of the group of runs in the trackers; sweeps, suites and studies set their own
        log_online: upload logs; otherwise they stay on this machine, unless a tracker's environment variable says
            otherwise
        out: output folder for the result or the trained adapter
        seed: seed of all random numbers
        device: where to compute; auto: a GPU if there is one
        devices: processes on this machine that share the run, each with a GPU or a part of the cores
        nodes: machines that share the run, each with this many devices; started by srun or torchrun
        workers: decoding processes; 0: one per core
        threads: threads of the encoder on a CPU; 0: OMP_NUM_THREADS if set, else one per core
        batch: clips per forward pass; auto: start large and halve it when memory runs out
        precision: precision of the encoder; bf16 and 16 are faster on a GPU and change features slightly
        compile: compile the encoder with torch.compile, which takes about a minute and makes it faster
        cache: on stores features and reuses them; off encodes everything and stores nothing
        cache_also: other users' cache folders, separated by commas, to read features from; nothing is written there
        canary: check a few clips first, and stop if the encoder does not get the input it was trained on
        trained_on: data sets that the encoder was trained on, such as ssv2:labels,webvid:captions, or none; empty: as
            in its preset; scores on them are marked
        trust: load a pickled checkpoint that can run code, or a folder that names code; only if you trust its author
        confirm: continue without asking if features fit nowhere and each epoch must encode them again
        controls: also run the task's controls, such as blind
        time_limit: seconds allowed for decoding one video
        decoder: decoder to use where it is exact, with PyAV elsewhere; change it only to match another pipeline
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
    """The options without a section of `evalkit features`.

    Attributes:
        form: file format: npz, safetensors, parquet; faiss is npz with a search index per split
        split: split of the task to encode
        part: part of the encoder's output: one vector per clip (float32), one per time step (float16), or all tokens
            (float16)
        adapter: if given, also write the embeddings of all texts that this adapter uses (zero_shot, retrieval)
        out: output folder, which must be empty
    """

    form: Literal["npz", "safetensors", "parquet", "faiss"] = "npz"
    split: Literal["all", "train", "val", "test"] = "all"
    part: Literal["pooled", "frames", "tokens"] = "pooled"


@dataclass(frozen=True)
class CheckOptions(Options):
    """The options without a section of `evalkit check`.

    Attributes:
        out: file for the paths of missing and undecodable videos, .txt, one per line, relative to the data's folder;
            empty: write none
    """

    out: Path = Path()


@dataclass(frozen=True)
class Trainer:
    """How an adapter is trained.

    Attributes:
        precision: precision of training, in Lightning's terms
        max_minutes: stop training after this many minutes; 0: no limit
        views: augmented views of each training clip, one per epoch in turn; 0: train on the test views; task: as in the
            task
        shots: train on this many examples of each class, drawn by the seed, and select on as many of val; 0: on all
        share: train on this share of the examples of each class, or of each data set of a mixture, at least one, drawn
            by the seed, and select on this share of val
    """

    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    max_minutes: Annotated[float, Ge(0)] = 0.0
    views: Annotated[int, Ge(0)] | Literal["task"] = "task"
    shots: Annotated[int, Ge(0)] = 0
    share: Annotated[float, Interval(gt=0, le=1)] = 1.0


# Of commands that have other keys than a run.
OPTIONS: dict[Command, type[Options]] = {"features": FeatureOptions, "check": CheckOptions}
