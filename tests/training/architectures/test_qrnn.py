"""The QRNN computes the paper's layers, with equal results piece by piece and in one pass."""

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
    cell, last_input, expected = np.zeros((3, 5)), np.zeros((3, 4)), []
    for step in x.numpy().transpose(1, 0, 2):
        z, f, o = np.split(np.hstack((last_input, step)) @ weight.T + bias, 3, axis=1)
        cell = expit(f) * cell + (1 - expit(f)) * np.tanh(z)
        expected.append(expit(o) * cell)
        last_input = step
    outputs, state = layer(x, torch.zeros(3, layer.state_size, dtype=torch.float64))
    np.testing.assert_allclose(outputs.detach().numpy(), np.stack(expected, axis=1), rtol=1e-10)
    np.testing.assert_allclose(state.detach().numpy(), np.hstack((cell, last_input)), rtol=1e-10)


@settings(max_examples=30)
@given(
    window=st.integers(1, 4),
    pooling=st.sampled_from(["sequence", "parallel"]),
    cuts=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    tied=st.booleans(),
)
def test_a_text_in_pieces_has_the_logits_and_state_of_one_pass(
    window: int, pooling: str, cuts: list[int], tied: bool
) -> None:
    model = network(window=window, pooling=pooling, tied=tied)
    symbols = torch.randint(SYMBOLS, (2, sum(cuts)), generator=torch.Generator().manual_seed(sum(cuts)))
    expected, last_state = model(symbols, model.initial_state(2))
    state, parts = model.initial_state(2), []
    for piece in symbols.split(cuts, dim=1):
        logits, state = model(piece, state)
        parts.append(logits)
    torch.testing.assert_close(torch.cat(parts, dim=1), expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(state, last_state, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", LANGUAGE_ARCHITECTURES)
def test_logits_depend_on_their_own_symbol_and_on_no_later_one(name: str) -> None:
    torch.manual_seed(1)
    model: LanguageNetwork = LANGUAGE_ARCHITECTURES[name](vocabulary_size=SYMBOLS).eval()
    symbols = torch.randint(SYMBOLS, (1, 9))
    logits, _ = model(symbols, model.initial_state(1))
    for position in range(9):
        changed = symbols.clone()
        changed[0, position] = (changed[0, position] + 1) % SYMBOLS
        changed_logits, _ = model(changed, model.initial_state(1))
        torch.testing.assert_close(changed_logits[:, :position], logits[:, :position], rtol=0, atol=1e-6)
        assert not torch.allclose(changed_logits[:, position], logits[:, position], atol=1e-5)


def test_zoneout_keeps_cells_in_training_only_and_with_its_probability() -> None:
    torch.manual_seed(0)
    layer = QRNNLayer(inputs=4, hidden=64, window=1, zoneout=0.3, pooling="sequence")
    x, empty = torch.randn(200, 1, 4), torch.zeros(200, 64)
    # A cell that keeps the value of the empty initial state stays 0.
    assert float((layer.train()(x, empty)[0] == 0).float().mean()) == pytest.approx(0.3, abs=0.02)
    assert not (layer.eval()(x, empty)[0] == 0).any()


def test_tied_logits_use_the_weights_of_the_embedding() -> None:
    tied, untied = network(), network(tied=False)
    assert tied.vocabulary.weight is tied.embedding.weight
    assert untied.vocabulary.weight.shape == (SYMBOLS, 9)
    assert sum(p.numel() for p in tied.parameters()) < sum(p.numel() for p in untied.parameters())


@pytest.mark.parametrize("option", [{"layers": 0}, {"window": 0}, {"zoneout": 1.0}, {"pooling": "backwards"}])
def test_an_invalid_option_is_named_in_the_error(option: dict[str, object]) -> None:
    with pytest.raises(RecipeError, match=next(iter(option))):
        build_component("architecture", Component(name="qrnn", **option), LANGUAGE_ARCHITECTURES, vocabulary_size=5)
