r"""Two implementations of forget pooling, the recurrence of a QRNN (Bradbury et al. 2017, section 2, "f-pooling").

    c_t = f_t * c_{t-1} + (1 - f_t) * z_t,    t = 1..W

Step t is the map c -> f_t c + b_t with b_t = (1 - f_t) z_t. The composition of two such maps, (f', b') and then (f, b),
is the map (f f', f b' + b). Composition is associative, so all W compositions take log2(W) parallel steps.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def pool_in_sequence(forget: Tensor, candidate: Tensor, cell: Tensor) -> Tensor:
    """The cells `[N, W, H]`, computed step by step.

    W must be constant in an exported graph, because the number of operators depends on it.

    Args:
        forget: The gates f in 0..1, `[N, W, H]`.
        candidate: The values z, `[N, W, H]`.
        cell: The cell before the first step, `[N, H]`.
    """
    # The gradient of split is one concatenation; the gradients of W index operations would each fill a whole tensor.
    updates = torch.split((1 - forget) * candidate, 1, dim=1)
    cell = cell[:, None]
    cells: list[Tensor] = []
    for gate, update in zip(torch.split(forget, 1, dim=1), updates, strict=True):
        cell = torch.addcmul(update, gate, cell)
        cells.append(cell)
    return torch.cat(cells, dim=1)


def pool_in_parallel(forget: Tensor, candidate: Tensor, cell: Tensor) -> Tensor:
    """The same cells by a parallel scan (Hillis & Steele 1986): log2(W) steps on whole tensors."""
    length = forget.shape[1]
    update = (1 - forget) * candidate
    reach = 1
    # After each round, position t holds the composition of the last `reach` maps up to t, or of all t.
    while reach < length:
        later = forget[:, reach:]
        update = torch.cat((update[:, :reach], torch.addcmul(update[:, reach:], later, update[:, :-reach])), dim=1)
        forget = torch.cat((forget[:, :reach], later * forget[:, :-reach]), dim=1)
        reach *= 2
    return torch.addcmul(update, forget, cell[:, None])


FORGET_POOLING: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    # Faster on CPUs (`python -m benchmarks recurrence`): the scan reads and writes every tensor log2(W) times.
    "sequence": pool_in_sequence,
    # For devices on which starting a small operation costs more than reading a tensor.
    "parallel": pool_in_parallel,
}
