"""On a real GPU the engine gives the CPU's rows, with and without CUDA graphs."""

import os
from pathlib import Path

import numpy as np
import pytest

from bundle import load_bundle
from service.inference.engine import open_engine
from service.inference.engine_thread import EngineThread
from service.inference.providers import CPU, CUDA, CudaOptions, Provider, ProviderUnavailable, choose_provider

ROOT = Path(__file__).parents[3]


def has_gpu() -> bool:
    if "OOD_TEST_STAND_IN" in os.environ:
        return False
    try:
        choose_provider("cuda")
    except ProviderUnavailable:
        return False
    return True


pytestmark = pytest.mark.skipif(not has_gpu(), reason="needs a GPU and onnxruntime-gpu")


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("name", ["cifar10-energy", "cifar10-pixelcnn"])
def test_batches_of_all_sizes_have_the_rows_of_the_cpu(name: str, graphs: bool) -> None:
    bundle = load_bundle(ROOT / "models" / name / "1")
    cpu = open_engine(bundle, Provider(CPU, required=True), cores=2, max_batch=32)
    thread = EngineThread(name)
    provider = Provider(CUDA, required=True, cuda=CudaOptions(graphs=graphs))
    cuda = thread.call(lambda: open_engine(bundle, provider, cores=1, max_batch=32))
    assert cuda.uses_cuda_graphs is graphs
    images = np.random.default_rng(0).integers(0, 256, (32, 32, 32, 3), dtype=np.uint8)
    for count in (1, 5, 16, 31, 32, 2):
        batch = list(images[:count])
        rows = thread.call(lambda batch=batch: cuda.run(batch))
        for score in bundle.manifest.scores:
            np.testing.assert_allclose(rows[score.name], cpu.run(batch)[score.name], rtol=1e-3, atol=1e-3)
    thread.post(cuda.close)
    thread.end()


def test_text_batches_have_the_rows_of_the_cpu() -> None:
    bundle = load_bundle(ROOT / "models" / "sst-gru" / "1")
    cpu, cuda = (open_engine(bundle, Provider(first, required=True), cores=2, max_batch=16) for first in (CPU, CUDA))
    texts = [*cuda.modality.probe_pair(), *cuda.modality.sample_batch(3)]
    expected = cpu.run(texts)
    for name, rows in cuda.run(texts).items():
        np.testing.assert_allclose(rows, expected[name], rtol=1e-3, atol=1e-3)
