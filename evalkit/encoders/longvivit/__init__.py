"""LongViViT: image and video transformers with a BERT text tower.

ImageViT, ShortViViT, LongViViT and the variants that section 4 of "A Simple Recipe for Contrastively Pre-training
Video-First Encoders Beyond 16 Frames" (https://arxiv.org/abs/2312.07395) compares them with are configurations of one
model; configs/ holds them. The paper's appendices, which state sizes of adapters and details of the kernels, could not
be read; what is assumed in their place is said where it is assumed.
"""

from evalkit.encoders.longvivit.layers import Layout as Layout
from evalkit.encoders.longvivit.model import ViViT as ViViT
from evalkit.encoders.longvivit.model import encoder as encoder
from evalkit.encoders.longvivit.tubes import Tube as Tube
