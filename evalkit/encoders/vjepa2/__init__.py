"""V-JEPA 2, 2.1 and 1, from Hugging Face folders and from the files that the authors publish."""

from evalkit.encoders.vjepa2.model import LOADING as LOADING
from evalkit.encoders.vjepa2.model import MODEL_TYPES as MODEL_TYPES
from evalkit.encoders.vjepa2.model import SUFFIXES as SUFFIXES
from evalkit.encoders.vjepa2.model import encoder as encoder
from evalkit.encoders.vjepa2.model import pretrained as pretrained
