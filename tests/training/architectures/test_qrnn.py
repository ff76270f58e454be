"""The QRNN computes the paper's layers, and the same in pieces as in one pass."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from training.architectures import LANGUAGE_ARCHITECTURES, LanguageNetwork
from training.architectures.qrnn import QRNNLanguageModel, QRNNLayer
from training.errors import RecipeError
from training.recipe import Component, build_component

SYMBOLS = 11


def network(**options: object) -> QRNNLanguageModel:
    torch.manual_seed(3)
    return QRNNLanguageModel(SYMBOLS, **({"embedding": 6, "hidden": 9, "layers": 3} | options)).double().eval()


def test_a_layer_is_a_masked_convolution_and_fo_pooling() -> None:
    torch.manual_seed(0)
    layer = QRNNLayer(inputs=4, hidden=5, window=2, zoneout=0.0, pooling="sequence").double().eval()
    x = torch.randn(3, 7, 4, dtype=torch.float64)
    weight, bias = layer.gates.weight.detach().numpy(), layer.gates.bias.detach().numpy()
    cell, before, expected = np.zeros((3, 5)), np.zeros((3, 4)), []
    for step in x.numpy().transpose(1, 0, 2):
        z, f, o = np.split(np.hstack((before, step)) @ weight.T + bias, 3, axis=1)
        cell = expit(f) * cell + (1 - expit(f)) * np.tanh(z)
        expected.append(expit(o) * cell)
        before = step
    found, state = layer(x, torch.zeros(3, layer.state_size, dtype=torch.float64))
    np.testing.assert_allclose(found.detach().numpy(), np.stack(expected, axis=1), rtol=1e-10)
    np.testing.assert_allclose(state.detach().numpy(), np.hstack((cell, before)), rtol=1e-10)


@settings(max_examples=30)
@given(
    window=st.integers(1, 4),
    pooling=st.sampled_from(["sequence", "parallel"]),
    cuts=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    tied=st.booleans(),
)
def test_a_text_in_pieces_gives_what_one_pass_gives(window: int, pooling: str, cuts: list[int], tied: bool) -> None:
    model = network(window=window, pooling=pooling, tied=tied)
    symbols = torch.randint(SYMBOLS, (2, sum(cuts)), generator=torch.Generator().manual_seed(sum(cuts)))
    whole, last = model(symbols, model.initial_state(2))
    state, parts = model.initial_state(2), []
    for piece in symbols.split(cuts, dim=1):
        logits, state = model(piece, state)
        parts.append(logits)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(state, last, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", LANGUAGE_ARCHITECTURES)
def test_no_logit_depends_on_a_later_symbol_but_every_one_on_its_own_input(name: str) -> None:
    torch.manual_seed(1)
    model: LanguageNetwork = LANGUAGE_ARCHITECTURES[name](vocabulary_size=SYMBOLS).eval()
    symbols = torch.randint(SYMBOLS, (1, 9))
    logits, _ = model(symbols, model.initial_state(1))
    for at in range(9):
        changed = symbols.clone()
        changed[0, at] = (changed[0, at] + 1) % SYMBOLS
        others, _ = model(changed, model.initial_state(1))
        torch.testing.assert_close(others[:, :at], logits[:, :at], rtol=0, atol=1e-6)
        assert not torch.allclose(others[:, at], logits[:, at], atol=1e-5)


def test_zoneout_keeps_cells_in_training_only_and_as_often_as_it_says() -> None:
    torch.manual_seed(0)
    layer = QRNNLayer(inputs=4, hidden=64, window=1, zoneout=0.3, pooling="sequence")
    x, empty = torch.randn(200, 1, 4), torch.zeros(200, 64)
    # A cell that keeps its value behind an empty one stays empty.
    assert float((layer.train()(x, empty)[0] == 0).float().mean()) == pytest.approx(0.3, abs=0.02)
    assert not (layer.eval()(x, empty)[0] == 0).any()


def test_tied_logits_share_the_embedding_and_learn_from_both_ends() -> None:
    tied, untied = network(), network(tied=False)
    assert tied.vocabulary.weight is tied.embedding.weight
    assert untied.vocabulary.weight.shape == (SYMBOLS, 9)
    assert sum(p.numel() for p in tied.parameters()) < sum(p.numel() for p in untied.parameters())


@pytest.mark.parametrize("wrong", [{"layers": 0}, {"window": 0}, {"zoneout": 1.0}, {"pooling": "backwards"}])
def test_an_option_that_makes_no_network_is_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(RecipeError, match=next(iter(wrong))):
        build_component("architecture", Component(name="qrnn", **wrong), LANGUAGE_ARCHITECTURES, vocabulary_size=5)
