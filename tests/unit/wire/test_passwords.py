"""Hashes of passwords: what fits, and what is no hash that a member would work on."""

import pytest

from raftkv.wire import passwords
from raftkv.wire.passwords import hash_password, is_password_hash, verify_password

SALT = b"salt-of-16-bytes"


@pytest.mark.parametrize("password", ["", "secret", "pässwörd", "x" * 500, "\udcff"])
def test_the_password_fits_its_hash_and_no_other_does(password: str) -> None:
    text = hash_password(password)
    assert is_password_hash(text)
    assert password not in text or not password
    assert verify_password(password, text)
    assert not verify_password(password + "x", text)


def test_two_hashes_of_one_password_differ_by_their_salt() -> None:
    assert hash_password("secret") != hash_password("secret")
    assert hash_password("secret", SALT) == hash_password("secret", SALT)


def test_the_cost_is_in_the_text_so_that_it_can_be_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    old = hash_password("secret", SALT)
    monkeypatch.setattr(passwords, "LOG2_N", 15)
    new = hash_password("secret", SALT)
    assert new.startswith("scrypt$15$")
    assert new != old
    assert verify_password("secret", old)
    assert verify_password("secret", new)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "secret",
            "scrypt$14$8$1$c2FsdA==$",
            "scrypt$14$8$1$",
            "bcrypt$14$8$1$c2FsdHNhbHQ=$c2FsdHNhbHRzYWx0c2FsdA==",
        ),
        *(
            f"scrypt${cost}$c2FsdHNhbHQ=$c2FsdHNhbHRzYWx0c2FsdA=="
            for cost in ("30$8$1", "9$8$1", "14$64$1", "14$8$99", "x$8$1", "²$8$1")
        ),
        "scrypt$14$8$1$c2FsdHNhbHQ=$!!!!HNhbHRzYWx0c2FsdA==",
        "scrypt$14$8$1$" + "A" * 400 + "$c2FsdHNhbHRzYWx0c2FsdA==",
    ],
)
def test_what_costs_too_much_or_is_no_hash_is_none(text: str) -> None:
    assert not is_password_hash(text)
    assert not verify_password("secret", text)


def test_a_password_of_a_megabyte_is_not_worked_on() -> None:
    assert not verify_password("x" * (1 << 20), hash_password("secret"))
