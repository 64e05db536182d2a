# Airflow with Muster's DAGs, operators and plugins: API server, scheduler, DAG processor,
# triggerer, workers, and the migrations of both databases.  No GDAL, and nothing else that
# computes: steps run in pools, and a pool has an image of its own.
#
# BASE is any Debian or Ubuntu with Python 3.11 to 3.13, venv and apt; python3 comes from its PATH.
ARG BASE=docker.io/library/python:3.13-slim-trixie

FROM ${BASE} AS build
# Extras of pyproject.toml, separated by blanks; docker/locks/airflow.txt pins what they may need:
# airflow, ssh, kubernetes, and celery for an Airflow with the CeleryExecutor.
ARG EXTRAS="airflow ssh kubernetes"
# Certificates are those of the base, so that an index behind a site's own authority is reached.
ENV UV_SYSTEM_CERTS=1 UV_NO_CACHE=1 UV_LINK_MODE=copy PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /opt/muster
COPY docker/install_packages.sh docker/excluded.txt docker/locks/build.txt docker/locks/airflow.txt \
    /opt/locks/
COPY pyproject.toml ./
RUN sh /opt/locks/install_packages.sh /opt/locks/airflow.txt "${EXTRAS}"
COPY README.md LICENSE ./
COPY config config
COPY muster muster
COPY operators operators
RUN sh /opt/locks/install_packages.sh --muster

FROM ${BASE}
ARG BASE
ARG VERSION=0
ARG REVISION=unknown
ARG SOURCE=unknown
# /work is where the work directory may be mounted; a volume takes its owner from it.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates dumb-init \
    && rm -rf /var/lib/apt/lists/* /var/cache/debconf/* /var/log/apt /var/log/dpkg.log \
    && useradd --uid 50000 --gid 0 --create-home --home-dir /home/muster muster \
    && mkdir -p /opt/airflow/logs /home/muster/.ssh /work \
    && chown -R 50000:0 /opt/airflow /home/muster /work \
    && chmod -R g=u /opt/airflow /home/muster /work \
    && chmod 0700 /home/muster/.ssh
COPY --from=build /opt/muster /opt/muster
COPY dags /opt/airflow/dags
COPY plugins /opt/airflow/plugins
# The probes of Airflow's official chart call /entrypoint.
COPY --chmod=0755 docker/entrypoint.sh /entrypoint
ENV PATH=/opt/muster/venv/bin:${PATH} \
    HOME=/home/muster \
    LANG=C.UTF-8 \
    AIRFLOW_HOME=/opt/airflow \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    AIRFLOW__USAGE_DATA_COLLECTION__ENABLED=False \
    PYTHONUNBUFFERED=1
LABEL org.opencontainers.image.title="muster-airflow" \
    org.opencontainers.image.description="Airflow with Muster's DAGs for scientific campaigns" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.source="${SOURCE}" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.base.name="${BASE}"
WORKDIR /opt/airflow
# One user for all images, since they share a work directory; the one of Airflow's own images.
USER 50000:0
ENTRYPOINT ["/entrypoint"]
CMD ["airflow", "version"]
