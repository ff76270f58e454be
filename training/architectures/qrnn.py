r"""The QRNN language model (Bradbury et al. 2017, "Quasi-Recurrent Neural Networks", sections 2 and 3.2).

A layer is a masked convolution over the last `window` inputs, followed by pooling over time in each channel:

    z_t, f_t, o_t = tanh(W_z x), sigma(W_f x), sigma(W_o x),    x = (x_{t-window+1}, ..., x_t)
    c_t = f_t * c_{t-1} + (1 - f_t) * z_t,    h_t = o_t * c_t

One matrix product computes the gates of all steps; only the pooling is sequential. As in the authors' later code
(Merity, Keskar & Socher 2018, AWD-QRNN) the first layer has a window of 2, the others of 1.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.architectures.forget_pooling import FORGET_POOLING
from training.architectures.language_network import LanguageNetwork


class QRNNLanguageModel(LanguageNetwork):
    """Predicts each symbol from the earlier ones.

    Args:
        vocabulary_size: The number of symbols.
        embedding: The size of the embedding.
        hidden: The channels of each layer.
        layers: The number of layers.
        window: The inputs per step of the first layer.
        dropout: The dropout rate of embeddings, between layers and before the logits.
        zoneout: The probability that a cell keeps its value for a step in training (section 2.1).
        tied: Whether the logits use the embedding's weights; the last layer then has the size of the embedding.
        pooling: The implementation of the recurrence, `sequence` or `parallel`, with the same results.
    """

    def __init__(
        self,
        vocabulary_size: int,
        embedding: int = 256,
        hidden: int = 640,
        layers: int = 2,
        window: int = 2,
        dropout: float = 0.5,
        zoneout: float = 0.0,
        tied: bool = True,
        pooling: str = "sequence",
    ) -> None:
        super().__init__()
        if layers < 1 or window < 1:
            raise ValueError(f"layers ({layers}) and window ({window}) must be 1 or more")
        if not 0 <= zoneout < 1:
            raise ValueError(f"zoneout ({zoneout}) must be 0 or more and less than 1")
        if pooling not in FORGET_POOLING:
            raise ValueError(f"pooling ({pooling}) must be one of {', '.join(FORGET_POOLING)}")
        sizes = [hidden] * (layers - 1) + [embedding if tied else hidden]
        self.embedding = nn.Embedding(vocabulary_size, embedding)
        # Small, so that tied logits, which are products of embeddings, start near the uniform distribution.
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        self.dropout = nn.Dropout(dropout)
        stack = [
            QRNNLayer(inputs, size, window if layer == 0 else 1, zoneout, pooling)
            for layer, (inputs, size) in enumerate(zip([embedding, *sizes[:-1]], sizes, strict=True))
        ]
        self.layers = nn.ModuleList(stack)
        self.vocabulary = nn.Linear(sizes[-1], vocabulary_size)
        nn.init.zeros_(self.vocabulary.bias)
        if tied:
            self.vocabulary.weight = self.embedding.weight
        self._state_sizes = [layer.state_size for layer in stack]

    def forward(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `[N, W, V]` of the symbols after `inputs` int64 `[N, W]`, and the next state `[N, S]`."""
        x = self.dropout(self.embedding(inputs))
        states: list[Tensor] = []
        for layer, before in zip(self.layers, torch.split(state, self._state_sizes, dim=1), strict=True):
            x, after = layer(x, before)
            x = self.dropout(x)
            states.append(after)
        return self.vocabulary(x), torch.cat(states, dim=1)

    def initial_state(self, n: int) -> Tensor:
        """Zeros `[n, S]`: empty cells and no earlier inputs."""
        return self.embedding.weight.new_zeros((n, sum(self._state_sizes)))


class QRNNLayer(nn.Module):
    """One layer with fo-pooling; its state holds the cell and the last `window - 1` inputs."""

    def __init__(self, inputs: int, hidden: int, window: int, zoneout: float, pooling: str) -> None:
        super().__init__()
        self.gates = nn.Linear(window * inputs, 3 * hidden)
        self.hidden = hidden
        self.zoneout = zoneout
        self.pool = FORGET_POOLING[pooling]
        self._inputs, self._before = inputs, window - 1
        self.state_size = hidden + self._before * inputs

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs `[N, W, hidden]` of inputs `x` `[N, W, inputs]`, and the next state `[N, state_size]`."""
        cell, before = torch.split(state, [self.hidden, self._before * self._inputs], dim=1)
        length = x.shape[1]
        seen = torch.cat((torch.unflatten(before, 1, (self._before, self._inputs)), x), dim=1) if self._before else x
        windows = [seen[:, start : start + length] for start in range(self._before + 1)]
        candidate, forget, output = self.gates(torch.cat(windows, dim=2)).chunk(3, dim=2)
        forget = forget.sigmoid()
        if self.training and self.zoneout:
            # A forget gate of 1 keeps the cell. Unlike dropout, zoneout does not rescale (section 2.1).
            forget = 1 - (1 - forget) * F.dropout(torch.ones_like(forget), self.zoneout) * (1 - self.zoneout)
        cells = self.pool(forget, candidate.tanh(), cell.to(forget.dtype))
        last_inputs = seen[:, length:].flatten(1)
        return output.sigmoid() * cells, torch.cat((cells[:, -1], last_inputs), dim=1)
