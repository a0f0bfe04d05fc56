"""Trains in two processes, once scored and once alone; each writes what it met. A script of tests/test_callback.py.

python two_processes.py CKPT CSV
"""

import json
import sys
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader, TensorDataset

from evalkit.launch import python
from tests.test_callback import Classifier, evaluate

CKPT, VIDEOS = map(Path, sys.argv[1:])


def train(name: str, *callbacks: lightning.Callback) -> tuple[lightning.Trainer, dict[str, Any]]:
    """Trains for an epoch of two steps: the trainer, and what may not depend on the callbacks."""
    lightning.seed_everything(3, verbose=False)
    module = Classifier(CKPT)
    module.backbone.text = None  # which nothing here trains, and ddp would wait for
    data = DataLoader(TensorDataset(torch.randn(8, 4, 3, 32, 32), torch.randint(2, (8,))), 2, shuffle=True)
    settings: Any = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(
        max_epochs=1,
        devices=2,
        strategy="ddp",
        logger=CSVLogger(".", name),
        callbacks=[*callbacks],
        enable_checkpointing=bool(callbacks),
        **settings,
    )
    trainer.fit(module, data)
    weights = [one.tolist() for one in module.parameters()]
    return trainer, {"met": module.met, "weights": weights, "training": module.backbone.training}


def main() -> None:
    """Trains twice, and writes what each process saw."""
    runs: list[str] = []
    score = python.run

    def counted(task: str, *more: Any, **words: Any) -> python.Result:
        runs.append(task)
        return score(task, *more, **words)

    python.run = counted
    best = ModelCheckpoint(monitor="evalkit/folder/top1", mode="max")
    trainer, scored = train("scored", evaluate(VIDEOS), best)
    _, alone = train("alone")
    metrics = {key: value.item() for key, value in trainer.callback_metrics.items()}
    told = {"same": alone == scored, "training": scored["training"], "runs": runs, "metrics": metrics}
    told["best"] = None if best.best_model_score is None else best.best_model_score.item()
    Path(f"{trainer.global_rank}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main()
