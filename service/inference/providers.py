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
    """What to ask ONNX Runtime for: `first` where it works; on `required`, nothing instead of it.

    `graphs`: on CUDA, with the kernels of each batch size recorded and launched as one.
    """

    first: str
    required: bool
    graphs: bool = False

    def chain(self, *, graphs: bool = False) -> list[tuple[str, dict[str, str]]]:
        """For `InferenceSession`: single operators that `first` does not know run on those behind it.

        A session that records `graphs` is opened only where CUDA knows all of them.
        """
        names = [TENSORRT, CUDA, CPU][[TENSORRT, CUDA, CPU].index(self.first) :]
        return [(name, {"enable_cuda_graph": "1"} if graphs and name == CUDA else {}) for name in names]


def choose_provider(
    setting: str, available: Sequence[str] | None = None, *, graphs: bool = False
) -> tuple[Provider, str | None]:
    """The provider for `OOD_PROVIDER`, and a note for the log where `auto` falls back. Raises `ProviderUnavailable`.

    `graphs` is `OOD_CUDA_GRAPHS`.
    """
    if available is None:
        available = onnxruntime.get_available_providers()
    wanted = WANTED[setting]
    if wanted in available:
        if wanted != CPU:
            # The CUDA libraries may come as Python packages, where the dynamic loader does not look by itself.
            onnxruntime.preload_dlls()
        return Provider(wanted, required=setting != "auto", graphs=graphs), None
    if setting == "auto":
        return Provider(CPU, required=False), f"{wanted} is not in this build of ONNX Runtime; serving on the CPU"
    raise ProviderUnavailable(
        f"OOD_PROVIDER={setting} needs {wanted}, and this build of ONNX Runtime has only {', '.join(available)}. "
        "Install the extra `service-gpu` instead of `service`, or set OOD_PROVIDER=auto."
    )
