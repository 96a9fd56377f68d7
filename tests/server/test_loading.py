"""Loading the server, in processes of their own: what is imported here already would be taken for loaded."""

import gc
import subprocess
import sys

import pytest

from server.loading import loaded


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def test_a_server_is_loaded_without_compilers() -> None:
    code = """
import sys
from server.loading import loaded
loaded("server.running:run")
print(sorted({"torch._dynamo", "torch._inductor", "triton"} & set(sys.modules)))
"""
    assert run(code) == "[]"


def test_the_compiler_is_there_for_whoever_wants_it() -> None:
    code = """
from server.loading import loaded
loaded("server.running:run")
import torch
print(torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)).item(), torch._dynamo.is_compiling())
"""
    assert run(code) == "2.0 False"


def test_where_timm_asks_the_compiler_for_more_it_is_imported_with_it() -> None:
    code = """
import sys, types
import torch
from server import loading
loading.ModuleType = type("Bare", (types.ModuleType,), {"__setattr__": lambda *_: None})
loading.loaded("server.running:run")
import timm
print("torch._dynamo" in sys.modules, bool(timm.list_models("deit*")))
"""
    assert run(code) == "True True"


@pytest.mark.parametrize("on", [True, False])
def test_collecting_goes_on_as_before(on: bool) -> None:
    before = gc.isenabled()
    try:
        gc.enable() if on else gc.disable()
        assert loaded("json:dumps")([1]) == "[1]"
        assert gc.isenabled() == on
        with pytest.raises(ModuleNotFoundError):
            loaded("there_is_no_such_module:thing")
        assert gc.isenabled() == on
    finally:
        gc.enable() if before else gc.disable()
        gc.unfreeze()
