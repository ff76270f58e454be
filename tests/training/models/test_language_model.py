"""Language models: a probability distribution over texts, equal for every window, batch and in ONNX Runtime."""

import math
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from torch import Tensor, nn
from torch.nn import functional as F

from bundle import get_score
from training.data import NO_TOKEN
from training.export.onnx_graph import write_graph
from training.models.classifier import TextClassifier
from training.models.language_model import LanguageModel, build_language_model
from training.models.likelihood_heads import ScoredLanguageModel
from training.objectives import token_cross_entropy
from training.recipe import Component

WINDOW, VOCABULARY = 6, 9
SCORES = ("bpw", "kl_uniform")
QRNN = Component(name="qrnn", embedding=5, hidden=7, layers=2, dropout=0.3)


def model(vocabulary_size: int = VOCABULARY, **options: int | bool) -> LanguageModel:
    torch.manual_seed(2)
    language_model = build_language_model(QRNN, vocabulary_size, **({"window": WINDOW} | options)).eval()
    # Sharpens the fresh network's nearly uniform predictions, which would hide mistakes.
    with torch.no_grad():
        language_model.network.embedding.weight.mul_(15)
    return language_model


def texts(n: int, longest: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Token ids of `n` texts, the first of length `longest`, with random ids as padding."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(VOCABULARY, (n, longest), generator=generator)
    lengths = torch.randint(1, longest + 1, (n,), generator=generator)
    lengths[0] = longest
    return tokens, lengths


def scores(scored: LanguageModel, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
    """`bpw` `[N]`, `kl_uniform` `[N]` and the bits `[N, L+1]` of texts."""
    return ScoredLanguageModel(scored, SCORES, "word")(tokens, lengths)


def kl_uniform_by_scipy(scored: LanguageModel, tokens: Tensor, lengths: Tensor) -> list[float]:
    """The mean over each text's symbols of H(U; p), from the logits of one pass in float64."""
    logits = scored(tokens, lengths).logits.double().numpy()
    of_symbols = logsumexp(logits, axis=2) - logits.mean(axis=2)
    counts = lengths.numpy() + scored.count_end
    return [row[:count].mean() for row, count in zip(of_symbols, counts, strict=True)]


@settings(max_examples=40)
@given(n=st.integers(1, 4), longest=st.integers(1, 30), window=st.integers(1, 12), seed=st.integers(0, 999))
def test_nats_by_windows_are_the_cross_entropies_of_one_pass(n: int, longest: int, window: int, seed: int) -> None:
    scored = model(window=window)
    tokens, lengths = texts(n, longest, seed)
    logits, targets, counted = scored(tokens, lengths)
    expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets) * counted
    torch.testing.assert_close(scored.symbol_nats(tokens, lengths).of_targets, expected)


def test_a_text_of_n_tokens_is_n_tokens_and_an_end() -> None:
    tokens, lengths = torch.tensor([[4, 2, 7], [5, 0, 0]]), torch.tensor([3, 1])
    prediction = model()(tokens, lengths)
    assert prediction.logits.shape == (2, 4, VOCABULARY + 1)
    assert prediction.targets[prediction.counted].tolist() == [4, 2, 7, VOCABULARY, 5, VOCABULARY]
    assert prediction.counted.sum(dim=1).tolist() == [4, 2]


def test_the_probabilities_of_all_texts_sum_to_one() -> None:
    small = model(vocabulary_size=3)
    with torch.inference_mode():
        empty = small(torch.zeros((1, 1), dtype=torch.long), torch.tensor([1])).logits[0, 0].softmax(dim=0)[small.end]
        remaining = 1 - float(empty)
        # Texts with at least n tokens either end after n tokens or have at least n + 1.
        for n in range(1, 6):
            all_of_n = torch.tensor(list(product(range(3), repeat=n)))
            nats = small.symbol_nats(all_of_n, torch.full((len(all_of_n),), n)).of_targets.double()
            assert float((-nats[:, :n].sum(dim=1)).exp().sum()) == pytest.approx(remaining, abs=1e-6)
            remaining -= float((-nats.sum(dim=1)).exp().sum())
    assert 0 < remaining < 1


def test_the_nats_of_a_symbol_depend_on_it_and_the_earlier_ones_only() -> None:
    scored = model()
    tokens, lengths = texts(1, 14)
    nats = scored.symbol_nats(tokens, lengths).of_targets
    for position in range(14):
        changed = tokens.clone()
        changed[0, position] = (changed[0, position] + 1) % VOCABULARY
        changed_nats = scored.symbol_nats(changed, lengths).of_targets
        torch.testing.assert_close(changed_nats[:, :position], nats[:, :position], rtol=0, atol=1e-6)
        assert not torch.allclose(changed_nats[:, position], nats[:, position], atol=1e-4)


@settings(max_examples=30)
@given(length=st.integers(1, 14), padding=st.integers(1, 20), seed=st.integers(0, 99))
def test_padding_and_the_rest_of_the_batch_change_no_score(length: int, padding: int, seed: int) -> None:
    scored = model()
    tokens, lengths = texts(3, length + padding, seed)
    lengths[1] = length
    *alone, bits_alone = scores(scored, tokens[1:2, :length], lengths[1:2])
    *together, bits = scores(scored, tokens, lengths)
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one[1:2], other)
    torch.testing.assert_close(bits[1:2, : length + 1], bits_alone)
    assert not bits[1, length + 1 :].any()


def test_bits_per_symbol_count_the_end_or_leave_it_out() -> None:
    tokens, lengths = texts(4, 8)
    nats = model().symbol_nats(tokens, lengths).of_targets
    ends = nats[torch.arange(4), lengths]
    with_end, without = (scores(model(count_end=count), tokens, lengths)[0] for count in (True, False))
    torch.testing.assert_close(with_end, nats.sum(dim=1) / (lengths + 1) / math.log(2))
    torch.testing.assert_close(without, (nats.sum(dim=1) - ends) / lengths / math.log(2))


@torch.inference_mode()
@settings(max_examples=30)
@given(n=st.integers(1, 4), longest=st.integers(1, 20), count_end=st.booleans(), seed=st.integers(0, 99))
def test_kl_uniform_is_the_mean_cross_entropy_of_the_uniform_distribution_and_the_predictions(
    n: int, longest: int, count_end: bool, seed: int
) -> None:
    scored = model(count_end=count_end)
    tokens, lengths = texts(n, longest, seed)
    _, kl_uniform, _ = scores(scored, tokens, lengths)
    np.testing.assert_allclose(kl_uniform, kl_uniform_by_scipy(scored, tokens, lengths), rtol=1e-5)


@torch.inference_mode()
def test_a_text_whose_predictions_are_uniform_is_the_most_anomalous_by_kl_uniform() -> None:
    tokens, lengths = texts(3, 9)
    uniform = model()
    uniform.network.embedding.weight.zero_()
    anomaly = get_score("kl_uniform").anomaly
    least, most = (anomaly(scores(scored, tokens, lengths)[1]) for scored in (model(), uniform))
    assert most == pytest.approx(-math.log(VOCABULARY + 1), abs=1e-6)
    assert (least < most).all()


@torch.inference_mode()
def test_a_segment_is_scored_by_all_its_symbols_and_no_end_after_them() -> None:
    scored = model()
    segments, _ = texts(3, 12)
    segments[:, 4] = scored.end
    lengths = torch.full((3,), 12)
    bpw, kl_uniform, bits = ScoredLanguageModel(scored, SCORES, "word").of_segments()(segments, lengths)
    logits = scored(segments, lengths).logits[:, :12].double()
    nats = F.cross_entropy(logits.flatten(0, 1), segments.flatten(), reduction="none").view(3, 12)
    np.testing.assert_allclose(bpw, nats.mean(dim=1) / math.log(2), rtol=1e-5)
    uniform = logsumexp(logits.numpy(), axis=2) - logits.numpy().mean(axis=2)
    np.testing.assert_allclose(kl_uniform, uniform.mean(axis=1), rtol=1e-5)
    assert not bits[:, 12].any()


def test_rows_are_prepared_as_for_a_text_classifier() -> None:
    rows = torch.tensor([[3, 0, 5, NO_TOKEN, NO_TOKEN], [1, NO_TOKEN, NO_TOKEN, NO_TOKEN, NO_TOKEN]], dtype=torch.int32)
    ours, theirs = model().prepare(rows), TextClassifier(nn.Identity()).prepare(rows)
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def test_a_few_steps_of_training_lower_the_loss() -> None:
    learner = model().train()
    tokens, lengths = (torch.arange(20) % 4).repeat(8, 1), torch.arange(13, 21)
    optimizer = torch.optim.Adam(learner.parameters(), lr=0.02)
    losses = []
    for _ in range(40):
        loss = token_cross_entropy(*learner(tokens, lengths))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    learned_and_reversed = torch.stack((tokens[0], tokens[0].flip(0)))
    (learned, other), *_ = scores(learner.eval(), learned_and_reversed, torch.tensor([20, 20]))
    assert learned < other


def test_an_empty_window_is_refused() -> None:
    with pytest.raises(ValueError, match="window"):
        model(window=0)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model's graph, alone in its folder."""
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    rows = np.array([[1, 2, 3, NO_TOKEN], [4, NO_TOKEN, NO_TOKEN, NO_TOKEN]], dtype=np.int32)
    write_graph(ScoredLanguageModel(model(), SCORES, "word"), rows, path)
    return path


@pytest.fixture(scope="module")
def session(graph: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])


def by_graph(session: onnxruntime.InferenceSession, tokens: Tensor, lengths: Tensor) -> list[np.ndarray]:
    outputs: list[np.ndarray] = session.run(None, {"tokens": tokens.numpy(), "lengths": lengths.numpy()})
    return outputs


@pytest.mark.parametrize("n", [1, 3, 8])
@pytest.mark.parametrize("longest", [1, WINDOW - 1, WINDOW, WINDOW + 1, 3 * WINDOW, 3 * WINDOW + 2])
def test_the_graph_scores_as_torch_does(session: onnxruntime.InferenceSession, n: int, longest: int) -> None:
    tokens, lengths = texts(n, longest, seed=n + longest)
    with torch.inference_mode():
        bpw, _, bits = scores(model(), tokens, lengths)
        kl_uniform = kl_uniform_by_scipy(model(), tokens, lengths)
    for ours, expected in zip(by_graph(session, tokens, lengths), (bpw, kl_uniform, bits), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_in_the_graph_padding_and_the_rest_of_the_batch_change_no_score(session: onnxruntime.InferenceSession) -> None:
    tokens, lengths = texts(8, 3 * WINDOW)
    *together, _ = by_graph(session, tokens, lengths)
    for row, length in enumerate(lengths.tolist()):
        *alone, _ = by_graph(session, tokens[row : row + 1, :length], lengths[row : row + 1])
        for one, all_rows in zip(alone, together, strict=True):
            assert one[0] == pytest.approx(all_rows[row], abs=1e-5)


def test_a_graph_without_kl_uniform_has_no_output_for_it(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    rows = np.array([[1, 2, 3, NO_TOKEN], [4, NO_TOKEN, NO_TOKEN, NO_TOKEN]], dtype=np.int32)
    write_graph(ScoredLanguageModel(model(), ["bpw"], "word"), rows, path)
    only_bpw = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [output.name for output in only_bpw.get_outputs()] == ["bpw", "bits"]
    tokens, lengths = texts(3, 2 * WINDOW + 1)
    with torch.inference_mode():
        expected, *_ = scores(model(), tokens, lengths)
    np.testing.assert_allclose(by_graph(only_bpw, tokens, lengths)[0], expected, atol=1e-5)


def test_the_graph_is_one_checked_file_with_one_loop_over_windows(graph: Path) -> None:
    assert [path.name for path in graph.parent.iterdir()] == ["model.onnx"]
    written = onnx.load(graph)
    onnx.checker.check_model(written, full_check=True)
    assert [opset.domain for opset in written.opset_import] == [""]
    (loop,) = (node for node in written.graph.node if node.op_type == "Scan")
    (body,) = (attribute.g for attribute in loop.attribute if attribute.name == "body")
    # Every weight is stored once and outside the loop's body.
    assert not body.initializer
    numbers = sum(math.prod(tensor.dims) for tensor in written.graph.initializer if tensor.data_type == 1)
    parameters = sum(parameter.numel() for parameter in model().parameters())
    embedding = model().network.embedding.weight.numel()
    assert parameters <= numbers <= parameters + embedding + 10
