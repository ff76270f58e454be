"""The hardware of a run: its description for the report, and the precision that it trains fastest in."""

import math
import platform
from pathlib import Path
from typing import Literal

import lightning
import numpy as np
import torch
from lightning.pytorch.accelerators import CUDAAccelerator

from training.data import InputArray
from training.recipe import Precision

_BF16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16")
"""CPU features of x86 and ARM that compute bfloat16. A CPU without them emulates bfloat16, which is slower than float32
(see docs/performance.md).
"""
CompileMode = Literal["default", "reduce-overhead"]
_FIRST = np.zeros(1, dtype=np.int64)


def fastest_precision(accelerator: str, kind: Literal["image", "text"]) -> Precision:
    """Mixed precision if the hardware supports it natively and the network gains by it, else float32.

    On a CPU the recurrent networks of texts are slower in bfloat16: casts take longer than their small products.

    Args:
        accelerator: Lightning's name of the accelerator, `auto` included.
        kind: What the network reads.
    """
    if accelerator in {"auto", "gpu", "cuda"} and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    if accelerator in {"auto", "cpu"} and kind == "image":
        capabilities = torch.cpu.get_capabilities()
        return "bf16-mixed" if any(capabilities.get(name, False) for name in _BF16_INSTRUCTIONS) else "32-true"
    return "32-true"


def compile_mode(kind: Literal["image", "text"]) -> CompileMode:
    """The mode of torch.compile for a network: batches of images have one shape, for which a GPU records graphs."""
    return "reduce-overhead" if kind == "image" else "default"


def resident_device(trainer: lightning.Trainer, *inputs: InputArray | None) -> torch.device | None:
    """The GPU whose memory can hold all `inputs` during training; None if there is none.

    The inputs may take half of the memory that is free; the other half is for the network and its gradients.
    """
    if not isinstance(trainer.accelerator, CUDAAccelerator):
        return None
    device: torch.device = trainer.strategy.root_device
    free, _ = torch.cuda.mem_get_info(device)
    return device if fit_into(free // 2, *inputs) else None


def fit_into(n_bytes: int, *inputs: InputArray | None) -> bool:
    """Whether `inputs` are arrays in memory or in a cache, and take no more than `n_bytes` together."""
    arrays = [array for array in inputs if array is not None]
    if not all(array.in_memory for array in arrays):
        return False
    return sum(math.prod(array.shape) * array[_FIRST].itemsize for array in arrays) <= n_bytes


def describe_hardware(trainer: lightning.Trainer) -> str:
    """The processors that `trainer` runs on, as the report names them."""
    if isinstance(trainer.accelerator, CUDAAccelerator):
        return f"{trainer.num_devices} x {torch.cuda.get_device_name()}"
    return f"{processor_name()}, {torch.get_num_threads()} threads"


def processor_name() -> str:
    """The CPU's model name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
