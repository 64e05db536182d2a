# What a job on a GPU runs in: compute.Dockerfile's contents, and cupy, onnxruntime and JAX on CUDA 12.
#
# The CUDA libraries come with the lock, so BASE needs only what the container runtime of NVIDIA
# reads (its "base" flavour); they are named to the system's linker, for onnxruntime looks nowhere
# else.  The driver comes from the node.
ARG BASE=docker.io/nvidia/cuda:12.9.1-base-ubuntu24.04

FROM ${BASE} AS python
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libgomp1 python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* /var/cache/debconf/* /var/log/apt /var/log/dpkg.log

FROM python AS build
# Extras of pyproject.toml, separated by blanks; docker/locks/compute-gpu.txt pins what they may
# need: compute, gpu, mocks, hod, and abacus, which is under GPL-3.0.
ARG EXTRAS="compute gpu"
# Certificates are those of the base, so that an index behind a site's own authority is reached.
ENV UV_SYSTEM_CERTS=1 UV_NO_CACHE=1 UV_LINK_MODE=copy PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /opt/muster
COPY docker/install_packages.sh docker/excluded.txt docker/locks/build.txt \
    docker/locks/compute-gpu.txt /opt/locks/
COPY docker/compute-gpu/pyproject.toml /opt/locks/compute-gpu/
COPY pyproject.toml ./
RUN sh /opt/locks/install_packages.sh /opt/locks/compute-gpu.txt "${EXTRAS}" \
    /opt/locks/compute-gpu/pyproject.toml
COPY README.md LICENSE ./
COPY config config
COPY muster muster
COPY operators operators
RUN sh /opt/locks/install_packages.sh --muster && rm -r operators

FROM python
ARG BASE
ARG VERSION=0
ARG REVISION=unknown
ARG SOURCE=unknown
RUN useradd --uid 50000 --gid 0 --create-home --home-dir /home/muster muster \
    && mkdir -p /home/muster/.ssh /work \
    && chown -R 50000:0 /home/muster /work \
    && chmod -R g=u /home/muster /work \
    && chmod 0700 /home/muster/.ssh
COPY --from=build /opt/muster /opt/muster
RUN ls -d /opt/muster/venv/lib/python3*/site-packages/nvidia/*/lib >/etc/ld.so.conf.d/muster.conf \
    && ldconfig
# Caches lie in /tmp, the one folder that can be written where the root is read-only.  The container
# runtime of NVIDIA gives the container what these two name; a pod's limit decides which GPUs.
ENV PATH=/opt/muster/venv/bin:${PATH} \
    HOME=/home/muster \
    LANG=C.UTF-8 \
    MUSTER_HOME=/tmp/muster \
    XDG_CACHE_HOME=/tmp/cache \
    CUPY_CACHE_DIR=/tmp/cache/cupy \
    MPLCONFIGDIR=/tmp/matplotlib \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PYTHONUNBUFFERED=1
LABEL org.opencontainers.image.title="muster-compute-gpu" \
    org.opencontainers.image.description="The steps of Muster's campaigns, for jobs on GPUs" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.source="${SOURCE}" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.base.name="${BASE}"
WORKDIR /home/muster
# One user for all images, since they share a work directory.
USER 50000:0
CMD ["muster", "--help"]
