"""TLS on the command line: options, variables, and what they become."""

import pytest

from raftkv.client.tls import Tls

from .conftest import RunCli
from .fake_client import Cluster


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CACERT", "CERT", "KEY", "INSECURE_SKIP_TLS_VERIFY", "ENDPOINTS"):
        monkeypatch.delenv(f"RAFTKV_{name}", raising=False)


@pytest.mark.parametrize(
    ("words", "variables", "tls"),
    [
        ([], {}, None),
        (["--endpoints", "a:1"], {}, None),
        (["--endpoints", "http://a:1"], {}, None),
        (["--endpoints", "https://a:1,https://b:2"], {}, Tls()),
        ([], {"ENDPOINTS": "https://a:1"}, Tls()),
        (["--cacert", "ca"], {}, Tls("ca")),
        ([], {"CACERT": "ca", "CERT": "c", "KEY": "k"}, Tls("ca", "c", "k")),
        (["--cacert", "mine"], {"CACERT": "ca"}, Tls("mine")),
        (["--cert", "c", "--key", "k"], {"CACERT": ""}, Tls(None, "c", "k")),
        (["--insecure-skip-tls-verify"], {}, Tls(verify=False)),
        ([], {"INSECURE_SKIP_TLS_VERIFY": "true"}, Tls(verify=False)),
    ],
)
def test_what_becomes_tls(
    cli: RunCli,
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    variables: dict[str, str],
    tls: Tls | None,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"RAFTKV_{name}", value)
    assert cli(*words, "put", "k", "v").code == 0
    assert cluster.tls == [tls]
    assert "://" not in cluster.opened_with[0][0]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--cert", "c"], "--cert and --key belong together"),
        (["--endpoints", "https://a:1,b:2"], "before all of them, or before none"),
        (["--endpoints", "ftp://a:1"], "nor https://HOST:PORT"),
    ],
)
def test_what_does_not_fit(cli: RunCli, cluster: Cluster, words: list[str], told: str) -> None:
    result = cli(*words, "get", "k")
    assert result.code == 2
    assert told in result.stderr
    assert not cluster.opened_with
