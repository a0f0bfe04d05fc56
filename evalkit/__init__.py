"""evalkit scores any pretrained video encoder on any video benchmark, under the papers' own protocols."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evalkit.encoders import load_encoder as load_encoder
    from evalkit.launch.python import run as run
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# Notes go nowhere until somebody asks for them: the command line does, and so may logging.basicConfig.
logging.getLogger("evalkit").addHandler(logging.NullHandler())

# In a checkout tasks/, adapters/, configs/ and leaderboard/ stand beside this folder; in the wheel they are inside it.
if not (Path(__file__).parent / "tasks").is_dir():
    __path__.append(str(Path(__file__).parent.parent))


def __getattr__(name: str) -> Any:
    """`evalkit.load_encoder` and `evalkit.run`, imported when they are first asked for: torch takes its time."""
    if name == "load_encoder":
        from evalkit.encoders import load_encoder

        return load_encoder
    if name == "run":
        from evalkit.launch.python import run

        return run
    raise AttributeError(f"module 'evalkit' has no attribute {name!r}")
