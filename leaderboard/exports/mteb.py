"""What mteb and MVEB write: results/<org__model>/<weights>/<Task>.json and model_meta.json.

Rates are fractions, as there. The tasks keep evalkit's names: mteb's own of the same benchmarks ask another question
(eight examples per class, a cosine with each option), and must not be taken for these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..runs import Run
from . import as_json, defined, fraction, model_id, path_part, summary, task_names, timestamp, with_headline


def files(runs: Sequence[Run]) -> Iterator[tuple[str, str]]:
    """A file per encoder, task and protocol, and one per encoder."""
    runs = [*with_headline(runs)]
    for run, task in zip(runs, task_names(runs), strict=True):
        record = run.result
        scores = {entry["metric"]: fraction(entry["metric"], entry["value"]) for entry in defined(run)}
        result = {
            "dataset_revision": record["data"]["fingerprint"],
            "task_name": task,
            "mteb_version": None,
            "scores": {
                record["task"]["split"]: [
                    {
                        **scores,
                        "main_score": next(iter(scores.values())),
                        "hf_subset": "default",
                        "languages": ["eng-Latn"],
                        "evalkit": summary(run),
                    }
                ]
            },
            "evaluation_time": record["cost"]["wall_s"],
            "kg_co2_emissions": None,
            "date": timestamp(run).timestamp(),
        }
        revision = record["encoder"]["sha256"] or "no_revision_available"
        folder = f"results/{'__'.join(model_id(run))}/{revision}"
        yield f"{folder}/{path_part(task)}.json", as_json(result)
        yield f"{folder}/model_meta.json", as_json(_meta(run, revision))


def _meta(run: Run, revision: str) -> dict[str, Any]:
    """What mteb's ModelMeta takes; null stands for what a result does not know."""
    unknown = ["release_date", "languages", "memory_usage_mb", "max_tokens", "embed_dim", "license", "open_weights"]
    unknown += ["public_training_code", "public_training_data", "similarity_fn_name", "use_instructions"]
    return {
        "loader": None,
        "name": "/".join(model_id(run)),
        "revision": revision,
        "n_parameters": run.result["encoder"]["parameters"],
        "framework": ["PyTorch"],
        "modalities": ["video"],
        **dict.fromkeys([*unknown, "training_datasets"]),
    }
