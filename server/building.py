"""`stitchserve build`: a new SN-Net from trained anchors and some images, without any training."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import CliPositionalArg
from tqdm import tqdm

from lookup_tables.records import Checkpoint, Top1Source
from server.counting import measured_on, write_table
from stitching.checkpoint import load_anchors, save
from stitching.data import Data, has_classes, open_data, sample
from stitching.evaluate import evaluate
from stitching.families import beside, family
from stitching.fitting import check_joins
from stitching.least_squares import initialise
from stitching.model import SNNet
from stitching.stitch import Stitch

BATCH = 100
"""Images at a time, as many as the papers solve from in all."""


class Build(BaseModel):
    """Join trained anchors into an SN-Net by least squares, and measure it where the images have labels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: CliPositionalArg[str] = Field(description="family to build, or the .toml or .json file that describes it")
    data: str = Field(description="folder of images, in <split>/<class>/* where there are labels; or 'digits'")
    anchors: tuple[Path, ...] = Field((), description="one checkpoint per anchor; none: timm's pretrained ones")
    images: int = Field(500, ge=1, description="how many images to solve from")
    split: str = Field("val", description="which part of the data to measure top-1 on")
    out: Path | None = Field(None, description="file for the weights; none: FAMILY.safetensors")
    table: Path | None = Field(None, description="folder for the lookup table; none: FAMILY")
    seed: int = Field(0, ge=0, description="of the choice of images")

    def cli_cmd(self) -> None:
        """Join, save, measure, and say where."""
        named = family(self.family)
        model = SNNet(named).eval()
        check_joins(model)
        load_anchors(model, self.anchors, new_heads=False)
        stem = beside(self.family) or Path(named.name)
        out = self.out or stem.with_name(stem.name + ".safetensors")
        labelled = has_classes(self.data, named)
        data = open_data(self.data, named) if labelled else None
        size = min(BATCH, self.images)
        batches = sample(self.data, named, self.images, size, self.seed)
        initialise(model, tqdm(batches, desc="images", unit=f"x{size}", total=-(-self.images // size), disable=None))
        checkpoint = Checkpoint(out.name, save(model, out))
        top1, source = self._measure(model, data, checkpoint, self.table or stem)
        labels = data.labels if data else [str(number) for number in range(named.classes)]
        table = write_table(self.table or stem, model, top1=top1, source=source, labels=labels, checkpoint=checkpoint)
        print(f"{out}\n{table}\nserve it: stitchserve serve --family {self.family} --checkpoint {out} --table {table}")

    def _measure(
        self, model: SNNet, data: Data | None, checkpoint: Checkpoint, folder: Path
    ) -> tuple[dict[int, float], Top1Source]:
        if data is None:
            return {}, Top1Source("not measured: the images it was built from have no labels")
        stitches: Sequence[Stitch] = [stitch for stitch in model.stitches if stitch.is_whole]
        journal = folder / f"evaluation.{str(checkpoint.sha256)[:12]}.jsonl"
        top1, images = evaluate(
            model, data, stitches, split=self.split, journal=journal, weights=str(checkpoint.sha256)
        )
        journal.unlink()  # what it holds goes into the table
        return top1, measured_on(images, self.split, self.data)
