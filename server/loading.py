"""Imports the server in half the time: torch and what stands on it are thousands of modules."""

import gc
import logging
import sys
from importlib import import_module
from pkgutil import resolve_name
from types import ModuleType
from typing import Any

COMPILER, KERNELS = "torch._dynamo", "triton"
COUNTER = "torch.utils.flop_counter"


def loaded(name: str) -> Any:
    """What `module:name` is, its module imported.

    Meanwhile nothing is collected, since all that is made then stays.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        _load_without_compilers()
        return resolve_name(name)
    finally:
        gc.freeze()
        if collecting:
            gc.enable()


def _load_without_compilers() -> None:
    """Import what would import torch's compilers, which take longer than all of the server and are for nothing here.

    timm and torchvision only ask `torch._dynamo` whether it could compile a function, and to let another one be; who
    counts FLOPs looks for Triton's kernels. Both are imported as ever once somebody wants them; so they are where these
    should ask for more.
    """
    if COMPILER in sys.modules:
        return
    compiler, asked = ModuleType(COMPILER), ModuleType(f"{COMPILER}.utils")
    compiler.disable = lambda function, *_, **__: function  # type: ignore[attr-defined]
    asked.is_compile_supported = lambda _: False  # type: ignore[attr-defined]
    import_module("torch")
    stand_ins = {compiler.__name__: compiler, asked.__name__: asked}
    absent: dict[str, Any] = {} if KERNELS in sys.modules else {KERNELS: None}
    counter = logging.getLogger(COUNTER)
    counter.disabled = True  # it warns of kernels that it cannot count
    sys.modules |= stand_ins | absent
    try:
        import_module("timm")
        import_module(COUNTER)
    except (AttributeError, ImportError, TypeError):
        pass
    finally:
        counter.disabled = False
        for name in stand_ins | absent:
            del sys.modules[name]
