"""Stories of users and roles: who is refused what, with which words, on both servers, while passwords, grants and auth itself come and go.

Left out is where etcd 3.5.1 was mended later and raftkv does as it does now: nested transactions, `prev_kv` and leases in transactions, leases of others,
calls without a token that it let through, tokens while auth is off (docs/etcd-compat.md).
"""

from random import Random
from typing import Any

from raftkv.etcd.statuses import Status
from raftkv.etcdpb import auth_pb2 as auth
from raftkv.etcdpb import rpc_pb2 as rpc
from tests.differential.doors.calls import CALLS
from tests.differential.doors.ends import End, GatewayEnd
from tests.differential.doors.judge import align
from tests.differential.judge import Difference, comparable, shown

USERS = ["root", "ann", "bob"]
ROLES = ["root", "reader", "writer"]
PASSWORDS = ["one", "two"]
KEYS = [b"a", b"ab", b"b", b"c", b"\xff"]
ENDS = [b"", b"", b"\0", b"b", b"c", b"z"]
STEPS = 50
ROOT = ("root", "one")


class AuthPair:
    """Both servers, and per server the tokens that its users hold."""

    def __init__(self, real: End, ours: End, seed: int) -> None:
        align(real, ours)
        self._ends = (real, ours)
        self._random = Random(seed)
        self._tokens: list[dict[str, str]] = [{}, {}]
        self._is_on = False

    def tell(self) -> None:
        """Raises Difference."""
        try:
            for request in _beginning():
                self._ask(*request, "at first", "")
            for number in range(STEPS):
                self._step(f"step {number}")
        finally:
            self._end_auth()

    def _end_auth(self) -> None:
        """However it went: auth is off, and there is nobody."""
        for end in self._ends:
            for name in ("one", "two"):
                answer = ask(end, "Authenticate", rpc.AuthenticateRequest(name="root", password=name), "")
                if not isinstance(answer, Status):
                    ask(end, "AuthDisable", rpc.AuthDisableRequest(), answer.token)
            for user in USERS:
                ask(end, "UserDelete", rpc.AuthUserDeleteRequest(name=user), "")
            for role in ROLES:
                ask(end, "RoleDelete", rpc.AuthRoleDeleteRequest(role=role), "")
            status = ask(end, "AuthStatus", rpc.AuthStatusRequest(), "")
            assert not isinstance(status, Status), status
            assert not status.enabled

    def _step(self, where: str) -> None:
        """Some step of somebody. While auth is off nobody has a token."""
        draw = self._random
        who = draw.choice([*USERS, "root", "root", "", "forged"]) if self._is_on else ""
        kind = draw.randrange(12)
        if kind == 0:
            self._switch(where)
        elif kind < 3:
            self._log_in(where)
        elif kind < 7:
            self._ask(*self._management(), where, who)
        else:
            self._ask(*self._data(), where, who)

    def _switch(self, where: str) -> None:
        if self._is_on and self._random.random() < 0.7:
            return
        name, request = (
            ("AuthDisable", rpc.AuthDisableRequest()) if self._is_on else ("AuthEnable", rpc.AuthEnableRequest())
        )
        answer = self._ask(name, request, where, "root" if self._is_on else "")
        if not isinstance(answer, Status):
            self._is_on = not self._is_on
            self._tokens = [{}, {}]

    def _log_in(self, where: str) -> None:
        user, password = self._random.choice(USERS), self._random.choice(PASSWORDS)
        request = rpc.AuthenticateRequest(name=user, password=password)
        answers = [ask(end, "Authenticate", request, "") for end in self._ends]
        for tokens, answer in zip(self._tokens, answers, strict=True):
            if not isinstance(answer, Status):
                assert answer.token
                tokens[user] = answer.token
                answer.token = ""
        self._compare(answers, where, request)

    def _management(self) -> tuple[str, Any]:
        draw = self._random
        user, role, password = (
            draw.choice([*USERS, "nobody", ""]),
            draw.choice([*ROLES, "none"]),
            draw.choice(PASSWORDS),
        )
        key, end = draw.choice(KEYS), draw.choice(ENDS)
        if end not in (b"", b"\0") and end <= key:
            end = b""  # etcd refuses a range without a key since 3.5.8
        permission = auth.Permission(permType=draw.randrange(3), key=key, range_end=end)  # type: ignore[arg-type]
        return draw.choice(
            [
                ("UserAdd", rpc.AuthUserAddRequest(name=user, password=password)),
                ("UserGet", rpc.AuthUserGetRequest(name=user or "nobody")),
                ("UserList", rpc.AuthUserListRequest()),
                ("UserDelete", rpc.AuthUserDeleteRequest(name=draw.choice(["ann", "bob", "bob", "root", "nobody"]))),
                ("UserChangePassword", rpc.AuthUserChangePasswordRequest(name=user, password=password)),
                ("UserGrantRole", rpc.AuthUserGrantRoleRequest(user=user, role=role)),
                ("UserGrantRole", rpc.AuthUserGrantRoleRequest(user=draw.choice(["ann", "bob"]), role=role)),
                ("UserRevokeRole", rpc.AuthUserRevokeRoleRequest(name=user, role=role)),
                ("RoleAdd", rpc.AuthRoleAddRequest(name=draw.choice([role, role, ""]))),
                ("RoleGet", rpc.AuthRoleGetRequest(role=role)),
                ("RoleList", rpc.AuthRoleListRequest()),
                ("RoleDelete", rpc.AuthRoleDeleteRequest(role=draw.choice(["reader", "writer", "root", "none"]))),
                ("RoleGrantPermission", rpc.AuthRoleGrantPermissionRequest(name=role, perm=permission)),
                (
                    "RoleGrantPermission",
                    rpc.AuthRoleGrantPermissionRequest(name=draw.choice(ROLES[1:]), perm=permission),
                ),
                ("RoleRevokePermission", rpc.AuthRoleRevokePermissionRequest(role=role, key=key, range_end=end)),
                ("AuthStatus", rpc.AuthStatusRequest()),
            ]
        )

    def _data(self) -> tuple[str, Any]:
        draw = self._random
        key, end = draw.choice(KEYS), draw.choice(ENDS)
        if end not in (b"", b"\0") and end <= key:
            end = b""  # a range without a key: etcd permits it to some, by accident
        put = rpc.PutRequest(key=key, value=b"v")
        scan = rpc.RangeRequest(key=key, range_end=end, serializable=False)
        compare = rpc.Compare(key=draw.choice(KEYS), range_end=draw.choice([b"", b"z"]), version=0)
        branches = [[rpc.RequestOp(request_put=put)], [rpc.RequestOp(request_range=scan)]]
        draw.shuffle(branches)
        return draw.choice(
            [
                ("Put", put),
                ("Put", rpc.PutRequest(key=key, value=b"w", prev_kv=True)),
                ("Range", scan),
                ("Range", scan),
                ("DeleteRange", rpc.DeleteRangeRequest(key=key, range_end=end, prev_kv=draw.random() < 0.5)),
                ("Txn", rpc.TxnRequest(compare=[compare], success=branches[0], failure=branches[1])),
            ]
        )

    def _ask(self, name: str, request: Any, where: str, who: str) -> Any:
        tokens = ["forged.1" if who == "forged" else held.get(who, "") for held in self._tokens]
        both = zip(self._ends, tokens, strict=True)
        return self._compare(
            [ask(end, name, request, token) for end, token in both], f"{where}: {name} as {who!r}", request
        )

    def _compare(self, answers: list[Any], where: str, request: Any) -> Any:
        real, ours = (comparable(request, answer) for answer in answers)
        if real != ours:
            raise Difference(f"{where}\n{shown(request)}\n  etcd:\n{shown(real)}\n  raftkv:\n{shown(ours)}")
        return answers[0]


def _beginning() -> list[tuple[str, Any]]:
    return [
        ("UserAdd", rpc.AuthUserAddRequest(name="root", password="one")),
        ("UserGrantRole", rpc.AuthUserGrantRoleRequest(user="root", role="root")),
        ("UserAdd", rpc.AuthUserAddRequest(name="ann", password="one")),
        ("RoleAdd", rpc.AuthRoleAddRequest(name="reader")),
        ("UserGrantRole", rpc.AuthUserGrantRoleRequest(user="ann", role="reader")),
        (
            "RoleGrantPermission",
            rpc.AuthRoleGrantPermissionRequest(name="reader", perm=auth.Permission(key=b"a", range_end=b"c")),
        ),
    ]


def ask(end: Any, name: str, request: Any, token: str) -> Any:
    """A call with a token, or without when it is empty."""
    call = CALLS[name]
    if isinstance(end, GatewayEnd):
        return end.answer(*call[:2], request, call.answered_by, token)
    return end.answer(*call[:2], request, call.answered_by, (("token", token),) if token else ())


def run_auth_seed(real: End, ours: End, seed: int) -> None:
    """Raises Difference, with how to see it again."""
    try:
        AuthPair(real, ours, seed).tell()
    except Difference as error:
        raise Difference(f"auth, seed {seed}: {error}") from error
