"""`stitchserve doctor` on the shipped network."""

import json
from pathlib import Path

import pytest
import torch

from lookup_tables.latency import Latency, Measurement
from lookup_tables.table import LookupTable, folder
from lookup_tables.writer import write_latency
from server.cli import main
from server.doctor import Doctor
from server.engine import Engine
from server.latencies import kept_path


def test_it_tells_what_would_serve_here_and_how_fast(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "--json", "--device", "cpu", "--dtype", "float32", "--cache", str(tmp_path)])
    found = json.loads(capsys.readouterr().out)
    assert (found["family"], found["stitches"], found["dtype"]) == ("digits", 47, "float32")
    assert found["latencies"] is None
    assert any("no latency table" in limit for limit in found["limits"])
    assert found["cores"]["threads"] == torch.get_num_threads()
    assert {speed["batch"] for speed in found["speeds"]} == {1, 8}
    assert all(speed["ms"] > 0 and speed["share_of_products"] > 0 for speed in found["speeds"])
    # Two operations to each of the FLOPs in the table.
    entry = LookupTable.load(folder("digits")).entry(found["speeds"][0]["stitch"])
    speed = found["speeds"][0]
    rate = 2 * entry.flops * speed["images_per_second"] / 1e9
    assert speed["share_of_products"] == pytest.approx(rate / found["product_gflops"])


def test_latencies_measured_earlier_are_found_and_their_format_compared(tmp_path: Path) -> None:
    engine = Engine.load("digits", None, "cpu", threads=1, dtype="float32")
    kept = kept_path(engine, LookupTable.load(folder("digits")), tmp_path)
    kept.parent.mkdir(parents=True)
    measured = (Measurement(0, 1, 0.001, 0.002, 3), Measurement(2, 1, 0.004, 0.005, 3))
    write_latency(kept.parent, Latency(engine.device_slug, measured, {"dtype": "bfloat16"}))
    found = Doctor(device="cpu", threads=1, dtype="float32", cache=tmp_path).diagnosis()
    assert found.latencies == str(kept)
    assert any("measured in bfloat16, not float32" in limit for limit in found.limits)
    assert str(kept) in found.text()
