"""`evalkit features task=NAME ckpt=ENCODER out=FOLDER`: exports an encoder's features to files."""

from __future__ import annotations

from evalkit.config.config import Config
from evalkit.pipeline.foreign.features import write_features


def main(config: Config) -> int:
    """0, after the files were written and what is in them was printed.

    Raises:
        UserError: something in the configuration, the data or the checkpoint that the user can mend.
    """
    print("\n".join(write_features(config)))
    return 0
