"""Choosing the execution provider."""

import pytest

from service.inference.providers import CPU, CUDA, Provider, ProviderUnavailable, choose_provider


def test_auto_falls_back_to_the_cpu_with_a_note() -> None:
    provider, note = choose_provider("auto", [CPU])
    assert (provider.first, provider.required) == (CPU, False)
    assert note is not None
    assert CUDA in note


def test_a_required_provider_that_is_unavailable_stops_the_start() -> None:
    with pytest.raises(ProviderUnavailable, match="OOD_PROVIDER=cuda needs CUDAExecutionProvider"):
        choose_provider("cuda", [CPU])
    assert choose_provider("cpu", [CPU]) == (Provider(CPU, required=True), None)
