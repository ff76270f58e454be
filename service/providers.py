"""Which ONNX Runtime execution provider serves, and whether another may stand in for it."""

from collections.abc import Sequence
from dataclasses import dataclass

import onnxruntime

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"

# TensorRT builds an engine for minutes at the first start, so that `auto` leaves it to those who ask for it.
WANTED = {"auto": CUDA, "cpu": CPU, "cuda": CUDA, "tensorrt": TENSORRT}


class ProviderUnavailable(Exception):
    """The required provider is not there; the service does not start rather than silently serve on another."""


@dataclass(frozen=True, slots=True)
class Provider:
    """What to ask ONNX Runtime for: `first` where it works; on `required`, nothing instead of it."""

    first: str
    required: bool

    @property
    def chain(self) -> list[str]:
        """For `InferenceSession`: single operators that `first` does not know run on those behind it."""
        return [TENSORRT, CUDA, CPU][[TENSORRT, CUDA, CPU].index(self.first) :]


def choose_provider(setting: str, available: Sequence[str] | None = None) -> tuple[Provider, str | None]:
    """The provider for `OOD_PROVIDER`, and a note for the log where `auto` falls back. Raises `ProviderUnavailable`."""
    if available is None:
        available = onnxruntime.get_available_providers()
    wanted = WANTED[setting]
    if wanted in available:
        if wanted != CPU:
            # The CUDA libraries may come as Python packages, where the dynamic loader does not look by itself.
            onnxruntime.preload_dlls()
        return Provider(wanted, required=setting != "auto"), None
    if setting == "auto":
        return Provider(CPU, required=False), f"{wanted} is not in this build of ONNX Runtime; serving on the CPU"
    raise ProviderUnavailable(
        f"OOD_PROVIDER={setting} needs {wanted}, and this build of ONNX Runtime has only {', '.join(available)}. "
        "Install the extra `service-gpu` instead of `service`, or set OOD_PROVIDER=auto."
    )
