"""Both implementations of forget pooling have the cells and the gradients of the paper's formula."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from training.architectures.forget_pooling import FORGET_POOLING, pool_in_parallel, pool_in_sequence

SHAPES = {"n": st.integers(1, 4), "length": st.integers(1, 40), "channels": st.integers(1, 5)}


def gates_and_cell(n: int, length: int, channels: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    forget, candidate = torch.randn(2, n, length, channels, generator=generator, dtype=torch.float64)
    cell = torch.randn(n, channels, generator=generator, dtype=torch.float64)
    # Scaled, so that some gates are nearly 0 or 1.
    return (8 * forget).sigmoid().requires_grad_(), candidate.requires_grad_(), cell.requires_grad_()


@pytest.mark.parametrize("name", FORGET_POOLING)
@settings(max_examples=30)
@given(**SHAPES, seed=st.integers(0, 2**16))
def test_the_cells_are_those_of_the_formula(name: str, n: int, length: int, channels: int, seed: int) -> None:
    forget, candidate, cell = gates_and_cell(n, length, channels, seed)
    f, z, c = (tensor.detach().numpy() for tensor in (forget, candidate, cell))
    expected = []
    for t in range(length):
        c = f[:, t] * c + (1 - f[:, t]) * z[:, t]
        expected.append(c)
    cells = FORGET_POOLING[name](forget, candidate, cell)
    np.testing.assert_allclose(cells.detach().numpy(), np.stack(expected, axis=1), rtol=1e-10, atol=1e-12)


@settings(max_examples=30)
@given(**SHAPES, seed=st.integers(0, 2**16))
def test_both_implementations_have_the_same_gradients(n: int, length: int, channels: int, seed: int) -> None:
    inputs = gates_and_cell(n, length, channels, seed)
    weights = torch.randn(n, length, channels, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    in_sequence, in_parallel = (
        torch.autograd.grad((pool(*inputs) * weights).sum(), inputs) for pool in (pool_in_sequence, pool_in_parallel)
    )
    for one, other in zip(in_sequence, in_parallel, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", FORGET_POOLING)
def test_the_gradients_are_those_of_finite_differences(name: str) -> None:
    assert torch.autograd.gradcheck(FORGET_POOLING[name], gates_and_cell(2, 5, 3, seed=1))
