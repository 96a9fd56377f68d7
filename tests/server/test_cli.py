"""The command line as a user meets it: real processes, real exit codes."""

import csv
import logging
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from started import Process

from lookup_tables.table import LookupTable, folder
from server.cli import COMMANDS, main

ENTRY = [sys.executable, "-m", "server"]
ENTRY_ALONE = """
import atexit, os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs tests in the background has it ignored
from server import __main__ as entry

assert "pydantic" not in sys.modules
atexit.register(print, "torn down")
entry.resolve_name = lambda _: lambda: {instead}
entry.main()
"""


@pytest.fixture
def started(start: Callable[..., Process], request: pytest.FixtureRequest) -> Process:
    return start(*request.param)


@pytest.mark.parametrize("started", [(), ("--frontends", "2")], indirect=True)
def test_sigterm_finishes_what_is_in_flight_and_exits_0(started: Process, sample: bytes) -> None:
    with socket.create_connection(("127.0.0.1", started.port)) as client:
        client.settimeout(60)
        head = (
            f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: {len(sample)}\r\n\r\n"
        )
        client.sendall(head.encode() + sample[:100])
        while httpx.get(f"{started.url}/status").json()["arriving"] != 1:
            pass
        started.send(signal.SIGTERM)
        while started.answers("/readyz"):
            pass
        client.sendall(sample[100:])
        assert client.recv(10_000).startswith(b"HTTP/1.1 200 ")
    assert started.exit_status() == 0
    said = re.findall("told to stop|refusing new requests, finishing 1|stopped", started.log.read_text())
    assert said == ["told to stop", "refusing new requests, finishing 1", "stopped"]


@pytest.mark.parametrize("started", [("--drain-delay-s", "300", "--body-timeout-s", "300")], indirect=True)
def test_while_draining_it_is_not_ready_but_serves_until_a_second_sigterm(started: Process, sample: bytes) -> None:
    with socket.create_connection(("127.0.0.1", started.port)) as client:
        client.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: 9\r\n\r\n")
        while httpx.get(f"{started.url}/status").json()["arriving"] != 1:
            pass
        started.send(signal.SIGTERM)
        while started.answers("/readyz"):
            pass
        assert started.answers("/livez")
        assert httpx.post(f"{started.url}/classify", content=sample, timeout=60).status_code == 200
        assert started.stop() == 0  # at once, whatever is in flight
    assert "leaving at once, with 1 requests unanswered" in started.log.read_text()
    assert "Traceback" not in started.log.read_text()


@pytest.mark.parametrize("started", [("--drain-timeout-s", "1", "--body-timeout-s", "300")], indirect=True)
def test_what_is_not_done_when_the_time_to_drain_is_over_is_refused(started: Process) -> None:
    with socket.create_connection(("127.0.0.1", started.port), timeout=60) as client:
        client.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: 9\r\n\r\n")
        while httpx.get(f"{started.url}/status").json()["arriving"] != 1:
            pass
        assert started.stop() == 0
        answer = client.recv(10_000)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"the server stopped before it could answer" in answer
    said = started.log.read_text()
    assert "Cancel 1 running task(s)" in said
    assert "Traceback" not in said
    assert "CancelledError" not in said


def test_a_taken_port_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = refusal("serve", "--port", port, "--cache", str(tmp_path), "--profile-s", "300")
    assert f"port {port}" in said
    assert "another --port" in said
    assert "profiling" not in said


def test_sigterm_while_it_starts_ends_it_at_once_with_0(cache: Path) -> None:
    environment = os.environ | {"STITCHSERVE_CACHE": str(cache / "none")}
    command = [*ENTRY, "serve", "--port", "0", "--profile-s", "300"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        assert any("profiling" in line for line in process.stderr)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert "Traceback" not in process.stderr.read()


def enter(command: str, instead: str) -> subprocess.CompletedProcess[str]:
    """The process's entry, with `instead` for the command line."""
    arguments = [sys.executable, "-c", ENTRY_ALONE.format(instead=instead), command]
    return subprocess.run(arguments, check=False, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(("command", "code"), [("serve", 0), ("train", -signal.SIGTERM)])
def test_serve_heeds_sigterm_before_it_has_loaded(command: str, code: int) -> None:
    assert enter(command, "os.kill(os.getpid(), signal.SIGTERM)").returncode == code


@pytest.mark.parametrize("command", ["serve", "train"])
def test_ctrl_c_before_it_has_loaded_ends_it_without_a_traceback(command: str) -> None:
    done = enter(command, "os.kill(os.getpid(), signal.SIGINT)")
    assert (done.returncode, done.stderr) == (130, "")


@pytest.mark.parametrize(("command", "said"), [("serve", "done\n"), ("train", "done\ntorn down\n")])
def test_serve_leaves_without_tearing_the_process_down(command: str, said: str) -> None:
    done = enter(command, "print('done')")
    assert (done.returncode, done.stdout) == (0, said)


def refusal(*arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [*ENTRY, *arguments], check=False, capture_output=True, text=True, env=os.environ | environment, timeout=120
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    return done.stderr


def test_bad_settings_stop_the_start_and_are_named() -> None:
    assert "--port" in refusal("serve", "--port", "99999")
    assert "STITCHSERVE_PROT sets nothing" in refusal("serve", STITCHSERVE_PROT="1")


def run_main(*arguments: str) -> int:
    try:
        main(list(arguments))
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture
def free_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STITCHSERVE_PORT", "0")


@pytest.mark.usefixtures("free_port")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("sreve",), "no command 'sreve'"),
        (("serve", "--family", "nothing"), "unknown family|no lookup table for family 'nothing'"),
        (("serve", "--family", "deit_ti_s_b"), "no weights ship with .* `stitchserve pull deit_ti_s_b`"),
        (("serve", "--family", "nowhere.toml"), "nowhere/family.json: no such file; `stitchserve build`"),
        (("serve", "--table", "nowhere"), "nowhere/family.json"),
        (("serve", "--device", "potato"), "potato"),
        (("serve", "--device", "potato", "--policy", "foo"), "policy: 'foo' is none of pace, .* or fixed:<stitch>"),
        (("serve", "--device", "potato", "--policy", "fixed:999"), "policy: digits has no stitch 999: ids go from 0"),
        (("train", "--family", "digits"), "--data"),
        (("evaluate", "--data", "digits"), "--table"),
        (("stitches", "--plot", "out.txt"), r"\.png"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run_main(*arguments) == 2
    assert re.search(says, capsys.readouterr().err)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(command, "--help") == 0
    assert f"usage: stitchserve {command}" in capsys.readouterr().out


def test_the_commands_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main() == 0
    out = capsys.readouterr().out
    assert all(command in out for command in COMMANDS)


def test_variables_of_other_programs_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAMILY", "nothing")
    monkeypatch.setenv("TABLE", "/nowhere")
    assert run_main("stitches", "--frontier") == 0


def test_stitches_lists_and_draws(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run_main("stitches", "--family", "deit_ti_s_b") == 0
    assert "deit_ti[0:4]>deit_s[4:12]" in capsys.readouterr().out
    out = tmp_path / "out.png"
    assert run_main("stitches", "--family", "deit_ti_s_b", "--plot", str(out)) == 0
    assert out.read_bytes().startswith(b"\x89PNG")


def test_profile_measures_every_stitch_when_asked(tmp_path: Path) -> None:
    options = ["--stitches", "all", "--max-batch", "1", "--rounds", "3", "--out", str(tmp_path)]
    assert run_main("profile", *options) == 0
    table = LookupTable.load(folder("digits"), next(tmp_path.glob("latency.*.csv")))
    assert table.latency
    assert len(table.latency.stitches) == len(table.entries)


def test_profile_writes_a_latency_file_that_stitches_shows(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run_main("profile", "--max-batch", "2", "--rounds", "3", "--time-limit-s", "1", "--out", str(tmp_path)) == 0
    (written,) = tmp_path.glob("latency.*.csv")
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in said[:2]] == ["prediction_checked", "prediction_error_median"]
    assert said[-1] == str(written)
    assert run_main("stitches", "--latency", str(written)) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.lstrip()[:1].isdigit()]
    assert len(rows) == 47
    assert all(float(row.split()[4]) > 0 for row in rows)


def test_profile_keeps_to_its_time_limit_and_says_so(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO)
    assert run_main("profile", "--rounds", "3", "--time-limit-s", "0.001", "--out", str(tmp_path)) == 0
    assert re.search("batches of 1, for about 0 s at most", caplog.text)
    (written,) = tmp_path.glob("latency.*.csv")
    lines = [line for line in written.read_text().splitlines() if not line.startswith("#")]
    assert {row["batch"] for row in csv.DictReader(lines)} == {"1"}
    caplog.clear()
    assert run_main("profile", "--rounds", "3", "--time-limit-s", "0", "--max-batch", "1", "--out", str(tmp_path)) == 0
    assert re.search("batches of 1, without a time limit", caplog.text)


def test_profile_has_a_time_limit_unless_told_otherwise(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main("profile", "--help") == 0
    assert re.search(r"--time-limit-s.*0: no limit\s+\(default: 600\.0\)", capsys.readouterr().out, re.DOTALL)


def test_who_has_seen_enough_of_the_output_gets_no_error() -> None:
    command = [*ENTRY, "stitches", "--family", "deit_ti_s_b_all"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.read(1)
        process.stdout.close()
        assert (process.stderr.read(), process.wait(60)) == (b"", 0)
