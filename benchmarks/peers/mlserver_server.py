"""MLServer: the Open Inference Protocol with adaptive batching. Files are elements of type BYTES in JSON, in base64."""

import asyncio
import base64
import socket

import numpy as np
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.settings import ModelParameters
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver.utils import install_uvloop_event_loop
from scorer import BUNDLE, MAX_BATCH, PORT, WORKERS, Scorer


class Scoring(MLModel):
    async def load(self) -> bool:
        self._scorer = Scorer()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        # MLServer merges a batch into one request, whose input holds the elements of all.
        bodies = [base64.b64decode(element) for element in payload.inputs[0].data]
        scores = self._scorer.score(bodies)
        output = NumpyCodec.encode_output("msp", np.asarray(scores, np.float32)[:, None])
        return InferenceResponse(model_name=self.name, outputs=[output])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def serve() -> None:
    settings = Settings(
        debug=False,
        host="127.0.0.1",
        http_port=PORT,
        grpc_port=_free_port(),
        metrics_port=_free_port(),
        parallel_workers=WORKERS,
        load_models_at_startup=False,
    )
    # 1 ms, the wait of every batch, even of a full one; 0 turns batching off.
    model = ModelSettings(
        name="scoring",
        implementation="mlserver_server.Scoring",
        max_batch_size=MAX_BATCH,
        max_batch_time=0.001,
        parameters=ModelParameters(uri=str(BUNDLE)),
    )
    await MLServer(settings).start([model])


if __name__ == "__main__":
    # As in `mlserver start`.
    install_uvloop_event_loop()
    asyncio.run(serve())
