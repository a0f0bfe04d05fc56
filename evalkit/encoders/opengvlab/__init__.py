"""OpenGVLab's video transformers, from the files that their authors publish: VideoMAE v2, UMT and InternVideo2.

VideoMAE v2: https://arxiv.org/abs/2303.16727, UMT (unmasked teacher): https://arxiv.org/abs/2303.16058, InternVideo2:
https://arxiv.org/abs/2403.15377. No library keeps these models. The first VideoMAE's own .pth files have the layout of
the second's.
"""

from evalkit.encoders.opengvlab.model import encoder as encoder
from evalkit.encoders.opengvlab.released import SUFFIXES as SUFFIXES
from evalkit.encoders.opengvlab.released import pretrained as pretrained
from evalkit.encoders.opengvlab.released import recognizes as recognizes
