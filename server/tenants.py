"""Whose a request is: under load a tenant's burst costs its own accuracy before that of others."""

import hashlib
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from server.errors import Unauthorized
from server.rates import Rate

BEARER = "bearer "
BACKGROUND = 2
"""The highest priority whose requests can wait."""
BACKGROUND_SHARE = 0.1
"""Their weight, as a part of their tenant's: with it a tenant has little more than its share, whatever it names."""


@dataclass(frozen=True)
class Tenant:
    """`weight`: its share of the time that is left to spend on accuracy; `min_top1`: its least top-1, a fraction.

    `rate` limits its requests; None does not.
    """

    name: str = "anyone"
    weight: float = 1.0
    min_top1: float | None = None
    rate: Rate | None = None

    def __hash__(self) -> int:
        """By the name: of one there are few tenants, and every request is counted by its own several times."""
        return hash(self.name)

    def asking(self, priority: int) -> "Tenant":
        """Who asks with this priority, 1 being the highest, and 0 none: from 2 on another, with little weight.

        What waits of it is refused first, and gets the least accuracy; alone it has everything. All such requests of a
        tenant are one's, or it would have as many shares as it names priorities.
        """
        return self if priority < BACKGROUND else replace(self, weight=self.weight * BACKGROUND_SHARE)


ANYONE = Tenant()
"""Whoever sends no key."""


def share(tenant: Tenant, tenants: Iterable[Tenant]) -> float:
    """A tenant's part, in (0, 1], of what is divided between it and these by their weights."""
    return tenant.weight / sum(each.weight for each in {tenant, *tenants})


class _Listed(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]
    key_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    weight: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] = 1.0
    min_top1: Annotated[float, Field(ge=0, le=100)] | None = None
    rate: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] | None = None
    burst: Annotated[float, Field(ge=1, le=1e6, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _burst_of_a_rate(self) -> Self:
        if self.burst is not None and self.rate is None:
            raise ValueError("burst: there is no rate beside it; add one, in requests/s")
        return self

    def tenant(self) -> Tenant:
        floor = None if self.min_top1 is None else self.min_top1 / 100
        return Tenant(self.name, self.weight, floor, Rate.of(self.rate, self.burst))


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    tenants: Annotated[list[_Listed], Field(min_length=1, max_length=1000)]


class Tenants:
    """The tenants by their keys, of which only SHA-256 digests are kept."""

    def __init__(self, by_digest: Mapping[str, Tenant] | None = None) -> None:
        self._by_digest = by_digest or {}

    @classmethod
    def load(cls, path: Path) -> "Tenants":
        """From a TOML file of [[tenants]], whose fields are those of `_Listed`. ValueError names the fault."""
        try:
            listed = _File.model_validate(tomllib.loads(path.read_text(encoding="utf-8"))).tenants
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error
        for field in ("name", "key_sha256"):
            if len({getattr(one, field) for one in listed}) < len(listed):
                raise ValueError(f"{path}: {field}: two tenants have the same")
        return cls({one.key_sha256: one.tenant() for one in listed})

    def __iter__(self) -> Iterator[Tenant]:
        return iter(self._by_digest.values())

    def of(self, key: str | None) -> Tenant:
        """Whose key it is; without one ANYONE. Raises Unauthorized for a key that is nobody's, where there are any."""
        if key is None or not self._by_digest:
            return ANYONE
        # What is looked up is a digest: how long that takes says nothing of the keys.
        tenant = self._by_digest.get(digest(key))
        if tenant is None:
            raise Unauthorized("the API key is not known; send a valid one as 'Authorization: Bearer KEY', or none")
        return tenant


def key_in(headers: Mapping[str, str]) -> str | None:
    """The API key of a request: `Authorization: Bearer KEY` or `X-API-Key: KEY`."""
    authorization = headers.get("authorization", "")
    if authorization.lower().startswith(BEARER):
        return authorization[len(BEARER) :].strip()
    return headers.get("x-api-key")


def digest(key: str) -> str:
    """What is kept of a key: its SHA-256 in hex."""
    return hashlib.sha256(key.encode()).hexdigest()
