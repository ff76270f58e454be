"""Fixed batch sizes: filled batches give the rows of plain calls, by plain sessions and through fixed buffers."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundle import load_bundle
from service.inference.cuda_graphs import GraphsDiffer, record_graphs
from service.inference.fixed_batches import FixedBatches, PlainBatch, fixed_sizes
from service.inference.providers import CPU
from service.inputs.modalities import modality_of
from service.inputs.modality import Array
from tests.support.tiny_bundle import tiny_images
from tests.support.tiny_density_bundle import make_tiny_density_bundle
from tests.support.tiny_text_bundle import make_tiny_text_bundle


def session_of(bundle: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(bundle / "model.onnx", providers=[CPU])


def outputs_of(session: onnxruntime.InferenceSession) -> list[str]:
    return [output.name for output in session.get_outputs()]


def plain_batches(bundle: Path, largest: int) -> FixedBatches:
    names = outputs_of(session_of(bundle))
    return FixedBatches({size: PlainBatch(session_of(bundle), names) for size in fixed_sizes(largest)})


def graph_batches(bundle: Path, largest: int) -> FixedBatches:
    names = outputs_of(session_of(bundle))
    feed = lambda size: {"images": tiny_images(size)}  # noqa: E731
    return record_graphs(plain_batches(bundle, largest), names, feed, lambda: session_of(bundle), "cpu")


@pytest.mark.parametrize(
    ("largest", "sizes"), [(1, [1]), (2, [1, 2]), (16, [1, 16]), (17, [1, 16, 17]), (64, [1, 16, 64])]
)
def test_the_sizes_are_one_sixteen_and_the_largest(largest: int, sizes: list[int]) -> None:
    assert fixed_sizes(largest) == sizes


@pytest.mark.parametrize("make", [plain_batches, graph_batches])
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(counts=st.lists(st.integers(1, 33), min_size=1, max_size=6))
def test_batches_of_any_size_in_any_order_give_the_rows_of_plain_calls(
    tiny_bundle: Path, make: Callable[[Path, int], FixedBatches], counts: list[int]
) -> None:
    batches, session = make(tiny_bundle, 33), session_of(tiny_bundle)
    kept = []
    for seed, count in enumerate(counts):
        feed = {"images": tiny_images(count, seed=seed)}
        kept.append((session.run(None, feed), batches.run(feed)))
    assert batches.shape_changes == 0
    # Compared at the end, because no call may overwrite the outputs of an earlier one.
    for plain_outputs, outputs in kept:
        for expected, rows in zip(plain_outputs, outputs, strict=True):
            assert rows.dtype == expected.dtype
            np.testing.assert_allclose(rows, expected, rtol=1e-5)


@pytest.mark.parametrize("make", [make_tiny_text_bundle, make_tiny_density_bundle])
def test_filled_batches_of_texts_and_of_parts_give_the_rows_of_plain_calls(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    path = make(tmp_path)
    modality = modality_of(load_bundle(path))
    batches, session = plain_batches(path, 20), session_of(path)
    for count in (3, 16, 19, 1):
        items = [modality.probe_pair()[index % 2] for index in range(count)]
        feed = modality.feed(items)
        for expected, rows in zip(session.run(None, feed), batches.run(feed), strict=True):
            np.testing.assert_allclose(rows, expected, rtol=1e-5)


def test_a_batch_beyond_the_largest_size_is_an_error(tiny_bundle: Path) -> None:
    with pytest.raises(ValueError, match="a batch of 5 is larger than the largest size, 4"):
        plain_batches(tiny_bundle, 4).run({"images": tiny_images(5)})


def test_another_length_of_texts_is_a_change_of_shape(tmp_path: Path) -> None:
    path = make_tiny_text_bundle(tmp_path)
    short, long = modality_of(load_bundle(path)).probe_pair()
    modality = modality_of(load_bundle(path))
    batches = plain_batches(path, 16)
    for item, changes in ((long, 0), (long, 0), (short, 1), (long, 2)):
        batches.run(modality.feed([item]))
        assert batches.shape_changes == changes


def test_graphs_that_compute_other_outputs_are_refused(tiny_bundle: Path) -> None:
    class OtherBatch(PlainBatch):
        def run(self, feed: Mapping[str, Array], options: Any = None) -> list[Array]:
            return [rows + 1 for rows in super().run(feed, options)]

    plain = FixedBatches({1: OtherBatch(session_of(tiny_bundle), ["energy"])})
    feed = {"images": tiny_images(1)}
    with pytest.raises(GraphsDiffer, match="other outputs for a batch of 1"):
        record_graphs(plain, ["energy"], lambda _: feed, lambda: session_of(tiny_bundle), "cpu")
