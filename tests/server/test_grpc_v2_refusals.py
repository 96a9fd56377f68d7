"""What is refused over gRPC, when, and how that is told; how the server stops."""

import json
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from conftest import Running, settings
from over_grpc import INFER, Both, Refusal, both, files, grpc, message, pb, port, triton
from over_v2 import FILES
from stage import Gated, Stage, staged
from started import Process

from server.cli import OPTIONAL
from server.listening import bound, listen
from server.serve import others
from server.settings import Settings
from server.tenants import digest

Code = grpc.StatusCode


@pytest.fixture
def stage(cache: Path, running: Running) -> Iterator[tuple[Stage, Both]]:
    with port() as (beside, address):
        for stage in staged(Gated, settings(cache, max_queue=2, max_batch=1), running, beside):
            yield stage, Both(stage.running, address)


def test_a_message_that_is_too_large_is_refused(cache: Path) -> None:
    with both(cache, max_form_bytes=1000, max_bytes=1000) as served:
        refused = served.raw(bytes(1001))
        assert refused.code() is Code.RESOURCE_EXHAUSTED
        assert "larger than max" in refused.details()
        large = message(contents={"bytes_contents": [bytes(900)]})
        assert served.raw(large.SerializeToString()).code() is Code.INVALID_ARGUMENT
        with grpc.insecure_channel(served.address) as channel, pytest.raises(grpc.RpcError) as refusal:
            channel.stream_unary(INFER)(iter(()))
        assert "ended before its message" in refusal.value.details()
        assert served.counted("ModelInfer", 500) == 0


def test_a_message_that_does_not_come_is_not_waited_for(cache: Path) -> None:
    done = threading.Event()

    def never() -> Iterator[bytes]:
        assert done.wait(60)
        yield b""

    with both(cache, body_timeout_s=0.01) as served, grpc.insecure_channel(served.address) as channel:
        with pytest.raises(grpc.RpcError) as refusal:
            channel.stream_unary(INFER)(never())
        done.set()
        assert refusal.value.code() is Code.DEADLINE_EXCEEDED
        assert "did not arrive within" in refusal.value.details()


def test_keys_and_rates_are_those_of_http(cache: Path, tmp_path: Path) -> None:
    tenants = tmp_path / "tenants.toml"
    listed = f'[[tenants]]\nname = "us"\nkey_sha256 = "{digest("right")}"\nmin_top1 = 90\nrate = 1e-6\nburst = 4\n'
    tenants.write_text(listed)
    with both(cache, tenants=tenants, anonymous_rate=1e-6, anonymous_burst=1) as served:
        flops = min(entry.flops for entry in served.running.service.table.entries)
        asked = message()
        asked.model_name = "auto"
        cheapest, body = f"auto@{flops}FLOPs", asked.SerializeToString()
        for header in ({"authorization": "Bearer wrong"}, {"x-api-key": "wrong"}):
            with pytest.raises(Refusal, match="not known") as refusal:
                served.client.infer("auto", files(), headers=header)
            assert refusal.value.status() == "StatusCode.UNAUTHENTICATED"
        with pytest.raises(Refusal, match="no stitch meets"):  # for its least top-1
            served.client.infer(cheapest, files(), headers={"authorization": "Bearer right"})
        assert isinstance(served.raw(body, metadata=[("x-api-key", "right")]), bytes)
        with pytest.raises(Refusal, match="come back later") as refusal:
            served.client.infer("auto", files(), headers={"x-api-key": "right"})
        assert refusal.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
        assert isinstance(served.raw(body), bytes), "without a key it counts by address"
        refused = served.raw(body)
        trailing = dict(refused.trailing_metadata())
        assert refused.code() is Code.RESOURCE_EXHAUSTED
        assert int(trailing["retry-after"]) * 1000 == int(trailing["grpc-retry-pushback-ms"]) > 1000
        assert (trailing["x-ratelimit-limit"], trailing["x-ratelimit-remaining"]) == ("1", "0")
        assert httpx.get(f"{served.running.url}/explain").status_code == 429, "the same bucket as over HTTP"


def test_overload_is_unavailable_with_a_time_to_come_back(stage: tuple[Stage, Both]) -> None:
    stood, served = stage
    limiter = stood.running.service.limiter
    limiter.inside += 2
    refused = served.raw(b"of which nothing is read")
    limiter.inside -= 2
    trailing = dict(refused.trailing_metadata())
    assert (refused.code(), int(trailing["retry-after"])) == (Code.UNAVAILABLE, 1)
    assert json.loads(trailing["problem"])["status"] == 503
    assert served.counted("ModelInfer", 503) == 1


def test_a_deadline_is_that_of_the_request_or_of_the_rpc(stage: tuple[Stage, Both]) -> None:
    stood, served = stage
    first = stood.occupy(FILES[0])
    body = message().SerializeToString()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(served.raw, body, timeout=50)
        stood.until(lambda: stood.running.service.batcher.queued == 1)
        stood.clock.by += 55  # the server's SLO is 60 s
        stood.engine.gate.set()
        refused = waiting.result()
    assert first()[0] == 200
    assert refused.code() is Code.DEADLINE_EXCEEDED
    assert "the deadline of 5" in refused.details() or "the deadline of 49" in refused.details()
    assert served.counted("ModelInfer", 504) == 1
    late = message()
    late.parameters["timeout"].int64_param = 1
    assert served.raw(late.SerializeToString()).code() in {Code.DEADLINE_EXCEEDED, Code.INVALID_ARGUMENT}


def test_an_rpc_that_is_cancelled_is_not_run(stage: tuple[Stage, Both]) -> None:
    stood, served = stage
    first, batcher = stood.occupy(FILES[0]), stood.running.service.batcher
    with grpc.insecure_channel(served.address) as channel:
        call = channel.unary_unary(INFER).future(message().SerializeToString())
        stood.until(lambda: batcher.queued == 1)
        assert call.cancel()
        stood.until(lambda: served.counted("ModelInfer", 499) == 1)
    assert batcher.queued == 0
    stood.engine.gate.set()
    assert first()[0] == 200
    assert stood.engine.batches == [1], "the first one alone"
    assert stood.running.service.limiter.inside == 0


def test_a_fault_is_told_without_its_reason(cache: Path) -> None:
    with both(cache) as served:
        limiter = served.running.service.limiter
        del served.running.service.limiter  # so that the method fails
        refused = served.raw(b"")
        served.running.service.limiter = limiter
    assert (refused.code(), refused.details()) == (Code.INTERNAL, "the server failed to run this request")
    assert served.counted("ModelInfer", 500) == 1


def test_what_is_in_flight_is_answered_when_the_server_stops(stage: tuple[Stage, Both]) -> None:
    stood, served = stage
    service, client = stood.running.service, served.client
    stood.engine.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        inside = pool.submit(served.raw, message().SerializeToString())
        assert stood.engine.entered.wait(60)
        service.draining = True
        assert client.is_server_live()
        assert not client.is_server_ready()
        assert not client.is_model_ready("auto")
        assert {one.state for one in client.get_model_repository_index().models} == {"UNAVAILABLE"}
        service.refusing = True
        with pytest.raises(Refusal, match="another replica") as refusal:
            client.infer("auto", files(FILES[0]))
        assert refusal.value.status() == "StatusCode.UNAVAILABLE"
        stood.running.server.should_exit = True
        stood.until(lambda: refused_by_all(served))
        stood.engine.gate.set()
        assert pb.ModelInferResponse.FromString(inside.result()).id == "mine"


def refused_by_all(served: Both) -> bool:
    """Whether no RPC begins any more."""
    refused = served.raw(b"")
    return "another replica" not in str(refused.details())


def test_sigterm_ends_a_process_that_answers_rpcs(start: Callable[..., Process]) -> None:
    process = start("--grpc-port", "0")
    address = process.log.read_text().partition("serving gRPC on ")[2].split()[0]
    client = triton.InferenceServerClient(address)
    assert client.infer("auto@5", files(FILES[0])).as_numpy("stitch").tolist() == [5]
    assert process.stop() == 0
    assert "Traceback" not in process.log.read_text()


def test_it_speaks_tls_where_http_does(cache: Path, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    with both(cache, tls_cert=cert, tls_key=key) as served:
        with triton.InferenceServerClient(served.address, ssl=True, root_certificates=str(cert)) as client:
            assert client.infer("auto@5", files(FILES[0])).as_numpy("stitch").tolist() == [5]
        assert served.raw(b"").code() is Code.UNAVAILABLE


def test_a_port_that_is_taken_is_refused_at_once() -> None:
    with bound("127.0.0.1", 0) as sockets:
        listen(sockets)
        taken = Settings(grpc_port=sockets[0].getsockname()[1])
        with pytest.raises(ValueError, match="another --grpc-port"), others(taken):
            pass


def test_without_the_extra_only_a_server_that_needs_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "server.grpc_v2", raising=False)
    monkeypatch.setitem(sys.modules, "grpc", None)
    with others(Settings()):
        assert "server.grpc_v2" not in sys.modules
    with pytest.raises(ModuleNotFoundError) as missing, others(Settings(grpc_port=0)):
        pass
    assert OPTIONAL[str(missing.value.name)] == "grpc"
