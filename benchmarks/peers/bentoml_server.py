"""BentoML: a worker process for each core, each with adaptive batching. Such an API takes lists: JSON, base64."""

import base64
import os
import sys

import bentoml
from scorer import MAX_BATCH, PORT, WORKERS, Scorer


@bentoml.service(workers=WORKERS, metrics={"enabled": True})
class Scoring:
    def __init__(self) -> None:
        self._scorer = Scorer()

    # It has no timer: how long a batch is held back is learned from the traffic. `max_latency_ms` is the time after
    # which requests are given up, and stays at the default of a minute.
    @bentoml.api(route="/score", batchable=True, max_batch_size=MAX_BATCH)
    def score(self, files: list[str]) -> list[float]:
        return self._scorer.score([base64.b64decode(each) for each in files])


if __name__ == "__main__":
    os.environ["BENTOML_DO_NOT_TRACK"] = "true"
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    command = ["serve", "bentoml_server:Scoring", "--working-dir", here, "--host", "127.0.0.1", "--port", str(PORT)]
    os.execv(sys.executable, [sys.executable, "-m", "bentoml", *command])  # noqa: S606 - it takes this process's place
