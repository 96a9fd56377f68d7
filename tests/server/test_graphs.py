"""Buckets and the bookkeeping of recorded graphs."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.graphs import Buckets, Graphs


def test_the_sizes_double_with_a_step_between_and_end_with_the_largest() -> None:
    assert Buckets(64).sizes == (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)
    assert Buckets(20).sizes == (1, 2, 4, 8, 12, 16, 20)
    assert Buckets(1).sizes == (1,)


@given(st.integers(1, 1024))
def test_no_bucket_is_padded_by_more_than_half_its_rows(largest: int) -> None:
    buckets = Buckets(largest)
    assert buckets.largest == largest
    assert all(buckets.fit(size) == size for size in buckets.sizes)
    assert all(larger <= 2 * smaller for smaller, larger in pairwise(buckets.sizes))
    assert all(buckets.fit(rows) >= rows for rows in range(1, largest + 1))


def test_more_rows_than_any_bucket_has_fit_themselves() -> None:
    assert Buckets(8).fit(9) == 9


@given(st.integers(1, 40), st.integers(1, 200))
def test_pieces_cover_every_row_once_and_none_is_too_large(largest: int, rows: int) -> None:
    pieces = Buckets(largest).pieces(rows)
    assert [row for piece in pieces for row in range(rows)[piece]] == list(range(rows))
    assert all(len(range(rows)[piece]) <= largest for piece in pieces)


def test_the_largest_halves_until_one_row_is_left() -> None:
    buckets = Buckets(12)
    assert [buckets.largest for _ in range(4) if buckets.halve()] == [6, 3, 1]
    assert buckets.sizes == (1,)
    assert not buckets.halve()


def graphs(limit: int = 1000, most: int = 10) -> Graphs[str]:
    return Graphs(limit, most)


def test_a_graph_is_wanted_at_the_second_use_and_found_once_added() -> None:
    kept = graphs()
    assert kept.find("a") is None
    assert [kept.wanted("a"), kept.wanted("b"), kept.wanted("a")] == [False, False, True]
    kept.add("a", "graph", own=10, shared=100)
    assert kept.find("a") == "graph"
    assert (kept.captured, kept.replayed, kept.bytes, kept.eager["new"]) == (1, 1, 110, 3)


def test_beyond_the_most_the_least_recently_used_goes() -> None:
    kept = graphs(most=2)
    for key in "ab":
        kept.add(key, key, own=1, shared=0)
    kept.find("a")
    kept.add("c", "c", own=1, shared=0)
    assert [kept.find(key) for key in "abc"] == ["a", None, "c"]
    assert kept.evicted == 1


def test_what_had_to_go_is_recorded_again_only_after_more_uses() -> None:
    kept = graphs(most=1)
    kept.add("a", "a", own=1, shared=0)
    kept.add("b", "b", own=1, shared=0)
    assert [kept.wanted("a") for _ in range(4)] == [False, False, False, True]


def test_beyond_the_memory_limit_the_least_recently_used_go() -> None:
    kept = graphs(limit=100)
    kept.add("a", "a", own=30, shared=40)
    kept.add("b", "b", own=20, shared=0)
    kept.add("c", "c", own=30, shared=0)
    assert kept.find("a") is None
    assert kept.bytes == 90  # the pool stays as long as a graph does


def test_a_graph_that_is_too_large_alone_is_refused_and_its_memory_counted_back() -> None:
    kept = graphs(limit=100)
    kept.add("a", "a", own=10, shared=10)
    kept.add("b", "b", own=50, shared=60)
    assert [kept.find(key) for key in "ab"] == [None, None]
    assert (kept.bytes, len(kept)) == (0, 0)
    assert not any(kept.wanted("b") for _ in range(3))
    assert kept.eager["refused"] == 3


def test_refused_and_stopped_keys_run_without_a_graph() -> None:
    kept = graphs()
    kept.refuse("a")
    kept.stop("cannot be recorded")
    assert not any(kept.wanted(key) for key in "aabb")
    assert kept.eager == {"refused": 4}


def test_clearing_forgets_the_graphs_but_not_how_to_make_them() -> None:
    kept = graphs()
    kept.add("a", "a", own=10, shared=10)
    kept.clear()
    assert (kept.find("a"), kept.bytes, kept.evicted) == (None, 0, 1)
    assert any(kept.wanted("a") for _ in range(10))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 60), st.integers(0, 30)), max_size=40), st.integers(1, 4))
def test_the_limits_hold_whatever_comes(uses: list[tuple[int, int, int]], most: int) -> None:
    kept = graphs(limit=100, most=most)
    for key, own, shared in uses:
        if kept.find(key) is None and kept.wanted(key):
            kept.add(key, str(key), own, shared)
        assert len(kept) <= most
        assert kept.bytes <= 100
    assert kept.captured == kept.evicted + len(kept)


@pytest.mark.parametrize("largest", [1, 2, 3, 7, 100])
def test_sizes_ascend(largest: int) -> None:
    assert list(Buckets(largest).sizes) == sorted(set(Buckets(largest).sizes))


def test_it_is_roomy_while_none_would_have_to_go() -> None:
    kept = graphs(limit=100)
    for key, size, roomy in (("a", 30, True), ("b", 20, True), ("c", 20, True), ("d", 1, False)):
        kept.add(key, key, size, 0)
        assert kept.roomy == roomy, key
    few = graphs(most=2)
    for key, roomy in (("a", True), ("b", False)):
        few.add(key, key, 1, 0)
        assert few.roomy == roomy
    assert not kept.evicted + few.evicted


class Watched(int):
    """A size of a graph that is used while sizes are added up, as by another thread."""

    kept: Graphs[str]

    def __radd__(self, other: int) -> int:
        assert self.kept.find("a")
        return other + int(self)


def test_graphs_may_be_used_while_others_ask_for_their_sizes() -> None:
    kept = graphs()
    for key in "abc":
        size = Watched(10)
        size.kept = kept
        kept.add(key, key, own=size, shared=0)
    assert kept.bytes == 30
    assert kept.roomy
