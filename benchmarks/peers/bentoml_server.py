"""BentoML: a worker process per core, each with adaptive batching. A batchable API takes lists, so files are base64."""

import base64
import os
import sys

import bentoml
from scorer import MAX_BATCH, PORT, WORKERS, Scorer


@bentoml.service(workers=WORKERS, metrics={"enabled": True})
class Scoring:
    def __init__(self) -> None:
        self._scorer = Scorer()

    # There is no batching timer to set: BentoML learns the wait from the traffic. `max_latency_ms` is the deadline of a
    # request, and stays at the default of a minute.
    @bentoml.api(route="/score", batchable=True, max_batch_size=MAX_BATCH)
    def score(self, files: list[str]) -> list[float]:
        return self._scorer.score([base64.b64decode(file) for file in files])


if __name__ == "__main__":
    os.environ["BENTOML_DO_NOT_TRACK"] = "true"
    folder = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    command = ["serve", "bentoml_server:Scoring", "--working-dir", folder, "--host", "127.0.0.1", "--port", str(PORT)]
    os.execv(sys.executable, [sys.executable, "-m", "bentoml", *command])  # noqa: S606 - replaces this process
