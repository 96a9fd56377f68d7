"""`stitchserve bench` as a user meets it: against the server, against another one, and with what may be wrong."""

import asyncio
import re
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from tiny_server import Received, serving

from server.benching import SAMPLES, Bench, asked, serial_capacity
from server.cli import main
from server.replay.report import Report, read_json
from server.schemas import Stitches, StitchListed

REFUSED_EVERY = 4


BODIES: list[bytes] = []
"""What the peer was sent."""


@pytest.fixture(scope="module")
def peer() -> Iterator[str]:
    """A server, in a thread, that knows nothing of stitches and refuses every fourth request."""
    up: Future[str] = Future()
    stop: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def answer(request: Received) -> tuple[int, bytes]:
        BODIES.append(request.body)
        return (503, b"busy") if len(BODIES) % REFUSED_EVERY == 0 else (201, b"a cat")

    async def live() -> None:
        done = asyncio.Event()
        stop.set_result((asyncio.get_running_loop(), done))
        async with serving(answer) as url:
            up.set_result(str(url / "predict"))
            await done.wait()

    thread = threading.Thread(target=asyncio.run, args=(live(),))
    thread.start()
    yield up.result(60)
    loop, done = stop.result()
    loop.call_soon_threadsafe(done.set)
    thread.join(60)
    assert not thread.is_alive()


def bench(*arguments: str) -> int:
    try:
        main(["bench", *arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def benched(out: Path, *arguments: str) -> tuple[Report, ...]:
    assert bench(*arguments, "--json", str(out)) == 0
    return read_json(out)


PEER = ("--peer", "--capacity", "100", "--slo-ms", "60000", "--seconds", "1", "--trace", "constant:load=0.4")


def test_our_server_tells_stitch_and_accuracy(running: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (only,) = benched(
        tmp_path / "out.json",
        running.url,
        *("--trace", "constant:load=0.4", "--capacity", "50", "--seconds", "1", "--budget", "10MFLOPs,60s"),
        *("--csv", str(tmp_path / "out.csv"), "--plot", str(tmp_path / "out.png")),
    )
    assert only.name == running.service.controller.policy.name
    assert only.trace == "constant:load=0.4"
    assert only.summary.requests == 20
    assert only.summary.attainment == 1
    allowed = [e for e in running.service.table.entries if e.flops <= 10e6]
    assert min(e.top1 for e in allowed) <= (only.summary.top1 or 0) <= max(e.top1 for e in allowed)
    assert 0 < (only.series[0].flops or 0) <= 10e6
    assert only.details["slo_ms"] == 60_000
    assert only.details["capacity"] == 50
    assert {"generator_late_p99_ms", "generator_busy"} <= set(only.details)
    assert "constant:load=0.4" in capsys.readouterr().out
    assert (tmp_path / "out.csv").read_text().startswith("name,trace,second,")
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_our_server_tells_its_capacity_and_its_slo(running: Any, tmp_path: Path) -> None:
    seconds = 20 * min(running.service.table.seconds(e.stitch) for e in running.service.table.entries)
    (only,) = benched(tmp_path / "out.json", running.url, "--trace", "constant:load=0.5", "--seconds", str(seconds))
    assert only.summary.requests == pytest.approx(10, abs=1)
    assert only.details["slo_ms"] == 60_000


def test_a_peer_is_judged_by_status_and_latency_alone(peer: str, tmp_path: Path) -> None:
    (only,) = benched(tmp_path / "out.json", peer, *PEER, "--top1", "0.8")
    assert only.name == re.sub("http://|/predict", "", peer)
    assert only.summary.unanswered == {"503": 10}
    assert only.summary.attainment == 0.75
    assert only.summary.top1 == pytest.approx(0.8)
    assert only.summary.effective == pytest.approx(0.6)


def test_several_traces_and_earlier_runs_stand_side_by_side(
    peer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = benched(tmp_path / "a.json", peer, *PEER, "--name", "before")
    both = ("--trace", "constant:load=0.1 poisson:load=0.2", "--name", "after", "--beside", str(tmp_path / "a.json"))
    together = benched(tmp_path / "b.json", peer, *PEER[:-2], *both)
    assert together[:1] == before
    assert [(each.name, each.trace) for each in together[1:]] == [
        ("after", "constant:load=0.1"),
        ("after", "poisson:load=0.2"),
    ]
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[-3:]] == ["before", "after", "after"]


def test_a_peer_whose_answers_worth_is_not_known_has_no_accuracy(peer: str, tmp_path: Path) -> None:
    (only,) = benched(tmp_path / "out.json", peer, *PEER)
    assert (only.summary.top1, only.summary.effective) == (None, None)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--peer",), "give --capacity and --slo-ms"),
        ((*PEER, "--budget", "15ms"), "leave it out with --peer"),
        ((*PEER, "--trace", "nothing"), "trace 'nothing'"),
        ((*PEER, "--image", "{tmp}"), "no files in it"),
        ((*PEER, "--image", "{tmp}/none.jpg"), r"none\.jpg"),
        ((*PEER, "--header", "nothing"), "'Name: value'"),
        ((*PEER, "--plot", "out.pdf"), r"must end in \.png"),
        ((*PEER, "--beside", "{tmp}/none.json"), r"none\.json"),
        ((*PEER, "--top1", "82"), "--top1"),
        ((), "is it stitchserve"),
        (("--top1", "0.8"), "--top1 is for --peer"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_sent(
    peer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str
) -> None:
    assert bench(peer, *(each.replace("{tmp}", str(tmp_path)) for each in arguments)) == 2
    assert re.search(says, capsys.readouterr().err)


@pytest.mark.parametrize("arguments", [("--budget", "much"), ("--budget", "15ms,20ms")])
def test_a_budget_that_does_not_parse_is_refused(
    running: Any, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    assert bench(running.url, *arguments) == 2
    assert "--budget: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("budget", "slo_ms", "sent", "deadline"),
    [
        (None, None, None, 0.05),
        ("2GFLOPs", None, "2GFLOPs", 0.05),
        ("2GFLOPs,15ms", None, "2GFLOPs,15ms", 0.015),
        (None, 20.0, "20.0ms", 0.02),
        ("2GFLOPs", 20.0, "2GFLOPs,20.0ms", 0.02),
        ("15ms", 20.0, "15ms", 0.02),
    ],
)
def test_the_deadline_is_that_of_the_slo_else_the_budget_else_the_server(
    budget: str | None, slo_ms: float | None, sent: str | None, deadline: float
) -> None:
    to_send, to_judge = asked(budget, slo_ms, server_ms=50)
    assert to_send == sent
    assert to_judge == pytest.approx(deadline)


def listed(*latencies: float | None) -> Stitches:
    rows = [
        StitchListed(id=i, name="a", flops=1, top1=None, params=1, latency_ms=ms, anchor=True, frontier=True)
        for i, ms in enumerate(latencies)
    ]
    return Stitches(model="m", device="d", top1_source="s", flops_convention="c", stitches=rows)


def test_the_capacity_is_the_cheapest_stitchs_and_must_be_known() -> None:
    assert serial_capacity(listed(8.0, 4.0, None)) == pytest.approx(250)
    with pytest.raises(ValueError, match="--capacity"):
        serial_capacity(listed(None))


@pytest.mark.parametrize(("slo_ms", "given", "timeout"), [(50, None, 10), (60_000, None, 120), (60_000, 3.0, 3)])
def test_an_answer_within_the_deadline_is_waited_for(slo_ms: float, given: float | None, timeout: float) -> None:
    asks = Bench(url="http://x", peer=True, capacity=1, slo_ms=slo_ms, timeout_s=given)
    assert asks._peer().target.timeout == timeout


def test_images_are_sent_in_turn_and_samples_where_none_are_given(peer: str, tmp_path: Path) -> None:
    samples = [path.read_bytes() for path in sorted(SAMPLES.glob("*.jpg"))]
    for name in ("b.png", "a.png"):
        (tmp_path / name).write_text(name)
    BODIES.clear()
    assert bench(peer, *PEER) == 0
    assert sorted(BODIES[1:]) == sorted(2 * samples)  # the first was the check before the replay
    BODIES.clear()
    assert bench(peer, *PEER, "--image", str(tmp_path), "--image", str(tmp_path / "a.png")) == 0
    assert sorted(BODIES[1:]) == [b"a.png"] * 27 + [b"b.png"] * 13
