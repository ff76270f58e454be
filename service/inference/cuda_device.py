"""Checks, through NVIDIA's driver, that the GPU can run the CUDA code of ONNX Runtime's wheel."""

import ctypes

MINIMUM_CUDA = 13_000
"""The oldest CUDA version, as the driver reports it, that runs the wheels: 13.0, which came with driver 580."""

SUPPORTED = ((7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (12, 0))
"""Compute capabilities that the wheel has machine code for. It has no PTX, so other generations cannot run it."""

_LIBRARY = "libcuda.so.1"
_MAJOR, _MINOR = 75, 76
_NAME_BYTES = 256
_REASONS = {
    3: "the driver is not initialised",
    100: "no GPU is visible to this process",
    101: "there is no such GPU",
    803: "the driver's libraries and kernel module are of different versions",
    804: "the driver does not support this GPU's forward compatibility",
    999: "the driver failed; dmesg may say why",
}


class CudaUnusable(Exception):
    """ONNX Runtime cannot use the GPU; the message gives the reason and the remedy."""


def check_device(index: int) -> None:
    """Raise `CudaUnusable` unless GPU `index` and its driver can run ONNX Runtime's CUDA code."""
    try:
        driver = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise CudaUnusable(
            f"{_LIBRARY} cannot be loaded: {error}. Install NVIDIA's driver, and give a container the GPU "
            "(NVIDIA Container Toolkit)."
        ) from error
    _call(driver, "cuInit", 0)
    version = ctypes.c_int()
    _call(driver, "cuDriverGetVersion", ctypes.byref(version))
    if version.value < MINIMUM_CUDA:
        raise CudaUnusable(
            f"the driver supports CUDA {_dotted(version.value)}, and CUDA {_dotted(MINIMUM_CUDA)} is needed. "
            "Install driver 580 or newer."
        )
    count = ctypes.c_int()
    _call(driver, "cuDeviceGetCount", ctypes.byref(count))
    if index >= count.value:
        raise CudaUnusable(f"there are {count.value} GPUs, so OOD_CUDA_DEVICE={index} does not exist.")
    device = ctypes.c_int()
    _call(driver, "cuDeviceGet", ctypes.byref(device), index)
    capability = (_attribute(driver, device, _MAJOR), _attribute(driver, device, _MINOR))
    if not is_supported(capability):
        name = ctypes.create_string_buffer(_NAME_BYTES)
        _call(driver, "cuDeviceGetName", name, _NAME_BYTES, device)
        supported = ", ".join(f"{major}.{minor}" for major, minor in SUPPORTED)
        raise CudaUnusable(
            f"{name.value.decode(errors='replace')} has compute capability {capability[0]}.{capability[1]}, for which "
            f"ONNX Runtime's wheel has no code (only for {supported}). Use another GPU, or build ONNX Runtime for it."
        )


def is_supported(capability: tuple[int, int]) -> bool:
    """Whether the wheel's machine code runs on a GPU: code runs on the same generation with an equal or later minor."""
    return any(capability[0] == major and capability[1] >= minor for major, minor in SUPPORTED)


def _attribute(driver: ctypes.CDLL, device: ctypes.c_int, attribute: int) -> int:
    value = ctypes.c_int()
    _call(driver, "cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
    return value.value


def _call(driver: ctypes.CDLL, function: str, *arguments: object) -> None:
    status = getattr(driver, function)(*arguments)
    if status:
        raise CudaUnusable(
            f"{function} of NVIDIA's driver answers error {status}: {_REASONS.get(status, 'see cuda.h')}. "
            "`nvidia-smi` should list the GPU."
        )


def _dotted(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"
