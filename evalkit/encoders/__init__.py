"""One file per family; `load_encoder(ckpt)` finds it by the name of the file."""

from evalkit.encoders._load import load_encoder as load_encoder
from evalkit.encoders._spec import Spec as Spec
from evalkit.encoders._spec import folder_of as folder_of
from evalkit.encoders._spec import read_preset as read_preset
from evalkit.encoders._spec import save_encoder as save_encoder
from evalkit.encoders._spec import spec_of as spec_of
