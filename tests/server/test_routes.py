"""The HTTP contract, over real HTTP against the shipped network."""

import asyncio
import io
import random
from typing import Any

import httpx
import pytest
from PIL import Image

from server.parameters import PARAMETERS

JPEG = {"content-type": "image/jpeg"}


def post(client: httpx.Client, body: bytes, query: str = "", headers: dict[str, str] | None = None) -> httpx.Response:
    return client.post(f"/classify?{query}", content=body, headers=JPEG if headers is None else headers)


def problem(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    content: dict[str, Any] = response.json()
    assert content["status"] == status
    assert {"type", "title", "detail"} <= content.keys()
    return content


def test_an_image_is_classified_within_its_budget(client: httpx.Client, sample: bytes) -> None:
    response = post(client, sample, "budget=20MFLOPs&top_k=3", JPEG | {"x-request-id": "mine-1"})
    assert response.status_code == 200
    answer = response.json()
    assert len(answer["predictions"]) == 3
    assert answer["stitch"]["flops"] <= 20e6
    assert answer["reason"] == "best stitch within 20 MFLOPs"
    assert answer["budget"] == {"max_flops": 20e6, "deadline_ms": 60_000.0, "min_top1": None, "met": True}
    assert set(answer["timing_ms"]) == {"decode", "queue", "compute", "total"}
    assert answer["timing_ms"]["total"] >= answer["timing_ms"]["compute"] > 0
    assert (answer["model"], answer["request_id"]) == ("digits", "mine-1")
    assert response.headers["x-stitch-id"] == str(answer["stitch"]["id"])
    assert response.headers["x-request-id"] == "mine-1"
    assert "compute;dur=" in response.headers["server-timing"]


def test_every_form_of_body_gives_the_same_answer(client: httpx.Client, sample: bytes) -> None:
    picture = ("7.jpg", sample, "image/jpeg")
    answers = [
        post(client, sample, "stitch=2"),
        post(client, sample, "stitch=2", {"content-type": "application/octet-stream"}),
        post(client, sample, "stitch=2", {"content-type": "application/x-www-form-urlencoded"}),
        post(client, sample, "stitch=2", {}),
        client.post("/classify?stitch=2", files={"image": picture}),
        client.post("/classify?stitch=2", files={"anything": ("x", sample)}, data={"comment": "hello"}),
    ]
    assert [a.status_code for a in answers] == [200] * 6
    assert len({str(a.json()["predictions"]) for a in answers}) == 1


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "BMP"])
def test_every_format_is_taken(client: httpx.Client, sample: bytes, kind: str) -> None:
    file = io.BytesIO()
    Image.open(io.BytesIO(sample)).save(file, kind)
    response = post(client, file.getvalue(), "stitch=2", {"content-type": f"image/{kind.lower()}"})
    assert response.status_code == 200
    assert response.json()["stitch"]["id"] == 2


def test_plain_numbers_and_terms_are_the_same_budget(client: httpx.Client, sample: bytes) -> None:
    for query in ("budget=20MFLOPs&budget=40s", "budget=20mflops,40s", "max_flops=2e7&deadline_ms=40000"):
        budget = post(client, sample, query).json()["budget"]
        assert (budget["max_flops"], budget["deadline_ms"]) == (20e6, 40_000.0)


def test_least_top1_is_kept(client: httpx.Client, sample: bytes) -> None:
    listed = client.get("/stitches?frontier=true").json()["stitches"]
    least = listed[len(listed) // 2]["top1"]
    answer = post(client, sample, f"min_top1={least}").json()
    assert answer["stitch"]["top1"] >= least
    assert answer["budget"]["met"] is True


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("budget=cheap", "2GFLOPs"),
        ("budget=-5ms", "2GFLOPs"),
        ("budget=nanms", "2GFLOPs"),
        ("budget=5ms,6ms", "both set"),
        ("max_flops=many", "max_flops"),
        ("stitch=999", "no stitch 999"),
        ("stitch=one", "stitch"),
        ("top_k=0", "top_k"),
        ("top_k=101", "top_k"),
        ("on_infeasible=maybe", "on_infeasible"),
        ("bugdet=2GFLOPs", "bugdet: there is no such parameter; there are budget, max_flops, deadline_ms"),
        ("budget=2GFLOPs&Budget=3GFLOPs", "Budget: there is no such"),
        ("budget=1GFLOPs&budget=2GFLOPs", "both set max_flops"),
        ("stitch=1&stitch=1", "stitch: it is given 2 times; give it once"),
        ("min_top1=1&min_top1=2&min_top1=3", "min_top1: it is given 3 times"),
        ("top_k=1&top_k=2", "top_k: it is given 2 times"),
        ("on_infeasible=reject&on_infeasible=nearest", "on_infeasible: it is given 2 times"),
    ],
)
def test_a_bad_query_is_named(client: httpx.Client, sample: bytes, query: str, says: str) -> None:
    assert says in problem(post(client, sample, query), 422)["detail"]


def test_an_impossible_budget_names_the_nearest_stitch_and_can_take_it(client: httpx.Client, sample: bytes) -> None:
    refused = problem(post(client, sample, "budget=1kFLOPs"), 422)
    assert refused["nearest_stitch"] == 0
    answer = post(client, sample, "budget=1kFLOPs&on_infeasible=nearest").json()
    assert answer["stitch"]["id"] == 0
    assert answer["budget"]["met"] is False
    assert problem(post(client, sample, "budget=99.99%25"), 422)["nearest"]["top1"] < 99.99


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"", JPEG, 400),
        (b"x", JPEG, 400),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", JPEG, 415),
        (b"just some plain text, long enough", JPEG, 415),
        (b"PK" + bytes(2) + b"a zip archive, perhaps", JPEG, 415),
        (b"does not matter", {"content-type": "image/svg+xml"}, 415),
        (b"does not matter", {"content-encoding": "gzip"}, 415),
        (b"does not matter", {"content-type": "application/json"}, 415),
        (b"no boundary", {"content-type": "multipart/form-data"}, 400),
        (b"--x--", {"content-type": "multipart/form-data; boundary=x"}, 400),
        (b"torn", {"content-type": "multipart/form-data; boundary=x"}, 400),
        (b"--x--", {"content-type": "multipart/form-data; boundary=x; charset=punycode"}, 400),
    ],
)
def test_what_is_no_image_is_refused(client: httpx.Client, body: bytes, headers: dict[str, str], status: int) -> None:
    problem(post(client, body, headers=headers), status)


def test_a_truncated_image_is_refused(client: httpx.Client, sample: bytes) -> None:
    assert "truncated" in problem(post(client, sample[: len(sample) // 2]), 400)["detail"]


def test_too_many_bytes_are_refused(client: httpx.Client) -> None:
    assert problem(post(client, bytes(10_000_001)), 413)["max_bytes"] == 10_000_000
    assert problem(client.post("/classify", content=iter([bytes(6_000_000)] * 2), headers=JPEG), 413)
    assert problem(client.post("/classify", files={"image": ("x.jpg", bytes(10_000_001))}), 413)


def test_too_many_pixels_are_refused_from_the_header(client: httpx.Client) -> None:
    file = io.BytesIO()
    Image.new("1", (10_000, 6_000)).save(file, "PNG")
    assert (
        problem(post(client, file.getvalue(), headers={"content-type": "image/png"}), 413)["max_pixels"] == 50_000_000
    )


def test_a_form_with_two_files_is_refused(client: httpx.Client, sample: bytes) -> None:
    files = [("image", ("a.jpg", sample, "image/jpeg")), ("image", ("b.jpg", sample, "image/jpeg"))]
    problem(client.post("/classify", files=files), 400)


def test_a_batch_answers_each_image_in_order(client: httpx.Client, sample: bytes) -> None:
    parts = [("image", ("a.jpg", sample, "image/jpeg")), ("image", ("b.jpg", b"not an image at all", "image/jpeg"))] * 2
    results = client.post(
        "/classify/batch", files=parts, data={"budget": ["20MFLOPs", "1s", "zero", "80MFLOPs"]}
    ).json()["results"]
    assert results[0]["stitch"]["flops"] <= 20e6
    assert results[1]["status"] == 415
    assert results[2]["status"] == 422
    assert results[3]["status"] == 415
    same = client.post("/classify/batch?budget=20MFLOPs", files=parts[::2]).json()["results"]
    assert [r["predictions"][0]["label"] for r in same] == [results[0]["predictions"][0]["label"]] * 2
    assert {r["stitch"]["id"] for r in same} == {results[0]["stitch"]["id"]}


def test_a_batch_with_a_wrong_number_of_budgets_is_refused(client: httpx.Client, sample: bytes) -> None:
    parts = [("image", ("a.jpg", sample, "image/jpeg"))] * 2
    problem(client.post("/classify/batch", files=parts, data={"budget": ["20MFLOPs"]}), 400)
    problem(client.post("/classify/batch", content=b"", headers=JPEG), 415)


def test_a_hundred_at_once_are_answered_as_one_at_a_time(running: Any, sample: bytes) -> None:
    stitches = [random.Random(5).randrange(47) for _ in range(100)]

    async def ask(client: httpx.AsyncClient, stitch: int) -> dict[str, Any]:
        response = await client.post(f"/classify?stitch={stitch}&top_k=3", content=sample, headers=JPEG)
        assert response.status_code == 200, response.text
        content: dict[str, Any] = response.json()
        return content

    async def both() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        async with httpx.AsyncClient(base_url=running.url, timeout=60) as client:
            alone = [await ask(client, stitch) for stitch in stitches]
            return alone, await asyncio.gather(*(ask(client, stitch) for stitch in stitches))

    alone, together = asyncio.run(both())
    assert [a["stitch"]["id"] for a in together] == stitches
    for one, other in zip(alone, together, strict=True):
        assert [p["label"] for p in one["predictions"]] == [p["label"] for p in other["predictions"]]
        # The order of float32 additions in a matrix product depends on the rows beside it.
        assert [p["probability"] for p in one["predictions"]] == pytest.approx(
            [p["probability"] for p in other["predictions"]], abs=1e-5
        )


def test_explain_says_what_classify_would_do(client: httpx.Client, sample: bytes) -> None:
    explained = client.get("/explain?budget=20MFLOPs").json()
    answered = post(client, sample, "budget=20MFLOPs").json()
    assert explained["stitch"] == answered["stitch"]
    assert explained["reason"] == answered["reason"]
    problem(client.get("/explain?budget=1kFLOPs"), 422)


def test_stitches_lists_the_table(client: httpx.Client) -> None:
    everything = client.get("/stitches").json()
    frontier = client.get("/stitches?frontier=true").json()["stitches"]
    assert len(everything["stitches"]) == 47
    assert [s for s in everything["stitches"] if s["frontier"]] == frontier
    assert sum(s["anchor"] for s in everything["stitches"]) == 3
    assert all(s["latency_ms"] > 0 for s in everything["stitches"])
    assert "split 'test'" in everything["top1_source"]


def test_status_and_health(client: httpx.Client) -> None:
    assert client.get("/livez").status_code == 200
    assert client.get("/readyz").status_code == 200
    status = client.get("/status").json()
    assert status["ready"] is True
    assert status["inside"] == status["queued"] == 0
    assert 0 < status["headroom"] <= 1


def test_a_misspelt_parameter_is_named_on_every_route_with_a_budget(client: httpx.Client, sample: bytes) -> None:
    files = [("image", ("a.jpg", sample, "image/jpeg"))]
    for response in (client.get("/explain?bugdet=1s"), client.post("/classify/batch?bugdet=1s", files=files)):
        assert problem(response, 422)["errors"][0]["field"] == "bugdet"
    assert client.get("/explain?top_k=3&budget=40s").status_code == 200, "the query of a /classify can be explained"


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/stitches?fronteir=true", "fronteir: there is no such parameter; there are frontier"),
        ("/stitches?frontier=true&frontier=false", "frontier: it is given 2 times; give it once"),
        ("/status?verbose=1", "verbose: there is no such parameter; this route takes none"),
    ],
)
def test_other_routes_name_a_bad_query_too(client: httpx.Client, path: str, says: str) -> None:
    assert problem(client.get(path), 422)["detail"] == says


def test_health_and_metrics_take_whatever_probes_send(client: httpx.Client) -> None:
    for path in ("/livez", "/readyz", "/metrics"):
        assert client.get(f"{path}?t=1&t=2").status_code == 200


def test_the_known_parameters_are_those_of_the_routes(client: httpx.Client) -> None:
    (classify,) = client.get("/openapi.json").json()["paths"]["/classify"].values()
    assert {parameter["name"] for parameter in classify["parameters"]} == set(PARAMETERS)


def test_unknown_routes_and_methods_are_problems_too(client: httpx.Client) -> None:
    problem(client.get("/nowhere"), 404)
    assert problem(client.get("/classify"), 405)["detail"] == "this route takes POST"
    assert "see /docs" in problem(client.get("/classified"), 404)["detail"]
    for path, allowed in (("/classify", "POST"), ("/livez", "GET")):
        response = client.options(path)
        problem(response, 405)
        assert response.headers["allow"] == allowed
    problem(client.request("PROPFIND", "/livez"), 405)


def test_hostile_request_ids_are_replaced(client: httpx.Client) -> None:
    assert client.get("/livez", headers={"x-request-id": "x" * 500}).headers["x-request-id"] != "x" * 500
    assert len(client.get("/livez", headers={"x-request-id": "a b<script>"}).headers["x-request-id"]) == 32


def test_the_document_describes_the_routes(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    assert {"/classify", "/classify/batch", "/stitches", "/explain", "/status", "/livez", "/readyz", "/metrics"} <= set(
        document["paths"]
    )
    classify = document["paths"]["/classify"]["post"]
    assert {p["name"] for p in classify["parameters"]} == {
        "budget", "max_flops", "deadline_ms", "min_top1", "stitch", "top_k", "on_infeasible",
    }  # fmt: skip
    assert "multipart/form-data" in classify["requestBody"]["content"]


def test_a_budget_in_the_form_of_one_image_is_refused_rather_than_ignored(client: httpx.Client, sample: bytes) -> None:
    refused = client.post("/classify", files={"image": sample}, data={"budget": "20MFLOPs"})
    assert refused.status_code == 400
    assert "into the query" in refused.json()["detail"]
