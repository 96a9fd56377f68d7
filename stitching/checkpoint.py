"""Weights on disk: our safetensors format, and the released SN-Net layout.

Nothing in a file is ever run: pickles are read with weights_only loading. Every fault is a CheckpointError that names
the file and the key.
"""

import argparse
import hashlib
import json
import pickle
import re
import struct
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stitching import pickles
from stitching.families import FAMILIES, RELEASES, AnchorSpec, Family, beside
from stitching.families import family as named_family
from stitching.fitting import check_joins
from stitching.model import SNNet
from stitching.pickles import Hazard
from stitching.released import adapted, as_released, timm_names
from stitching.unfilled import unfilled

SHIPPED = Path(__file__).resolve().parent.parent / "checkpoints"
STATE_KEYS = ("model", "state_dict")
SCHEMA = "1"
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
NOT_WHOLE = "truncated or not a PyTorch checkpoint"
SETTINGS: list[Any] = [argparse.Namespace, (OrderedDict, "yacs.config.CfgNode")]
"""What training scripts store beside the weights, neither of which does more than carry values; Swin's is a dict."""
UNREADABLE = (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError,
              ArithmeticError, MemoryError, struct.error)  # fmt: skip
"""What torch.load raises, besides UnpicklingError, on files that were cut or changed."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the file, the key and what to do."""


def shipped(family: str) -> Path:
    """Where a family's weights lie that nobody names: shipped, or beside its file (they need not exist)."""
    own = beside(family)
    return own.with_name(own.name + ".safetensors") if own else SHIPPED / f"{family}.safetensors"


def load(family: str, checkpoint: str | Path | None = None, device: str | torch.device = "cpu") -> SNNet:
    """A family's SN-Net with trained weights, in eval mode and float32.

    `checkpoint`: a .safetensors file written by `save`, or a released .pth; None means the weights that ship with the
    family. Raises ValueError for an unknown family or one whose anchors do not fit together, CheckpointError for a file
    that does not fit.
    """
    chosen = named_family(family)
    path = shipped(family) if checkpoint is None else Path(checkpoint)
    if checkpoint is None and not path.is_file():
        raise CheckpointError(f"no weights ship with family {family!r}: {_remedy(family, path)}")
    tensors = read_tensors(path, chosen)
    model = unfilled(chosen)
    try:
        state = adapted(model.anchors, tensors)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    check_state(path, f"family {chosen.name!r}", model.state_dict(), state)
    model.load_state_dict(state, assign=True)
    if beside(family):  # the named ones fit together
        check_joins(model.float())
    return model.to(device=device, dtype=torch.float32).eval()


def _remedy(family: str, path: Path) -> str:
    if beside(family):
        return f"{path} does not exist; `stitchserve build` makes it, or give the path of its checkpoint"
    fetched = f"fetch the released ones with `stitchserve pull {family}`, then " if family in RELEASES else ""
    return f"{fetched}give the path of its checkpoint"


def save(model: SNNet, path: Path) -> str:
    """Write safetensors with the family's name and config in the metadata, whole or not at all; gives its sha256."""
    state = {key: value.detach().cpu().contiguous() for key, value in as_released(model.state_dict()).items()}
    config = json.dumps(model.family.config(), sort_keys=True)
    partial = path.with_name(path.name + ".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, partial, {"schema": SCHEMA, "family": model.family.name, "config": config})
    _order_metadata(partial)
    partial.chmod(0o644)  # the library writes for its owner alone; a server runs as another user
    partial.replace(path)
    return sha256(path)


def _order_metadata(path: Path) -> None:
    """The library writes the metadata in a random order; in a fixed one equal weights have equal sha256."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        file.seek(8)
        file.write(json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode().ljust(size))


def sha256(path: Path) -> str:
    """The file's sha256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_anchors(model: SNNet, files: Sequence[Path], *, new_heads: bool = True) -> None:
    """Fill the model's anchors, one file each: a timm network's weights, or an SN-Net of the family to take it from.

    Without files the anchors become timm's pretrained ones, which timm downloads; where those answer another number of
    classes than the family has, their heads are new, or CheckpointError without `new_heads`.
    """
    if files and len(files) != len(model.anchors):
        raise CheckpointError(
            f"{len(files)} anchor files for the {len(model.anchors)} anchors of {model.family.name!r}"
        )
    for index, (spec, anchor) in enumerate(zip(model.family.anchors, model.anchors, strict=True)):
        if not files:
            anchor.load_state_dict(_pretrained(spec, model.family.classes, new_heads))
            continue
        state = read_tensors(files[index])
        prefix = f"anchors.{index}."
        if any(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        try:
            state = timm_names(anchor, state)
        except ValueError as error:
            raise CheckpointError(f"{files[index]}: {error}") from error
        check_state(files[index], f"anchor {spec.name!r}", anchor.state_dict(), state)
        anchor.load_state_dict(state)


def _pretrained(spec: AnchorSpec, classes: int, new_heads: bool) -> dict[str, Tensor]:
    settings = timm.get_pretrained_cfg(spec.timm)
    if not new_heads and settings and settings.num_classes != classes:
        raise CheckpointError(
            f"anchor {spec.name!r}: timm's pretrained {spec.timm!r} answers {settings.num_classes} classes, the family "
            f"has {classes}; give files of trained anchors as --anchors"
        )
    try:
        net = timm.create_model(spec.timm, pretrained=True, num_classes=classes, **spec.arguments)
    except (RuntimeError, ValueError, OSError) as error:
        raise CheckpointError(
            f"anchor {spec.name!r}: timm's pretrained {spec.timm!r} cannot be had for it ({str(error)[:300]}); give "
            "files of trained anchors as --anchors"
        ) from error
    return dict(net.state_dict())


def read_tensors(path: Path, family: Family | None = None) -> dict[str, Tensor]:
    """The tensors of a checkpoint by key. In our own format the family in the metadata must be `family`, if given."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path, family)
    content = _plain(_unpickle(path))
    for key in STATE_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = _plain(content[key])
            break
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(
            f"{path}: expected a dict of tensors, alone or under {' or '.join(map(repr, STATE_KEYS))}"
        )
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise CheckpointError(f"{path}: key {str(key)[:80]!r} holds {type(value).__name__}, not a tensor")
    return dict(content)


def _read_safetensors(path: Path, family: Family | None) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            if family:
                _check_metadata(path, file.metadata() or {}, family)
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a whole safetensors file ({error}); fetch or write it again") from error


def _check_metadata(path: Path, metadata: Mapping[str, str], family: Family) -> None:
    written = metadata.get("family")
    if written != family.name:
        raise CheckpointError(f"{path}: metadata key 'family' says {written!r}, asked for {family.name!r}")
    try:
        same = json.loads(metadata.get("config", "")) == json.loads(json.dumps(family.config()))
    except (ValueError, RecursionError):
        same = False
    if not same:
        raise CheckpointError(f"{path}: metadata key 'config' differs from this version's family {family.name!r}")


def _plain(content: object) -> object:
    """A dict as a plain one: an OrderedDict from a file may have attributes over its methods."""
    return dict(dict.items(content)) if isinstance(content, dict) else content


def _unpickle(path: Path) -> object:
    try:
        pickles.check(path)
        with torch.serialization.safe_globals(SETTINGS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's message advises to switch the safety off; only what it stumbled over is worth repeating.
        named = re.search(r"GLOBAL (\S{1,200})", str(error))
        reason = f"holds {named[1]} beside tensors; not opened, to run no code" if named else NOT_WHOLE
        reason = f"not opened: {error}" if isinstance(error, Hazard) and not named else reason
        raise CheckpointError(f"{path}: {reason}") from error
    except UNREADABLE as error:
        raise CheckpointError(f"{path}: {NOT_WHOLE} ({str(error)[:200]})") from error


def check_state(path: Path, what: str, wanted: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError unless `state` has the wanted keys and shapes, in finite floating-point numbers."""
    missing = [key for key in wanted if key not in state]
    unexpected = [key for key in state if key not in wanted]
    misshapen = [key for key in wanted if key in state and state[key].shape != wanted[key].shape]
    faults = []
    if missing:
        faults.append(f"key {missing[0]!r} is missing{_others(missing)}")
    if unexpected:
        faults.append(f"key {unexpected[0][:200]!r} is unexpected{_others(unexpected)}")
    if misshapen:
        key = misshapen[0]
        shapes = f"{tuple(state[key].shape)}, expected {tuple(wanted[key].shape)}"
        faults.append(f"key {key!r} has shape {shapes}{_others(misshapen)}")
    if faults:
        raise CheckpointError(f"{path}: not a checkpoint of {what}: {'; '.join(faults)}{_hint(state)}")
    for key in wanted:
        if wanted[key].is_floating_point() and not _finite(state[key]):
            raise CheckpointError(f"{path}: key {key!r} holds values that are not finite floating-point numbers")


def _finite(tensor: Tensor) -> bool:
    """Whether these are dense floating-point numbers, each finite in float32."""
    dense = tensor.layout == torch.strided and not tensor.is_meta
    return dense and tensor.dtype in FLOATS and bool(torch.isfinite(tensor.float()).all())


def _others(keys: list[str]) -> str:
    return f" (and {len(keys) - 1} more)" if len(keys) > 1 else ""


def _hint(state: Mapping[str, Tensor]) -> str:
    for family in FAMILIES.values():
        model = unfilled(family)
        try:
            named = adapted(model.anchors, state)
        except ValueError:
            continue
        if _shapes(named) == _shapes(model.state_dict()):
            return f". It fits family {family.name!r}"
    return ""


def _shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {key: tensor.shape for key, tensor in state.items()}
