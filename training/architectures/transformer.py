"""Sequence classifiers of the `transformers` library, by hub name or local folder."""

import torch
from torch import Tensor, nn


class TransformerClassifier(nn.Module):
    """Fine-tunes a pretrained `transformers` model with a new classification layer.

    `backbone` is the model's folder or hub name, and must also be the recipe's `input.tokenizer`. Inputs are token ids
    int64 `[N, L]` and lengths int64 `[N]`; output logits `[N, num_classes]`.
    """

    def __init__(self, num_classes: int, backbone: str, max_tokens: int | None = None) -> None:
        super().__init__()
        try:
            from transformers import AutoModelForSequenceClassification  # noqa: PLC0415  # optional, takes seconds to import
        except ImportError as error:
            raise ValueError("transformers is not installed; pip install '.[transformers]'") from error
        try:
            # Eager attention is the only implementation that every backbone has and the ONNX exporter can trace.
            self.model = AutoModelForSequenceClassification.from_pretrained(
                backbone, num_labels=num_classes, ignore_mismatched_sizes=True, attn_implementation="eager"
            )
        except (OSError, ValueError) as error:
            raise ValueError(f"backbone '{backbone}' cannot be loaded: {error}") from error
        limit = getattr(self.model.config, "max_position_embeddings", None)
        if max_tokens is not None and limit is not None and max_tokens > limit:
            raise ValueError(f"backbone '{backbone}' takes {limit} tokens, input.max_tokens is {max_tokens}")
        self._padding = self.model.config.pad_token_id or 0

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Logits `[N, num_classes]`."""
        mask = torch.arange(tokens.shape[1], device=tokens.device)[None, :] < lengths[:, None]
        # Some backbones derive positions from the padding id.
        logits: Tensor = self.model(tokens.where(mask, self._padding), attention_mask=mask.long()).logits
        return logits
