"""What the container tests stand on: a Docker engine, a base image without a registry, the compose file, a client that never rests."""
