#!/bin/sh
# Build the images of this folder with docker, podman or buildah, whichever is there.
#
# Variables: IMAGES (names of Dockerfiles: airflow compute compute-gpu slurm), IMAGE_PREFIX, IMAGE_TAG,
# IMAGE_SOURCE (an address for the label), BASE and EXTRAS (build arguments), BUILDER, BUILDER_OPTIONS
# and BUILD_OPTIONS (words before and after the builder's "build").
set -eu
cd "$(dirname "$0")/.."

find_builder() {
    for program in docker podman buildah; do
        command -v "$program" >/dev/null 2>&1 || continue
        # A client of Docker's without an engine builds nothing.
        [ "$program" != docker ] || docker info >/dev/null 2>&1 || continue
        echo "$program"
        return
    done
    echo "error: nothing that builds images; expected: docker with an engine, podman or buildah;" \
        "do: apt-get install buildah" >&2
    exit 69
}

builder=${BUILDER:-$(find_builder)}
prefix=${IMAGE_PREFIX:-muster}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
tag=${IMAGE_TAG:-$version}
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
[ -z "$(git status --porcelain 2>/dev/null)" ] || revision="$revision-changed"
images=${IMAGES:-airflow compute slurm}

case "${EXTRAS:+$images}" in *" "*)
    echo "error: EXTRAS are those of one image; got: IMAGES='$images';" \
        "do: make images IMAGES=compute EXTRAS='compute mocks'" >&2
    exit 64
    ;;
esac

for name in $images; do
    [ -f "docker/$name.Dockerfile" ] || {
        known=$(cd docker && echo *.Dockerfile | sed 's/\.Dockerfile//g')
        echo "error: no such image; got: $name; expected: one of $known" >&2
        exit 64
    }
    image="$prefix-$name:$tag"
    base=${BASE:-}
    [ "$name" != slurm ] || base="$prefix-compute:$tag"
    echo "building $image with $builder"
    set -- --file "docker/$name.Dockerfile" --tag "$image" \
        --build-arg "VERSION=$version" --build-arg "REVISION=$revision" \
        --build-arg "SOURCE=${IMAGE_SOURCE:-unknown}"
    [ -z "$base" ] || set -- "$@" --build-arg "BASE=$base"
    [ -z "${EXTRAS:-}" ] || set -- "$@" --build-arg "EXTRAS=$EXTRAS"
    # shellcheck disable=SC2086 # words for the builder
    "$builder" ${BUILDER_OPTIONS:-} build ${BUILD_OPTIONS:-} "$@" .
done
