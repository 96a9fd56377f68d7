"""`stitchserve evaluate`: measures top-1 of every stitch and writes the family's lookup table."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from lookup_tables.records import Checkpoint
from server.counting import measured_on, write_table
from server.device import pick_device
from stitching.checkpoint import load, sha256, shipped
from stitching.data import open_data
from stitching.drawing import drawable
from stitching.evaluate import evaluate
from stitching.families import beside


class Evaluate(BaseModel):
    """Measure top-1 of every stitch and write the lookup table. Run again, it goes on where it stopped."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str = Field("digits", description="family to measure")
    checkpoint: Path | None = Field(None, description="its weights; none: those that ship with the family")
    data: str = Field(description="folder with <split>/<class>/*, or the built-in task 'digits'")
    split: str = Field("val", description="which part of the data to measure on")
    stitches: str = Field("all", description="all, anchors, or ids such as 0,2,5; the others get no top-1")
    table: Path | None = Field(None, description="folder for the lookup table; none: the one beside the family's file")
    journal: Path | None = Field(None, description="file with one line per result; none: in the table's folder")
    device: str = Field("auto", description="cpu, cuda, cuda:1; auto takes CUDA where there is one")
    batch: int = Field(250, ge=1, description="images at a time")

    def cli_cmd(self) -> None:
        """Measure, write, and say where."""
        table = self.table or beside(self.family)
        if table is None:
            raise ValueError(f"--table: give a folder for the lookup table of {self.family!r}")
        path = self.checkpoint or shipped(self.family)
        model = load(self.family, self.checkpoint, pick_device(self.device))
        data = open_data(self.data, model.family)
        weights = sha256(path)
        journal = self.journal or table / "evaluation.jsonl"
        chosen = tuple(dict.fromkeys(drawable(model, self.stitches)))
        top1, images = evaluate(
            model, data, chosen, split=self.split, journal=journal, weights=weights, batch=self.batch
        )
        source = measured_on(images, self.split, self.data)
        checkpoint = Checkpoint(path.name, weights)
        print(write_table(table, model, top1=top1, source=source, labels=data.labels, checkpoint=checkpoint))
