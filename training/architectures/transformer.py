"""A transformer backbone: any sequence classifier of the `transformers` library, by name on the hub or local folder."""

import torch
from torch import Tensor, nn


class TransformerClassifier(nn.Module):
    """Fine-tunes a pretrained `transformers` model with a new classification layer.

    `backbone` is a model's folder or hub name; give the recipe's `input.tokenizer` the same. Inputs token ids int64
    `[N, L]` and lengths int64 `[N]`; output logits `[N, num_classes]`.
    """

    def __init__(self, num_classes: int, backbone: str, max_tokens: int | None = None) -> None:
        super().__init__()
        try:
            from transformers import AutoModelForSequenceClassification  # noqa: PLC0415  # seconds to import, optional
        except ImportError as error:
            raise ValueError("transformers is not installed; pip install '.[transformers]'") from error
        try:
            # Plain attention: the one implementation that every backbone has and the ONNX exporter traces.
            self.model = AutoModelForSequenceClassification.from_pretrained(
                backbone, num_labels=num_classes, ignore_mismatched_sizes=True, attn_implementation="eager"
            )
        except (OSError, ValueError) as error:
            raise ValueError(f"backbone '{backbone}' cannot be loaded: {error}") from error
        longest = getattr(self.model.config, "max_position_embeddings", None)
        if max_tokens is not None and longest is not None and max_tokens > longest:
            raise ValueError(f"backbone '{backbone}' takes {longest} tokens, input.max_tokens is {max_tokens}")
        self._padding = self.model.config.pad_token_id or 0

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Logits `[N, num_classes]`."""
        mask = torch.arange(tokens.shape[1], device=tokens.device)[None, :] < lengths[:, None]
        # Some backbones count positions by the padding id.
        logits: Tensor = self.model(tokens.where(mask, self._padding), attention_mask=mask.long()).logits
        return logits
