"""HOST:PORT as text, IPv6 in brackets: the one reader of addresses for the links, the listener and the configuration.

No resolution happens here: a name stays a name until the moment of a connection attempt, because containers get new
addresses when they restart.
"""

from raftkv.errors import ConfigError

PORT_MAX = 65_535


def split_address(text: str) -> tuple[str, int]:
    """Host and port of "host:port" or "[::1]:port". Raises ConfigError that says what is wrong with it."""
    host, colon, port_text = text.rpartition(":")
    if not colon:
        raise ConfigError(f'must be HOST:PORT, is "{text}"')
    if any(character.isspace() or character in "/@" for character in host):
        raise ConfigError(f'must be HOST:PORT and no more, is "{text}"')
    if not (port_text.isascii() and port_text.isdigit()) or len(port_text) > 5 or int(port_text) > PORT_MAX:
        raise ConfigError(f'must end in a port from 0 to {PORT_MAX}, is "{text}"')
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ConfigError(f'must have an IPv6 address in brackets, like [::1]:2379, is "{text}"')
    if not host or "[" in host or "]" in host:
        raise ConfigError(f'must be HOST:PORT, is "{text}"')
    return host, int(port_text)


def join_address(host: str, port: int) -> str:
    """The text that split_address reads."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
