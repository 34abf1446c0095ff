"""Errors of users, roles and logins. Here because they are many; importers take them from raftkv.errors like all others.

Their codes say what etcd's texts say (raftkv/etcd/statuses.py has them side by side). None of them leaves an outcome open.
"""

from raftkv.errors import InvalidRequest, RaftKVError


class PermissionDenied(RaftKVError):
    """The user may not do this."""

    code = "permission_denied"


class UserEmpty(RaftKVError):
    """Authentication is on, and the request came without a user: log in (--user)."""

    code = "user_empty"


class AuthOldRevision(RaftKVError):
    """The login is older than the last change of the user's password, or of the user: log in again."""

    code = "auth_old_revision"


class InvalidAuthToken(RaftKVError):
    """The token is not known, or has run out: log in again."""

    code = "invalid_auth_token"


class AuthFailed(RaftKVError):
    """There is no such user, or the password is another."""

    code = "auth_failed"


class NoPasswordUser(RaftKVError):
    """The user was made without a password, so none fits."""

    code = "no_password_user"


class AuthNotEnabled(RaftKVError):
    """Authentication is not enabled, so nobody can log in."""

    code = "auth_not_enabled"


class InsecurePeers(RaftKVError):
    """Authentication would protect nothing: members do not authenticate each other."""

    code = "insecure_peers"


class UserExists(RaftKVError):
    """A user of this name exists already."""

    code = "user_exists"


class UserNotFound(RaftKVError):
    """There is no user of this name."""

    code = "user_not_found"


class RoleEmpty(InvalidRequest):
    """A role has a name."""

    code = "role_empty"


class RoleExists(RaftKVError):
    """A role of this name exists already."""

    code = "role_exists"


class RoleNotFound(RaftKVError):
    """There is no role of this name."""

    code = "role_not_found"


class RoleNotGranted(RaftKVError):
    """The user does not have this role."""

    code = "role_not_granted"


class PermissionNotGiven(InvalidRequest):
    """No permission was named."""

    code = "permission_not_given"


class PermissionNotGranted(RaftKVError):
    """The role has no permission for exactly this range."""

    code = "permission_not_granted"


class RootUserMissing(RaftKVError):
    """There has to be a user `root` before authentication is enabled."""

    code = "root_user_missing"


class RootRoleMissing(RaftKVError):
    """The user `root` needs the role `root` before authentication is enabled."""

    code = "root_role_missing"


class InvalidAuthManagement(RaftKVError):
    """That would leave nobody who can manage users, or grants a range that is empty."""

    code = "invalid_auth_management"


class AuthFull(RaftKVError):
    """As many users, roles or permissions are kept as may be."""

    code = "auth_full"


__all__ = [
    "AuthFailed",
    "AuthFull",
    "AuthNotEnabled",
    "AuthOldRevision",
    "InsecurePeers",
    "InvalidAuthManagement",
    "InvalidAuthToken",
    "NoPasswordUser",
    "PermissionDenied",
    "PermissionNotGiven",
    "PermissionNotGranted",
    "RoleEmpty",
    "RoleExists",
    "RoleNotFound",
    "RoleNotGranted",
    "RootRoleMissing",
    "RootUserMissing",
    "UserEmpty",
    "UserExists",
    "UserNotFound",
]
