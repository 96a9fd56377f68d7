import json
import pickle

import pytest

from server import errors
from server.errors import (
    BadBudget,
    BadControl,
    BadImage,
    BadRequest,
    ClientGone,
    DeadlinePassed,
    Draining,
    Forbidden,
    Infeasible,
    InternalError,
    Overloaded,
    RateLimited,
    ServeError,
    SlowBody,
    TooLarge,
    Unauthorized,
    Unavailable,
    UnknownModel,
    UnknownStitch,
    UnsupportedType,
)

STATUS: dict[type[ServeError], int] = {
    BadRequest: 400,
    BadImage: 400,
    Forbidden: 403,
    Unauthorized: 401,
    SlowBody: 408,
    UnknownModel: 404,
    TooLarge: 413,
    UnsupportedType: 415,
    BadBudget: 422,
    BadControl: 422,
    UnknownStitch: 422,
    Infeasible: 422,
    RateLimited: 429,
    ClientGone: 499,
    InternalError: 500,
    Unavailable: 503,
    Overloaded: 503,
    Draining: 503,
    DeadlinePassed: 504,
}


def tree(root: type[ServeError]) -> set[type[ServeError]]:
    return {root}.union(*(tree(child) for child in root.__subclasses__()))


def test_every_class_of_the_tree_has_the_status_of_the_contract() -> None:
    assert {cls: cls.status for cls in tree(ServeError) - {ServeError}} == STATUS


def test_types_and_titles_tell_the_classes_apart() -> None:
    assert len({cls.type for cls in STATUS}) == len({cls.title for cls in STATUS}) == len(STATUS)


def test_the_docstring_prints_the_whole_tree() -> None:
    lines = (errors.__doc__ or "").splitlines()
    listed = {words[0]: words[1] for words in (line.strip("│├└─ ").split() for line in lines) if len(words) > 1}
    for cls, status in STATUS.items():
        assert listed[cls.__name__] == str(status) or issubclass(cls, Unavailable)


@pytest.mark.parametrize("cls", STATUS)
def test_a_problem_has_the_standard_members_and_is_json(cls: type[ServeError]) -> None:
    problem = json.loads(json.dumps(cls("what happened").problem()))
    assert problem["status"] == cls.status
    assert problem["title"] == cls.title
    assert problem["type"].startswith("/problems/")
    assert problem["detail"]


def test_extra_fields_join_the_problem_but_replace_no_standard_member() -> None:
    error = TooLarge("too many pixels", max_pixels=50, status=200, title="fine")
    assert error.problem() == {
        "type": "/problems/too-large",
        "title": "Image too large",
        "status": 413,
        "detail": "too many pixels",
        "max_pixels": 50,
    }


def test_an_internal_error_keeps_its_detail_for_the_log_and_tells_the_caller_nothing() -> None:
    error = InternalError("CUDA error at /opt/engine.py:3", batch=8)
    assert str(error) == "CUDA error at /opt/engine.py:3"
    assert error.extra == {"batch": 8}
    assert "CUDA" not in json.dumps(error.problem())
    assert "batch" not in error.problem()


def test_infeasible_names_the_nearest_stitch() -> None:
    assert Infeasible("no stitch within 1 MFLOPs", nearest_stitch=0).problem()["nearest_stitch"] == 0


@pytest.mark.parametrize("cls", [Overloaded, Draining])
def test_unavailable_always_says_when_to_come_back(cls: type[Unavailable]) -> None:
    assert cls("busy").retry_after == 1.0
    assert cls("busy", retry_after=0.25).retry_after == 0.25


def test_other_errors_do_not_ask_to_come_back() -> None:
    assert BadImage("corrupt").retry_after is None


def test_errors_survive_a_process_boundary() -> None:
    sent = Overloaded("busy", retry_after=2.5, queued=9)
    received = pickle.loads(pickle.dumps(sent))
    assert isinstance(received, Overloaded)
    assert (received.detail, received.retry_after, received.extra) == ("busy", 2.5, {"queued": 9})
