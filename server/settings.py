"""Everything an operator can set: one class for the environment (`STITCHSERVE_*`) and the command line."""

import os
import re
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from server.controller import MISS_PROBABILITY, POLICY_NAMES

PREFIX = "STITCHSERVE_"

# Kubernetes gives every container the addresses of a Service, under the Service's name: here one called stitchserve.
SERVICE_LINK = re.compile(PREFIX + r"(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s?#,]+")
SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://\S+")


def default_cache() -> Path:
    """The folder for what can be made again."""
    set_for_all = os.environ.get(f"{PREFIX}CACHE")
    return Path(set_for_all or Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "stitchserve"))


class Settings(BaseSettings):
    """How to serve. An unknown or bad value stops the start and is named."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    family: str = Field("digits", description="family of networks to serve")
    checkpoint: Path | None = Field(None, description="its weights; none: those that ship with the family")
    table: Path | None = Field(None, description="folder of its lookup table; none: the one that ships")
    device: str = Field("auto", description="cpu, cuda, cuda:1; auto takes CUDA where there is one")
    threads: int | None = Field(
        None, ge=1, le=1024, description="CPU threads of the engine; none: as many as are worth it"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="format of the weights; auto: the fastest here; float32 is exact"
    )
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535)
    grpc_port: int | None = Field(
        None, ge=0, le=65535, description="also answer the Open Inference Protocol over gRPC, here; none: not"
    )
    agent_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="also answer HAProxy's agent check here, so that a slow replica gets less; none: not",
    )
    slo_ms: float = Field(50.0, gt=0, le=3_600_000, description="the deadline of a request that brings none")
    policy: str = Field("pace", description=f"how stitches are chosen: {POLICY_NAMES}")
    miss_probability: float | None = Field(
        MISS_PROBABILITY, gt=0, lt=1, description="share of batches that may take longer than planned; none: no margin"
    )
    tenants: Path | None = Field(
        None,
        description="TOML file of [[tenants]]: name, key_sha256, weight, min_top1, rate (requests/s), burst; none: "
        "all requests are alike",
    )
    admin_key_sha256: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{64}$",
        description="SHA-256, in hex, of the key that opens PUT /control (printf %s KEY | sha256sum); none: closed",
    )
    anonymous_rate: float | None = Field(
        None, gt=0, le=1e6, description="requests/s that one address may send without an API key; none: any number"
    )
    anonymous_burst: float | None = Field(
        None, ge=1, le=1e6, description="how many of those may come at once; none: those of a second"
    )
    cors_origin: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="origin whose pages may ask, as https://shop.example, repeatable; * is any; none: no pages"
    )
    tls_cert: Path | None = Field(None, description="certificate chain (PEM) to serve HTTPS with; none: HTTP")
    tls_key: Path | None = Field(None, description="its private key (PEM)")
    forwarded_allow_ips: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="address or network of a proxy whose X-Forwarded-For and -Proto count, repeatable; * is any; "
        "none: those headers mean nothing",
    )
    max_batch: int = Field(32, ge=1, le=1024, description="most images in one batch")
    max_queue: int = Field(
        2048,
        ge=1,
        le=1_000_000,
        description="most images that are decoded, wait or run at once; twice that where tenants claim their shares",
    )
    decode: Literal["fast", "turbo", "exact"] = Field(
        "fast",
        description="how JPEGs are read: exact is timm's transform; turbo, by libjpeg-turbo, may be off by some grey "
        "levels; fast is that or, where it is faster, the engine's GPU",
    )
    decode_threads: int = Field(
        2,
        ge=1,
        le=256,
        description="threads that decode all but small images, each with up to 8 bytes of memory per pixel of "
        "max_pixels",
    )
    frontends: int = Field(
        0,
        ge=0,
        le=64,
        description="processes that speak HTTP and decode, each with decode_threads, beside the engine's; 0: it does",
    )
    max_bytes: int = Field(10_000_000, ge=1, description="largest body, in bytes")
    max_form_bytes: int = Field(100_000_000, ge=1, description="largest form of several images, in bytes")
    max_pixels: int = Field(50_000_000, ge=1, description="largest image, in pixels; a WebP may have half as many")
    min_memory_bytes: int = Field(256_000_000, ge=0, description="memory left, below which requests are refused")
    max_body_bytes_in_flight: int = Field(
        500_000_000, ge=1, description="most bytes of all requests' bodies in memory; beyond them slow senders give way"
    )
    max_connections: int = Field(1000, ge=1, le=1_000_000, description="most connections open at once")
    header_timeout_s: float = Field(10.0, gt=0, description="longest a request's header may take to arrive")
    body_timeout_s: float = Field(10.0, gt=0, description="longest a body may take to arrive")
    drain_delay_s: float = Field(0.0, ge=0, description="how long to go on serving after SIGTERM, not ready")
    drain_timeout_s: float = Field(30.0, gt=0, description="longest wait for requests in flight at the end")
    profile_s: float = Field(20.0, gt=0, description="longest profiling at start, on a device without a latency table")
    log_format: Literal["text", "json"] = Field("text", description="lines for people, or an object a line")
    otel_endpoint: str | None = Field(
        None,
        pattern=r"^https?://\S+$",
        description="collector that gets traces over OTLP/HTTP, as http://collector:4318; none: as "
        "OTEL_EXPORTER_OTLP_ENDPOINT says, and without that no traces",
    )
    access_log: bool = Field(False, description="log every request: method, path, status, time")
    cache: Path = Field(default_factory=default_cache, description="folder that keeps measured latencies")

    @field_validator("port", mode="before")
    @classmethod
    def _no_service_link(cls, port: object) -> object:
        linked = port == os.environ.get(f"{PREFIX}PORT") and SERVICE_ADDRESS.fullmatch(str(port))
        return cls.model_fields["port"].default if linked else port

    @field_validator("cors_origin", "forwarded_allow_ips", mode="before")
    @classmethod
    def _separated_by_commas(cls, value: object) -> object:
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list | tuple):
            return value
        return tuple(part.strip() for text in texts for part in str(text).split(",") if part.strip())

    @field_validator("cors_origin")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin != "*" and not ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is no origin; give scheme, host and port alone: https://shop.example")
        return value

    @field_validator("forwarded_allow_ips")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for address in value:
            if address != "*":
                ip_network(address)
        return value

    @model_validator(mode="after")
    def _whole_pairs(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key: one is missing; give both, or none for HTTP")
        if self.anonymous_burst is not None and self.anonymous_rate is None:
            raise ValueError("anonymous_burst: there is no anonymous_rate beside it; give one")
        return self

    @model_validator(mode="after")
    def _a_port_each(self) -> Self:
        taken: dict[int, str] = {}
        for name, port in (("port", self.port), ("grpc_port", self.grpc_port), ("agent_port", self.agent_port)):
            if port and taken.setdefault(port, name) != name:  # 0 finds a free one each time
                raise ValueError(f"{name}: {port} is {taken[port]} already; give another")
        return self

    @model_validator(mode="after")
    def _no_unknown_variable(self) -> Self:
        check_environment(os.environ, type(self).model_fields)
        return self

    @model_validator(mode="after")
    def _room_for_one(self) -> Self:
        largest = max(self.max_bytes, self.max_form_bytes)
        if self.max_body_bytes_in_flight < largest:
            raise ValueError(
                f"max_body_bytes_in_flight: {self.max_body_bytes_in_flight} bytes are less than one body may have by "
                f"max_bytes and max_form_bytes, {largest}; raise it or lower them"
            )
        return self

    @property
    def slo(self) -> float:
        """The default deadline in seconds."""
        return self.slo_ms / 1000


def check_environment(environment: Mapping[str, str], fields: Mapping[str, object]) -> None:
    """ValueError for a `STITCHSERVE_*` variable that sets nothing, most likely a misspelt one; service links may."""
    known = {f"{PREFIX}{field}".upper() for field in fields}
    for name in environment:
        if name.upper().startswith(PREFIX) and name.upper() not in known and not SERVICE_LINK.fullmatch(name):
            raise ValueError(f"{name} sets nothing; there are {', '.join(sorted(known))}")
