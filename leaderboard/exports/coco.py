"""COCO captions: <org__model>/<task>_results.json, and the references as COCO's annotations, of tasks that tell videos.

The pair is what pycocotools and pycocoevalcap read. A failed video has an empty caption, as it is scored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from evalkit import metrics
from evalkit.results.run_folder import load_rows
from evalkit.results.scores import resolve

from ..runs import Run
from . import as_json, model_id, path_part, task_names

RULES = (metrics.captions, metrics.captions_meteor)


def files(runs: Sequence[Run]) -> Iterator[tuple[str, str]]:
    """Two files per run of a captioning task."""
    told = [run for run in runs if resolve(run.result["task"]["score"], run.task_files) in RULES]
    for run, task in zip(told, task_names(told), strict=True):
        rows = load_rows(run.folder)
        captions = [{"image_id": row.id, "caption": row.prediction or ""} for row in rows]
        references = [
            (row.id, text)
            for row in rows
            for text in ([row.target] if isinstance(row.target, str) else row.target or [])
        ]
        annotations = {
            "info": {"description": run.result["task"]["name"], "version": str(run.result["task"]["version"])},
            "licenses": [],
            "type": "captions",
            "images": [{"id": row.id, "file_name": row.video} for row in rows],
            "annotations": [
                {"id": i, "image_id": video, "caption": text} for i, (video, text) in enumerate(references, 1)
            ],
        }
        stem = f"{'__'.join(model_id(run))}/{path_part(task)}"
        yield f"{stem}_results.json", as_json(captions)
        yield f"{stem}_annotations.json", as_json(annotations)
