r"""Forget pooling, the recurrence of a QRNN (Bradbury et al. 2017, section 2, "f-pooling"), in two ways.

    c_t = f_t * c_{t-1} + (1 - f_t) * z_t,    t = 1..W

Step t is the map c -> f_t c + b_t with b_t = (1 - f_t) z_t. The composition of two such maps is one again,
(f, b) after (f', b') = (f f', f b' + b): that is associative, so that all W compositions take log2(W) steps in parallel.
"""

import torch
from torch import Tensor


def pool_in_sequence(forget: Tensor, candidate: Tensor, cell: Tensor) -> Tensor:
    """The cells `[N, W, H]` of gates `forget` and values `candidate` `[N, W, H]` behind `cell` `[N, H]`, step by step."""
    # unbind, not an index a step: its gradient is one stack, where W slices would each fill a whole tensor.
    update = ((1 - forget) * candidate).unbind(dim=1)
    cells: list[Tensor] = []
    for gate, value in zip(forget.unbind(dim=1), update, strict=True):
        cell = torch.addcmul(value, gate, cell)
        cells.append(cell)
    return torch.stack(cells, dim=1)


def pool_in_parallel(forget: Tensor, candidate: Tensor, cell: Tensor) -> Tensor:
    """What `pool_in_sequence` gives, by a parallel scan (Hillis & Steele 1986): log2(W) steps on whole tensors.

    W is a plain number in an exported graph, because the number of steps depends on it.
    """
    length = forget.shape[1]
    update = (1 - forget) * candidate
    reach = 1
    # After each round, position t holds the composition of the last `reach` maps up to t, or of all where there are fewer.
    while reach < length:
        later = forget[:, reach:]
        update = torch.cat((update[:, :reach], torch.addcmul(update[:, reach:], later, update[:, :-reach])), dim=1)
        forget = torch.cat((forget[:, :reach], later * forget[:, :-reach]), dim=1)
        reach *= 2
    return torch.addcmul(update, forget, cell[:, None])
