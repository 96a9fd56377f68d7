"""Settings from the environment; what is wrong is named."""

from pathlib import Path

import pytest
from pydantic import ValidationError
from pydantic_settings import CliApp, SettingsConfigDict

from server.settings import PREFIX, Settings, default_cache


class Options(Settings):
    """As the command line reads them."""

    model_config = SettingsConfigDict(
        cli_kebab_case=True, cli_implicit_flags=True, cli_avoid_json=True, env_prefix=PREFIX
    )


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.delenv("STITCHSERVE_CACHE", raising=False)
    return monkeypatch


def test_defaults_serve_the_shipped_family(clean: pytest.MonkeyPatch) -> None:
    settings = Settings()
    assert (settings.family, settings.port, settings.slo) == ("digits", 8000, 0.05)


def test_the_environment_sets_fields(clean: pytest.MonkeyPatch) -> None:
    clean.setenv("STITCHSERVE_SLO_MS", "120")
    clean.setenv("stitchserve_max_batch", "4")
    settings = Settings()
    assert (settings.slo, settings.max_batch) == (0.12, 4)


def test_a_misspelt_variable_stops_the_start(clean: pytest.MonkeyPatch) -> None:
    clean.setenv("STITCHSERVE_SLO", "120")
    with pytest.raises(ValidationError, match=r"STITCHSERVE_SLO sets nothing; there are .*STITCHSERVE_SLO_MS"):
        Settings()


def test_kubernetes_service_links_are_no_settings(clean: pytest.MonkeyPatch) -> None:
    for name, value in {
        "SERVICE_HOST": "10.0.0.11",
        "SERVICE_PORT": "80",
        "SERVICE_PORT_HTTP": "80",
        "PORT": "tcp://10.0.0.11:80",
        "PORT_80_TCP": "tcp://10.0.0.11:80",
        "PORT_80_TCP_PROTO": "tcp",
        "PORT_80_TCP_PORT": "80",
        "PORT_80_TCP_ADDR": "10.0.0.11",
        "SLO_MS": "70",
    }.items():
        clean.setenv(f"STITCHSERVE_{name}", value)
    settings = Settings()
    assert (settings.port, settings.slo_ms) == (8000, 70)
    assert Settings(port=9000).port == 9000
    with pytest.raises(ValidationError, match="port"):
        Settings.model_validate({"port": "tcp://10.0.0.12:80"})  # not the link: asked for


def test_a_body_as_large_as_allowed_must_fit_into_memory(clean: pytest.MonkeyPatch) -> None:
    assert Settings(max_body_bytes_in_flight=100_000_000).max_form_bytes == 100_000_000
    for changes in ({"max_form_bytes": 600_000_000}, {"max_bytes": 600_000_000}, {"max_body_bytes_in_flight": 99}):
        with pytest.raises(ValidationError, match=r"max_body_bytes_in_flight.*raise it or lower"):
            Settings.model_validate(changes)


@pytest.mark.parametrize(("name", "value"), [("port", 70000), ("slo_ms", 0), ("slo_ms", "fast"), ("threads", 0)])
def test_a_bad_value_names_its_field(clean: pytest.MonkeyPatch, name: str, value: object) -> None:
    with pytest.raises(ValidationError, match=name):
        Settings.model_validate({name: value})


def test_the_cache_follows_the_users_folder(clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Settings().cache == tmp_path / "stitchserve"


def test_the_servers_cache_is_the_other_commands_too(clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean.setenv("STITCHSERVE_CACHE", str(tmp_path))
    assert default_cache() == Settings().cache == tmp_path


def test_lists_are_repeated_or_separated_by_commas(clean: pytest.MonkeyPatch) -> None:
    clean.setenv("STITCHSERVE_CORS_ORIGIN", "https://a.example, http://b.example:8080")
    assert Settings().cors_origin == ("https://a.example", "http://b.example:8080")
    assert Settings(cors_origin=("*",)).cors_origin == ("*",)
    arguments = ["--forwarded-allow-ips", "10.0.0.0/8", "--forwarded-allow-ips", "::1", "--access-log"]
    settings = CliApp.run(Options, cli_args=arguments)
    assert (settings.forwarded_allow_ips, settings.access_log) == (("10.0.0.0/8", "::1"), True)
    assert settings.cors_origin == ("https://a.example", "http://b.example:8080")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"cors_origin": "https://a.example/page"}, "no origin"),
        ({"cors_origin": "a.example"}, "no origin"),
        ({"forwarded_allow_ips": "proxy.example"}, "proxy.example"),
        ({"tls_cert": "cert.pem"}, "one is missing"),
        ({"tls_key": "key.pem"}, "one is missing"),
        ({"anonymous_burst": 3}, "no anonymous_rate"),
        ({"anonymous_rate": 0}, "anonymous_rate"),
        ({"log_format": "xml"}, "log_format"),
        ({"port": 9000, "grpc_port": 9000}, "grpc_port: 9000 is port already"),
        ({"grpc_port": 9001, "agent_port": 9001}, "agent_port: 9001 is grpc_port already"),
    ],
)
def test_what_does_not_fit_together_is_named(clean: pytest.MonkeyPatch, changes: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Settings.model_validate(changes)
