"""Passwords as they are kept and compared: scrypt, with salt and cost in the text, so that the cost can be raised later.

    scrypt$14$8$1$<salt, base64>$<key, base64>      (log2 of N, r, p)

Only such a text is ever in the log or on the disk. Making and checking one takes tens of milliseconds and 16 MiB on purpose: not in a
loop. Whoever makes one limits its cost, because every login pays it on a member.
"""

from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from os import urandom
from typing import Final, NamedTuple

LOG2_N: Final = 14
LOG2_N_MAX: Final = 16
R: Final = 8
P: Final = 1
SALT_BYTES: Final = 16
KEY_BYTES: Final = 32
TEXT_CHARACTERS_MAX: Final = 256
PASSWORD_BYTES_MAX: Final = 1024
_MEMORY_MARGIN_BYTES: Final = 1 << 20


class _Parts(NamedTuple):
    log2_n: int
    r: int
    p: int
    salt: bytes
    key: bytes


def hash_password(password: str, salt: bytes | None = None) -> str:
    """The text to keep; `salt` is drawn when none is given."""
    salt = urandom(SALT_BYTES) if salt is None else salt
    key = _derive(password, LOG2_N, R, P, salt, KEY_BYTES)
    return f"scrypt${LOG2_N}${R}${P}${_encode(salt)}${_encode(key)}"


def verify_password(password: str, text: str) -> bool:
    """Whether this is the password; False for a text that is none of ours."""
    parts = _parse(text)
    if parts is None or len(password.encode(errors="surrogatepass")) > PASSWORD_BYTES_MAX:
        return False
    from hmac import compare_digest

    key = _derive(password, parts.log2_n, parts.r, parts.p, parts.salt, len(parts.key))
    return compare_digest(key, parts.key)


def is_password_hash(text: object) -> bool:
    """Whether this is a text as made here, at a cost that a member may be asked to pay."""
    return type(text) is str and _parse(text) is not None


def _encode(data: bytes) -> str:
    return b2a_base64(data, newline=False).decode()


def _derive(password: str, log2_n: int, r: int, p: int, salt: bytes, key_bytes: int) -> bytes:
    import hashlib  # the command line waits for every import

    return hashlib.scrypt(
        password.encode(errors="surrogatepass"),
        salt=salt,
        n=1 << log2_n,
        r=r,
        p=p,
        maxmem=128 * r * (1 << log2_n) + 128 * r * p + _MEMORY_MARGIN_BYTES,
        dklen=key_bytes,
    )


def _parse(text: str) -> _Parts | None:
    fields = text.split("$") if len(text) <= TEXT_CHARACTERS_MAX else []
    if (
        len(fields) != 6
        or fields[0] != "scrypt"
        or not all(field.isascii() and field.isdigit() for field in fields[1:4])
    ):
        return None
    if any(len(field) > 2 for field in fields[1:4]):
        return None
    log2_n, r, p = map(int, fields[1:4])
    if not (10 <= log2_n <= LOG2_N_MAX and r == R and 1 <= p <= 4):
        return None
    try:
        salt, key = (a2b_base64(field, strict_mode=True) for field in fields[4:])
    except (Base64Error, ValueError):
        return None
    return _Parts(log2_n, r, p, salt, key) if 8 <= len(salt) <= 64 and 16 <= len(key) <= 64 else None


__all__ = ["hash_password", "is_password_hash", "verify_password"]
