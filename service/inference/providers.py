"""Chooses the ONNX Runtime execution provider, and decides whether another one may replace it."""

from collections.abc import Sequence
from dataclasses import dataclass

import onnxruntime

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"

# `auto` does not choose TensorRT, which builds its own engine for minutes at the first start.
PROVIDER_OF_SETTING = {"auto": CUDA, "cpu": CPU, "cuda": CUDA, "tensorrt": TENSORRT}


class ProviderUnavailable(Exception):
    """The required provider is missing. The service does not start, rather than compute on another one unnoticed."""


@dataclass(frozen=True, slots=True)
class Provider:
    """The execution provider to ask ONNX Runtime for.

    Attributes:
        first: The provider's name in ONNX Runtime.
        required: Whether a model is refused that cannot run on `first`.
        graphs: Whether models on CUDA use CUDA graphs.
    """

    first: str
    required: bool
    graphs: bool = False

    def chain(self, *, graphs: bool = False) -> list[tuple[str, dict[str, str]]]:
        """The providers and their options for `InferenceSession`: later ones run the operators that `first` lacks.

        Args:
            graphs: Whether the session records CUDA graphs. It opens only if CUDA supports all operators.
        """
        names = [TENSORRT, CUDA, CPU][[TENSORRT, CUDA, CPU].index(self.first) :]
        return [(name, {"enable_cuda_graph": "1"} if graphs and name == CUDA else {}) for name in names]


def choose_provider(
    setting: str, available: Sequence[str] | None = None, *, graphs: bool = False
) -> tuple[Provider, str | None]:
    """The provider for a setting.

    Args:
        setting: The value of `OOD_PROVIDER`.
        available: The providers that ONNX Runtime has; asks ONNX Runtime by default.
        graphs: The value of `OOD_CUDA_GRAPHS`.

    Returns:
        The provider, and a note for the log if `auto` falls back to the CPU.

    Raises:
        ProviderUnavailable: The setting requires a provider that is not available.
    """
    if available is None:
        available = onnxruntime.get_available_providers()
    first = PROVIDER_OF_SETTING[setting]
    if first in available:
        if first != CPU:
            # The CUDA libraries may be installed as Python packages, where the dynamic loader does not look.
            onnxruntime.preload_dlls()
        return Provider(first, required=setting != "auto", graphs=graphs), None
    if setting == "auto":
        return Provider(CPU, required=False), f"{first} is not in this build of ONNX Runtime; serving on the CPU"
    raise ProviderUnavailable(
        f"OOD_PROVIDER={setting} needs {first}, and this build of ONNX Runtime has only {', '.join(available)}. "
        "Install the extra `service-gpu` instead of `service`, or set OOD_PROVIDER=auto."
    )
