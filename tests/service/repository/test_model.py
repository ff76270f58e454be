"""Loading a model: its execution plan is measured once for all workers."""

import asyncio
from pathlib import Path

from bundle import load_bundle
from service import Settings
from service.inference.engine_health import EngineHealth
from service.inference.execution_plan import ExecutionPlan
from service.inference.local_engines import LocalEngines
from service.inference.providers import CPU, Provider
from service.repository.model import model_loader
from service.telemetry.metrics import Metrics
from service.worker_group import WorkerGroup


def test_the_workers_of_a_group_measure_a_bundle_once(tiny_bundle: Path, tmp_path: Path) -> None:
    async def plan_of_worker(index: int) -> ExecutionPlan:
        loop = asyncio.get_running_loop()
        provider = Provider(CPU, required=True)
        health = EngineHealth(stall_seconds=30, exit_seconds=0)
        settings = Settings(threads=1)
        engines = LocalEngines(settings, provider, loop, health, WorkerGroup(index, 2, tmp_path))
        load = model_loader(settings, engines, Metrics())
        model = await asyncio.to_thread(load, load_bundle(tiny_bundle))
        await asyncio.to_thread(model.close)
        return model.batcher.plan

    async def scenario() -> None:
        async with asyncio.timeout(60):
            # Two measurements would differ in the seconds per input.
            assert await plan_of_worker(0) == await plan_of_worker(1)

    asyncio.run(scenario())
