"""What a person asks ``make run`` to map, checked before anything is started."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from muster import storage
from muster.errors import ConfigError, InvalidInput, MissingInput
from muster.storage import explain_os_error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from muster.laptop.home import Home

PLOTS_NAME = "plots.csv"
PREDICTORS_NAME = "predictors.tif"

EXAMPLE_TRAITS: Mapping[str, str] = MappingProxyType(
    {"leaf_area_mm2": "mm²", "wood_density_g_cm3": "g/cm³", "plant_height_m": "m"}
)
"""Trait → unit in the example region."""


@dataclass(frozen=True)
class Request:
    """What to map from what.

    Attributes
    ----------
    plots : Path
        CSV with lon, lat and a column a trait.
    predictors : tuple of str
        Raster files or s3:// URIs.
    traits : tuple of str
        Columns of the plots.
    units : mapping of str to str
        Trait → unit, where known.
    output : Path
        Folder that takes the model bundles and the products.
    example : bool
        Whether plots and predictors are the example's, made where they are not there.
    predictors_in_plots : bool
        Whether the plots have a column for each predictor: then plots that lie outside the
        rasters are of use as well.
    """

    plots: Path
    predictors: tuple[str, ...]
    traits: tuple[str, ...]
    units: Mapping[str, str]
    output: Path
    example: bool
    predictors_in_plots: bool = False

    @property
    def models(self) -> Path:
        """Folder of the model bundles."""
        return self.output / "models"

    @property
    def products(self) -> Path:
        """Folder of the products."""
        return self.output / "products"

    def params(self) -> dict[str, object]:
        """Return the params of the DAG run."""
        return {
            "traits": list(self.traits),
            "predictors": list(self.predictors),
            "models": str(self.models),
            "output": str(self.products),
        }


def example_request(home: Home) -> Request:
    """Ask for the example region's three traits."""
    folder = home.folder / "example"
    return Request(
        plots=folder / PLOTS_NAME,
        predictors=(str(folder / PREDICTORS_NAME),),
        traits=tuple(EXAMPLE_TRAITS),
        units=EXAMPLE_TRAITS,
        output=folder,
        example=True,
    )


def own_request(
    home: Home,
    plots: str | None,
    predictors: Sequence[str],
    traits: Sequence[str],
    output: str | None = None,
) -> Request:
    """Ask for maps from a person's own plots and predictors.

    Raises
    ------
    ConfigError
        Where one of the three is not given, or a trait is no column of the plots.
    MissingInput
        Where a file is not there.
    """
    if not plots or not predictors:
        raise ConfigError(
            "plots and predictors are given together or not at all",
            got=f"PLOTS={plots or ''} PREDICTORS={' '.join(predictors)}",
            do='make run PLOTS=plots.csv PREDICTORS=stack.tif TRAITS="a b"',
        )
    path = Path(plots).expanduser().absolute()
    columns = read_columns(path)
    absent = [trait for trait in traits if trait not in columns]
    if not traits or absent:
        raise ConfigError(
            f"no such column in the plots: {', '.join(absent)}" if traits else "no traits named",
            where=path,
            got=", ".join(columns),
            expected="TRAITS names columns of the plots",
        )
    if len(set(traits)) != len(traits):
        raise ConfigError("a trait is named twice", got=" ".join(traits))
    absolute = []
    for uri in predictors:
        local = storage.local_path(uri)
        where = uri if local is None else str(local.expanduser().absolute())
        if not storage.exists(where):
            raise MissingInput("no such predictors", where=where, do="check PREDICTORS")
        absolute.append(where)
    bands = read_bands(absolute)
    clash = sorted(set(traits) & set(bands))
    if clash:
        raise ConfigError("a trait cannot be its own predictor", got=", ".join(clash))
    return Request(
        plots=path,
        predictors=tuple(absolute),
        traits=tuple(traits),
        units={},
        output=Path(output).expanduser().absolute() if output else home.folder / "maps",
        example=False,
        predictors_in_plots=set(bands) <= set(columns),
    )


def read_bands(predictors: Sequence[str]) -> tuple[str, ...]:
    """Read the names of the predictors' bands.

    Raises
    ------
    InvalidInput
        Where a raster cannot be read, or its bands cannot be told apart.
    """
    # The one look at rasters outside a step: here a person waits, and wants to hear of a broken
    # file now, not in a minute.
    from muster.traits.training.sample import list_predictors

    return list_predictors(predictors)


def read_columns(plots: Path) -> list[str]:
    """Read the names of a CSV file's columns.

    Raises
    ------
    MissingInput, InvalidInput
        Where the file is not there, or is no CSV text.
    """
    try:
        with plots.open(encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), None)
    except OSError as error:
        raise explain_os_error(error, plots) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidInput("not a CSV file in UTF-8", where=plots, got=error) from error
    if not header:
        raise InvalidInput("no header in the plots", where=plots, expected="lon,lat,<traits>")
    return header
