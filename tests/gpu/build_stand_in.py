"""Builds CUDA libraries that need no GPU, over which ONNX Runtime's real CUDA provider runs.

Usage: `python tests/gpu/build_stand_in.py SITE FOLDER`. SITE is a folder into which onnxruntime-gpu is installed.
FOLDER receives the libraries; programs find them by `LD_LIBRARY_PATH=FOLDER`.

The sources in `stand_in/` define the functions whose behaviour matters. All others that the provider needs are added as
functions that answer 0, success.
"""

import re
import subprocess
import sys
from pathlib import Path

SOURCES = Path(__file__).parent / "stand_in"

# Each library: the file that programs load, and the functions that belong to it.
LIBRARIES = {
    "cudart": ("libcudart.so.13", r"(cuda[A-Z]|__cuda)\w+"),
    "cublas": ("libcublas.so.13", r"cublas(?!Lt)[A-Z]\w+"),
    "cublasLt": ("libcublasLt.so.13", r"cublasLt[A-Z]\w+"),
    "curand": ("libcurand.so.10", r"curand[A-Z]\w+"),
    "cudnn": ("libcudnn.so.9", r"cudnn[A-Z]\w+"),
    "cuda": ("libcuda.so.1", r"cu[A-Z]\w+"),
}
# The linker records versions of the symbols of these libraries.
_VERSIONED = {"cudart", "cublas", "cublasLt"}


def needed_functions(provider: Path) -> set[str]:
    """The names of the functions that the provider's library looks up, at its start or later."""
    symbols = subprocess.run(
        ["nm", "--dynamic", "--undefined-only", str(provider)], check=True, capture_output=True, text=True
    ).stdout
    linked = {line.split()[1].partition("@")[0] for line in symbols.splitlines()}
    # cuDNN is opened at run time; the names of its functions are strings in the library.
    opened = re.findall(rb"(?<=\0)cudnn[A-Z]\w+(?=\0)", provider.read_bytes())
    return linked | {name.decode() for name in opened}


def build(site: Path, folder: Path) -> None:
    """Build all libraries into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    functions = needed_functions(site / "onnxruntime" / "capi" / "libonnxruntime_providers_cuda.so")
    for library, (file, pattern) in LIBRARIES.items():
        source = (SOURCES / f"{library}.c").read_text()
        missing = sorted(
            name for name in functions if re.fullmatch(pattern, name) and not re.search(rf"\b{name}\(", source)
        )
        generated = folder / f"{library}.c"
        generated.write_text(source + "".join(f"int {name}(void) {{ return 0; }}\n" for name in missing))
        options = ["-shared", "-fPIC", "-O1", "-w", f"-Wl,-soname,{file}"]
        if library in _VERSIONED:
            versions = folder / f"{library}.map"
            versions.write_text(f"{file} {{ global: *; }};\n")
            options.append(f"-Wl,--version-script={versions}")
        subprocess.run(["gcc", *options, "-o", str(folder / file), str(generated)], check=True)


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(sys.argv[2]))
