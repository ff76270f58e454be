"""The perceptual hash of images (pHash): similar images have hashes that differ in few bits.

The 8 x 8 lowest frequencies of the discrete cosine transform of the grey image, each compared with their median
(Zauner 2010; the `phash` of the package `imagehash`).
"""

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn

_FREQUENCIES = 8
_GREY = np.asarray([0.299, 0.587, 0.114], dtype=np.float32)


def perceptual_hashes(images: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """The hash `[N]` of each image uint8 `[N, 32, 32, 3]`."""
    grey = images.astype(np.float32) @ _GREY
    low = dctn(grey, axes=(1, 2))[:, :_FREQUENCIES, :_FREQUENCIES].reshape(len(images), -1)
    bits = low > np.median(low, axis=1, keepdims=True)
    packed: NDArray[np.uint64] = np.packbits(bits, axis=1).view(np.uint64)[:, 0]
    return packed
