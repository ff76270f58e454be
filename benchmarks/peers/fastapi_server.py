"""Plain FastAPI without batching, as its documentation deploys it: a worker process per core.

Each request runs the model alone, in FastAPI's pool of threads for blocking functions.
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
