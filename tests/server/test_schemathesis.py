"""Requests made up from the OpenAPI document, sound and not: answers are as it says."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from conftest import Running, run
from conftest import settings as of_server
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import Case, GenerationMode, openapi
from schemathesis.checks import not_a_server_error, positive_data_acceptance
from schemathesis.core.result import Ok

from server.service import Service

KEY = {"Authorization": "Bearer boss"}
# What is sound may be refused all the same: a budget that nothing meets, bytes that are no image, a load.
UNFIT = [positive_data_acceptance, not_a_server_error]
made_up = settings(
    max_examples=20, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)


@pytest.fixture(scope="module")
def home(running: Running, cache: Path) -> Iterator[Running]:
    """A server of its own, for its SLO will be changed."""
    allowed = of_server(cache, admin_key_sha256=sha256(b"boss").hexdigest())
    yield from run(Service(allowed, running.service.engine, running.service.table))


@pytest.mark.parametrize("mode", GenerationMode)
def test_answers_are_as_documented(home: Running, mode: GenerationMode) -> None:
    with home.client() as client:
        document: dict[str, Any] = client.get("/openapi.json").json()
    schema = openapi.from_dict(document)
    schema.config.update(base_url=home.url)
    statuses: set[tuple[str, int]] = set()
    for found in schema.get_all_operations():
        assert isinstance(found, Ok), found
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and not (operation.query or operation.body):
            continue
        path = {"name": "auto"} if "{name}" in operation.path else None

        @made_up
        @seed(1)
        @given(case=operation.as_strategy(mode, path_parameters=path))
        def check(case: Case[Any]) -> None:
            answer = case.call(headers=KEY)
            assert answer.status_code != 500, case.as_curl_command()
            case.validate_response(answer, excluded_checks=UNFIT)
            statuses.add((case.operation.label, answer.status_code))

        check()
    assert len({label for label, _ in statuses}) == (18 if mode is GenerationMode.POSITIVE else 6), statuses
    expected = {"/classify": 200, "/explain": 200} if mode is GenerationMode.POSITIVE else {"/classify": 422}
    assert all(any(label.endswith(path) and s == status for label, s in statuses) for path, status in expected.items())
