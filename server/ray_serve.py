"""The application on Ray Serve, which places replicas on machines, replaces those that die, and adds some under load.

`serve run server.ray_serve:app family=digits slo_ms=50`, or `serve deploy deploy/ray/serve.yaml`; with the extra `ray`.
"""

import statistics
from collections.abc import Callable, Mapping
from pkgutil import resolve_name
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, AutoscalingContext, AutoscalingPolicy

from server import logs
from server.process import prepare
from server.settings import Settings

NAME = "stitchserve"
DRAIN = "predicted_drain_seconds"
SHARE_OF_SLO = 0.2
"""Mean predicted drain above which replicas are added, as in deploy/kubernetes."""
MOST_REPLICAS = 10
HEALTH_CHECK = {"health_check_period_s": 5.0, "health_check_timeout_s": 30.0}
LEAST_DRAIN = 2.0  # seconds that a stopping replica still answers: the routers have to be told


class Replica:
    """One copy of the application, wherever Ray puts it; Ray starts it, and stops it once nothing is in flight."""

    app: FastAPI  # built in the replica, by serve.ingress

    async def check_health(self) -> None:
        """Raises what makes Ray replace this replica: as /livez."""
        if not self.app.state.service.healthy():
            raise RuntimeError("a batch hangs, or the loop that runs batches has died")

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What `Drain` looks at."""
        return {DRAIN: self.app.state.service.drain()}


class Drain:
    """How many replicas bring the mean predicted drain to `target` seconds: at most twice as many, or one less."""

    def __init__(self, target: float) -> None:
        self.target = target

    def __call__(self, context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
        """The number of replicas, before Ray's own delays and bounds; unchanged while none has reported."""
        drains = (context.aggregated_metrics or {}).get(DRAIN)
        if not drains:
            return context.target_num_replicas, {}
        now: int = context.current_num_replicas
        wanted = now * statistics.fmean(drains.values()) / self.target
        return min(2 * now, max(now - 1, wanted)), {}


def app(args: Mapping[str, str]) -> Application:
    """What Ray Serve is to run: `args` are settings by their names, beside those of the environment (STITCHSERVE_*).

    Where and how many are Ray's to know: a configuration file changes the deployment `stitchserve` (num_gpus,
    autoscaling_config). Raises ValidationError, before anything is started, for a setting that is bad.
    """
    settings = Settings.model_validate(dict(args))
    wrapped = serve.ingress(_builder(settings))(Replica)
    return serve.deployment(
        wrapped,
        name=NAME,
        ray_actor_options={"num_cpus": settings.threads or 1},
        # Admission decides, not a queue of Ray's in front of it that knows no deadlines.
        max_ongoing_requests=2 * settings.max_queue,
        autoscaling_config=AutoscalingConfig(
            min_replicas=2,
            max_replicas=MOST_REPLICAS,
            policy=AutoscalingPolicy(policy_function=Drain, policy_kwargs={"target": SHARE_OF_SLO * settings.slo}),
        ),
        graceful_shutdown_wait_loop_s=max(LEAST_DRAIN, settings.drain_delay_s),
        graceful_shutdown_timeout_s=max(LEAST_DRAIN, settings.drain_delay_s) + settings.drain_timeout_s,
        **HEALTH_CHECK,
    ).bind()


def _builder(settings: Settings) -> Callable[[], FastAPI]:
    def build() -> FastAPI:
        prepare()
        logs.configure(settings.log_format)
        created: FastAPI = resolve_name("server.app:create_app")(settings)  # by name: torch comes after `prepare`
        return created

    return build
