"""The volumes of a pool's pods: claims, empty folders, and ``/tmp``, as their root is read-only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from muster.model.kubernetes_words import SCRATCH_PATH, SHM_PATH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from muster.model.kubernetes_target import KubernetesTarget


def render_volumes(target: KubernetesTarget) -> list[dict[str, Any]]:
    """Render the volumes of a pod; a claim that is mounted at several places is one of them."""
    return list({volume["name"]: volume for volume, _ in _pairs(target)}.values())


def render_mounts(target: KubernetesTarget) -> list[dict[str, Any]]:
    """Render where the container of a pod sees its volumes."""
    return [mount for _, mount in _pairs(target)]


def _pairs(target: KubernetesTarget) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """List volumes, each with a place that it is seen at."""
    yield _empty_dir("scratch", SCRATCH_PATH, target.scratch, in_memory=False)
    if target.shm is not None:
        yield _empty_dir("shm", SHM_PATH, target.shm, in_memory=True)
    claims: dict[str, str] = {}
    for number, volume in enumerate(target.volumes):
        if volume.claim is None:
            size_mib = volume.empty_dir or 0
            yield _empty_dir(f"empty-{number}", volume.path, size_mib, in_memory=volume.memory)
            continue
        name = claims.setdefault(volume.claim, f"claim-{len(claims)}")
        mount: dict[str, Any] = {"name": name, "mountPath": volume.path}
        if volume.sub_path is not None:
            mount["subPath"] = volume.sub_path
        if volume.read_only:
            mount["readOnly"] = True
        yield {"name": name, "persistentVolumeClaim": {"claimName": volume.claim}}, mount


def _empty_dir(
    name: str, path: str, size_mib: int, *, in_memory: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    said = {"sizeLimit": f"{size_mib}Mi", **({"medium": "Memory"} if in_memory else {})}
    return {"name": name, "emptyDir": said}, {"name": name, "mountPath": path}
