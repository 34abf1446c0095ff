"""`python -m raftkv_cli`: the command line without an installed script; `raftkv dev` starts its members this way."""

import sys

from raftkv_cli.main import entry

if __name__ == "__main__":
    sys.exit(entry())
