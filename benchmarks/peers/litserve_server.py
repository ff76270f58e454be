"""LitServe: API processes in front of inference workers. It takes JSON only, so the file is base64."""

import base64

import litserve
import numpy as np
from scorer import MAX_BATCH, PORT, WORKERS, Scorer


class Scoring(litserve.LitAPI):
    def setup(self, device: str) -> None:  # noqa: ARG002 - required by LitServe
        self._scorer = Scorer()

    def decode_request(self, request: dict[str, str]) -> np.ndarray:
        return self._scorer.prepare(base64.b64decode(request["file"]))

    def batch(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        return list(inputs)

    def predict(self, x: list[np.ndarray]) -> list[float]:
        return self._scorer.msp(x)

    def unbatch(self, output: list[float]) -> list[float]:
        return output

    def encode_response(self, output: float) -> dict[str, float]:
        return {"msp": output}


if __name__ == "__main__":
    # A timeout of 1 ms, because with 0 an idle worker polls its queue without a pause and occupies a core. The
    # documentation recommends as many API processes as workers, and the ZeroMQ queue, for throughput.
    api = Scoring(max_batch_size=MAX_BATCH, batch_timeout=0.001, api_path="/score")
    server = litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=WORKERS, fast_queue=True)
    server.run(
        host="127.0.0.1",
        port=PORT,
        num_api_servers=WORKERS,
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )
