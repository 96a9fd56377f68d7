"""What the pickles of a checkpoint say, looked at before torch does it.

torch's weights_only loading runs no code of a file, and yet a kilobyte can take all memory, as a bytearray of a size,
or all time, as tuples of tuples that are hashed for the key of a dict.
"""

import pickle
import pickletools
import re
import zipfile
import zlib
from io import BytesIO
from pathlib import Path
from typing import IO, Any

ARCHIVE = b"PK\x03\x04"
PICKLES = 5
"""At the head of torch's older format: its number, its version, the machine, the content, the storages' keys."""

LARGEST_TUPLE = 1000
"""Elements, those of the tuples in it counted as often as they stand there: hashing takes as many steps."""

MOST_UNPACKED = 4
"""Times the archive's size; torch packs nothing, and weights that others packed become little smaller."""

HARMLESS = re.compile(
    r"collections OrderedDict|argparse Namespace|yacs\.config CfgNode|_codecs encode"
    r"|(__builtin__|builtins) (set|complex)"
    r"|torch\._utils _rebuild_(tensor|tensor_v2|parameter|meta_tensor_no_storage)|torch\.serialization _get_layout"
    r"|torch (?!\w*Tensor|(Unt|T)ypedStorage)\w+|torch\.nn\.parameter Parameter"
)
"""What a file may name, of what torch knows: weights need it, or what training scripts store beside them."""


class Hazard(pickle.UnpicklingError):
    """A checkpoint that would take more than it holds."""


def check(path: Path) -> None:
    """Raise Hazard for what would take memory or time out of proportion, ValueError or LookupError for no checkpoint.

    What is named and not HARMLESS is a Hazard whose message has it after the word GLOBAL, as in torch's own.
    """
    with path.open("rb") as file:
        if file.read(len(ARCHIVE)) == ARCHIVE:
            _check_archive(file, path.stat().st_size)
            return
        file.seek(0)
        for _ in range(PICKLES):
            _check_pickle(file)


def _check_archive(file: IO[bytes], size: int) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            if sum(info.file_size for info in archive.infolist()) > MOST_UNPACKED * size:
                raise Hazard(f"it unpacks to more than {MOST_UNPACKED} times its size")
            for name in archive.namelist():
                if name.endswith("data.pkl"):
                    _check_pickle(BytesIO(archive.read(name)))
    except (zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(str(error)) from error


def _check_pickle(file: IO[bytes]) -> None:
    """Goes through a pickle's operations with the sizes of tuples for what they stack up; everything else is of 1."""
    stack: list[int | None] = []
    memo: dict[int, int] = {}
    argument: Any
    for operation, argument, _ in pickletools.genops(file):
        if operation.name == "GLOBAL" and not HARMLESS.fullmatch(argument):
            raise Hazard(f"GLOBAL {argument.replace(' ', '.')}")
        if operation.name in {"BINPUT", "LONG_BINPUT"}:
            memo[argument] = stack[-1] or 1
            continue
        taken = _take(stack, operation.stack_before)
        if operation.name in {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}:
            size = 1 + sum(taken)
            stack.append(size)
            if size > LARGEST_TUPLE:
                raise Hazard(f"it holds a tuple of more than {LARGEST_TUPLE} elements")
        elif operation.name in {"BINGET", "LONG_BINGET"}:
            stack.append(memo[argument])
        else:
            stack += [None if kind is pickletools.markobject else 1 for kind in operation.stack_after]


def _take(stack: list[int | None], kinds: list[pickletools.StackObject]) -> list[int]:
    """Takes what an operation does, down to the last mark where it does so; gives the sizes."""
    taken = []
    if pickletools.markobject in kinds:
        while (size := stack.pop()) is not None:
            taken.append(size)
        kinds = kinds[: kinds.index(pickletools.markobject)]
    return taken + [stack.pop() or 1 for _ in kinds]
