"""The verbs of users and roles of the fake client: what was asked, and what a test has put there."""

from typing import Any, ClassVar

from raftkv.client.auth_requests import AuthStatus, Kind, Permission
from raftkv.client.requests import Bytes


class FakeUsers:
    """`cluster` is a fake_client.Cluster."""

    cluster: ClassVar[Any]

    def auth_enable(self) -> None:
        self.cluster.ask("auth_enable")

    def auth_disable(self) -> None:
        self.cluster.ask("auth_disable")

    def auth_status(self) -> AuthStatus:
        self.cluster.ask("auth_status")
        return AuthStatus(True, 7)

    def user_add(self, name: str, password: str | None) -> None:
        self.cluster.ask("user_add", name=name, password=password)
        self.cluster.users[name] = []

    def user_delete(self, name: str) -> None:
        self.cluster.ask("user_delete", name=name)

    def user_change_password(self, name: str, password: str) -> None:
        self.cluster.ask("user_change_password", name=name, password=password)

    def user_get(self, name: str) -> list[str]:
        self.cluster.ask("user_get", name=name)
        return self.cluster.users[name]

    def user_list(self) -> list[str]:
        self.cluster.ask("user_list")
        return sorted(self.cluster.users)

    def user_grant_role(self, user: str, role: str) -> None:
        self.cluster.ask("user_grant_role", user=user, role=role)

    def user_revoke_role(self, user: str, role: str) -> None:
        self.cluster.ask("user_revoke_role", user=user, role=role)

    def role_add(self, role: str) -> None:
        self.cluster.ask("role_add", role=role)

    def role_delete(self, role: str) -> None:
        self.cluster.ask("role_delete", role=role)

    def role_get(self, role: str) -> list[Permission]:
        self.cluster.ask("role_get", role=role)
        return self.cluster.roles[role]

    def role_list(self) -> list[str]:
        self.cluster.ask("role_list")
        return sorted(self.cluster.roles)

    def role_grant_permission(
        self,
        role: str,
        kind: Kind,
        key: Bytes | None = None,
        range_end: Bytes | None = None,
        *,
        prefix: Bytes | None = None,
    ) -> None:
        self.cluster.ask("role_grant_permission", role=role, kind=kind, key=key, range_end=range_end, prefix=prefix)

    def role_revoke_permission(
        self,
        role: str,
        key: Bytes | None = None,
        range_end: Bytes | None = None,
        *,
        prefix: Bytes | None = None,
    ) -> None:
        self.cluster.ask("role_revoke_permission", role=role, key=key, range_end=range_end, prefix=prefix)
