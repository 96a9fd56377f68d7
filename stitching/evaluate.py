"""Top-1 of every stitch, one JSON line each, resumable."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from stitching.data import Data
from stitching.model import SNNet
from stitching.stitch import Stitch


@torch.inference_mode()
def evaluate(
    model: SNNet, data: Data, stitches: Sequence[Stitch], *, split: str, journal: Path, weights: str, batch: int = 250
) -> tuple[dict[int, float], int]:
    """Top-1 as a fraction by stitch id, and the number of images it was measured on.

    Each result is appended to `journal` as it comes; a later call with the same journal does only what is missing.
    `weights` identifies what is measured (a sha256): ValueError if the journal belongs to something else.
    """
    heading = {"family": model.family.name, "weights": weights, "split": split}
    done, images = _read(journal, heading)
    device = next(model.parameters()).device
    missing = [stitch for stitch in stitches if stitch.id not in done]
    for stitch in tqdm(missing, unit="stitch", initial=len(stitches) - len(missing), total=len(stitches)):
        right = images = 0
        for inputs, labels in data.held_out(split, batch):
            right += int((model(inputs.to(device), stitch).argmax(dim=1).cpu() == labels).sum())
            images += len(labels)
        done[stitch.id] = right / images
        with journal.open("a") as file:
            file.write(json.dumps({"stitch": stitch.id, "top1": done[stitch.id], "images": images}) + "\n")
    return {stitch.id: done[stitch.id] for stitch in stitches}, images


def _read(journal: Path, heading: dict[str, str]) -> tuple[dict[int, float], int]:
    """What an earlier call left: results by stitch id and the number of images; starts the journal if there is none."""
    journal.parent.mkdir(parents=True, exist_ok=True)
    text = journal.read_text() if journal.exists() else ""
    # A last line without its end is a write that was cut off: measure that stitch again.
    whole = text[: text.rfind("\n") + 1] or json.dumps(heading) + "\n"
    if whole != text:
        journal.write_text(whole)
    first, *rows = [json.loads(line) for line in whole.splitlines()]
    if first != heading:
        raise ValueError(f"{journal} holds results of {first}, not of {heading}; remove it or choose another")
    return {row["stitch"]: row["top1"] for row in rows}, rows[-1]["images"] if rows else 0
