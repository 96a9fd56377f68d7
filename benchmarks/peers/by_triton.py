"""Triton, by the program that the nvidia-pytriton wheel carries: by_triton.py --port 8000

Its python backend runs triton_models/classifier/1/model.py with this interpreter's packages, PEER_COPIES times, on
batches of up to PEER_ROWS. Becomes the server itself, so that signals reach it. What must lie together in one folder
for that is copied into a temporary one, which stays.
"""

import argparse
import os
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path

import pytriton

from benchmarks.peers.work import COPIES, ROWS

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


def models(port: int) -> Path:
    """A folder of models: ours, with as many copies and rows as the environment says."""
    found = Path(tempfile.gettempdir()) / f"triton-models-{os.getuid()}-{port}"
    shutil.copytree(MODELS, found, dirs_exist_ok=True)
    config = found / "classifier" / "config.pbtxt"
    told = config.read_text().replace("max_batch_size: 16", f"max_batch_size: {ROWS}")
    config.write_text(told.replace("count: 1", f"count: {COPIES}"))
    return found


def packages() -> list[str]:
    """Where this interpreter finds what is not of its standard library, which the stub brings along."""
    standard = Path(sysconfig.get_paths()["stdlib"])
    own = {standard, standard / "lib-dynload", Path(__file__).resolve().parent, ROOT}
    return [str(ROOT), *(each for each in sys.path if Path(each).is_dir() and Path(each).resolve() not in own)]


def become_triton(port: int) -> None:
    """Run tritonserver in place of this program."""
    folder = backends()
    program = str(PARTS / "bin" / "tritonserver")
    http = ("--http-address=127.0.0.1", f"--http-port={port}", "--allow-grpc=false", "--allow-metrics=false")
    # Two servers on one machine may not share the names of their memory.
    shared = f"--backend-config=python,shm-region-prefix-name=peer{port}_"
    told = (f"--model-repository={models(port)}", f"--backend-directory={folder}")
    libraries = [str(PACKAGE.parent / "nvidia_pytriton.libs"), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    environment = {**os.environ, "PEER_PATH": os.pathsep.join(packages())}
    environment["LD_LIBRARY_PATH"] = os.pathsep.join(libraries)
    os.execve(program, [program, *told, *http, shared], environment)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    become_triton(parser.parse_args().port)
