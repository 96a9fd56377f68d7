"""Keys, weights and floors, from a file that may be wrong."""

from hashlib import sha256
from pathlib import Path

import pytest

from server.errors import Unauthorized
from server.rates import Rate
from server.service import build
from server.settings import Settings
from server.tenants import ANYONE, Tenant, Tenants

DIGEST = sha256(b"secret").hexdigest()


LISTED = f'[[tenants]]\nname = "shop"\nkey_sha256 = "{DIGEST}"\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "tenants.toml"
    path.write_text(text)
    return path


def test_a_key_tells_whose_a_request_is(tmp_path: Path) -> None:
    text = f'[[tenants]]\nname = "shop"\nkey_sha256 = "{DIGEST}"\nweight = 2\nmin_top1 = 75'
    tenants = Tenants.load(written(tmp_path, text))
    assert tenants.of("secret") == Tenant("shop", 2.0, 0.75)
    assert tenants.of(None) is ANYONE
    with pytest.raises(Unauthorized, match="API key"):
        tenants.of("Secret")


def test_a_tenant_may_have_a_rate(tmp_path: Path) -> None:
    text = f'[[tenants]]\nname = "shop"\nkey_sha256 = "{DIGEST}"\nrate = 5'
    assert Tenants.load(written(tmp_path, text)).of("secret").rate == Rate(5, 5)
    assert Tenants.load(written(tmp_path, text + "\nburst = 20")).of("secret").rate == Rate(5, 20)


def test_what_can_wait_has_a_tenth_of_its_tenants_share_whatever_its_priority() -> None:
    shop = Tenant("shop", 2.0, 0.75, Rate(5, 5))
    assert shop.asking(0) == shop.asking(1) == shop
    assert shop.asking(2) == shop.asking(9) == Tenant("shop", 0.2, 0.75, Rate(5, 5))


def test_where_no_keys_are_listed_none_is_wrong() -> None:
    assert Tenants().of("whatever") is ANYONE


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("tenants = 3", "tenants"),
        ("", "tenants"),
        ("[[tenants]", "tenants.toml"),
        ('[[tenants]]\nname = "shop"', "key_sha256"),
        ('[[tenants]]\nname = "shop"\nkey_sha256 = "secret"', "key_sha256"),
        (f'[[tenants]]\nname = "shop"\nkey_sha256 = "{DIGEST}"\nweight = 0', "weight"),
        (f'[[tenants]]\nname = "shop"\nkey_sha256 = "{DIGEST}"\nmin_top1 = 101', "min_top1"),
        (f'[[tenants]]\nname = "shop"\nkey_sha256 = "{DIGEST}"\nfloor = 1', "floor"),
        (f'[[tenants]]\nname = "shop"\nkey_sha256 = "{DIGEST}"\nrate = 0', "rate"),
        (f'[[tenants]]\nname = "shop"\nkey_sha256 = "{DIGEST}"\nrate = 5\nburst = 0', "burst"),
        (f'[[tenants]]\nname = "shop"\nkey_sha256 = "{DIGEST}"\nburst = 5', "burst: there is no rate"),
        (f'[[tenants]]\nname = "a"\nkey_sha256 = "{DIGEST}"\n[[tenants]]\nname = "b"\nkey_sha256 = "{DIGEST}"', "same"),
    ],
)
def test_a_faulty_file_is_named_with_its_fault(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault) as error:
        Tenants.load(written(tmp_path, text))
    assert "tenants.toml" in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [(LISTED + "min_top1 = 99", "min_top1 of 'shop': digits reaches 93.24% top-1 at most"), ("tenants = 3", "tenants")],
)
def test_tenants_that_cannot_be_are_refused_before_anything_is_loaded(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        build(Settings(tenants=written(tmp_path, text), device="potato"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.toml"):
        Tenants.load(tmp_path / "nowhere.toml")
