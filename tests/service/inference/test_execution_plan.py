"""Execution plans: the part of one worker, and plans stored as JSON."""

import json

import pytest

from service.inference.execution_plan import ExecutionMode, ExecutionPlan


@pytest.mark.parametrize(("threads", "workers", "expected"), [(4, 1, 4), (4, 2, 2), (4, 3, 1), (2, 4, 1), (1, 2, 1)])
def test_each_worker_gets_its_part_of_the_threads(threads: int, workers: int, expected: int) -> None:
    plan = ExecutionPlan(8, 1e-3, mode=ExecutionMode.SHARED, threads=threads)
    assert plan.for_worker(workers) == ExecutionPlan(8, 1e-3, mode=ExecutionMode.SHARED, threads=expected)


@pytest.mark.parametrize("mode", ExecutionMode)
def test_a_plan_is_restored_from_json(mode: ExecutionMode) -> None:
    plan = ExecutionPlan(8, 1e-3, mode=mode)
    restored = ExecutionPlan.from_json(json.loads(json.dumps(plan.to_json())))
    assert restored == plan
    assert restored.mode is mode
