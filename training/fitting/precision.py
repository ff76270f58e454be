"""Precision: the number format that the hardware at hand trains fastest in."""

import torch

from training.recipe import Precision

_BF16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16")
"""x86 and ARM: a CPU without any of them emulates bfloat16, ten times slower than it computes float32."""


def fastest_precision(accelerator: str) -> Precision:
    """Mixed precision where `accelerator` (Lightning's name, `auto` included) has it in hardware, else float32."""
    if accelerator in {"auto", "gpu", "cuda"} and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    if accelerator in {"auto", "cpu"}:
        capabilities = torch.cpu.get_capabilities()
        return "bf16-mixed" if any(capabilities.get(name, False) for name in _BF16_INSTRUCTIONS) else "32-true"
    return "32-true"
