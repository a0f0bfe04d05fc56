"""Films are made where they are missing, also by a script that guards nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_a_plain_script_with_an_empty_cache_scores_an_encoder(tmp_path: Path, tiny: Path) -> None:
    (tmp_path / "score.py").write_text(
        "import evalkit\n"
        f'evalkit.run("folder", {str(tiny)!r}, mini=True, adapter="knn", out="results", canary=False, controls=False)\n'
    )
    path = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    done = subprocess.run(
        [sys.executable, "score.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path, "EVALKIT_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    (result,) = (tmp_path / "results").rglob("result.json")
    assert json.loads(result.read_text())["status"] == "complete"
    assert not list((tmp_path / "cache" / "mini").rglob(".*"))
