# A small Slurm with a login node, for trying out: the cluster of "make slurm" in a container that is
# reached by ssh.  Its jobs run in it, so it is made from the image of the jobs.
ARG BASE=muster-compute:0.1.0
FROM ${BASE}
ARG VERSION=0
ARG REVISION=unknown
ARG SOURCE=unknown
USER 0:0
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        dumb-init munge openssh-server slurm-client slurmctld slurmd \
    && rm -rf /var/lib/apt/lists/* /var/cache/debconf/* /var/log/apt /var/log/dpkg.log \
    && rm -f /etc/ssh/ssh_host_* /etc/munge/munge.key \
    && mkdir -p /run/sshd
COPY minislurm /opt/muster/minislurm
COPY docker/slurm/sshd_config /etc/muster/sshd_config
COPY --chmod=0755 docker/slurm/start.sh /usr/local/bin/start-slurm
ENV SLURM_CONF=/home/muster/slurm/slurm.conf
LABEL org.opencontainers.image.title="muster-slurm" \
    org.opencontainers.image.description="A small Slurm cluster in one container, for trying out" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.source="${SOURCE}" \
    org.opencontainers.image.licenses="Apache-2.0"
USER 50000:0
EXPOSE 2222
# It reaps what Slurm leaves.
ENTRYPOINT ["dumb-init", "--"]
CMD ["start-slurm"]
