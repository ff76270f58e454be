"""The hardware of a run: which data a device can hold."""

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from training.data import StoredArray
from training.fitting.hardware import fit_into


@dataclass(frozen=True)
class DecodedOnDemand:
    shape: tuple[int, ...] = (4, 8, 8, 3)
    in_memory: bool = False

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[np.uint8]:
        raise AssertionError("the size of a set is known without decoding it")


@pytest.mark.parametrize(("missing", "fits"), [(0, True), (1, False)])
def test_inputs_fit_if_their_bytes_do(missing: int, fits: bool) -> None:
    images, texts = np.zeros((4, 8, 8, 3), dtype=np.uint8), np.zeros((5, 10), dtype=np.int32)
    n_bytes = images.nbytes + texts.nbytes - missing
    assert fit_into(n_bytes, StoredArray(images), StoredArray(texts)) is fits
    assert fit_into(n_bytes, StoredArray(images), None)


def test_inputs_that_are_decoded_on_demand_never_fit() -> None:
    assert not fit_into(10**9, DecodedOnDemand())
