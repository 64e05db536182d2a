# What a job runs in: Muster with the compute libraries, GDAL among them, and no Airflow.
#
# BASE is any Debian or Ubuntu with Python 3.11 to 3.13, venv and apt; python3 comes from its PATH.
ARG BASE=docker.io/library/python:3.13-slim-trixie

FROM ${BASE} AS build
# Extras of pyproject.toml, separated by blanks; docker/locks/compute.txt pins what they may need:
# compute, mocks, hod, and abacus, which is under GPL-3.0.
ARG EXTRAS="compute"
# Certificates are those of the base, so that an index behind a site's own authority is reached.
ENV UV_SYSTEM_CERTS=1 UV_NO_CACHE=1 UV_LINK_MODE=copy PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /opt/muster
COPY docker/install_packages.sh docker/excluded.txt docker/locks/build.txt docker/locks/compute.txt \
    /opt/locks/
COPY pyproject.toml ./
RUN sh /opt/locks/install_packages.sh /opt/locks/compute.txt "${EXTRAS}"
COPY README.md LICENSE ./
COPY config config
COPY muster muster
COPY operators operators
RUN sh /opt/locks/install_packages.sh --muster && rm -r operators

FROM ${BASE}
ARG BASE
ARG VERSION=0
ARG REVISION=unknown
ARG SOURCE=unknown
# LightGBM's wheel takes OpenMP from the system.  /work is where the work directory may be mounted;
# a volume takes its owner from it.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libgomp1 \
    && rm -rf /var/lib/apt/lists/* /var/cache/debconf/* /var/log/apt /var/log/dpkg.log \
    && useradd --uid 50000 --gid 0 --create-home --home-dir /home/muster muster \
    && mkdir -p /home/muster/.ssh /work \
    && chown -R 50000:0 /home/muster /work \
    && chmod -R g=u /home/muster /work \
    && chmod 0700 /home/muster/.ssh
COPY --from=build /opt/muster /opt/muster
# Caches lie in /tmp, the one folder that can be written where the root is read-only.
ENV PATH=/opt/muster/venv/bin:${PATH} \
    HOME=/home/muster \
    LANG=C.UTF-8 \
    MUSTER_HOME=/tmp/muster \
    XDG_CACHE_HOME=/tmp/cache \
    MPLCONFIGDIR=/tmp/matplotlib \
    PYTHONUNBUFFERED=1
LABEL org.opencontainers.image.title="muster-compute" \
    org.opencontainers.image.description="The steps of Muster's campaigns, for jobs" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.source="${SOURCE}" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.base.name="${BASE}"
WORKDIR /home/muster
# One user for all images, since they share a work directory.
USER 50000:0
CMD ["muster", "--help"]
