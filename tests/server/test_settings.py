"""Settings from the environment; what is wrong is named."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from server.settings import Settings


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


@pytest.mark.parametrize(("name", "value"), [("port", 70000), ("slo_ms", 0), ("slo_ms", "fast"), ("threads", 0)])
def test_a_bad_value_names_its_field(clean: pytest.MonkeyPatch, name: str, value: object) -> None:
    with pytest.raises(ValidationError, match=name):
        Settings.model_validate({name: value})


def test_the_cache_follows_the_users_folder(clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Settings().cache == tmp_path / "stitchserve"
