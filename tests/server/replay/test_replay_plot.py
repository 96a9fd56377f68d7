"""The picture shows every run over every trace."""

from pathlib import Path
from xml.etree import ElementTree

import matplotlib.image
import pytest

from server.replay.plot import plot
from server.replay.report import Outcome, Report, report


def made(name: str, trace: str, top1: float | None = 0.8, flops: float | None = 2e9) -> Report:
    answered = [Outcome(i / 10, 0.01, 0.05, 1, top1, flops=flops) for i in range(40)]
    return report(name, trace, [*answered, Outcome(1.5, None, 0.05, status="503")], seconds=6)


RUNS = [made(name, trace) for name in ("ours", "slackfit") for trace in ("ramp:to=0.8,tau=250", "$odd_{name$")]


def svg(reports: list[Report], out: Path) -> str:
    plot(reports, out)
    assert ElementTree.parse(out).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    return out.read_text(encoding="utf-8")


def test_a_png_is_an_image_with_something_on_it(tmp_path: Path) -> None:
    plot(RUNS, tmp_path / "out.png")
    pixels = matplotlib.image.imread(tmp_path / "out.png")
    assert pixels.shape[:2] == (1050, 2100)
    assert 0.01 < (pixels[..., :3].min(axis=-1) < 0.9).mean() < 0.5


def test_traces_runs_and_axes_are_named(tmp_path: Path) -> None:
    text = svg(RUNS, tmp_path / "out.svg")
    for words in ("ramp:to=0.8,tau=250", "$odd_{name$", "ours", "slackfit", "requests/s", "misses/s"):
        assert f"<!-- {words} -->" in text
    assert "<!-- mean top-1 in time (%) -->" in text


def test_the_level_is_flops_where_no_accuracy_is_known(tmp_path: Path) -> None:
    assert "<!-- mean GFLOPs in time -->" in svg([made("ours", "day", top1=None)], tmp_path / "out.svg")


def test_a_peer_of_which_neither_is_known_is_drawn_too(tmp_path: Path) -> None:
    svg([made("peer", "day", top1=None, flops=None)], tmp_path / "out.svg")


def test_another_suffix_and_no_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in \.png or \.svg"):
        plot(RUNS, tmp_path / "out.pdf")
    with pytest.raises(ValueError, match="no replay"):
        plot([], tmp_path / "out.png")
    assert not list(tmp_path.iterdir())
