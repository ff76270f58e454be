"""Chooses the ONNX Runtime execution provider, and decides whether the CPU may replace it."""

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import onnxruntime
import structlog

from service.inference.cuda_device import CudaUnusable, check_device
from service.settings import Settings

log = structlog.stdlib.get_logger(__name__)

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"

PROVIDER_OF_SETTING = {"auto": CUDA, "cpu": CPU, "cuda": CUDA}

ConvolutionSearch = Literal["heuristic", "exhaustive"]
"""How cuDNN chooses the kernel of a convolution: its heuristic mode A or B."""


class ProviderUnavailable(Exception):
    """The required provider is missing. The service does not start, rather than compute on another one unnoticed."""


@dataclass(frozen=True, slots=True)
class CudaOptions:
    """The options of CUDA sessions.

    Attributes:
        device: The index of the GPU, among those that the process can see.
        memory_mb: Most memory of one session in MiB; None: no limit.
        nhwc: Whether convolutions compute in the layout NHWC.
        tf32: Whether float32 products may be rounded to 10 bits of mantissa.
        convolution_search: How cuDNN chooses the kernels of convolutions.
        graphs: Whether image models run by CUDA graphs.
    """

    device: int = 0
    memory_mb: int | None = None
    nhwc: bool = False
    tf32: bool = False
    convolution_search: ConvolutionSearch = "heuristic"
    graphs: bool = False

    def to_onnx_runtime(self, *, graph: bool = False) -> dict[str, str]:
        """The options by ONNX Runtime's names; `graph` is whether the session records a CUDA graph."""
        options = {
            "device_id": str(self.device),
            "use_tf32": str(int(self.tf32)),
            "prefer_nhwc": str(int(self.nhwc)),
            "cudnn_conv_algo_search": self.convolution_search.upper(),
            "enable_cuda_graph": str(int(graph)),
        }
        if self.memory_mb is not None:
            options["gpu_mem_limit"] = str(self.memory_mb * 2**20)
        return options


@dataclass(frozen=True, slots=True)
class Provider:
    """The execution provider that a model should run on.

    Attributes:
        first: The provider's name in ONNX Runtime.
        required: Whether a model is refused that cannot run on `first`; otherwise it then runs on the CPU.
        replaces: The provider that `first` replaces, because this machine cannot use it.
        cuda: The options of CUDA sessions.
    """

    first: str
    required: bool
    replaces: str | None = None
    cuda: CudaOptions = field(default_factory=CudaOptions)

    @property
    def preferred(self) -> str:
        """The provider that the model would run on if it could."""
        return self.replaces or self.first

    def chain(self, *, graph: bool = False) -> list[tuple[str, dict[str, str]]]:
        """The providers and their options for `InferenceSession`: the CPU runs the operators that CUDA lacks.

        Args:
            graph: Whether the session records a CUDA graph. It opens only if CUDA supports all operators.
        """
        cuda = [(CUDA, self.cuda.to_onnx_runtime(graph=graph))] if self.first == CUDA else []
        return [*cuda, (CPU, {})]


def largest_batch(provider: Provider) -> int:
    """The default limit of the inputs of one call: a GPU needs larger batches to be busy."""
    return 64 if provider.first == CPU else 256


def choose_provider(
    setting: str, available: Sequence[str] | None = None, cuda: CudaOptions | None = None
) -> tuple[Provider, str | None]:
    """The provider for a setting.

    Args:
        setting: The value of `OOD_PROVIDER`.
        available: The providers that ONNX Runtime has; asks ONNX Runtime by default.
        cuda: The options of CUDA sessions.

    Returns:
        The provider, and a note for the log if `auto` falls back to the CPU.

    Raises:
        ProviderUnavailable: The setting requires a provider that is not available.
    """
    cuda = cuda or CudaOptions()
    if PROVIDER_OF_SETTING[setting] == CPU:
        return Provider(CPU, required=True, cuda=cuda), None
    if CUDA not in (onnxruntime.get_available_providers() if available is None else available):
        if setting == "auto":
            return Provider(CPU, required=False, cuda=cuda), f"{CUDA} is not in this build of ONNX Runtime"
        raise ProviderUnavailable(
            f"OOD_PROVIDER={setting} needs {CUDA}, which this build of ONNX Runtime does not have. {_missing_build()}"
        )
    try:
        check_device(cuda.device)
    except CudaUnusable as error:
        if setting == "auto":
            return Provider(CPU, required=False, replaces=CUDA, cuda=cuda), str(error)
        raise ProviderUnavailable(f"OOD_PROVIDER={setting}: {error}") from error
    # The CUDA libraries may be installed as Python packages, where the dynamic loader does not look.
    onnxruntime.preload_dlls()
    return Provider(CUDA, required=setting != "auto", cuda=cuda), None


def provider_of(settings: Settings, choice: str) -> Provider:
    """The provider of models for which the settings say `choice`.

    Raises:
        ProviderUnavailable: The choice requires a provider that is not available.
    """
    options = CudaOptions(
        device=settings.cuda_device,
        memory_mb=settings.cuda_memory_mb,
        nhwc=settings.cuda_nhwc,
        tf32=settings.cuda_tf32,
        convolution_search=settings.cuda_convolution_search,
        graphs=settings.cuda_graphs,
    )
    provider, note = choose_provider(choice, cuda=options)
    if note is not None:
        log.info("provider fallback", provider=provider.first, reason=note)
    return provider


def _missing_build() -> str:
    """The likely reason why ONNX Runtime has no CUDA, and the remedy."""
    installed = {name for name in ("onnxruntime", "onnxruntime-gpu") if _is_installed(name)}
    if len(installed) == 2:
        return (
            "Both onnxruntime and onnxruntime-gpu are installed, and one has overwritten files of the other: uninstall "
            "both, then install the extra `service-gpu` (with `training-gpu`, not `training`, for training)."
        )
    return "Install the extra `service-gpu` instead of `service`, or set OOD_PROVIDER=auto."


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
