"""Wrapping of text classifiers: the bundle's scores do not depend on padding, or the classifier is refused."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from tokenizers import Tokenizer
from typer.testing import CliRunner

from bundle import Bundle, BundleError, TextInput, load_bundle
from tests.service.conftest import running_service
from tests.training.support.onnx_text_classifiers import (
    MAX_TOKENS,
    TextNetwork,
    export_texts,
    make_tokenizer,
    write_old_text_classifier,
)
from tests.training.support.reference_scores import reference_feature_scores, reference_scores
from tests.training.support.texts_on_disk import TOPICS, sentences
from training.commands.app import app
from training.data import NO_TOKEN, DataLocations, StoredArray, TextReader
from training.data.token_ids import text_batch
from training.errors import TrainingError
from training.export.onnx_graph import run_graph
from training.recipe import Source


def write_csv(path: Path, n: int, seed: int) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["body", "label"])
        writer.writerows((text, topic) for topic in TOPICS for text in sentences(topic, n, seed))
    return path


@pytest.fixture(scope="module")
def network() -> TextNetwork:
    tokenizer = make_tokenizer()
    return TextNetwork(tokenizer).train_on(tokenizer)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, network: TextNetwork) -> Path:
    """`calibration.csv` and `test.csv` with the columns body and label, `ood.csv`, `tokenizer.json`, `model.onnx`."""
    root = tmp_path_factory.mktemp("data")
    write_csv(root / "calibration.csv", 60, 3)
    write_csv(root / "test.csv", 25, 4)
    with (root / "ood.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["body"], *([text] for text in sentences("unseen", 30, 5))])
    make_tokenizer().save(str(root / "tokenizer.json"))
    export_texts(network, root / "model.onnx", dynamo=True)
    return root


Wrap = Callable[..., Bundle]


@pytest.fixture
def wrap(tmp_path: Path, data: Path) -> Wrap:
    """`wrap(model, "--tokenizer", path)` -> the bundle; errors are raised."""

    def run(model: Path, *arguments: str, tokenizer: Path | None = data / "tokenizer.json") -> Bundle:
        paths = ["--calibration", str(data / "calibration.csv"), "--models", str(tmp_path / "models")]
        paths += [] if tokenizer is None else ["--tokenizer", str(tokenizer)]
        options = ["--logits", "scores", "--name", "foreign", "--text-column", "body"]
        result = CliRunner().invoke(app, ["wrap", str(model), *paths, *options, *arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return load_bundle(tmp_path / "models" / "foreign" / "1")

    return run


def logits_of(network: TextNetwork, texts: list[str]) -> np.ndarray:
    """The logits of each text alone, without padding."""
    tokenizer = make_tokenizer()
    with torch.inference_mode():
        return np.concatenate([network(*network.batch(tokenizer, [text])).numpy() for text in texts])


def assert_scores(bundle: Bundle, network: TextNetwork, data: Path) -> None:
    """The graph scores texts, in any batch, as SciPy does the logits of each text alone."""
    assert bundle.text_encoder is not None
    reader = TextReader(bundle.text_encoder, DataLocations(data_dir=data))
    rows = reader.load(Source(path="test.csv", format="csv", text="body"), name="test").x
    with (data / "test.csv").open() as file:
        logits = logits_of(network, [row["body"] for row in csv.DictReader(file)])
    for batch_size in (1, 7, 64):
        outputs = run_graph(bundle.model_path, rows, text_batch, batch_size)
        for name, expected in reference_scores(logits).items():
            np.testing.assert_allclose(outputs[name], expected, atol=1e-4, err_msg=name)
        np.testing.assert_array_equal(outputs["prediction"], logits.argmax(axis=1))


def test_a_wrapped_classifier_scores_as_its_own_logits_in_any_padding(
    data: Path, network: TextNetwork, wrap: Wrap
) -> None:
    bundle = wrap(data / "model.onnx", "--labels", ",".join(TOPICS))
    assert bundle.manifest.input == TextInput(tokenizer="tokenizer.json", max_tokens=MAX_TOKENS)
    assert tuple(bundle.manifest.labels) == TOPICS
    assert bundle.manifest.calibration.n == 120
    assert_scores(bundle, network, data)


@pytest.mark.parametrize(
    ("inputs", "dtype"),
    [
        (("input_ids", "attention_mask", "token_type_ids"), torch.int64),
        (("input_ids", "attention_mask"), torch.int32),
        # Names of the bundle's own tensors, with another meaning.
        (("lengths", "tokens_mask"), torch.int64),
    ],
)
def test_masks_and_types_of_any_kind_are_made_inside_the_graph(
    inputs: tuple[str, ...], dtype: torch.dtype, tmp_path: Path, data: Path, wrap: Wrap
) -> None:
    network = TextNetwork(make_tokenizer())
    bundle = wrap(export_texts(network, tmp_path / "model.onnx", inputs, dtype=dtype))
    if "token_type_ids" in inputs:
        with torch.no_grad():
            network.words.weight += network.types.weight[0]
    assert_scores(bundle, network, data)


def test_a_test_set_gives_the_bundle_a_report(data: Path, wrap: Wrap) -> None:
    sets = ["--test", str(data / "test.csv"), "--ood", f"space={data / 'ood.csv'}"]
    bundle = wrap(data / "model.onnx", "--labels", ",".join(TOPICS), *sets)
    assert bundle.manifest.evaluation is not None
    assert {row.name for row in bundle.manifest.evaluation.sets} == {"space", "mean"}
    assert bundle.manifest.evaluation.error_percent is not None
    assert bundle.manifest.evaluation.error_percent < 10
    assert "report/report.md" in bundle.manifest.files


def test_the_service_scores_a_text_with_a_wrapped_classifier(
    tmp_path: Path, data: Path, network: TextNetwork, wrap: Wrap
) -> None:
    wrap(data / "model.onnx", "--labels", ",".join(TOPICS))
    texts = [*sentences("harbour", 3, 21), "Salt", " ".join(["soup"] * 50)]
    with running_service(tmp_path / "models") as live:
        results = live.score(model="foreign", json={"inputs": texts, "scores": ["energy"]}).json()["results"]
    expected = logits_of(network, texts)
    for result, logits in zip(results, expected, strict=True):
        assert result["scores"]["energy"]["value"] == pytest.approx(-logsumexp(logits), abs=1e-3)
        assert result["prediction"]["label"] == TOPICS[logits.argmax()]


@pytest.mark.parametrize("inputs", [("input_ids",), ("input_ids", "attention_mask")])
def test_a_classifier_that_padding_changes_is_refused(inputs: tuple[str, ...], tmp_path: Path, wrap: Wrap) -> None:
    network = TextNetwork(make_tokenizer(), masked=False)
    if len(inputs) > 1:
        # The mask is an input, but attention ignores it.
        network.forward = _with_mask_as_feature(network)
    model = export_texts(network, tmp_path / "model.onnx", inputs)
    remedy = "dynamic batch and length, in evaluation mode" if len(inputs) > 1 else "neither attention_mask nor lengths"
    with pytest.raises(TrainingError, match=f"change with the batch and its padding.*{remedy}"):
        wrap(model)
    assert not list((tmp_path / "models").rglob("manifest.json"))


def _with_mask_as_feature(network: TextNetwork) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    plain = network.forward
    return lambda input_ids, attention_mask: plain(input_ids) + 0.5 * attention_mask.float().mean(dim=1, keepdim=True)


def test_a_graph_of_a_fixed_batch_and_length_takes_any(tmp_path: Path, network: TextNetwork, wrap: Wrap) -> None:
    model = export_texts(network, tmp_path / "model.onnx", dynamic=False)
    bundle = wrap(model)
    assert bundle.manifest.input == TextInput(tokenizer="tokenizer.json", max_tokens=5)
    encoder = bundle.text_encoder
    assert encoder is not None
    texts = [text for topic in TOPICS for text in sentences(topic, 5, 7)]
    rows = np.full((len(texts), 5), NO_TOKEN, dtype=np.int32)
    for row, text in zip(rows, texts, strict=True):
        ids = encoder.encode(text)
        row[: len(ids)] = ids
    ids, mask = np.where(rows == NO_TOKEN, 0, rows), rows != NO_TOKEN
    with torch.inference_mode():
        logits = network(torch.from_numpy(ids).long(), torch.from_numpy(mask).long()).numpy()
    for batch_size in (1, 4):
        outputs = run_graph(bundle.model_path, StoredArray(rows), text_batch, batch_size, ["energy"])
        np.testing.assert_allclose(outputs["energy"], -logsumexp(logits, axis=1), atol=1e-4)


def mean_words(network: TextNetwork, texts: list[str]) -> np.ndarray:
    """The mean of each text's word vectors, the features of `write_old_text_classifier`."""
    tokenizer = make_tokenizer()
    words = network.words.weight.detach().numpy()
    return np.stack([words[network.batch(tokenizer, [text])[0][0].numpy()].mean(axis=0) for text in texts])


@pytest.mark.parametrize("opset", [8, 10])
def test_a_graph_of_an_old_opset_is_converted_and_its_features_are_scored(
    opset: int, tmp_path: Path, network: TextNetwork, wrap: Wrap
) -> None:
    train = write_csv(tmp_path / "train.csv", 50, 6)
    bundle = wrap(write_old_text_classifier(tmp_path / "old.onnx", network, opset), "--fit", str(train))
    with train.open() as file:
        rows = list(csv.DictReader(file))
    targets = np.array([sorted(TOPICS).index(row["label"]) for row in rows])
    texts = [*sentences("harbour", 3, 21), *sentences("unseen", 3, 21)]
    features = mean_words(network, texts)
    expected = reference_feature_scores(mean_words(network, [row["body"] for row in rows]), targets, features)
    expected |= reference_scores(network.classifier(torch.from_numpy(features)).detach().numpy())
    encoder = bundle.text_encoder
    assert encoder is not None
    ids = np.full((len(texts), MAX_TOKENS), NO_TOKEN, dtype=np.int32)
    for row, text in zip(ids, texts, strict=True):
        tokens = encoder.encode(text)
        row[: len(tokens)] = tokens
    outputs = run_graph(bundle.model_path, StoredArray(ids), text_batch, 4)
    for name, values in expected.items():
        np.testing.assert_allclose(outputs[name], values, rtol=2e-3, atol=1e-4, err_msg=name)


def save(tokenizer: Tokenizer, path: Path) -> Path:
    tokenizer.save(str(path))
    return path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mean", "0.5"], "--mean: is for images, --tokenizer for texts"),
        (["--max-tokens", "40"], r"does not take input_ids int64 \[1, 40\].*Check --tokenizer and --max-tokens"),
    ],
)
def test_options_that_do_not_fit_texts_are_refused(arguments: list[str], message: str, data: Path, wrap: Wrap) -> None:
    with pytest.raises(TrainingError, match=message):
        wrap(data / "model.onnx", *arguments)


@pytest.mark.parametrize("tokenizer", ["tokenizer.json", None])
@pytest.mark.parametrize("validation", [False, True])
def test_test_texts_without_an_out_of_distribution_test_set_are_refused(
    tokenizer: str | None, validation: bool, data: Path, wrap: Wrap
) -> None:
    sets = ["--test", str(data / "test.csv")]
    sets += ["--validation", f"space={data / 'ood.csv'}"] if validation else []
    with pytest.raises(TrainingError, match=r"--test: has no out-of-distribution set to be compared with.*--ood"):
        wrap(data / "model.onnx", *sets, tokenizer=None if tokenizer is None else data / tokenizer)


def test_a_tokenizer_that_is_not_the_models_is_refused(tmp_path: Path, data: Path, wrap: Wrap) -> None:
    larger = save(make_tokenizer(words=500), tmp_path / "larger.json")
    with pytest.raises(TrainingError, match="Check --tokenizer"):
        wrap(data / "model.onnx", tokenizer=larger)
    unlimited = save(make_tokenizer(own_limit=False), tmp_path / "unlimited.json")
    with pytest.raises(TrainingError, match="--max-tokens: is missing"):
        wrap(data / "model.onnx", tokenizer=unlimited)
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(BundleError, match=r"broken\.json.*cannot be used as a tokenizer"):
        wrap(data / "model.onnx", tokenizer=tmp_path / "broken.json")


def test_without_the_option_the_tokenizer_next_to_the_graph_is_used_or_its_absence_named(
    tmp_path: Path, data: Path, network: TextNetwork, wrap: Wrap
) -> None:
    assert_scores(wrap(data / "model.onnx", tokenizer=None), network, data)
    shutil.copy(data / "model.onnx", tmp_path / "alone.onnx")
    with pytest.raises(TrainingError, match=r"2 inputs \(input_ids, attention_mask\).*a tokenizer.json next to"):
        wrap(tmp_path / "alone.onnx", tokenizer=None)
