"""Pretrained text backbones in a folder, as `transformers` saves them, with random weights."""

from pathlib import Path

from transformers import AutoConfig, AutoModelForSequenceClassification


def save_backbone(kind: str, folder: Path) -> None:
    """Save a tiny model of the architecture `kind`; it reads at most 90 positions."""
    common = {
        "vocab_size": 40,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "hidden_size": 16,
        "intermediate_size": 32,
        "max_position_embeddings": 90,
    }
    config = AutoConfig.for_model(kind, **common)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
