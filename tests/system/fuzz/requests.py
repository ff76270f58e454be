"""Hostile requests, reproducible one by one from a seed and an index."""

import base64
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from random import Random

from tests.system.fuzz import mutations

_IMAGE_TYPES = ("image/png", "image/jpeg", "image/webp", "image/bmp", "application/octet-stream")
_ODD_HEADERS = (
    *(
        "X-Request-ID: \xff\xfe",
        "X-Request-ID: " + "a" * 200,
        "Accept: */*;q=x",
        "Accept: application/openmetrics-text",
    ),
    *("Authorization: Bearer \xe9\xff", "X-API-Key: ", "Cookie: " + "a=b; " * 100, "Expect: 100-continue", "Expect: x"),
    *("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13", "TE: trailers"),
    *("Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings", "Content-Encoding: gzip", "Content-Encoding: identity"),
    *(
        "Host: ",
        "Host: [::1",
        "Host: a\xff:99999999",
        "X-Forwarded-For: '\"<>",
        "Range: bytes=0-0",
        "Accept-Encoding: *",
    ),
    *(
        "Content-Type: ",
        "Content-Type: image/png; charset=\xff",
        'Content-Type: multipart/form-data; boundary="',
        "X: \t ",
    ),
    *("Connection: close", "Connection: keep-alive, close", "Content-Type: application/json; charset=utf-16"),
)
_PATHS = (
    *(
        "/",
        "/healthz",
        "/readyz",
        "/metrics",
        "/docs",
        "/openapi.json",
        "/v1/models",
        "/v1/models/tiny",
        "/v1/models/topics",
    ),
    *(
        "/v1/models/tiny/versions/1",
        "/v1/models/tiny/versions/" + "9" * 5_000,
        "/v1/models/%00/score",
        "/v1/models/%ff%fe",
    ),
    *(
        "/v1/models/../../etc/passwd",
        "/v1/models/%2e%2e%2f%2e%2e/score",
        "//healthz",
        "/v1/models/tiny/score/",
        "/docs/..;/",
    ),
    *(
        "/v1/models/tiny/versions/-1/score",
        "/v1/models/" + "a" * 4_000,
        "/%F0%9F%98%80",
        "http://x/healthz",
        "*",
        "/v2",
        "/v2/models/tiny",
        "/v2/models/tiny/ready",
        "/v2/health/ready",
        "/v2/models/%00/infer",
        "x",
    ),
    *(
        "/v1/models/tiny/versions/%EF%BC%91/score",
        "/v1/models/tiny/score?" + "&".join(f"a{i}=1" for i in range(300)),
        "/?%",
    ),
)
_QUERIES = (
    *("alpha=0.1", "alpha=nan", "alpha=%00", "alpha=" + "9" * 5_000, "threshold=1e308", "threshold=-inf", "scores=all"),
    *(
        "scores=msp,energy",
        "scores=%ff",
        "timeout_ms=1",
        "timeout_ms=" + "9" * 5_000,
        "timeout_ms=1e308",
        "explain=true",
    ),
    *("alpha=1&alpha=2", "=", "&&&", "alpha", "%", "a[]=1", "explain=%74rue", "alpha=\xef\xbc\x91", "timeout_ms=0x10"),
)
_TRAILERS = (
    *(b"X-Request-ID: trailer\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: y\r\n"),
    *(b"X: " + b"y" * 30_000 + b"\r\n", b"a:\r\n" * 5_000, b"X-API-Key: \xff\r\n", b"Expect: 100-continue\r\n"),
    *(b"no colon\r\n", b"Connection: close\r\n", b": \r\n", b"X: \0\r\n", b"Content-Type: image/png\r\n"),
)
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "M-SEARCH")


@dataclass(frozen=True)
class FuzzedRequest:
    """A request, or several pipelined `requests`. A `framed` one has a recognisable end, so it must be answered."""

    kind: str
    data: bytes
    framed: bool = True
    requests: int = 1


class Requests:
    """The requests of one seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._files = list(mutations.real_files().values())

    @cached_property
    def bombs(self) -> list[FuzzedRequest]:
        """Every decompression bomb, as a body and in a form."""
        rng = Random(self._seed)
        return [
            request
            for name, data in mutations.bombs().items()
            for request in (
                _post("tiny", "application/octet-stream", data, name),
                _post("tiny", "multipart/form-data; boundary=b", mutations.form(rng, [("file", data)] * 3, b"b"), name),
            )
        ]

    def requests(self, indices: Iterable[int]) -> Iterator[FuzzedRequest]:
        """The requests with those indices, generated lazily."""
        return map(self.request, indices)

    def request(self, index: int) -> FuzzedRequest:
        """The request with the number `index`, which depends only on it and the seed."""
        rng = Random(f"{self._seed}:{index}")
        kinds = (
            *(self._image, self._text, self._json, self._form, self._inference, self._odd_head, self._unframed),
            *(self._trailers, self._compressed, self._pipelined),
        )
        (make,) = rng.choices(kinds, weights=(34, 11, 15, 8, 10, 11, 3, 3, 4, 1))
        return make(rng)

    def _image(self, rng: Random) -> FuzzedRequest:
        return _post("tiny", rng.choice(_IMAGE_TYPES), mutations.image(rng, self._files), "image")

    def _text(self, rng: Random) -> FuzzedRequest:
        return _post("topics", "text/plain", mutations.text(rng), "text")

    def _json(self, rng: Random) -> FuzzedRequest:
        model = rng.choice(("tiny", "topics", "words"))
        return _post(model, "application/json", mutations.json_body(rng, lambda: self._json_input(rng)), "json")

    def _json_input(self, rng: Random) -> str:
        if rng.random() < 0.5:
            return json.dumps(rng.choice(mutations.TEXTS))
        encoded = base64.b64encode(mutations.image(rng, self._files)).decode()
        if rng.random() < 0.1:
            encoded = encoded[: rng.randrange(len(encoded) + 1)] + rng.choice(("=", "====", "-_", " ", "\u00e9"))
        return json.dumps({"image": encoded, "id": rng.choice((None, "x", "\0", "i" * 300, 7))})

    def _form(self, rng: Random) -> FuzzedRequest:
        boundary = rng.choice((b"b", b"-" * 70, b"'()+_,-./:=?"))
        parts = [
            ("file", mutations.image(rng, self._files)) if rng.random() < 0.7 else ("text", mutations.text(rng))
            for _ in range(rng.choice((0, 1, 1, 2, 4)))
        ]
        kind = f'multipart/form-data; boundary="{boundary.decode()}"'
        return _post(rng.choice(("tiny", "topics")), kind, mutations.form(rng, parts, boundary), "form")

    def _inference(self, rng: Random) -> FuzzedRequest:
        """A request of the Open Inference Protocol: JSON, or JSON followed by a binary tensor."""
        model, tensor = rng.choice((("tiny", "images"), ("topics", "texts")))
        files = self._files if model == "tiny" else [text.encode() for text in mutations.TEXTS]
        path = f"/v2/models/{model}/infer"
        if rng.random() < 0.5:
            body = mutations.inference_body(rng, tensor, lambda: self._json_input(rng))
            return _post(model, "application/json", body, "inference", path=path)
        elements = [mutations.image(rng, files) for _ in range(rng.choice((0, 1, 1, 3)))]
        head, body = mutations.binary_inference_body(rng, tensor, elements)
        length = rng.choice((len(head), len(head), len(head), len(head) - 1, len(body), 10**9, -1, "x"))
        return _post(
            model,
            f"application/octet-stream\r\nInference-Header-Content-Length: {length}",
            body,
            "binary inference",
            path=path,
        )

    def _odd_head(self, rng: Random) -> FuzzedRequest:
        method, path = rng.choice(_METHODS), rng.choice(_PATHS)
        if rng.random() < 0.5:
            method, path = "POST", f"/v1/models/{rng.choice(('tiny', 'topics'))}/score?{rng.choice(_QUERIES)}"
        elif rng.random() < 0.5:
            method = "GET"
        body = mutations.text(rng) if method != "GET" else b""
        headers = [rng.choice(_ODD_HEADERS) for _ in range(rng.randrange(4))]
        lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers, "", ""]
        return FuzzedRequest("head", "\r\n".join(lines).encode("latin-1") + body)

    def _trailers(self, rng: Random) -> FuzzedRequest:
        """A body in chunks, with extensions and trailers of all kinds."""
        chunks = [mutations.text(rng) for _ in range(rng.randrange(1, 4))]
        extension = rng.choice((b"", b"", b";a=b", b";" + b"e" * 3_000))
        body = b"".join(b"%x%s\r\n%s\r\n" % (len(chunk), extension, chunk) for chunk in chunks if chunk)
        trailers = b"".join(rng.choice(_TRAILERS) for _ in range(rng.randrange(4)))
        head = "POST /v1/models/topics/score HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n"
        data = f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + body + b"0\r\n" + trailers + b"\r\n"
        return FuzzedRequest("trailers", data)

    def _compressed(self, rng: Random) -> FuzzedRequest:
        """A compressed body, intact, damaged, or not compressed as its header says."""
        body = mutations.json_body(rng, lambda: self._json_input(rng))
        if rng.random() < 0.1:
            body = bytes(rng.choice((2_000_000, 20_000_000)))
        header = rng.choice(("gzip", "gzip", "deflate", "deflate", "x-gzip", "gzip, gzip", "br", "identity, gzip"))
        for _ in range(1 + header.count("gzip, ")):
            compress = rng.choice((gzip.compress, zlib.compress)) if rng.random() < 0.2 else None
            body = (compress or (zlib.compress if header == "deflate" else gzip.compress))(body)
        match rng.randrange(4):
            case 0:
                body = mutations.damaged(rng, body)
            case 1:
                body += rng.choice((body, bytes(100), b"x"))
        kind = f"application/json\r\nContent-Encoding: {header}"
        return _post(rng.choice(("tiny", "topics")), kind, body, "compressed")

    def _pipelined(self, rng: Random) -> FuzzedRequest:
        """Several requests in one write."""
        requests = [rng.choice((self._image, self._text, self._json))(rng) for _ in range(rng.choice((2, 3, 20)))]
        return FuzzedRequest("pipelined", b"".join(request.data for request in requests), requests=len(requests))

    def _unframed(self, rng: Random) -> FuzzedRequest:
        """A request with a damaged head or wrong chunks, so that its end is not recognisable."""
        if rng.random() < 0.3:
            head = b"POST /v1/models/topics/score HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n"
            chunks = rng.choice(
                (
                    b"5\r\nhello\r\n0\r\n\r\n",
                    b"-1\r\nx\r\n",
                    b"ffffffffffffffffff\r\nx",
                    b"5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n",
                )
            )
            length = rng.choice(
                (
                    b"",
                    b"Content-Length: 5\r\n",
                    b"Content-Length: -5\r\n",
                    b"Content-Length: 5\r\nContent-Length: 6\r\n",
                )
            )
            return FuzzedRequest(
                "chunked", head + length + b"Transfer-Encoding: chunked\r\n\r\n" + chunks, framed=False
            )
        data = _post("tiny", "image/png", self._files[0], "").data
        return FuzzedRequest("broken head", mutations.damaged(rng, data[:200]) + data[200:], framed=False)


def _post(model: str, content_type: str, body: bytes, kind: str, *, path: str | None = None) -> FuzzedRequest:
    head = (
        f"POST {path or f'/v1/models/{model}/score'} HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return FuzzedRequest(kind, head.encode("latin-1") + body)
