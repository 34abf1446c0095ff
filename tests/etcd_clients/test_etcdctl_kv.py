"""etcdctl: put, get, del, txn, compaction."""

import base64
import re

import pytest

from .etcdctl import Etcdctl

pytestmark = pytest.mark.integration


def test_put_and_get(ctl: Etcdctl, key: str) -> None:
    assert ctl("put", f"{key}a", "one") == "OK\n"
    assert ctl("get", f"{key}a") == f"{key}a\none\n"
    assert ctl("get", f"{key}a", "--print-value-only") == "one\n"
    assert ctl("get", f"{key}a", "--keys-only") == f"{key}a\n\n"
    assert ctl("get", f"{key}missing") == ""
    assert ctl("put", f"{key}a", "two", "--prev-kv") == f"OK\n{key}a\none\n"
    assert ctl("put", f"{key}stdin", given="from\nstandard input") == "OK\n"
    assert ctl("get", f"{key}stdin", "--print-value-only") == "from\nstandard input\n"
    assert ctl("put", "--", f"{key}dash", "-1") == "OK\n"
    assert ctl("--hex", "get", f"{key}dash", "--print-value-only") == r"\x2d\x31" + "\n"


def test_put_that_keeps_value_or_lease(ctl: Etcdctl, key: str) -> None:
    lease = ctl("lease", "grant", "300").split()[1]
    ctl("put", key, "kept", f"--lease={lease}")
    assert ctl("put", key, "--ignore-value") == "OK\n"
    assert ctl.json("get", key)["kvs"][0].get("lease") is None, "a put without a lease lets go of it"
    ctl("put", key, "kept", f"--lease={lease}")
    assert ctl("put", key, "other", "--ignore-lease") == "OK\n"
    found = ctl.json("get", key)["kvs"][0]
    assert (found["lease"], base64.b64decode(found["value"])) == (int(lease, 16), b"other")
    assert "etcdserver: key not found" in ctl.refused("put", f"{key}missing", "--ignore-value")
    assert "etcdserver: requested lease not found" in ctl.refused("put", key, "v", "--lease=7b")
    ctl("lease", "revoke", lease)


def test_get_with_every_option(ctl: Etcdctl, key: str) -> None:
    for name, value in (("a", "3"), ("b", "2"), ("c", "1")):
        ctl("put", key + name, value)
    ctl("put", f"{key}a", "3")  # a has the newest version
    everything = ctl.json("get", key, "--prefix")
    assert [base64.b64decode(kv["key"]).decode()[-1] for kv in everything["kvs"]] == ["a", "b", "c"]
    assert everything["count"] == 3
    revision = everything["header"]["revision"]

    def keys(*flags: str) -> str:
        return "".join(re.findall(f"^{key}(.)$", ctl("get", key, "--prefix", "--keys-only", *flags), re.MULTILINE))

    assert keys() == "abc"
    assert keys("--order=DESCEND") == "cba"
    assert keys("--sort-by=VALUE", "--order=ASCEND") == "cba"
    assert keys("--sort-by=MODIFY", "--order=ASCEND") == "bca"
    assert keys("--sort-by=CREATE", "--order=DESCEND") == "cba"
    assert keys("--sort-by=VERSION", "--order=DESCEND") == "abc"
    assert keys("--limit=2") == "ab"
    assert keys("--consistency=s") == "abc"
    assert keys(f"--rev={revision - 1}", "--sort-by=VERSION", "--order=DESCEND") == "abc"
    assert ctl("get", f"{key}b", f"{key}c", "--keys-only") == f"{key}b\n\n"
    assert ctl("get", f"{key}b", "--from-key", "--limit=2", "--print-value-only") == "2\n1\n"
    assert ctl("get", f"{key}a", f"--rev={revision - 3}") == f"{key}a\n3\n"
    counted = ctl.fields("get", key, "--prefix", "--count-only")
    assert (counted["Count"], counted["More"]) == ("3", "false")
    assert ctl.fields("get", key, "--prefix", "--limit=1")["More"] == "true"
    assert "etcdserver: mvcc: required revision is a future revision" in ctl.refused("get", key, f"--rev={2**40}")


def test_forms_of_output(ctl: Etcdctl, key: str) -> None:
    ctl("put", key, "value")
    fields = ctl.fields("get", key)
    assert {"ClusterID", "MemberID", "Revision", "RaftTerm", "More", "Count"} <= set(fields)
    assert (fields["Key"], fields["Value"], fields["Version"], fields["Lease"]) == (f'"{key}"', '"value"', "1", "0")
    assert fields["CreateRevision"] == fields["ModRevision"] == fields["Revision"]
    answer = ctl.json("get", key)
    assert {"cluster_id", "member_id", "revision", "raft_term"} == set(answer["header"])
    assert base64.b64decode(answer["kvs"][0]["key"]).decode() == key
    encoded = ctl.run("get", key, "--write-out=protobuf")
    assert encoded.returncode == 0
    assert key.encode() in encoded.stdout
    assert "value" not in ctl("--hex", "get", key)


def test_del(ctl: Etcdctl, key: str) -> None:
    for name in "abcd":
        ctl("put", key + name, name)
    assert ctl("del", f"{key}a") == "1\n"
    assert ctl("del", f"{key}a") == "0\n"
    assert ctl("del", f"{key}b", "--prev-kv") == f"1\n{key}b\nb\n"
    assert ctl("del", key, "--prefix") == "2\n"
    assert ctl("get", key, "--prefix") == ""
    ctl("put", f"{key}x", "1")
    assert ctl("del", f"{key}x", f"{key}y") == "1\n"
    assert "etcdserver: key is not provided" not in ctl("del", key, "--prefix", "--prev-kv")


def test_txn(ctl: Etcdctl, key: str) -> None:
    ctl("put", key, "old")
    done = ctl("txn", given=f'value("{key}") = "old"\n\nput {key} new\nget {key}\n\nget {key}\n\n')
    assert done == f"SUCCESS\n\nOK\n\n{key}\nnew\n"
    done = ctl("txn", given=f'value("{key}") = "old"\n\nput {key} newer\n\nget {key}\ndel {key}\n\n')
    assert done == f"FAILURE\n\n{key}\nnew\n\n1\n"
    done = ctl("txn", given=f'version("{key}") = "0"\ncreate("{key}") = "0"\n\nput {key} again\n\n\n')
    assert done == "SUCCESS\n\nOK\n"
    done = ctl("txn", given=f'mod("{key}") > "1"\n\nput {key}1 a\nput {key}2 b\n\n\n')
    assert done == "SUCCESS\n\nOK\n\nOK\n"
    both = f"\nput {key} a\nput {key} b\n\n\n"
    assert "etcdserver: duplicate key given in txn request" in ctl.refused("txn", given=both)


def test_txn_at_a_terminal(ctl: Etcdctl, key: str) -> None:
    """With -i it says what it waits for."""
    said = ctl("txn", "-i", given=f'create("{key}") = "0"\n\nput {key} v\n\n\n')
    assert said.startswith("compares:\n")
    assert said.endswith("SUCCESS\n\nOK\n")


def test_compaction(ctl: Etcdctl, key: str) -> None:
    revision = ctl.json("put", key, "1")["header"]["revision"]
    ctl("put", key, "2")
    ctl("put", key, "3")
    assert ctl("compaction", str(revision + 1)) == f"compacted revision {revision + 1}\n"
    compacted = "etcdserver: mvcc: required revision has been compacted"
    assert compacted in ctl.refused("get", key, f"--rev={revision}")
    assert compacted in ctl.refused("compaction", str(revision))
    assert ctl("get", key, f"--rev={revision + 1}", "--print-value-only") == "2\n"
    assert "is a future revision" in ctl.refused("compaction", str(2**40))
    assert ctl("compaction", "--physical", str(revision + 2)) == f"compacted revision {revision + 2}\n"


def test_values_of_every_size(ctl: Etcdctl, key: str) -> None:
    value = "v" * 1_000_000
    assert ctl("put", key, given=value) == "OK\n"
    assert ctl("get", key, "--print-value-only") == value + "\n"
    assert "etcdserver: request is too large" in ctl.refused("put", key, given="v" * 1_600_000)


def test_more_than_one_message_of_keys(ctl: Etcdctl, key: str) -> None:
    """An answer over gRPC's usual 4 MiB."""
    for number in range(6):
        ctl("put", f"{key}{number}", given=str(number) * 900_000)
    assert len(ctl("get", key, "--prefix", "--print-value-only")) == 6 * 900_001


def test_words_that_are_none(ctl: Etcdctl) -> None:
    """Refused by the client itself: nothing of it is the server's."""
    assert ctl.run("put").returncode == 128
    assert ctl.run("get").returncode == 128
    assert ctl.run("nothing").returncode != 0


def test_no_server_at_all() -> None:
    nobody = Etcdctl("127.0.0.1:1", "--command-timeout=1s", "--dial-timeout=1s")
    assert "context deadline exceeded" in nobody.refused("get", "k")


def test_version(ctl: Etcdctl) -> None:
    assert ctl("version").startswith("etcdctl version: 3.5")
