"""The paper's text classifier (section 4.2 and its code): an embedding, a GRU of two layers, a linear layer."""

import torch
from torch import Tensor, nn


class GRUClassifier(nn.Module):
    """Classifies a text by the GRU's state after its last token.

    Inputs are token ids int64 `[N, L]` and lengths int64 `[N]` of at least 1; output logits `[N, num_classes]`. Padding
    does not change the logits. `dropout` applies to embeddings, between layers and to the last state.
    """

    def __init__(
        self,
        num_classes: int,
        vocabulary_size: int,
        embedding: int = 50,
        hidden: int = 128,
        layers: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, embedding)
        self.dropout = nn.Dropout(dropout)
        self.gru = nn.GRU(embedding, hidden, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        self.classifier = nn.Linear(hidden, num_classes)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Logits `[N, num_classes]`."""
        embedded = self.dropout(self.embedding(tokens))
        states = _exported(self.gru, embedded) if torch.onnx.is_in_onnx_export() else self.gru(embedded)[0]
        last = states[torch.arange(states.shape[0], device=states.device), lengths - 1]
        logits: Tensor = self.classifier(self.dropout(last))
        return logits


def _exported(gru: nn.GRU, x: Tensor) -> Tensor:
    """The states `[N, L, hidden]` from ONNX's GRU operator; the exporter would unroll torch's GRU to a fixed length."""
    x = x.transpose(0, 1)
    length, n, _ = x.shape
    for layer in range(gru.num_layers):
        parameters = (getattr(gru, f"{name}_l{layer}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        w, r, bias_w, bias_r = (_onnx_gate_order(parameter) for parameter in parameters)
        x = torch.onnx.ops.symbolic(
            "GRU",
            (x, w[None], r[None], torch.cat((bias_w, bias_r))[None]),
            # Torch applies the reset gate to the product of the state and its weights, not to the state.
            {"hidden_size": gru.hidden_size, "linear_before_reset": 1},
            dtype=x.dtype,
            shape=(length, 1, n, gru.hidden_size),
            version=14,
        ).squeeze(1)
    return x.transpose(0, 1)


def _onnx_gate_order(parameter: Tensor) -> Tensor:
    """`parameter` with its gates in ONNX's order update, reset, new; torch's order is reset, update, new."""
    gates = parameter.reshape(3, -1, *parameter.shape[1:])
    return gates[torch.tensor([1, 0, 2])].flatten(0, 1)
