"""Mosec: its Rust front batches for Python worker processes."""

import json
import sys

import numpy as np
from mosec import Server, Worker
from scorer import MAX_BATCH, PORT, WORKERS, Scorer


class Scoring(Worker):
    """One stage: decoding such small inputs takes less than handing them from a stage of its own to the next one."""

    def __init__(self) -> None:
        self._scorer = Scorer()

    def deserialize(self, data: bytes) -> np.ndarray:
        return self._scorer.prepare(data)

    def serialize(self, data: float) -> bytes:
        return json.dumps({"msp": data}).encode()

    def forward(self, data: list[np.ndarray]) -> list[float]:
        return self._scorer.msp(data)


if __name__ == "__main__":
    # The defaults would answer 429 only beyond 1,024 waiting requests and 408 after 3 s: neither is reached here.
    sys.argv[1:] = ["--address", "127.0.0.1", "--port", str(PORT), "--log-level", "warning"]
    server = Server()
    # 1 ms is the least that a batch can be made to wait for more: 0 stands for the default of 10.
    server.append_worker(Scoring, num=WORKERS, max_batch_size=MAX_BATCH, max_wait_time=1, route="/score")
    server.run()
