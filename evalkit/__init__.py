"""evalkit scores any pretrained video encoder on any video benchmark, under the papers' own protocols."""

from pathlib import Path

__version__ = "0.1.0"

# In a checkout tasks/, adapters/, configs/ and leaderboard/ stand beside this folder; in the wheel they are inside it.
if not (Path(__file__).parent / "tasks").is_dir():
    __path__.append(str(Path(__file__).parent.parent))
