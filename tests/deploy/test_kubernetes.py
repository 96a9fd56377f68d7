"""The Kubernetes objects: by the published schemas, rendered for CPU and GPU, in line with the server's settings."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from balancers import DEPLOY

from server.serve import Serve
from server.settings import PREFIX

FOLDER = DEPLOY / "kubernetes"
VERSIONS = ("1.31", "1.35")
OVERLAYS = ("cpu", "gpu")


def base() -> list[dict[str, Any]]:
    files = sorted(path for path in (FOLDER / "base").glob("*.yaml") if path.name != "kustomization.yaml")
    return [each for path in files for each in yaml.safe_load_all(path.read_text())]


def rendered(overlay: str) -> list[dict[str, Any]]:
    if shutil.which("kustomize"):
        command = ["kustomize", "build"]
    elif shutil.which("kubectl"):
        command = ["kubectl", "kustomize"]
    else:
        pytest.skip("neither kustomize nor kubectl is installed")
    done = subprocess.run([*command, str(FOLDER / "overlays" / overlay)], capture_output=True, text=True, check=True)
    return list(yaml.safe_load_all(done.stdout))


def pod(objects: list[dict[str, Any]]) -> dict[str, Any]:
    (deployment,) = (each for each in objects if each["kind"] == "Deployment")
    spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return spec


def environment(objects: list[dict[str, Any]]) -> dict[str, str]:
    return {each["name"]: each["value"] for each in pod(objects)["containers"][0]["env"]}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_base_is_valid(version: str) -> None:
    kinds = {each["kind"] for each in base()}
    assert kinds == {"Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler"}
    for each in base():
        kubernetes_validate.validate(each, version, strict=True)


def test_kustomize_takes_every_file_of_the_base() -> None:
    listed = yaml.safe_load((FOLDER / "base" / "kustomization.yaml").read_text())["resources"]
    there = {path.name for path in (FOLDER / "base").glob("*.yaml")} - {"kustomization.yaml"}
    assert set(listed) == there


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlays_are_valid_and_bound_what_a_pod_takes(overlay: str) -> None:
    objects = rendered(overlay)
    for each in objects:
        kubernetes_validate.validate(each, VERSIONS[-1], strict=True)
    (container,) = pod(objects)["containers"]
    assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]
    assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (overlay == "gpu")
    assert environment(base()).items() <= environment(objects).items(), "a patch replaces no setting of the base"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_environment_is_one_that_the_server_takes(overlay: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(rendered(overlay)).items():
        monkeypatch.setenv(name, value)
    assert Serve().device == {"cpu": "cpu", "gpu": "cuda"}[overlay]


def test_a_pod_has_time_to_drain() -> None:
    settings = environment(base())
    delay, timeout = (float(settings[f"{PREFIX}DRAIN_{each}_S"]) for each in ("DELAY", "TIMEOUT"))
    assert pod(base())["terminationGracePeriodSeconds"] > delay + timeout
    probe = pod(base())["containers"][0]["readinessProbe"]
    assert delay > probe["periodSeconds"] * probe["failureThreshold"]


def test_the_user_is_the_images_and_the_root_is_not_written_to() -> None:
    spec, (container,) = pod(base()), pod(base())["containers"]
    dockerfile = (DEPLOY.parent / "Dockerfile").read_text()
    assert f"USER {spec['securityContext']['runAsUser']}:{spec['securityContext']['runAsGroup']}" in dockerfile
    assert spec["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert [each["mountPath"] for each in container["volumeMounts"]] == ["/tmp"]


def test_the_autoscaler_asks_for_a_series_that_rules_know_too() -> None:
    (scaler,) = (each for each in base() if each["kind"] == "HorizontalPodAutoscaler")
    (metric,) = scaler["spec"]["metrics"]
    assert f"({metric['pods']['metric']['name']} " in Path(DEPLOY / "rules.yml").read_text()
