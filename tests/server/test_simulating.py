"""`stitchserve simulate`, from the command line to its files."""

import json
from pathlib import Path

import pytest

from lookup_tables.latency import Latency, Measurement
from lookup_tables.writer import write_latency
from server.cli import main


@pytest.fixture
def latency(tmp_path: Path) -> Path:
    """Made-up latencies of digits' anchors."""
    seconds = {(s, rows): 1e-3 + each * rows for s, each in enumerate((1e-4, 2e-4, 6e-4)) for rows in (1, 8, 32)}
    measurements = tuple(Measurement(s, rows, took, took, 10) for (s, rows), took in seconds.items())
    return write_latency(tmp_path, Latency("made-up", measurements))


def test_policies_are_compared_and_written(latency: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, picture = tmp_path / "out.json", tmp_path / "out.png"
    arguments = ["--trace", "gamma:cv2=4,load=0.5", "--seconds", "1", "--policy", "pace,cheapest,fixed:1"]
    main(["simulate", "--latency", str(latency), *arguments, "--json", str(out), "--plot", str(picture)])
    printed = capsys.readouterr()
    assert "requests/s, the SLO" in printed.err
    runs = json.loads(out.read_text())["runs"]
    assert [run["name"] for run in runs] == ["pace", "cheapest", "fixed:1"]
    pace, cheapest, _ = (run["summary"]["effective"] for run in runs)
    assert cheapest < pace <= runs[0]["details"]["fluid_bound"]
    assert f"{100 * runs[0]['details']['fluid_bound']:.2f}" in printed.out
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--policy", "greedy"], "greedy"),
        (["--trace", "gamma:load=2"], "cv2"),
        (["--noise", "2,1"], "noise"),
        (["--plot", "out.pdf"], "out.pdf"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    arguments: list[str], says: str, latency: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["simulate", "--latency", str(latency), "--seconds", "1", *arguments])
    assert left.value.code == 2
    assert says in capsys.readouterr().err


def test_more_than_can_get_to_the_queue_is_told(latency: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--trace", "constant:load=1", "--capacity", "500", "--seconds", "1", "--policy", "pace"]
    main(["simulate", "--latency", str(latency), *arguments, "--front-ms", "1"])
    assert "get past" not in capsys.readouterr().err
    main(["simulate", "--latency", str(latency), *arguments, "--front-ms", "4"])
    printed = capsys.readouterr()
    assert "500.0 requests/s, of which at most 250.0 get past --front-ms" in printed.err
    in_time = float(printed.out.splitlines()[1].split()[3])
    assert 30 < in_time < 55, "the rest is refused in time"


def test_without_a_latency_file_the_remedy_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["simulate", "--family", "swin_ti_s_b"])
    assert "stitchserve profile" in capsys.readouterr().err
