"""Choosing the execution provider, and the options of CUDA sessions."""

import importlib.metadata

import pytest

from service.inference.cuda_device import is_supported
from service.inference.providers import CPU, CUDA, CudaOptions, Provider, ProviderUnavailable, choose_provider


def test_auto_falls_back_to_the_cpu_with_a_note() -> None:
    provider, note = choose_provider("auto", [CPU])
    assert (provider.first, provider.required) == (CPU, False)
    assert note is not None
    assert CUDA in note


def test_a_required_provider_that_is_unavailable_stops_the_start() -> None:
    with pytest.raises(ProviderUnavailable, match="OOD_PROVIDER=cuda needs CUDAExecutionProvider"):
        choose_provider("cuda", [CPU])
    assert choose_provider("cpu", [CPU]) == (Provider(CPU, required=True), None)


def test_two_builds_of_onnx_runtime_are_named_as_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "1.0")
    with pytest.raises(ProviderUnavailable, match="Both onnxruntime and onnxruntime-gpu are installed"):
        choose_provider("cuda", [CPU])


def test_scores_are_computed_in_float32_and_options_reach_onnx_runtime() -> None:
    ((name, options), cpu) = Provider(CUDA, required=True).chain()
    assert (name, cpu) == (CUDA, (CPU, {}))
    assert options["use_tf32"] == "0"
    assert (options["device_id"], options["prefer_nhwc"], options["enable_cuda_graph"]) == ("0", "0", "0")
    assert options["cudnn_conv_algo_search"] == "HEURISTIC"
    assert "gpu_mem_limit" not in options
    chosen = CudaOptions(device=3, memory_mb=2, nhwc=True, tf32=True, convolution_search="exhaustive")
    assert Provider(CUDA, required=True, cuda=chosen).chain(graph=True)[0][1] == {
        "device_id": "3",
        "use_tf32": "1",
        "prefer_nhwc": "1",
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        "enable_cuda_graph": "1",
        "gpu_mem_limit": str(2 * 2**20),
    }
    assert Provider(CPU, required=False, cuda=chosen).chain() == [(CPU, {})]


@pytest.mark.parametrize(
    ("capability", "supported"),
    [
        *[(capability, True) for capability in [(7, 5), (8, 0), (8, 6), (8, 7), (8, 9), (9, 0), (12, 0), (12, 1)]],
        *[(capability, False) for capability in [(6, 1), (7, 0), (7, 2), (10, 0), (10, 3), (11, 0), (13, 0)]],
    ],
)
def test_code_runs_on_its_own_generation_only(capability: tuple[int, int], supported: bool) -> None:
    assert is_supported(capability) is supported
