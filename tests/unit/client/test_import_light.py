"""`raftkv get` answers in under 100 ms, so the blocking client may not import what takes long."""

import subprocess
import sys

HEAVY = [
    "asyncio",
    "aiohttp",
    "lmdb",
    "uvloop",
    "rich",
    "dataclasses",
    "inspect",
    "logging",
    "ssl",
    "random",
    "traceback",
    "pathlib",
    "tempfile",
    "subprocess",
    "concurrent",
    "hashlib",
    "json",
    "unicodedata",
    "grpc",
    "google",
    "raftkv.limits",
    "raftkv.raft",
    "raftkv.client.client",
    "raftkv.client.dispatch",
]


def loaded_by(code: str) -> set[str]:
    # Without site: an editable install brings a path finder of its own, whose imports are not ours.
    program = f"""
import sys
sys.path[:] = {sys.path!r}
{code}
print(*sorted(sys.modules))
"""
    ran = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return set(ran.stdout.split())


def test_the_package_alone_imports_almost_nothing() -> None:
    modules = loaded_by("import raftkv")
    assert modules.isdisjoint(HEAVY), modules & set(HEAVY)
    assert not [name for name in modules if name.startswith("raftkv.")]
    assert "msgpack" not in modules


def test_the_blocking_client_imports_neither_asyncio_nor_the_server() -> None:
    modules = loaded_by("import raftkv; raftkv.Client('127.0.0.1:1').close()")
    assert "raftkv.client.sync" in modules
    assert modules.isdisjoint(HEAVY), modules & set(HEAVY)


def test_connecting_does_not_either() -> None:
    modules = loaded_by(
        """
import raftkv
with raftkv.Client('localhost:1', timeout=0.05) as kv:
    try:
        kv.get('k')
    except raftkv.RaftKVError as error:
        assert error.code == 'unreachable', error
"""
    )
    assert modules.isdisjoint(HEAVY), modules & set(HEAVY)


def test_the_asyncio_client_needs_no_extra() -> None:
    modules = loaded_by("import raftkv; raftkv.connect")
    assert modules.isdisjoint({"aiohttp", "lmdb", "uvloop", "rich", "raftkv.raft"})


def test_every_public_name_is_there() -> None:
    code = "import raftkv; [getattr(raftkv, name) for name in raftkv.__all__]; assert set(raftkv.__all__) <= set(dir(raftkv))"
    assert "raftkv.client.txn" in loaded_by(code)


def test_a_name_that_is_not_there() -> None:
    code = """
import raftkv
try:
    raftkv.nothing
except AttributeError as error:
    assert "'nothing'" in str(error)
else:
    raise SystemExit(1)
"""
    loaded_by(code)
