"""Batch invariance: an input's outputs must not depend on the padding or the other inputs of its batch."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from bundle import Bundle
from service.inference.onnx_session import EngineError
from service.inputs.modality import Array

# Kernels for other batch sizes round differently, in half precision by some thousandths. A forgotten mask changes a row
# by more than this.
_TOLERANCE = {"rtol": 0.02, "atol": 0.01}


def check_batch_invariance(
    bundle: Bundle, compute: Callable[[Sequence[Array]], Mapping[str, Array]], probe_pair: tuple[Array, Array]
) -> None:
    """Raise `EngineError` if an input of `probe_pair` scores differently alone and in a batch with the other one."""
    together = compute(probe_pair)
    for index, item in enumerate(probe_pair):
        alone = compute([item])
        for score in bundle.manifest.scores:
            in_batch, by_itself = together[score.name][index], alone[score.name][0]
            if not rows_agree(in_batch, by_itself):
                raise EngineError(
                    bundle,
                    f"an input's {score.name} is {by_itself:g} alone and {in_batch:g} in a batch with another input",
                    "Export the bundle again; padding and other inputs must not change a row",
                )


def rows_agree(actual: Array, expected: Array) -> bool:
    """Whether two computations of the same rows agree but for rounding."""
    return np.allclose(actual, expected, **_TOLERANCE, equal_nan=True)
