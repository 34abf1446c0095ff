"""Which etcd raftkv says it is. Clients choose by it what they ask for and how: it behaves like a late 3.5."""

from typing import Final

SERVER_VERSION: Final = "3.5.21"
CLUSTER_VERSION: Final = "3.5.0"
STORAGE_VERSION: Final = "3.5.0"
NOT_DECIDED: Final = "not_decided"  # the version of a cluster that is not founded yet


def version_document(*, is_founded: bool, own_version: str) -> dict[str, str]:
    """What GET /version answers."""
    return {
        "etcdserver": SERVER_VERSION,
        "etcdcluster": CLUSTER_VERSION if is_founded else NOT_DECIDED,
        "storage": STORAGE_VERSION,
        "raftkv": own_version,
    }
