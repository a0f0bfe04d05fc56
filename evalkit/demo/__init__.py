"""The embedded checkpoint, and how it is trained (`make weights`).

The paths of its files stand here, and nothing else: every layer may read them, so this file imports only pathlib.
"""

from pathlib import Path

FOLDER = Path(__file__).parent  # config.json, weights, tokenizer: what ckpt=demo loads
LANGUAGE_MODEL = FOLDER / "lm"
CANARY_REFERENCE = FOLDER / "canary.npz"
