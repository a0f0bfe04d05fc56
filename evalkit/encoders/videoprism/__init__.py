"""VideoPrism: the factorized video encoder, with its text tower (LvT) or a classifier, from .npz or Hugging Face."""

from evalkit.encoders.videoprism.model import encoder as encoder
from evalkit.encoders.videoprism.pretrained import MODEL_TYPES as MODEL_TYPES
from evalkit.encoders.videoprism.pretrained import SUFFIXES as SUFFIXES
from evalkit.encoders.videoprism.pretrained import pretrained as pretrained
