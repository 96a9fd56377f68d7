"""A network whose weights are about to come from a file, made without the time that random first weights take."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode

from stitching.families import Family
from stitching.model import SNNet

INITIALISERS = "torch.nn.init"


def unfilled(family: Family) -> SNNet:
    """The family's network, its parameters undefined; what its anchors compute into buffers is there."""
    with _NoFilling():
        return SNNet(family)


class _NoFilling(TorchFunctionMode):
    """Inside, what would fill or change a parameter in place leaves it as it is. Nothing else is touched.

    Unlike the meta device it keeps buffers real that no file holds, such as Swin's masks, and takes no detour through
    torch's slow shape functions.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Called by torch in place of `func`."""
        kwargs = kwargs or {}
        target = args[0] if args else kwargs.get("tensor")
        if isinstance(target, nn.Parameter) and _fills(func):
            return target
        return func(*args, **kwargs)


def _fills(func: Callable[..., Any]) -> bool:
    name = getattr(func, "__name__", "")
    in_place = name.endswith("_") and not name.endswith("__") and name != "requires_grad_"
    return in_place or getattr(func, "__module__", "") == INITIALISERS
