#!/bin/sh
# Make the keys at the first start, start the cluster, and let Muster in by ssh.
# ~/.ssh is a volume that the one who logs in shares: it finds its key and the host's there.
set -eu
umask 077
keys=$HOME/.ssh
for key in host_key id_ed25519; do
    [ -f "$keys/$key" ] || ssh-keygen -q -t ed25519 -N '' -C "$key" -f "$keys/$key"
done
cp "$keys/id_ed25519.pub" "$keys/authorized_keys"
printf '[%s]:2222 %s\n' "$(hostname)" "$(cat "$keys/host_key.pub")" >"$keys/known_hosts"

# Jobs inherit nothing of this container's environment; boto3 and GDAL look here.
if [ -n "${AWS_ACCESS_KEY_ID:-}" ]; then
    mkdir -p "$HOME/.aws"
    printf '[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n' \
        "$AWS_ACCESS_KEY_ID" "${AWS_SECRET_ACCESS_KEY:?}" >"$HOME/.aws/credentials"
fi

umask 022
cd /opt/muster
python -m minislurm start --folder "$HOME/slurm"
exec /usr/sbin/sshd -D -e -f /etc/muster/sshd_config
