"""The text form of transactions: what it means, and every mistake with its line."""

import pytest

from raftkv_cli.txn_script import Comparison, Operation, ScriptError, parse_script

FULL = """
# a comment is no line
mod("job/1") = "7"
value(job/state) != "not done"
version("k")>0
  create ( "a)b" )  <  9
lease(k) = 0

put job/state "running now"
del job/ --prefix
del a b
get k

get job/state
"""


def test_a_full_script() -> None:
    script = parse_script(FULL.lstrip())
    assert script.comparisons == (
        Comparison("mod", b"job/1", "=", 7),
        Comparison("value", b"job/state", "!=", b"not done"),
        Comparison("version", b"k", ">", 0),
        Comparison("create", b"a)b", "<", 9),
        Comparison("lease", b"k", "=", 0),
    )
    assert script.success == (
        Operation("put", b"job/state", b"running now"),
        Operation("del", b"job/", prefix=True),
        Operation("del", b"a", range_end=b"b"),
        Operation("get", b"k"),
    )
    assert script.failure == (Operation("get", b"job/state"),)


def test_parts_may_be_empty() -> None:
    assert parse_script("version(k) = 0\n").comparisons == (Comparison("version", b"k", "=", 0),)
    assert parse_script("\nput k v\n") == ((), (Operation("put", b"k", b"v"),), ())
    assert parse_script("\n\nput k v\n\n\n") == ((), (), (Operation("put", b"k", b"v"),))


def test_escapes_and_bytes_that_are_no_text() -> None:
    script = parse_script(
        r'''
put "a\x00\xff\"\\" "\n\t\r\0"'''.replace("a", "a\udcfe")
    )
    assert script.success == (Operation("put", b'a\xfe\x00\xff"\\', b"\n\t\r\0"),)
    assert parse_script('\nput k ""').success == (Operation("put", b"k", b""),)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "the transaction is empty"),
        ("\n\n\n", "the transaction is empty"),
        ("modd(k) = 1", "line 1: a comparison looks like"),
        ("put k v", "line 1: a comparison looks like"),
        ("mod(k = 1", "line 1: the key of a comparison ends with )"),
        ("mod(k) ~ 1", "line 1: a comparison is one of = != > <"),
        ("mod(k) = x", "line 1: mod is compared with a whole number"),
        ("mod(k) =", "line 1: mod is compared with a whole number"),
        ("mod(k) = -1", "line 1: -1 is no mod"),
        ("mod(k) = 99999999999999999999", "is no mod"),
        ("mod() = 1", "line 1: the key is empty"),
        ("value(k) = a b", "line 1: 'b' is left over"),
        ('value(k) = "a', "line 1: a closing quote is missing"),
        ("mod(k) = 1\n\nput k", "line 3: put takes a key and a value"),
        ("\nput k v w", "line 2: put takes a key and a value"),
        ("\nfetch k", "line 2: unknown operation 'fetch'"),
        ("\nget", "line 2: get takes a key"),
        ("\ndel a b --prefix", "line 2: del takes a key"),
        ('\nget ""', "line 2: the key is empty"),
        (
            r'''
put k "\q"''',
            r"line 2: \q is no escape",
        ),
        (
            r'''
put k "\xg0"''',
            r"line 2: \x is no escape",
        ),
        ("\n\n\nput k v", "line 4: a fourth part"),
    ],
)
def test_mistakes_name_the_line(text: str, complaint: str) -> None:
    with pytest.raises(ScriptError) as raised:
        parse_script(text)
    assert complaint in str(raised.value)
