"""What the predictors of a run are, before anything is computed from them.

A plan must know the bands that there are, that all lie on one grid, and which version of each file
was seen, without reading a pixel.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from muster import storage
from muster.errors import InvalidInput, MissingInput
from muster.raster.gdal import gdal_environment, open_raster, uris_of
from muster.raster.predictors import name_bands, open_predictors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from muster.raster.grid import Grid

RASTER_SUFFIXES = (".tif", ".tiff", ".vrt")


@dataclass(frozen=True)
class PredictorFiles:
    """The predictors of a run.

    Attributes
    ----------
    uris : tuple of str
        The rasters.
    grid : Grid
        The grid that all share.
    bands : Counter of str
        Band name → how often it is there.
    versions : tuple of dict
        ``uri``, ``bytes``, ``version`` of each file, those behind a VRT among them.
    """

    uris: tuple[str, ...]
    grid: Grid
    bands: Counter[str]
    versions: tuple[dict[str, Any], ...]

    def check_bands(self, names: Sequence[str]) -> list[str]:
        """List, in sentences, which of a model's predictors cannot be found."""
        absent = [name for name in names if self.bands[name] == 0]
        twice = [name for name in names if self.bands[name] > 1]
        problems = []
        if absent:
            present = ", ".join(sorted(name for name in self.bands if name))
            problems.append(f"predictors lack {', '.join(absent)}; they hold {present}")
        if twice:
            problems.append(f"predictors hold more than one {', '.join(twice)}")
        return problems


def inspect_predictors(locations: Sequence[str]) -> PredictorFiles:
    """Look at the predictors of a run.

    Parameters
    ----------
    locations : sequence of str
        Rasters; one that ends with "/" means every .tif, .tiff and .vrt directly in it.

    Raises
    ------
    MissingInput
        When one is not there, or a folder holds none.
    InvalidInput
        When one is no raster, has no CRS, or lies on another grid.
    """
    uris = tuple(dict.fromkeys(uri for location in locations for uri in _expand(location)))
    bands: Counter[str] = Counter()
    versions = []
    with gdal_environment(threads=1, cache_mib=32):
        for uri in uris:
            versions.append(_version(uri))
            with open_raster(uri) as dataset:
                bands.update(name_bands(uri, dataset))
                if dataset.driver == "VRT":
                    # A VRT stays the same when the rasters that it shows change.
                    own = set(uris_of(dataset.files[:1]))
                    behind = set(uris_of(dataset.files)) - own
                    versions += [_version(file) for file in sorted(behind)]
    named = next((name for name, count in bands.items() if name and count == 1), None)
    if named is None:
        raise InvalidInput(
            "no band of the predictors has a name of its own",
            where=", ".join(uris),
            do="set the bands' descriptions to the names of the model's predictors",
        )
    with open_predictors(uris, [named]) as stack:
        return PredictorFiles(uris, stack.grid, bands, tuple(versions))


def _expand(location: str) -> list[str]:
    if not location.endswith("/"):
        return [location]
    folder = location.rstrip("/") or "/"
    found = [
        storage.join(folder, name)
        for name in storage.list(folder)
        if name.lower().endswith(RASTER_SUFFIXES)
    ]
    if not found:
        raise MissingInput(
            "no predictors in the folder",
            where=location,
            expected=f"rasters whose names end in {', '.join(RASTER_SUFFIXES)}",
        )
    return found


def _version(uri: str) -> dict[str, Any]:
    path = storage.local_path(uri)
    if path is not None and path.is_dir():
        raise InvalidInput(
            "predictor is a folder", where=uri, do="end it with '/' to mean the rasters in it"
        )
    try:
        stat = storage.stat(uri)
    except MissingInput as error:
        raise MissingInput(
            "no such predictor", where=uri, do="check 'predictors' of the run's parameters"
        ) from error
    return {"uri": uri, "bytes": stat.bytes, "version": stat.version}
