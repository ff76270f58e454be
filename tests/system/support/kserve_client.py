"""A program with KServe's own clients: it calls a service over REST and gRPC, and prints the answers as JSON.

It runs in the environment that `install_kserve` makes, and imports nothing of this project.

Arguments: the URL of the service, the address of its gRPC port, the path of a PNG file of the model's size.
"""

import asyncio
import base64
import json
import sys
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput
from PIL import Image

TEXTS = ["the goal of the match", "a vote in parliament"]
OUTPUTS = ["flagged", "p_value", "label", "msp"]


def tensor(name: str, data: Any, *, binary: bool) -> InferInput:
    datatype = "UINT8" if data.dtype == np.uint8 else "BYTES"
    item = InferInput(name, list(data.shape), datatype)
    item.set_data_from_numpy(data, binary_data=binary)
    return item


def requests(path: Path) -> dict[str, InferRequest]:
    """One request for each form of the inputs, by a name."""
    file = path.read_bytes()
    files = np.array([file, file], dtype=object)
    in_base64 = np.array([base64.b64encode(file).decode()] * 2, dtype=object)
    pixels = np.stack([np.asarray(Image.open(path))] * 2)
    texts = np.array(TEXTS, dtype=object)
    inputs = {
        "tiny files binary": tensor("images", files, binary=True),
        "tiny files json": tensor("images", in_base64, binary=False),
        "tiny pixels binary": tensor("images", pixels, binary=True),
        "tiny pixels json": tensor("images", pixels, binary=False),
        "topics texts binary": tensor("texts", texts, binary=True),
        "topics texts json": tensor("texts", texts, binary=False),
        "topics texts plain": InferInput("texts", [2], "BYTES", data=list(TEXTS), parameters={"content_type": "str"}),
    }
    return {
        name: InferRequest(
            model_name=name.split()[0],
            infer_inputs=[item],
            request_id=name,
            # Over gRPC, KServe's client sends numbers with a fraction as text only.
            parameters={"alpha": "0.2", "priority": 1},
            request_outputs=[RequestedOutput(output, {"binary_data": "binary" in name}) for output in OUTPUTS],
        )
        for name, item in inputs.items()
    }


def values(response: Any) -> dict[str, Any]:
    """The outputs of a response as lists, with its model and its id."""
    content: dict[str, Any] = {}
    for output in response.outputs:
        items = output.as_numpy().tolist()
        content[output.name] = [item.decode() if isinstance(item, bytes) else item for item in items]
    return {"model": response.model_name, "id": response.id, "outputs": content}


async def over_rest(url: str, path: Path) -> dict[str, Any]:
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        answers = {
            "live": await client.is_server_live(url),
            "ready": await client.is_server_ready(url),
            "model": await client.is_model_ready(url, "tiny"),
            "unknown": await client.is_model_ready(url, "none"),
        }
        for name, request in requests(path).items():
            answers[name] = values(await client.infer(url, request, model_name=request.model_name))
        # By default KServe's client asks for no output, and gets all of them.
        whole = InferRequest("topics", [tensor("texts", np.array(TEXTS, dtype=object), binary=False)])
        answers["whole"] = values(await client.infer(url, whole, model_name="topics"))["outputs"]
        try:
            await client.infer(url, whole, model_name="none")
        except httpx.HTTPStatusError as error:
            answers["error"] = [error.response.status_code, str(error)]
        return answers


async def over_grpc(address: str, path: Path) -> dict[str, Any]:
    async with InferenceGRPCClient(address) as client:
        answers = {
            "live": await client.is_server_live(),
            "ready": await client.is_server_ready(),
            "model": await client.is_model_ready("tiny"),
        }
        for name, request in requests(path).items():
            # Over gRPC images are not in base64.
            if name != "tiny files json":
                answers[name] = values(await client.infer(request))
        try:
            await client.infer(InferRequest("none", requests(path)["topics texts json"].inputs))
        except grpc.RpcError as error:
            answers["error"] = [error.code().name, error.details()]
        return answers


async def main(url: str, address: str, path: Path) -> None:
    """Print one JSON object: the answers over `rest` and over `grpc`."""
    answers = {"rest": await over_rest(url, path), "grpc": await over_grpc(address, path)}
    print(json.dumps(answers))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
