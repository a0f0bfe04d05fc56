"""EgoSchema's submission: <org__model>/submission.json for its validation server and submission.csv for Kaggle.

Of runs of the real benchmark; data.subset=false predicts all 5,031 questions. Nothing is sent anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from evalkit.plugins import module_and_factory
from evalkit.results.run_folder import load_rows

from ..runs import Run
from . import model_id, path_part, task_names


def files(runs: Sequence[Run]) -> Iterator[tuple[str, str]]:
    """Two files per run, as the run itself writes them; none where a question has no answer."""
    submission = module_and_factory("task", "egoschema")[0].submission
    answered = [run for run in runs if run.result["task"]["name"] == "egoschema"]
    for run, task in zip(answered, task_names(answered), strict=True):
        folder_name = "__".join(model_id(run)) + task.removeprefix("egoschema")
        with TemporaryDirectory() as folder:
            for file in submission({row.id: row.prediction for row in load_rows(run.folder)}, Path(folder)):
                yield f"{path_part(folder_name)}/{file.name}", file.read_text(encoding="utf-8")
