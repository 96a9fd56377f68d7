"""That the image's lock has what the project needs, and that the image is made of it."""

import re
import subprocess
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
LOCK = (ROOT / "requirements.lock").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", "")
ENTRY = re.compile(r"^([a-z0-9-]+)==(\S+)(?: ; (.+?))?((?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n", re.MULTILINE)
"""A package's name, version, marker and hashes."""

PACKAGES = ENTRY.findall(LOCK)


def test_every_package_is_locked_with_hashes_and_nothing_else_stands_there() -> None:
    assert "".join(match[0] for match in ENTRY.finditer(LOCK)) == LOCK
    assert "://" not in LOCK


def test_every_dependency_is_locked_in_a_version_that_will_do() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for needed in map(Requirement, project["dependencies"]):
        versions = [Version(version) for name, version, *_ in PACKAGES if name == canonicalize_name(needed.name)]
        assert versions, f"{needed.name} is not in requirements.lock; run `make lock`"
        assert all(version in needed.specifier for version in versions), f"{needed}: run `make lock`"


def test_the_image_is_made_of_the_lock_torch_apart(tmp_path: Path) -> None:
    (tmp_path / "requirements.lock").write_text(LOCK)
    (split,) = re.findall(r"^RUN (python3 -c .*requirements\.lock.*)$", DOCKERFILE, re.MULTILINE)
    subprocess.run(["sh", "-c", split], cwd=tmp_path, check=True)
    torch, other = ((tmp_path / f"{name}.txt").read_text() + "\n" for name in ("torch", "other"))
    assert sorted(ENTRY.findall(torch) + ENTRY.findall(other)) == sorted(PACKAGES)
    assert {"torch", "torchvision", "triton"} <= {name for name, *_ in ENTRY.findall(torch)}
    assert {"timm", "numpy", "nvidia-ml-py", "sympy"} <= {name for name, *_ in ENTRY.findall(other)}
    installs = re.findall(r"\$pip install ([^;&]+)", DOCKERFILE)
    assert [install.split()[0] for install in installs] == ["$locked", "$locked", "--index-url"]
    assert 'locked="--require-hashes --no-deps --requirement"' in DOCKERFILE
