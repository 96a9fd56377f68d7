"""Imports timm without torch's compiler, which would take as long to load as all else of timm together.

timm imports torchvision, and that `torch._dynamo`, for one function that asks whether it could compile its roi_align.
Nothing here compiles. Whoever does may: the compiler itself is not touched, and is loaded when it is asked for.
"""

import sys
from types import ModuleType

COMPILER = "torch._dynamo"


def _import_timm() -> None:
    if COMPILER in sys.modules:
        import timm  # noqa: F401, PLC0415 - it is loaded anyway
    asked = ModuleType(f"{COMPILER}.utils")
    asked.is_compile_supported = lambda _: False  # type: ignore[attr-defined]
    stands_in = {COMPILER: ModuleType(COMPILER), asked.__name__: asked}
    sys.modules.update(stands_in)
    ...
