"""Text classifiers: padding changes nothing, and a backbone that does not fit is refused."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.support.backbones import save_backbone
from training.architectures import GRUClassifier, TransformerClassifier


def test_a_backbone_that_does_not_exist_or_is_too_short_is_refused_by_name(tmp_path: Path) -> None:
    save_backbone("bert", tmp_path / "bert")
    for backbone, max_tokens, named in ((tmp_path / "none", 10, "none"), (tmp_path / "bert", 500, "takes 90 tokens")):
        with pytest.raises(ValueError, match=named):
            TransformerClassifier(2, str(backbone), max_tokens=max_tokens)


@settings(max_examples=25)
@given(length=st.integers(1, 12), padding=st.integers(0, 30), seed=st.integers(0, 99))
def test_padding_changes_no_logit(length: int, padding: int, seed: int) -> None:
    torch.manual_seed(seed)
    network = GRUClassifier(3, vocabulary_size=20, embedding=4, hidden=6).eval()
    tokens = torch.randint(0, 20, (1, length))
    padded = torch.cat((tokens, torch.randint(0, 20, (1, padding))), dim=1)
    lengths = torch.tensor([length])
    torch.testing.assert_close(network(padded, lengths), network(tokens, lengths))
