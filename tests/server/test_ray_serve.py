"""The application on Ray Serve: what it asks Ray for, and a replica that is killed on a real Ray of two nodes."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

pytest.importorskip("ray.serve", reason="ray is not installed")

from server import ray_serve

ROOT = Path(__file__).parents[2]
PATIENCE = 240


def deployment(**settings: str) -> Any:
    return ray_serve.app(settings)._bound_deployment


def wanted(drains: dict[str, float], now: int = 4) -> float:
    metrics = {ray_serve.DRAIN: drains} if drains else {}
    context: Any = SimpleNamespace(aggregated_metrics=metrics, current_num_replicas=now, target_num_replicas=now + 1)
    return ray_serve.Drain(0.01)(context)[0]


def test_replicas_are_added_in_proportion_to_what_waits() -> None:
    assert wanted({"a": 0.012, "b": 0.012, "c": 0.012, "d": 0.024}) == pytest.approx(6)
    assert wanted({"a": 0.01}) == pytest.approx(4)


def test_at_most_twice_as_many_come_and_one_goes() -> None:
    assert wanted({"a": 1.0}) == 8
    assert wanted({"a": 0.0}) == 3


def test_without_reports_nothing_changes() -> None:
    assert wanted({}) == 5


def test_settings_are_checked_before_anything_starts() -> None:
    with pytest.raises(ValidationError, match="slo_msec"):
        ray_serve.app({"slo_msec": "50"})


def test_ray_is_asked_for_what_the_settings_say() -> None:
    asked = deployment(threads="3", slo_ms="100", max_queue="7", drain_delay_s="5", drain_timeout_s="20")
    config = asked._deployment_config
    assert asked.ray_actor_options["num_cpus"] == 3
    assert config.autoscaling_config.policy.policy_kwargs == {"target": pytest.approx(0.02)}
    assert config.max_ongoing_requests == 14
    assert (config.graceful_shutdown_wait_loop_s, config.graceful_shutdown_timeout_s) == (5, 25)


def test_a_replica_tells_ray_of_its_health_and_of_what_waits() -> None:
    service = SimpleNamespace(healthy=lambda: True, drain=lambda: 0.25)
    replica = ray_serve.Replica()
    replica.app = SimpleNamespace(state=SimpleNamespace(service=service))  # type: ignore[assignment]
    asyncio.run(replica.check_health())
    assert asyncio.run(replica.record_autoscaling_stats()) == {"predicted_drain_seconds": 0.25}
    service.healthy = lambda: False
    with pytest.raises(RuntimeError, match="hangs"):
        asyncio.run(replica.check_health())


def test_the_configuration_file_is_one_that_ray_takes() -> None:
    from_file = yaml.safe_load((ROOT / "deploy/ray/serve.yaml").read_text(encoding="utf-8"))
    config = pytest.importorskip("ray.serve.schema").ServeDeploySchema.model_validate(from_file)
    (application,) = config.applications
    assert application.import_path == "server.ray_serve:app"
    ray_serve.app(application.args)
    (changed,) = application.deployments
    assert changed.name == ray_serve.NAME


def test_no_client_notices_that_a_replica_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks/ray/kill.py"), "--cache", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["answers"].keys() == {"right"}
    assert told["sent again"] > 0, "the replica was killed while it was idle"
    assert (told["nodes"], told["replaced"]) == (2, 1)
