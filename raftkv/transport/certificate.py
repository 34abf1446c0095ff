"""When certificates end. The ssl module tells that of the other side of a connection only, so it is read from the certificate itself.

Only certificates that OpenSSL has taken come here. What cannot be read nevertheless is no reason to do without them.
"""

import re
import ssl
from datetime import UTC, datetime
from typing import Final

_SEQUENCE: Final = 0x30
_VERSION: Final = 0xA0
_TIME_FORMATS: Final = {
    0x17: ("%y%m%d%H%M%SZ", 13),
    0x18: ("%Y%m%d%H%M%SZ", 15),
}  # UTCTime, GeneralizedTime (RFC 5280, 4.1.2.5)
_CERTIFICATE: Final = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def not_after(pem: str) -> float | None:
    """When the first of the certificates in a PEM text ends, in seconds since 1970; None when there is none that can be read."""
    try:
        ends = [_not_after(ssl.PEM_cert_to_DER_cert(found)) for found in _CERTIFICATE.findall(pem)]
    except (ValueError, IndexError):
        return None
    return min(ends, default=None)


def _not_after(der: bytes) -> float:
    """Of Certificate { tbsCertificate { [0] version, serialNumber, signature, issuer, validity { notBefore, notAfter } ... } ... }."""
    at = _enter(der, _enter(der, 0))
    if der[at] == _VERSION:
        at = _bounds(der, at)[1]
    for _ in ("serialNumber", "signature", "issuer"):
        at = _bounds(der, at)[1]
    at = _bounds(der, _enter(der, at))[1]  # behind notBefore
    start, end = _bounds(der, at)
    form, length = _TIME_FORMATS.get(der[at], ("", 0))
    text = der[start:end].decode("ascii")
    if len(text) != length:
        raise ValueError("the end of a certificate is no time")
    moment = datetime.strptime(text, form).replace(tzinfo=UTC)
    if moment.year >= 2050 and length == 13:
        moment = moment.replace(year=moment.year - 100)  # two digits are 1950 to 2049
    return moment.timestamp()


def _enter(der: bytes, at: int) -> int:
    """Where the content of the sequence at this place begins."""
    if der[at] != _SEQUENCE:
        raise ValueError("a certificate is built otherwise")
    return _bounds(der, at)[0]


def _bounds(der: bytes, at: int) -> tuple[int, int]:
    """Where the content of the element at this place begins and ends."""
    length, start = der[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7F
        length, start = int.from_bytes(der[start : start + count]), start + count
    if start + length > len(der):
        raise ValueError("a certificate ends too early")
    return start, start + length


__all__ = ["not_after"]
