"""Token buckets, on a clock of the test's own."""

import pytest

from server.errors import RateLimited
from server.rates import MOST_ADDRESSES, Bucket, Rate, Rates, network


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def spend(bucket: Bucket) -> int:
    """How many requests it pays for now."""
    for count in range(1000):
        try:
            bucket.take()
        except RateLimited:
            return count
    raise AssertionError


def test_a_burst_and_then_the_rate() -> None:
    clock = Clock()
    bucket = Bucket(Rate(2, 5), clock)
    assert spend(bucket) == 5
    clock.now += 1
    assert spend(bucket) == 2
    clock.now += 3600
    assert spend(bucket) == 5


def test_a_refusal_says_when_there_is_a_token() -> None:
    clock = Clock()
    bucket = Bucket(Rate(0.4, 1), clock)
    bucket.take()
    with pytest.raises(RateLimited, match=r"0\.4 requests/s") as raised:
        bucket.take()
    assert raised.value.retry_after == 3
    clock.now += 3
    bucket.take()


def test_a_form_of_images_is_paid_for_also_on_credit() -> None:
    clock = Clock()
    bucket = Bucket(Rate(2, 5), clock)
    bucket.take()
    bucket.owe(9)
    assert dict(bucket.headers()) == {
        b"x-ratelimit-limit": b"5", b"x-ratelimit-remaining": b"0", b"x-ratelimit-reset": b"5",
    }  # fmt: skip
    clock.now += 2.9
    assert spend(bucket) == 0
    clock.now += 0.1
    assert spend(bucket) == 1


def test_tokens_are_waited_for_in_turn_and_not_longer_than_one_may() -> None:
    clock = Clock()
    bucket = Bucket(Rate(4, 2), clock)
    assert [bucket.wait(1.0) for _ in range(4)] == [0.0, 0.0, 0.25, 0.5]
    assert [bucket.wait(0.6), bucket.wait(0.0)] == [0.6, 0.0], "who may not wait so long takes no token"
    assert bucket.wait(1.0) == 0.75
    clock.now += 3600
    assert spend(bucket) == 2


def test_every_tenant_and_every_address_has_its_own() -> None:
    rates = Rates(Rate(1, 1), Clock())
    assert rates.of_tenant("shop", None) is None
    assert rates.of_tenant("shop", Rate(1, 1)) is rates.of_tenant("shop", Rate(1, 1))
    assert rates.of_tenant("shop", Rate(1, 1)) is not rates.of_tenant("lab", Rate(1, 1))
    assert rates.of_address("10.0.0.1") is rates.of_address("10.0.0.1")
    assert rates.of_address("10.0.0.1") is not rates.of_address("10.0.0.2")
    assert Rates().of_address("10.0.0.1") is None


def test_addresses_are_forgotten_the_quietest_first() -> None:
    rates = Rates(Rate(1, 1), Clock())
    kept, forgotten = rates.of_address("10.1.0.0"), rates.of_address("10.1.0.1")
    for number in range(MOST_ADDRESSES - 1):
        rates.of_address("10.1.0.0")
        rates.of_address(f"10.{2 + number // 65536}.{number // 256 % 256}.{number % 256}")
    assert rates.of_address("10.1.0.0") is kept
    assert rates.of_address("10.1.0.1") is not forgotten


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.1"),
        ("2001:db8::1:2:3:4", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "unknown"),
        (None, "unknown"),
    ],
)
def test_what_counts_as_one_client(address: str | None, client: str) -> None:
    assert network(address).replace("a00:1", "10.0.0.1") == client
