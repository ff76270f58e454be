"""The debug log holds neither the inputs of clients nor their keys."""

import base64
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from service.auth.api_keys import digest_of
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.tiny_text_bundle import make_tiny_text_bundle
from tests.system.support.scoring_clients import PNG
from tests.system.support.service_process import Start

KEY, WRONG_KEY = "ood_the-right-key-1234567890", "ood_a-wrong-key-0987654321"
SECRET = "patient Jane Q. Doe"
EXIF_DESCRIPTION = 0x010E


def private_picture() -> bytes:
    """A PNG with a secret in its EXIF data, in a text chunk, and after its end."""
    exif = Image.Exif()
    exif[EXIF_DESCRIPTION] = SECRET
    comment = PngImagePlugin.PngInfo()
    comment.add_text("Comment", SECRET)
    file = BytesIO()
    Image.effect_noise((16, 16), 90).convert("RGB").save(file, "PNG", exif=exif, pnginfo=comment)
    return file.getvalue() + SECRET.encode()


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_line_holds_an_input_or_a_key(tmp_path: Path, start: Start, log_format: str) -> None:
    models = tmp_path / "models"
    make_tiny_bundle(models)
    make_tiny_text_bundle(models)
    keys = tmp_path / "keys"
    keys.write_text(f"alice sha256:{digest_of(KEY)}\n")
    flags = ("--api-keys-file", str(keys), "--log-level", "debug", "--log-format", log_format)
    service = start(models, *flags)
    picture = private_picture()
    encoded = base64.b64encode(picture).decode()
    client = service.client

    def post(model: str, **request: object) -> int:
        return client.post(f"/v1/models/{model}/score", **request).status_code

    text = {"content-type": "text/plain"}
    client.headers["x-api-key"] = WRONG_KEY
    assert post("topics", content=SECRET, headers=text) == 401
    client.headers["x-api-key"] = KEY
    assert post("topics", content=SECRET, headers=text) == 200
    assert post("topics", content=SECRET.encode() + b"\xff", headers=text) == 422
    assert post("topics", json={"inputs": [SECRET, {"text": SECRET}, {"image": encoded}]}) == 200
    assert post("topics", content='{"inputs": ["' + SECRET, headers={"content-type": "application/json"}) == 400
    assert post("topics", json={SECRET: 1}) == 422
    assert post("topics", json={"inputs": ["x"], "alpha": SECRET}) == 422
    assert post("topics", content="x", headers=text, params={"text": SECRET}) == 422
    assert post("tiny", content=picture, headers=PNG) == 200
    assert post("tiny", content=picture[:-300], headers=PNG) in (200, 422)
    assert post("tiny", content=SECRET, headers=PNG) == 422
    assert post("tiny", json={"inputs": [{"image": encoded, "id": SECRET}, {"image": encoded[:-9]}]}) == 200
    assert post("tiny", files={"file": ("Jane Q. Doe.png", picture), "text": (None, SECRET)}) == 200
    assert post("tiny", files={SECRET: picture}) == 422
    assert client.get("/v1/models", params={"api_key": KEY}).status_code == 200
    assert service.end() == 0

    log = "".join(service.log)
    # The log is complete, and names clients.
    assert "alice" in log
    assert log.count("request_id") >= 15
    for secret in (KEY, WRONG_KEY, digest_of(KEY), SECRET, "Jane", encoded[:40], encoded[-40:], repr(picture)[2:40]):
        assert secret not in log
