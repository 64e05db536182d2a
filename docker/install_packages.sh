#!/bin/sh
# Install the packages of an image into /opt/muster/venv: what extras of pyproject.toml need, each at
# the version and hash of a lock, and Muster itself in place.  A package that the lock does not have
# is refused; so is one that a package without a wheel is built with.
#
# Usage, in /opt/muster: install_packages.sh LOCK "EXTRA EXTRA" [PYPROJECT]; then, with the sources
# there: install_packages.sh --muster
set -eu
locks=$(dirname "$0")
install="/opt/build/bin/uv pip install --python venv --preview-features build-dependency-hashes
    --build-constraints $locks/build.txt --require-build-hashes"

if [ "$1" = --muster ]; then
    # Not --compile-bytecode, which leaves out what is installed in place.
    $install --no-deps --editable .
    rm -f venv/.lock # of uv; anyone could write to it
    exec venv/bin/python -m compileall -q muster operators
fi

lock=$1 extras=$2 more=${3:-}
python3 -m venv /opt/build
/opt/build/bin/pip install --quiet --require-hashes --requirement "$locks/build.txt"
python3 -m venv --without-pip venv
set -- --requirements pyproject.toml
for extra in $extras; do
    set -- "$@" --extra "$extra"
done
[ -z "$more" ] || set -- "$@" --requirements "$more"
$install --require-hashes --constraints "$lock" --excludes "$locks/excluded.txt" \
    --compile-bytecode "$@"

# A tenth of the compute image: the tests of four libraries.
for name in numba numpy pyarrow scipy; do
    [ ! -d "$(echo venv/lib/python3*/site-packages/$name)" ] ||
        find venv/lib/python3*/site-packages/$name -type d -name tests -prune -exec rm -r {} +
done
