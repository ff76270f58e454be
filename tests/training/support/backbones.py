"""Pretrained backbones in a folder, as `transformers` saves them, with random weights; a hub that serves them."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModel, AutoModelForImageClassification, AutoModelForSequenceClassification

MEAN, STD = [0.5, 0.4, 0.3], [0.25, 0.3, 0.35]
SIDE = 16
"""The height and width of the images of `save_image_backbone`."""

_COMMIT = "a" * 40


def save_backbone(kind: str, folder: Path) -> None:
    """Save a tiny model of the architecture `kind`; it reads at most 90 positions."""
    common = {
        "vocab_size": 40,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "hidden_size": 16,
        "intermediate_size": 32,
        "max_position_embeddings": 90,
    }
    config = AutoConfig.for_model(kind, **common)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)


def save_image_backbone(folder: Path) -> Path:
    """Save a ConvNeXt of images 16x16 with 24 features, and the configuration of its preprocessing."""
    torch.manual_seed(3)
    config = AutoConfig.for_model("convnext", num_stages=2, hidden_sizes=[12, 24], depths=[1, 1], patch_size=2)
    AutoModelForImageClassification.from_config(config).save_pretrained(folder)
    preprocessing = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": SIDE, "width": SIDE},
        "resample": 3,
        "image_mean": MEAN,
        "image_std": STD,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    return folder


def save_text_backbone(folder: Path, tokenizer: Tokenizer) -> Path:
    """Save a BERT of texts of at most 30 tokens of `tokenizer`, with 16 features."""
    torch.manual_seed(3)
    config = AutoConfig.for_model(
        "bert",
        vocab_size=tokenizer.get_vocab_size(),
        num_hidden_layers=1,
        num_attention_heads=2,
        hidden_size=16,
        intermediate_size=32,
        max_position_embeddings=30,
    )
    AutoModel.from_config(config, add_pooling_layer=False).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@contextmanager
def hub_of(folder: Path, name: str = "tests/tiny") -> Iterator[str]:
    """The address of a server that answers as the Hugging Face hub does, with `folder` as its only model `name`."""

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def _answer(self, *, with_body: bool) -> None:
            headers: dict[str, str] = {}
            file = folder / self.path.rsplit("/", 1)[1]
            if self.path.startswith(f"/api/models/{name}/tree/"):
                files = [{"type": "file", "path": file.name, "size": 1, "oid": "b" * 40} for file in folder.iterdir()]
                body = json.dumps(files).encode()
            elif self.path.startswith(f"/api/models/{name}"):
                siblings = [{"rfilename": file.name} for file in folder.iterdir()]
                body = json.dumps({"id": name, "sha": _COMMIT, "siblings": siblings}).encode()
            elif self.path.startswith(f"/{name}/resolve/") and file.is_file():
                body = file.read_bytes()
                headers = {"ETag": f'"{hashlib.sha256(body).hexdigest()}"', "X-Repo-Commit": _COMMIT}
            else:
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            for header, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(header, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """No log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
