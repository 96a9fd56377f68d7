"""How many requests a client may send: a token bucket for each API key, and for each address without one."""

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from server.errors import RateLimited

MOST_ADDRESSES = 10_000  # remembered at once; the one that was quiet longest is forgotten first


@dataclass(frozen=True)
class Rate:
    """`per_second` tokens come in, `burst` of them can be kept; a request, and each further image in it, costs one."""

    per_second: float
    burst: float

    @classmethod
    def of(cls, per_second: float | None, burst: float | None) -> "Rate | None":
        """From settings; without a burst a second's worth, one at the least. None where nothing limits."""
        if per_second is None:
            return None
        return cls(per_second, max(1.0, per_second) if burst is None else burst)


class Bucket:
    """The tokens of one client. Below zero it is in debt, for images that came with a request it could pay."""

    def __init__(self, rate: Rate, clock: Callable[[], float]) -> None:
        self.rate, self._clock = rate, clock
        self._tokens, self._since = rate.burst, clock()

    def take(self) -> None:
        """Pay for a request. Raises RateLimited, with the time until there is a token, where there is none."""
        tokens = self._refill()
        if tokens < 1:
            raise RateLimited(
                f"more than {self.rate.per_second:g} requests/s; come back later",
                retry_after=math.ceil((1 - tokens) / self.rate.per_second),
                rate=self.rate.per_second,
                burst=self.rate.burst,
            )
        self._tokens -= 1

    def wait(self, most: float) -> float:
        """Seconds until the token that this takes; where they are more than `most`, that, and none is taken."""
        wait = max(0.0, 1 - self._refill()) / self.rate.per_second
        if wait >= most:
            return most
        self._tokens -= 1
        return wait

    def owe(self, count: int) -> None:
        """Pay for so much more, now or, where there are too few tokens, out of those to come."""
        self._tokens = self._refill() - count

    def headers(self) -> list[tuple[bytes, bytes]]:
        """What is left: the burst, whole tokens, and seconds until the bucket is full."""
        tokens = self._refill()
        values = {
            b"limit": math.floor(self.rate.burst),
            b"remaining": max(0, math.floor(tokens)),
            b"reset": math.ceil((self.rate.burst - tokens) / self.rate.per_second),
        }
        return [(b"x-ratelimit-" + name, b"%d" % value) for name, value in values.items()]

    def _refill(self) -> float:
        now = self._clock()
        self._tokens = min(self.rate.burst, self._tokens + (now - self._since) * self.rate.per_second)
        self._since = now
        return self._tokens


class Rates:
    """The buckets: of tenants, by name, and of addresses that send no key, if `anyone` limits each of those."""

    def __init__(self, anyone: Rate | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._anyone, self._clock = anyone, clock
        self._tenants: dict[str, Bucket] = {}
        self._addresses: OrderedDict[str, Bucket] = OrderedDict()

    def of_tenant(self, name: str, rate: Rate | None) -> Bucket | None:
        """The bucket of a key's owner; None where nothing limits it."""
        return self._tenants.setdefault(name, Bucket(rate, self._clock)) if rate else None

    def of_address(self, address: str | None) -> Bucket | None:
        """The bucket of who sends no key; None where nothing limits it."""
        if self._anyone is None:
            return None
        client = network(address)
        bucket = self._addresses.setdefault(client, Bucket(self._anyone, self._clock))
        self._addresses.move_to_end(client)
        if len(self._addresses) > MOST_ADDRESSES:
            self._addresses.popitem(last=False)
        return bucket


def network(address: str | None) -> str:
    """What counts as one client: an IPv4 address, an IPv6 /64, which is what a single host is given."""
    try:
        parsed = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return "unknown"
    if parsed.version == 6 and parsed.ipv4_mapped is None:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
