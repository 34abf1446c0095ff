"""Words to options and arguments: every spelling that is accepted, every mistake with the word that is wrong."""

import pytest

from raftkv_cli.parse import GLOBAL_OPTIONS, bind_arguments, parse_words, verb_options
from raftkv_cli.settings import checked_endpoints, resolve_settings
from raftkv_cli.spec import Argument, Option, UsageError, Verb, integer_at_least
from raftkv_cli.verbs import VERBS, load_verb

OPTIONS = (
    *GLOBAL_OPTIONS,
    Option("--prefix", "a flag"),
    Option("--limit", "a number", "N", convert=integer_at_least(0)),
)


@pytest.mark.parametrize(
    ("words", "values", "arguments"),
    [
        (["a", "b"], {}, ["a", "b"]),
        (["--prefix", "a"], {"--prefix": True}, ["a"]),
        (["a", "--limit", "3"], {"--limit": 3}, ["a"]),
        (["a", "--limit=3"], {"--limit": 3}, ["a"]),
        (["--limit=3", "--limit=4"], {"--limit": 4}, []),
        (["-o", "json", "a"], {"--output": "json"}, ["a"]),
        (["-ojson"], {"--output": "json"}, []),
        (["-o=json"], {"--output": "json"}, []),
        (["--output=table"], {"--output": "table"}, []),
        (["--", "--prefix", "-o"], {}, ["--prefix", "-o"]),
        (["k", "-"], {}, ["k", "-"]),
        (["k", "-5"], {}, ["k", "-5"]),
        (["k", ""], {}, ["k", ""]),
        (["--timeout", "0.5"], {"--timeout": 0.5}, []),
        (["--cluster-name="], {"--cluster-name": ""}, []),
        (["--cluster-name", "--prefix"], {"--cluster-name": "--prefix"}, []),
    ],
)
def test_accepted_spellings(words: list[str], values: dict[str, object], arguments: list[str]) -> None:
    parsed = parse_words(words, OPTIONS)
    assert parsed.options == values
    assert parsed.arguments == arguments


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--prefx"], "unknown option --prefx; did you mean --prefix?"),
        (["-x"], "unknown option -x"),
        (["--limit"], "--limit needs a value (N)"),
        (["--limit", "many"], "--limit 'many' is not a whole number"),
        (["--limit", "-1"], "--limit '-1' is not within 0"),
        (["--prefix=yes"], "--prefix takes no value, but got 'yes'"),
        (["-o", "xml"], "--output 'xml' is none of value, table, json"),
        (["--timeout", "soon"], "--timeout 'soon' is not a number of seconds"),
        (["--timeout", "0"], "is not within 0 and 86400"),
        (["--timeout", "nan"], "is not within 0 and 86400"),
        (["--timeout", "inf"], "is not within 0 and 86400"),
    ],
)
def test_mistakes_name_the_word(words: list[str], complaint: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_words(words, OPTIONS)
    assert complaint in str(raised.value)


def test_words_behind_the_verb_are_left_alone() -> None:
    parsed = parse_words(["-o", "json", "get", "--prefix", "k"], GLOBAL_OPTIONS, stop_at_argument=True)
    assert parsed.arguments == ["get"]
    assert parsed.rest == ["--prefix", "k"]


def test_arguments_are_bound_by_name() -> None:
    arguments = (Argument("KEY", ""), Argument("VALUE", "", required=False))
    assert bind_arguments(["k", "v"], arguments) == {"KEY": "k", "VALUE": "v"}
    assert bind_arguments(["k"], arguments) == {"KEY": "k"}
    with pytest.raises(UsageError, match="KEY is missing"):
        bind_arguments([], arguments)
    with pytest.raises(UsageError, match="unexpected argument 'w'"):
        bind_arguments(["k", "v", "w"], arguments)


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_of_the_table_loads_and_has_unique_options(name: str) -> None:
    verb = load_verb(name)
    names = [option.name for option in verb_options(verb)]
    assert isinstance(verb, Verb)
    assert len(names) == len(set(names))
    assert all(name.startswith("--") for name in names)


@pytest.mark.parametrize(
    ("text", "endpoints"),
    [
        ("a:1", ("a:1",)),
        ("a:1,b:2", ("a:1", "b:2")),
        (" a:1 , b:2 ", ("a:1", "b:2")),
        ("[::1]:2379", ("[::1]:2379",)),
    ],
)
def test_endpoints(text: str, endpoints: tuple[str, ...]) -> None:
    assert checked_endpoints(text, "--endpoints") == endpoints


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "a",
        "a:1,",
        "a:",
        ":1",
        "a:x",
        "a:0",
        "a:65536",
        "::1:2379",
        "ftp://a:1",
        "a b:1",
        "u@a:1",
        "a:-1",
        "a:²",
        ",".join(f"a:{n}" for n in range(1, 70)),
    ],
)
def test_bad_endpoints_are_named(text: str) -> None:
    with pytest.raises(ValueError, match="RAFTKV_ENDPOINTS"):
        checked_endpoints(text, "RAFTKV_ENDPOINTS")


def test_options_win_over_the_environment_and_empty_variables_are_unset() -> None:
    environment = {"RAFTKV_ENDPOINTS": "e:1", "RAFTKV_CLUSTER_NAME": "prod"}
    settings = resolve_settings({}, environment)
    assert (settings.endpoints, settings.cluster_name, settings.timeout_seconds) == (("e:1",), "prod", 5.0)
    settings = resolve_settings({"--endpoints": "o:1", "--cluster-name": "x", "--timeout": 1.5}, environment)
    assert (settings.endpoints, settings.cluster_name, settings.timeout_seconds) == (("o:1",), "x", 1.5)
    settings = resolve_settings({}, {"RAFTKV_ENDPOINTS": "", "RAFTKV_CLUSTER_NAME": ""})
    assert (settings.endpoints, settings.cluster_name) == (("127.0.0.1:2379",), None)
    with pytest.raises(ValueError, match="--cluster-name is empty"):
        resolve_settings({"--cluster-name": ""}, {})
