"""Mosec: a Rust front end that forms batches for Python worker processes."""

import json
import sys

import numpy as np
from mosec import Server, Worker
from scorer import MAX_BATCH, PORT, WORKERS, Scorer


class Scoring(Worker):
    """A single stage: small inputs are decoded faster than a separate stage could pass them on."""

    def __init__(self) -> None:
        self._scorer = Scorer()

    def deserialize(self, data: bytes) -> np.ndarray:
        return self._scorer.prepare(data)

    def serialize(self, data: float) -> bytes:
        return json.dumps({"msp": data}).encode()

    def forward(self, data: list[np.ndarray]) -> list[float]:
        return self._scorer.msp(data)


if __name__ == "__main__":
    # The default limits, 1,024 waiting requests (429) and 3 s (408), are not reached.
    sys.argv[1:] = ["--address", "127.0.0.1", "--port", str(PORT), "--log-level", "warning"]
    server = Server()
    # 1 ms is the shortest wait for a batch to fill: 0 means the default of 10 ms.
    server.append_worker(Scoring, num=WORKERS, max_batch_size=MAX_BATCH, max_wait_time=1, route="/score")
    server.run()
