"""Compressed request bodies: decompressed within the limits of plain ones, or refused with a typed error."""

import gzip
import json
import zlib
from collections.abc import Callable

import httpx
import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput

from tests.service.conftest import Live, Serve
from tests.service.support.answers import problem
from tests.service.support.pictures import encoded, picture

BODY = json.dumps({"inputs": [{"image": encoded(picture())}]}).encode()
GZIPPED = gzip.compress(BODY, mtime=0)
LIMIT = 200_000


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


def members(data: bytes) -> bytes:
    return gzip.compress(data[:50]) + gzip.compress(b"") + gzip.compress(data[50:])


CODINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip in capitals": ("X-GZip", gzip.compress),
    "several members": ("gzip", members),
    "padded": ("gzip", lambda data: gzip.compress(data) + bytes(100_000)),
    "zlib": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
    "stored": ("deflate", lambda data: zlib.compress(data, 0)),
    "identity": ("identity", bytes),
    "empty": ("", bytes),
    "two codings": ("deflate, gzip", lambda data: gzip.compress(zlib.compress(data))),
    "with identity": ("identity, gzip", gzip.compress),
}


def post(live: Live, content: bytes, coding: str, path: str = "/v1/models/tiny/score") -> httpx.Response:
    headers = {"content-type": "application/json", "content-encoding": coding}
    return live.client.post(path, content=content, headers=headers)


@pytest.mark.parametrize("name", CODINGS)
def test_a_compressed_body_is_scored_like_the_plain_one(live: Live, name: str) -> None:
    coding, compress = CODINGS[name]
    answer = post(live, compress(BODY), coding)
    assert answer.status_code == 200, answer.text
    plain = live.client.post("/v1/models/tiny/score", content=BODY, headers={"content-type": "application/json"})
    assert answer.json()["results"] == plain.json()["results"]


@pytest.mark.parametrize("size", [1, 65_535, 65_536, 65_537, 131_072, LIMIT])
@pytest.mark.parametrize("name", ["gzip", "zlib", "raw deflate", "two codings"])
def test_every_size_up_to_the_limit_arrives_complete(live: Live, name: str, size: int) -> None:
    coding, compress = CODINGS[name]
    # The parser names the position of the first byte that is no JSON.
    body = b" " * (size - 1) + b"x"
    answer = problem(post(live, compress(body), coding), 400, "malformed-body")
    assert f"line 1 column {size}" in answer["detail"]


@pytest.mark.parametrize("name", ["gzip", "several members", "zlib", "raw deflate", "two codings"])
def test_a_body_that_is_too_large_once_decompressed_is_413(live: Live, name: str) -> None:
    coding, compress = CODINGS[name]
    # Without its limit the bomb would take 200 MB.
    for size in (LIMIT + 1, 200_000_000):
        problem(post(live, compress(bytes(size)), coding), 413, "body-too-large")


def test_a_bomb_within_a_bomb_is_413(live: Live) -> None:
    problem(post(live, gzip.compress(gzip.compress(bytes(100_000_000))), "gzip, gzip"), 413, "body-too-large")


@pytest.mark.parametrize(
    ("coding", "content"),
    [
        ("gzip", GZIPPED[:-1]),
        ("gzip", GZIPPED[:20]),
        ("gzip", b""),
        ("gzip", BODY),
        ("gzip", GZIPPED + b"more"),
        ("gzip", GZIPPED[:-8] + bytes(8)),
        ("gzip", gzip.compress(b"") * 4_097),
        ("deflate", zlib.compress(BODY)[:-1]),
        ("deflate", raw_deflate(BODY)[:-1]),
        ("deflate", zlib.compress(BODY) + b"more"),
        ("deflate", b"\xff" * 100),
    ],
    ids=range(11),
)
def test_a_damaged_or_truncated_body_is_400(live: Live, coding: str, content: bytes) -> None:
    problem(post(live, content, coding), 400, "malformed-body")


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, br", "identity;q=1", "gzip,gzip,gzip,gzip"])
@pytest.mark.parametrize("path", ["/v1/models/tiny/score", "/v2/models/tiny/infer"])
def test_an_unknown_coding_is_415_and_the_response_names_the_known_ones(live: Live, coding: str, path: str) -> None:
    answer = post(live, BODY, coding, path)
    assert answer.status_code == 415
    assert answer.headers["accept-encoding"] == "gzip, deflate"


def test_decompressed_bytes_count_towards_the_memory_of_all_bodies(repository: str, serve: Serve) -> None:
    with serve(repository, max_body_bytes=100_000, max_pending_bytes=100_000) as live:
        body = b" " * (100_000 - len(BODY)) + BODY
        assert live.client.post("/v1/models/tiny/score", content=body, headers={"content-type": "application/json"})
        answer = post(live, gzip.compress(body), "gzip")
        problem(answer, 503, "overloaded")
        assert post(live, GZIPPED, "gzip").status_code == 200


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_tritons_client_can_compress_its_requests(live: Live, algorithm: str) -> None:
    with InferenceServerClient(f"127.0.0.1:{live.port}") as client:
        images = InferInput("images", [2], "BYTES").set_data_from_numpy(np.array([picture()] * 2, dtype=np.object_))
        result = client.infer("tiny", [images], request_compression_algorithm=algorithm)
    assert result.as_numpy("label").tolist() == [b"red", b"red"]
