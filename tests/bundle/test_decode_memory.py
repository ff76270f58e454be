"""The peak memory of decoding stays below the documented bytes per pixel."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bundle import BYTES_PER_PIXEL

# In a process of its own: the kernel's peak of resident memory covers what Pillow's libraries allocate.
MEASURE = """
import sys
from pathlib import Path
from bundle import EncodedImage, ImageInput, decode_image

def resident(field):
    status = Path("/proc/self/status").read_text()
    return int(status.split(field + ":")[1].split()[0]) * 1024

spec = ImageInput(height=32, width=32, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
for folder in sorted(Path(sys.argv[1]).iterdir()):
    large, small = ((folder / name).read_bytes() for name in ("large", "small"))
    decode_image(small, spec)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    image = EncodedImage(large)
    pixels = image.pixels
    image.decode(spec)
    print(folder.name, resident("VmHWM") - before, pixels, sep=",")
"""

LARGE, NARROW = (1500, 1400), (12, 170_000)
CASES = {
    "png rgba": ("PNG", "RGBA", LARGE, {}),
    "png palette": ("PNG", "P", LARGE, {"transparency": 3}),
    "png narrow": ("PNG", "RGB", NARROW, {}),
    "jpeg": ("JPEG", "RGB", LARGE, {}),
    "jpeg progressive cmyk": ("JPEG", "CMYK", LARGE, {"progressive": True}),
    "jpeg progressive narrow": ("JPEG", "CMYK", (40, 60_000), {"progressive": True}),
    "webp": ("WEBP", "RGB", LARGE, {}),
    "webp lossless alpha": ("WEBP", "RGBA", LARGE, {"lossless": True}),
    "avif 4:4:4 alpha": ("AVIF", "RGBA", LARGE, {"subsampling": "4:4:4", "speed": 10}),
    "gif": ("GIF", "P", LARGE, {}),
    "bmp": ("BMP", "RGB", LARGE, {}),
    "tiff one strip": ("TIFF", "RGBA", LARGE, {"compression": "tiff_adobe_deflate", "strip_size": 1 << 30}),
    "tiff float": ("TIFF", "F", LARGE, {"compression": "tiff_adobe_deflate", "strip_size": 1 << 30}),
}


def write(path: Path, image_format: str, mode: str, size: tuple[int, int], options: dict[str, object]) -> None:
    shades = np.linspace(0, 255, size[0] * size[1], dtype=np.uint8).reshape(size[::-1])
    image = Image.fromarray(np.stack([shades, shades[::-1], shades, shades], axis=-1), "RGBA")
    if mode != "RGBA":
        image = image.convert("RGB")
        image = image.quantize(16) if mode == "P" else image.convert(mode)
    image.save(path, image_format, **options)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux to reset the peak")
def test_decoding_takes_no_more_memory_than_documented(tmp_path: Path) -> None:
    for name, (image_format, mode, size, options) in CASES.items():
        (tmp_path / name).mkdir()
        write(tmp_path / name / "large", image_format, mode, size, options)
        write(tmp_path / name / "small", image_format, mode, (64, 48), options)
    result = subprocess.run([sys.executable, "-c", MEASURE, tmp_path], capture_output=True, text=True, check=True)
    measured = [line.split(",") for line in result.stdout.splitlines()]
    assert {name for name, _, _ in measured} == set(CASES)
    # Pages of the allocator come on top, whatever the size of the image.
    too_much = {
        name: int(peak) / int(pixels)
        for name, peak, pixels in measured
        if int(peak) > BYTES_PER_PIXEL * int(pixels) + (4 << 20)
    }
    assert not too_much
    assert max(int(peak) / int(pixels) for _, peak, pixels in measured) > BYTES_PER_PIXEL / 2, (
        "the figure is far too large"
    )
