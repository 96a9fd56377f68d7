"""`stitchserve build`: from anchors and pictures to a network that is served."""

from itertools import product
from pathlib import Path

import pytest
import torch
from PIL import Image

from lookup_tables.table import LookupTable
from server.cli import main
from server.service import build
from server.settings import Settings
from stitching.anchors import build_anchor
from stitching.families import family

SAMPLES = Path(__file__).parents[2] / "checkpoints" / "samples"
FAMILY = """
name = "duo"
classes = {classes}
[[anchors]]
name = "narrow"
timm = "vit_tiny_patch16_224"
arguments = {{img_size = 64, patch_size = 16, embed_dim = 8, depth = 2, num_heads = 2}}
[[anchors]]
name = "wide"
timm = "vit_tiny_patch16_224"
arguments = {{img_size = 64, patch_size = 16, embed_dim = 16, depth = 2, num_heads = 2}}
[preprocessing]
size = 64
"""


def described(folder: Path, classes: int) -> tuple[Path, str]:
    """A family's file, and files of freshly made anchors."""
    path = folder / "duo.toml"
    path.write_text(FAMILY.format(classes=classes))
    files = []
    for index, spec in enumerate(family(str(path)).anchors):
        files.append(str(folder / f"{index}.pth"))
        torch.save(build_anchor(spec, classes, 0.0).net.state_dict(), files[-1])
    return path, ",".join(files)


def test_pictures_without_labels_make_a_network_without_top1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, anchors = described(tmp_path, classes=7)
    main(["build", str(path), "--data", str(SAMPLES), "--anchors", anchors, "--images", "12"])
    assert "serve it: stitchserve serve --family" in capsys.readouterr().out
    table = LookupTable.load(tmp_path / "duo")
    assert len(table.entries) == 6
    assert {entry.top1 for entry in table.entries} == {None}
    service = build(Settings(family=str(path), cache=tmp_path / "cache", max_batch=1, profile_s=0.1))
    assert service.table.family.name == "duo"


def labelled(root: Path) -> str:
    """A folder with eight pictures of two classes to learn from, and as many to measure with."""
    for split, label, number in product(("train", "val"), (0, 1), range(4)):
        folder = root / split / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), (50 * number, 200 * label, 9)).save(folder / f"{number}.png")
    return str(root)


def test_labelled_data_gives_top1(tmp_path: Path) -> None:
    path, anchors = described(tmp_path, classes=2)
    options = ["--out", str(tmp_path / "w.safetensors"), "--table", str(tmp_path / "t")]
    main(["build", str(path), "--data", labelled(tmp_path / "pictures"), "--anchors", anchors, *options])
    table = LookupTable.load(tmp_path / "t")
    assert all(entry.top1 is not None for entry in table.entries)
    assert table.family.top1.images == 8
    assert (tmp_path / "w.safetensors").is_file()


def test_building_again_from_other_pictures_measures_again(tmp_path: Path) -> None:
    path, anchors = described(tmp_path, classes=2)
    pictures = labelled(tmp_path / "pictures")
    tables = []
    for images in ("4", "8"):
        main(["build", str(path), "--data", pictures, "--anchors", anchors, "--images", images])
        tables.append(LookupTable.load(tmp_path / "duo"))
    first, second = (table.family.checkpoint for table in tables)
    assert first != second
    assert sorted(file.name for file in (tmp_path / "duo").iterdir()) == [
        "family.json",
        "labels.txt",
        "modules.csv",
        "stitches.csv",
    ]


def test_pretrained_anchors_for_other_classes_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, _ = described(tmp_path, classes=7)
    with pytest.raises(SystemExit):
        main(["build", str(path), "--data", str(SAMPLES)])
    error = capsys.readouterr().err
    assert "anchor 'narrow': timm's pretrained 'vit_tiny_patch16_224' answers 1000 classes, the family has 7" in error
    assert "--anchors" in error


def test_a_folder_without_pictures_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, anchors = described(tmp_path, classes=7)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit):
        main(["build", str(path), "--data", str(tmp_path / "empty"), "--anchors", anchors])
    assert "no image in it" in capsys.readouterr().err
