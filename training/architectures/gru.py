"""The paper's text classifier (section 4.2 and its code): an embedding, a GRU of two layers, a linear layer."""

import torch
from torch import Tensor, nn


class GRUClassifier(nn.Module):
    """Classifies a text by the GRU's last state.

    Inputs token ids int64 `[N, L]` and lengths int64 `[N]`, 1 or more each; output logits `[N, num_classes]`. The state
    is read behind each text's own last token, so that padding changes nothing. `dropout` is for embeddings and between
    layers.
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
        states, _ = self.gru(self.dropout(self.embedding(tokens)))
        last = states[torch.arange(states.shape[0], device=states.device), lengths - 1]
        logits: Tensor = self.classifier(self.dropout(last))
        return logits
