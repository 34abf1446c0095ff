"""When certificates end, beside what a library of others reads in them."""

import datetime
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from raftkv.transport.certificate import not_after

UTC = datetime.UTC
NAME = x509.Name(
    [
        x509.NameAttribute(x509.NameOID.COMMON_NAME, f"{number} of five with which a length has two bytes")
        for number in range(5)
    ]
)
KEY = ec.generate_private_key(ec.SECP256R1())


def certificate_until(end: datetime.datetime) -> str:
    builder = x509.CertificateBuilder(
        NAME, NAME, KEY.public_key(), 1 << 150, datetime.datetime(1960, 1, 1, tzinfo=UTC), end
    )
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


# Two digits of a year up to 2049, four from then on; two digits from 50 on are another century's.
@pytest.mark.parametrize("year", [1961, 1999, 2000, 2026, 2049, 2050, 9999])
def test_both_ways_to_write_a_time(year: int) -> None:
    end = datetime.datetime(year, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert not_after(certificate_until(end)) == end.timestamp()


def test_of_a_chain_the_first_end_counts() -> None:
    ends = [datetime.datetime(year, 1, 1, tzinfo=UTC) for year in (2031, 2029, 2030)]
    text = "some words before\n" + "and between\n".join(map(certificate_until, ends))
    assert not_after(text) == ends[1].timestamp()


def test_what_others_issue(tmp_path: Path) -> None:
    for blob in trustme.CA().issue_cert("localhost").cert_chain_pems:
        expected = x509.load_pem_x509_certificate(blob.bytes()).not_valid_after_utc
        assert not_after(blob.bytes().decode()) == expected.timestamp()


def test_nothing_is_no_certificate() -> None:
    assert not_after("") is None
    assert not_after("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----") is None


WHOLE = bytes(
    x509.load_pem_x509_certificate(certificate_until(datetime.datetime(2030, 1, 1, tzinfo=UTC)).encode()).public_bytes(
        serialization.Encoding.DER
    )
)


@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255), st.integers(0, len(WHOLE)))
def test_damage_is_no_reason_to_fail(at: int, byte: int, length: int) -> None:
    import ssl

    damaged = bytearray(WHOLE)
    damaged[at] = byte
    found = not_after(ssl.DER_cert_to_PEM_cert(bytes(damaged[:length])))
    assert found is None or type(found) is float
