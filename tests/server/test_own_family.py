"""docs/families.md, word for word: its family, and its commands with fewer steps, from first to last."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from conftest import run, settings
from PIL import Image

import stitching
from lookup_tables.table import LookupTable
from server.cli import main
from server.service import build
from stitching.families import Family, family

TEXT = (Path(__file__).parents[2] / "docs" / "families.md").read_text(encoding="utf-8")
EXAMPLE = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)[0]
COMMANDS = re.findall(r"^stitchserve (.*)$", TEXT, re.MULTILINE)
FEWER = {
    "train": ["--steps", "2", "--batch", "4", "--warmup", "0", "--init-images", "4"],
    "build": ["--images", "6"],
    "profile": ["--rounds", "3", "--max-batch", "2"],
    "evaluate": [],
}
COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Family:
    """The family's file and pictures in the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("pets.toml").write_text(EXAMPLE, encoding="utf-8")
    for split in ("train", "val"):
        for name, colour in COLOURS.items():
            folder = Path("photos", split, name)
            folder.mkdir(parents=True)
            for number in range(3):
                Image.new("RGB", (80, 60), tuple(c + 5 * number for c in colour)).save(folder / f"{number}.png")
    return family("pets.toml")


def shortened(command: str) -> list[str]:
    """A command of the text with little to do, and nothing to download."""
    name, *options = shlex.split(command)
    if "--steps" in options:
        at = options.index("--steps")
        del options[at : at + 2]
    return [name, *(option for option in options if option != "--pretrained"), *FEWER[name]]


def served(command: str, cache: Path) -> Iterator[httpx.Client]:
    """A client of the server that a `serve` of the text starts."""
    _, *options = shlex.split(command)
    given = {name.removeprefix("--"): value for name, value in zip(options[::2], options[1::2], strict=True)}
    for running in run(build(settings(cache, profile_s=0.2, max_batch=2, **given))):
        with running.client() as client:
            yield client


def test_the_example_is_a_family_of_nine(example: Family) -> None:
    assert example.name == "pets"
    assert len(stitching.SNNet(example).stitches) == 9


def test_the_commands_lead_from_the_file_to_answers(example: Family, tmp_path: Path) -> None:
    names = [command.split()[0] for command in COMMANDS]
    assert names == ["train", "build", "serve", "train", "evaluate", "profile", "serve"]
    picture = Path("photos", "val", "red", "0.png").read_bytes()
    sources = set()
    for command in COMMANDS:
        if not command.startswith("serve"):
            main(shortened(command))
            continue
        table = LookupTable.load(Path("pets"))
        sources.add(table.family.checkpoint)
        dearest = max(table.entries, key=lambda entry: entry.flops)
        cheapest = min(table.entries, key=lambda entry: entry.flops)
        for client in served(command, tmp_path / "cache"):
            for budget in (f"{cheapest.flops}FLOPs", f"{dearest.flops}FLOPs", "50s"):
                answer = client.post("/classify", params={"budget": budget}, content=picture).raise_for_status().json()
                assert {each["label"] for each in answer["predictions"]} == set(COLOURS)
                assert answer["stitch"]["id"] in {entry.stitch for entry in table.frontier()}
    assert len(sources) == 2, "the second table is of the second checkpoint"
    assert list(Path("pets").glob("latency.*.csv"))
    assert not list(Path("pets").glob("evaluation.*.jsonl"))
