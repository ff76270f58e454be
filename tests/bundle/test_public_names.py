import subprocess
import sys

import bundle


def test_every_public_name_exists_once() -> None:
    assert len(set(bundle.__all__)) == len(bundle.__all__)
    assert all(hasattr(bundle, name) for name in bundle.__all__)


def test_importing_the_bundle_brings_no_heavy_package() -> None:
    heavy = ["torch", "onnx", "onnxruntime", "fastapi", "scipy", "datasets", "PIL.TiffImagePlugin"]
    code = f"import sys, bundle; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
