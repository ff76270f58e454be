"""Plain FastAPI without batching, as its documentation deploys it: a worker process for each core.

Each request runs the model by itself, in a thread of the pool where FastAPI runs whatever would block the event loop.
"""

import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from scorer import PORT, WORKERS, Scorer

app = FastAPI()
scorer = Scorer()


@app.post("/score")
async def score(request: Request) -> dict[str, float]:
    (msp,) = await run_in_threadpool(scorer.score, [await request.body()])
    return {"msp": msp}


if __name__ == "__main__":
    uvicorn.run("fastapi_server:app", port=PORT, workers=WORKERS, log_level="warning", access_log=False)
