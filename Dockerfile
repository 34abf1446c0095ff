# One member of a raftkv cluster. Two stages: wheels and a virtual environment are made in the first, the second holds
# that environment and nothing that builds.
#
#   docker build -t raftkv:local .                                  needs the registry and PyPI
#   docker build -t raftkv:local \
#     --build-arg BASE_IMAGE=my-base --build-arg WHEELS=dist/wheels .   needs neither, see docs/deployment.md
#
# The base brings python3 (3.11 or newer) with venv; both stages use the same one, because the environment's interpreter
# is a link into it. 3.11 is the version that the tests run on.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
# The classic builder leaves this stage behind: docker image prune --filter label=raftkv.stage=build
LABEL raftkv.stage="build"
WORKDIR /build
COPY . .
# A folder of the build context with finished wheels of raftkv and all it needs; nothing is downloaded then.
ARG WHEELS=""
# pip goes out of the environment again: a member installs nothing. Links in /opt/raftkv/bin point to the base's python3.
RUN python3 -m venv /opt/raftkv \
 && if [ -n "${WHEELS}" ]; \
    then /opt/raftkv/bin/pip install --no-cache-dir --no-index --find-links "${WHEELS}" 'raftkv[server,doors,table]'; \
    else /opt/raftkv/bin/pip wheel --no-cache-dir --wheel-dir /wheels '.[server,doors,table]' \
      && /opt/raftkv/bin/pip install --no-cache-dir --no-index --find-links /wheels 'raftkv[server,doors,table]'; \
    fi \
 && /opt/raftkv/bin/pip uninstall --yes --quiet setuptools pip

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="raftkv" \
      org.opencontainers.image.description="A Raft consensus key-value store" \
      org.opencontainers.image.licenses="Apache-2.0"
# The directory exists with its owner before VOLUME, so that a named volume is born with that owner.
RUN groupadd --gid 10001 raftkv \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/raftkv --shell /usr/sbin/nologin raftkv \
 && install -d -o 10001 -g 10001 -m 0700 /var/lib/raftkv
COPY --from=build /opt/raftkv /opt/raftkv
ENV PATH=/opt/raftkv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    RAFTKV_DATA_DIR=/var/lib/raftkv \
    RAFTKV_LISTEN=0.0.0.0:2379 \
    RAFTKV_LISTEN_PEER=0.0.0.0:2380
USER 10001:10001
# A raftkv.toml mounted here is found without being named.
WORKDIR /etc/raftkv
VOLUME /var/lib/raftkv
EXPOSE 2379 2380
# A start replays the log and may take a while with much data; only after start-period do failures count.
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=3 \
  CMD ["raftkv", "health", "--endpoints", "127.0.0.1:2379", "--timeout", "2"]
# No init process: the daemon handles SIGTERM as PID 1 and starts no children.
ENTRYPOINT ["raftkv"]
CMD ["serve"]
