"""Imports the server in half the time: torch and what stands on it are thousands of modules."""

import gc
import sys
from importlib import import_module
from pkgutil import resolve_name
from types import ModuleType
from typing import Any

COMPILER = "torch._dynamo"


def loaded(name: str) -> Any:
    """What `module:name` is, its module imported.

    Meanwhile nothing is collected, since all that is made then stays.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        _import_timm()
        return resolve_name(name)
    finally:
        gc.freeze()
        if collecting:
            gc.enable()


def _import_timm() -> None:
    """Import timm without torch's compiler, which takes longer than all else of it and is for nothing here.

    timm and torchvision only ask it whether it could compile a function, and to let another one be. The compiler is
    imported as ever once somebody wants it, and so it is where they should ask for more.
    """
    if COMPILER in sys.modules:
        return
    compiler, asked = ModuleType(COMPILER), ModuleType(f"{COMPILER}.utils")
    compiler.disable = lambda function, *_, **__: function  # type: ignore[attr-defined]
    asked.is_compile_supported = lambda _: False  # type: ignore[attr-defined]
    import_module("torch")
    sys.modules |= {module.__name__: module for module in (compiler, asked)}
    try:
        import_module("timm")
    except (AttributeError, ImportError, TypeError):
        pass
    finally:
        for module in (compiler, asked):
            del sys.modules[module.__name__]
