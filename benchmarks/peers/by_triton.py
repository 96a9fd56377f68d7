"""Triton, by the program that the nvidia-pytriton wheel carries: by_triton.py --port 8000

Its python backend runs triton_models/classifier/1/model.py with this interpreter's packages. Becomes the server itself,
so that signals reach it. What must lie together in one folder for that is copied into a temporary one, which stays.
"""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytriton

ROOT = Path(__file__).resolve().parents[2]
MODELS = Path(__file__).resolve().with_name("triton_models")
PACKAGE = Path(pytriton.__file__).parent
PARTS = PACKAGE / "tritonserver"


def backends() -> Path:
    """A folder of backends with the python one, and in it the stub that fits this interpreter."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    found = Path(tempfile.gettempdir()) / f"triton-backends-{os.getuid()}-{version}"
    for part in ("backends/python", f"python_backend_stubs/{version}"):
        for file in (PARTS / part).iterdir():
            if file.is_file() and not (found / "python" / file.name).exists():  # it may be running
                (found / "python").mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, found / "python")
    return found


def become_triton(port: int) -> None:
    """Run tritonserver in place of this program."""
    folder = backends()
    program = str(PARTS / "bin" / "tritonserver")
    http = ("--http-address=127.0.0.1", f"--http-port={port}", "--allow-grpc=false", "--allow-metrics=false")
    # Two servers on one machine may not share the names of their memory.
    shared = f"--backend-config=python,shm-region-prefix-name=peer{port}_"
    told = (f"--model-repository={MODELS}", f"--backend-directory={folder}")
    # The stub brings a standard library along: it takes this interpreter's packages alone.
    packages = [str(ROOT), *(each for each in sys.path if each.endswith("-packages"))]
    libraries = {"LD_LIBRARY_PATH": str(PACKAGE.parent / "nvidia_pytriton.libs")}
    environment = {**os.environ, "PEER_PATH": os.pathsep.join(packages), **libraries}
    os.execve(program, [program, *told, *http, shared], environment)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    become_triton(parser.parse_args().port)
