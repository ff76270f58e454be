"""Texts go the whole way: from sentences on disk to a bundle that scores any text as the trained network does."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForSequenceClassification
from typer.testing import CliRunner

from bundle import LOGIT_SCORES, TextEncoder, TextInput, load_bundle, pad_tokens
from tests.training.support.datasets_on_disk import InterruptedInputs
from tests.training.support.texts_on_disk import TOPICS, sentences, tiny_text_recipe, write_texts, write_tiny_texts
from training.architectures import GRUClassifier, TransformerClassifier
from training.commands.app import app
from training.data import NO_TOKEN, DataLocations, StoredArray, TextReader, load_in_distribution, open_reader
from training.errors import DataError, RecipeError
from training.export.onnx_graph import check_parity, run_graph, write_graph
from training.fitting.stages import fit_stages
from training.fitting.weights import load_model
from training.models.classifier import TextClassifier
from training.models.score_heads import ScoredClassifier
from training.recipe import Source, parse_recipe
from training.run import Run
from training.scoring.batch_scoring import score_inputs


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run in the folder `run`, its bundle in `models`."""
    root = write_tiny_texts(tmp_path_factory.mktemp("texts"))
    recipe = root / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(tiny_text_recipe()))
    arguments = ["run", str(recipe), "--data", str(root), "--run", str(root / "run"), "--models", str(root / "models")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output + str(done.exception)
    return root


def random_tokens(n: int, longest: int, seed: int) -> StoredArray:
    generator = np.random.default_rng(seed)
    rows = generator.integers(0, 40, (n, longest)).astype(np.int32)
    lengths = generator.integers(1, longest + 1, n)
    rows[np.arange(longest)[None] >= lengths[:, None]] = NO_TOKEN
    return StoredArray(rows)


def test_a_run_ends_in_a_text_bundle_that_flags_the_unseen_topic(finished: Path) -> None:
    bundle = load_bundle(finished / "models" / "topics" / "1")
    manifest = bundle.manifest
    assert manifest.input == TextInput(tokenizer="tokenizer.json", max_tokens=24)
    assert manifest.modality == "text"
    assert tuple(manifest.labels) == TOPICS
    assert (bundle.path / "sample.txt").read_text() == sentences("kitchen", 1, 2)[0]
    assert manifest.evaluation is not None
    assert manifest.evaluation.error_percent is not None
    assert manifest.evaluation.error_percent < 15
    found = {(row.stage, row.score): row.auroc for row in manifest.evaluation.sets if row.name == "unseen"}
    assert found["oe", "msp"] > found["baseline", "msp"]
    assert found["oe", "msp"] > 90


def test_a_finished_text_run_can_be_taken_up_step_by_step(finished: Path) -> None:
    run, data = str(finished / "run"), ["--data", str(finished)]
    for command in (["calibrate", run], ["export", run, "--models", str(finished / "again")]):
        done = CliRunner().invoke(app, [*command, *data])
        assert done.exit_code == 0, done.output + str(done.exception)
    assert load_bundle(finished / "again" / "topics" / "1").manifest.modality == "text"


def test_the_bundle_alone_scores_a_text_as_training_did(finished: Path) -> None:
    bundle = load_bundle(finished / "models" / "topics" / "1")
    encoder = TextEncoder.load(bundle.path / "tokenizer.json", 24)
    texts = sentences("harbour", 9, 77)
    alone = [pad_tokens([encoder.encode(text)]) for text in texts]
    rows = np.full((9, 24), NO_TOKEN, dtype=np.int32)
    for row, (tokens, _) in zip(rows, alone, strict=True):
        row[: tokens.shape[1]] = tokens[0]
    prepare = TextClassifier(torch.nn.Identity()).prepare
    together = run_graph(bundle.model_path, StoredArray(rows), prepare)["msp"]
    singly = [run_graph(bundle.model_path, StoredArray(row[None]), prepare)["msp"][0] for row in rows]
    np.testing.assert_allclose(together, singly, atol=1e-6)


def test_an_interrupted_run_on_texts_grouped_by_length_resumes_to_the_same_weights(tmp_path: Path) -> None:
    root = write_tiny_texts(tmp_path / "texts")
    plan = tiny_text_recipe()
    for stage in plan["stages"].values():
        stage["group_by_length"] = True
    recipe = parse_recipe(plan, "test")
    reader = open_reader(recipe, DataLocations(data_dir=root), root / "tokenizer.json")
    train = load_in_distribution(recipe, reader).train
    runs = {name: Run.create(tmp_path / name, recipe, overwrite=False) for name in ("whole", "broken")}
    for run in runs.values():
        shutil.copy(root / "tokenizer.json", run.tokenizer_path)
    outliers = train.rows(np.arange(60))
    # Two reads to begin with and eleven an epoch: the third epoch is broken off.
    interrupted = replace(train, x=InterruptedInputs(train.x, reads_left=30))
    with pytest.raises(SystemExit):
        fit_stages(runs["broken"], interrupted, outliers, resume=False, announce=lambda _: None)
    assert runs["broken"].checkpoint_path("baseline").exists()
    for run in runs.values():
        fit_stages(run, train, outliers, resume=True, announce=lambda _: None)
    whole, broken = (load_model(run, "oe", 2).state_dict() for run in runs.values())
    for name, value in whole.items():
        torch.testing.assert_close(broken[name], value, rtol=0, atol=0, msg=name)


def test_the_vocabulary_holds_no_word_that_only_the_calibration_split_has(tmp_path: Path) -> None:
    texts = [f"common word{i} word{i} word{i}" for i in range(100)]
    write_texts(tmp_path / "train.parquet", texts, [i % 2 for i in range(100)])
    write_texts(tmp_path / "test.parquet", texts[:10], [i % 2 for i in range(10)])
    recipe = parse_recipe(
        tiny_text_recipe(
            in_distribution={
                "train": {"path": "train.parquet", "label": "label"},
                "test": {"path": "test.parquet", "label": "label"},
                "calibration_size": 30,
            }
        ),
        "test",
    )
    locations = DataLocations(data_dir=tmp_path, cache_dir=tmp_path / "cache")
    reader = open_reader(recipe, locations, tmp_path / "tokenizer.json")
    inside = load_in_distribution(recipe, reader)
    unknown = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).token_to_id("[UNK]")
    assert (inside.calibration.x[np.arange(30)][:, 1] == unknown).all()
    assert (inside.train.x[np.arange(70)][:, 1] != unknown).all()


def test_the_graph_scores_as_torch_does_at_every_batch_size_and_length(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = GRUClassifier(5, vocabulary_size=40, embedding=8, hidden=12)
    model = ScoredClassifier(TextClassifier(network).eval(), LOGIT_SCORES)
    write_graph(model, random_tokens(8, 10, 0).array, tmp_path / "model.onnx")
    for longest in (1, 2, 10, 70):
        texts = random_tokens(33, longest, longest)
        for batch_size in (1, 7, 33):
            found = run_graph(tmp_path / "model.onnx", texts, model.model.prepare, batch_size)
            check_parity(score_inputs(model, texts), found, 1e-4)


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_a_transformers_backbone_exports_and_ignores_padding(kind: str, tmp_path: Path) -> None:
    save_backbone(kind, tmp_path / kind)
    torch.manual_seed(1)
    network = TransformerClassifier(5, str(tmp_path / kind), max_tokens=70)
    model = ScoredClassifier(TextClassifier(network).eval(), ("msp", "energy"))
    write_graph(model, random_tokens(8, 10, 0).array, tmp_path / "model.onnx")
    for longest in (1, 10, 70):
        texts = random_tokens(12, longest, longest)
        for batch_size in (1, 12):
            found = run_graph(tmp_path / "model.onnx", texts, model.model.prepare, batch_size)
            check_parity(score_inputs(model, texts, batch_size=5), found, 1e-4)


def test_a_backbone_that_is_not_there_or_too_short_is_refused_by_name(tmp_path: Path) -> None:
    save_backbone("bert", tmp_path / "bert")
    for backbone, max_tokens, named in ((tmp_path / "none", 10, "none"), (tmp_path / "bert", 500, "takes 90 tokens")):
        with pytest.raises(ValueError, match=named):
            TransformerClassifier(2, str(backbone), max_tokens=max_tokens)


def save_backbone(kind: str, folder: Path) -> None:
    """A tiny model with random weights as `transformers` saves one."""
    common = {
        "vocab_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "hidden_size": 16,
        "intermediate_size": 32,
        "max_position_embeddings": 90,
    }
    config = AutoConfig.for_model(kind, **common)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)


@settings(max_examples=25)
@given(length=st.integers(1, 12), padding=st.integers(0, 30), seed=st.integers(0, 99))
def test_padding_changes_no_logit(length: int, padding: int, seed: int) -> None:
    torch.manual_seed(seed)
    network = GRUClassifier(3, vocabulary_size=20, embedding=4, hidden=6).eval()
    tokens = torch.randint(0, 20, (1, length))
    padded = torch.cat((tokens, torch.randint(0, 20, (1, padding))), dim=1)
    lengths = torch.tensor([length])
    torch.testing.assert_close(network(padded, lengths), network(tokens, lengths))


def test_texts_are_left_out_where_blank_and_refused_where_missing(tmp_path: Path) -> None:
    locations = DataLocations(data_dir=tmp_path, cache_dir=tmp_path / "cache")
    write_texts(tmp_path / "a.parquet", ["one two", "  ", "", "three"], [0, 1, 0, 1])
    write_texts(tmp_path / "blank.parquet", [" ", ""])
    recipe = parse_recipe(tiny_text_recipe(), "test")
    write_tiny_texts(tmp_path)
    reader = open_reader(recipe, locations, tmp_path / "tokenizer.json")
    assert isinstance(reader, TextReader)
    loaded = reader.load(Source(path="a.parquet", label="label"), name="a")
    assert len(loaded) == 2
    assert loaded.targets().tolist() == [0, 1]
    with pytest.raises(DataError, match="no text"):
        reader.load(Source(path="blank.parquet"), name="b")
    with pytest.raises(DataError, match="column 'body'"):
        reader.load(Source(path="a.parquet", text="body"), name="c")


def test_outliers_that_are_in_distribution_texts_are_found_whatever_their_case_and_spacing(tmp_path: Path) -> None:
    write_tiny_texts(tmp_path)
    locations = DataLocations(data_dir=tmp_path, cache_dir=tmp_path / "cache")
    recipe = parse_recipe(tiny_text_recipe(), "test")
    reader = open_reader(recipe, locations, tmp_path / "tokenizer.json")
    inside = load_in_distribution(recipe, reader).test
    copied = sentences("kitchen", 40, 2)
    write_texts(tmp_path / "copies.parquet", ["an unlike sentence", f"  {copied[3].upper()}", copied[5]])
    found = reader.overlap(inside, reader.load(Source(path="copies.parquet"), name="copies"), "overlap")
    assert found.rows.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"outliers": {"train": {"synthetic": "gaussian"}}}, "synthetic"),
        ({"input": {"kind": "text", "height": 3}}, r"input\.height"),
        ({"input": {"kind": "audio"}}, "input"),
    ],
)
def test_a_text_recipe_with_what_only_images_have_is_refused(changes: dict[str, object], named: str) -> None:
    with pytest.raises(RecipeError, match=named):
        parse_recipe(tiny_text_recipe(**changes), "test")


def test_a_tokenizer_that_does_not_exist_is_refused_by_name(tmp_path: Path) -> None:
    write_tiny_texts(tmp_path)
    recipe = parse_recipe(tiny_text_recipe(input={"kind": "text", "tokenizer": str(tmp_path)}), "test")
    with pytest.raises(RecipeError, match=r"input\.tokenizer"):
        open_reader(recipe, DataLocations(data_dir=tmp_path, cache_dir=tmp_path), tmp_path / "tokenizer.json")
