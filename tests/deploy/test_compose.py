"""The compose file: what it mounts is there, and names and times agree with the other files."""

from typing import Any

import yaml
from balancers import DEPLOY

from server.settings import Settings


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    return found


def test_what_is_mounted_is_there() -> None:
    mounted = [volume.split(":")[0] for service in services().values() for volume in service.get("volumes", ())]
    files = [DEPLOY / each for each in mounted if each.startswith("./")]
    assert len(files) > 4
    assert all(each.exists() for each in files)


def test_prometheus_and_the_balancers_look_for_services_that_there_are() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    targets = [each for job in config["scrape_configs"] for group in job["static_configs"] for each in group["targets"]]
    assert {each.split(":")[0] for each in targets} <= services().keys()
    for name in ("haproxy.cfg", "nginx.conf"):
        text = (DEPLOY / name).read_text()
        assert all(f"server {each}" in text for each in services() if each.startswith("replica"))


def test_every_service_is_hardened_and_the_replicas_have_time_to_drain() -> None:
    for name, service in services().items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
    for name in ("replica1", "replica2"):
        command = services()[name]["command"]
        delay, timeout = (float(command[command.index(f"--drain-{each}-s") + 1]) for each in ("delay", "timeout"))
        assert float(services()[name]["stop_grace_period"].removesuffix("s")) > delay + timeout


def test_balancers_take_bodies_as_large_as_the_server_does() -> None:
    most, form = Settings.model_fields["max_bytes"].default, Settings.model_fields["max_form_bytes"].default
    haproxy, nginx = ((DEPLOY / name).read_text() for name in ("haproxy.cfg", "nginx.conf"))
    room = int(haproxy.partition("tune.bufsize ")[2].split()[0]) - int(haproxy.partition("maxrewrite ")[2].split()[0])
    assert most + 32 * 1024 <= room, "the largest head beside it"
    assert most < int(nginx.partition("client_max_body_size ")[2].partition(";")[0])
    assert f"client_max_body_size {form // 1_000_000}m;" in nginx
