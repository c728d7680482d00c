"""Image files read by Pillow alone: for a first look at every file, and for formats that only training can read.

Files are told apart by their first bytes and handed straight to the one plugin that is theirs. `Image.open` would let any
of forty try, turn two-image JPEGs into another format, and warn about large images, which can't be silenced per thread.
"""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from pipelines.errors import ImageDecodeError


def decode_upright_pillow(contents): ...
