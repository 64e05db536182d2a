"""What a catalogue's file holds: one table of its datasets, one of its attributes.

The names and shapes are those of roman-grs-pit/covariance-mocks, whose readers keep working;
``halos/id``, the attributes of provenance and the group ``statistics`` are additions.  Writer,
reader and validation take all they know of the layout from here.  Nothing here imports NumPy or
h5py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from muster.errors import ConfigError

Layout = Literal["lean", "full"]
Dimension = Literal["galaxy", "halo", "time", "parameter"] | int

STATISTICS_GROUP = "statistics"
"""Group of small arrays that sum a catalogue up; no part of it when catalogues are compared."""

FORMAT = "muster mock catalogue"
FORMAT_VERSION = 1

_ANY = (-math.inf, math.inf)
_SPEED_KMS = (-3e4, 3e4)  # a tenth of the speed of light
_LOG_MASS = (0.0, 17.0)
_GYR = (0.0, 200.0)
_FLOAT = ("float32", "float64")
_INTEGER = ("int64", "int32")


@dataclass(frozen=True)
class Column:
    """One dataset.

    Attributes
    ----------
    path : str
        Group and name: ``galaxies/pos``.
    dtypes : tuple of str
        Accepted; the first is the usual one, others are kept where a model gives them.
    dims : tuple
        Of the shape: ``"galaxy"`` and ``"halo"`` are rows, ``"time"`` the entries of
        ``galaxies/t_table``, ``"parameter"`` any number up to ``MOST_PARAMETERS``; () of a scalar.
    unit : str
        As written into the file; "1" of what has none.
    description : str
        As written into the file.
    h_scaled : bool
        Whether the unit holds a power of h.
    comoving : bool
        Whether a length is comoving; False of all that is no length.
    lean : bool
        Whether the layout ``lean`` has it too.
    required : bool
        Whether each file of a layout that has it must have it.
    limits : tuple of (float, float)
        The least value, and the value that none reaches, in the column's unit: what is outside is
        no physics but a fault.  Positions are bounded by the box, masses of haloes by the cut too.
    """

    path: str
    dtypes: tuple[str, ...]
    dims: tuple[Dimension, ...]
    unit: str
    description: str
    h_scaled: bool = False
    comoving: bool = False
    lean: bool = True
    required: bool = True
    limits: tuple[float, float] = _ANY

    @property
    def group(self) -> str:
        """Name of the group."""
        return self.path.partition("/")[0]

    @property
    def name(self) -> str:
        """Name within the group."""
        return self.path.partition("/")[2]

    @property
    def row_axis(self) -> int | None:
        """Axis along which the rows run; None of what does not grow with the catalogue."""
        return next((axis for axis, dim in enumerate(self.dims) if dim in ("galaxy", "halo")), None)

    @property
    def rows_of(self) -> Literal["galaxy", "halo"] | None:
        """What a row is; None of what does not grow with the catalogue."""
        axis = self.row_axis
        if axis is None:
            return None
        return "galaxy" if self.dims[axis] == "galaxy" else "halo"


MOST_PARAMETERS = 64


def _galaxy(
    name: str,
    unit: str,
    description: str,
    *dims: Dimension,
    limits: tuple[float, float] = _ANY,
    **more: bool,
) -> Column:
    path, shape = f"galaxies/{name}", ("galaxy", *dims)
    return Column(path, _FLOAT, shape, unit, description, limits=limits, **more)


def _time(name: str, description: str, *dims: Dimension, required: bool = True) -> Column:
    path = f"galaxies/{name}"
    kinds = ("float64", "float32")
    return Column(path, kinds, dims, "Gyr", description, required=required, limits=_GYR)


def _parameters(name: str, description: str) -> Column:
    return Column(
        f"galaxies/{name}",
        _FLOAT,
        ("parameter", "galaxy"),
        "of each parameter its own",
        description,
        lean=False,
        required=False,
    )


COLUMNS: tuple[Column, ...] = (
    _galaxy("pos", "Mpc/h", "position, in [0, Lbox)", 3, h_scaled=True, comoving=True),
    _galaxy("vel", "km/s", "peculiar velocity, proper", 3, limits=_SPEED_KMS),
    _galaxy(
        "logsm_t_obs",
        "log10(Msun)",
        "stellar mass formed until the snapshot",
        limits=(-20.0, 14.0),
    ),
    _galaxy(
        "logssfr_t_obs",
        "log10(1/yr)",
        "star-formation rate over stellar mass",
        limits=(-60.0, -3.0),
    ),
    _galaxy(
        "logmp_t_obs",
        "log10(Msun/h)",
        "peak mass of the galaxy's own (sub)halo",
        h_scaled=True,
        limits=_LOG_MASS,
    ),
    Column(
        "galaxies/upid",
        _INTEGER,
        ("galaxy",),
        "1",
        "-1 for a central; for a satellite its host halo, as the attribute refers_to says",
    ),
    Column(
        "galaxies/z_obs",
        ("float64", "float32"),
        (),
        "1",
        "redshift of the snapshot",
        limits=(-1e-3, 1e3),
    ),
    _time("t_obs", "age of the universe at the snapshot"),
    _time("t0", "age of the universe today"),
    _time("t_table", "ages at which the histories are tabulated", "time", required=False),
    _galaxy(
        "log_mah_table",
        "log10(Msun/h)",
        "mass of the (sub)halo at the ages t_table",
        "time",
        h_scaled=True,
        lean=False,
        limits=(-1e3, 17.0),
    ),
    _galaxy(
        "sfh_table",
        "Msun/yr",
        "star-formation rate at the ages t_table",
        "time",
        lean=False,
        limits=(0.0, 1e6),
    ),
    _galaxy(
        "logmp0",
        "log10(Msun/h)",
        "peak mass of the (sub)halo today",
        h_scaled=True,
        lean=False,
        required=False,
        limits=_LOG_MASS,
    ),
    _galaxy(
        "logmu_t_inf",
        "log10(1)",
        "mass of the subhalo over its host's at infall",
        lean=False,
        required=False,
        limits=(-20.0, 3.0),
    ),
    _parameters("mah_params", "parameters of Diffmah, in its order"),
    _parameters("host_mah_params", "parameters of Diffmah of the host halo, in its order"),
    _parameters("sfh_params_ms_params", "parameters of Diffstar's main sequence, in its order"),
    _parameters("sfh_params_q_params", "parameters of Diffstar's quenching, in its order"),
    Column("halos/id", ("int64",), ("halo",), "1", "unique in the box; ascending"),
    Column(
        "halos/logmhost",
        _FLOAT,
        ("halo",),
        "log10(Msun/h)",
        "mass",
        h_scaled=True,
        limits=_LOG_MASS,
    ),
    Column(
        "halos/radius",
        _FLOAT,
        ("halo",),
        "Mpc/h",
        "virial (or R200-like) radius",
        h_scaled=True,
        comoving=True,
        limits=(0.0, 50.0),
    ),
    Column(
        "halos/pos",
        _FLOAT,
        ("halo", 3),
        "Mpc/h",
        "position, in [0, Lbox)",
        h_scaled=True,
        comoving=True,
    ),
    Column(
        "halos/vel",
        _FLOAT,
        ("halo", 3),
        "km/s",
        "peculiar velocity, proper",
        limits=_SPEED_KMS,
    ),
)
"""All datasets of a catalogue but those of the group ``statistics``, in the order of the file."""

COLUMN_BY_PATH = {column.path: column for column in COLUMNS}

HISTORIES = ("t_table", "log_mah_table", "sfh_table")
"""What a galaxy model must give for the layout ``full``, by the names in ``galaxies``."""

REFERS_TO = ("halos/id", "row of halos")
"""What ``galaxies/upid`` may refer to, see its attribute ``refers_to``.

The first is the rule.  The original writes the row, from 0, and so does the model that repeats it.
"""


def columns_of(layout: Layout) -> tuple[Column, ...]:
    """Return the datasets that a layout may have, in the order of the file."""
    return tuple(column for column in COLUMNS if column.lean or layout == "full")


def required_columns(layout: Layout) -> tuple[Column, ...]:
    """Return the datasets that each file of a layout has."""
    histories = {f"galaxies/{name}" for name in HISTORIES} if layout == "full" else set()
    return tuple(
        column for column in columns_of(layout) if column.required or column.path in histories
    )


@dataclass(frozen=True)
class Attribute:
    """One attribute of the file's root.

    Attributes
    ----------
    name : str
        As in the file.
    kind : "float", "int" or "text"
        float64, int64 or UTF-8.
    description : str
        With its unit.
    required : bool
        Whether each file has it.
    """

    name: str
    kind: Literal["float", "int", "text"]
    description: str
    required: bool = True


ATTRIBUTES: tuple[Attribute, ...] = (
    Attribute("Lbox", "float", "side of the periodic box, comoving Mpc/h"),
    Attribute("z_obs", "float", "redshift of the snapshot"),
    Attribute("lgmp_min", "float", "log10 of the least halo mass, Msun/h; 0 without a limit"),
    Attribute("n_halos", "int", "rows of halos/"),
    Attribute("n_galaxies", "int", "rows of galaxies/"),
    Attribute("simulation_box", "text", "simulation, or source of the haloes"),
    Attribute("phase", "text", "initial conditions: ph3000; empty where there is no such name"),
    Attribute("redshift", "text", "as in folders of AbacusSummit: z1.100"),
    Attribute("format", "text", FORMAT),
    Attribute("format_version", "int", "of the layout"),
    Attribute("layout", "text", "lean or full"),
    Attribute("muster_version", "text", "that wrote the file"),
    Attribute("h", "float", "Hubble constant over 100 km/s/Mpc"),
    Attribute("omega_m", "float", "density parameter of matter today"),
    Attribute("omega_b", "float", "density parameter of baryons today"),
    Attribute("sigma8", "float", "amplitude of the linear power spectrum at 8 Mpc/h"),
    Attribute("n_s", "float", "slope of the primordial power spectrum"),
    Attribute("w0", "float", "equation of state of dark energy today"),
    Attribute("wa", "float", "its change with the scale factor"),
    Attribute("galaxy_model", "text", "name of the galaxy model", required=False),
    Attribute("versions", "text", "versions of libraries, precision, device, as JSON", False),
    Attribute("code", "text", "version of Muster's code that planned it", required=False),
    Attribute("seed", "int", "of the campaign", required=False),
    Attribute("realization", "int", "number of the realization", required=False),
    Attribute("redshift_index", "int", "position in the campaign's redshifts", required=False),
    Attribute("fingerprint", "text", "of all that the arrays depend on", required=False),
    Attribute("particle_mass_msunh", "float", "mass of a particle, Msun/h", required=False),
    Attribute("cleaned", "int", "1 if unphysical haloes were removed, else 0", required=False),
)
"""Attributes of the root that are known; a caller may add others of these kinds."""

ATTRIBUTE_BY_NAME = {attribute.name: attribute for attribute in ATTRIBUTES}


@dataclass(frozen=True)
class Compression:
    """How chunks are stored.

    Attributes
    ----------
    kind : "none", "gzip" or "lzf"
        gzip is read by all of HDF5's readers, lzf by h5py.
    level : int
        Of gzip, from 1 (fast) to 9 (small).
    shuffle : bool
        Whether bytes of equal significance are put together before they are compressed.
    chunk_rows : int
        The most rows of a chunk, from 1024 to 16777216.  A chunk never exceeds 4 MiB, and the
        chunks of a dataset are of equal size.
    """

    kind: Literal["none", "gzip", "lzf"] = "none"
    level: int = 4
    shuffle: bool = True
    chunk_rows: int = 1 << 17

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("level", self.level, 1, 9),
            ("chunk_rows", self.chunk_rows, 1 << 10, 1 << 24),
        ):
            if not low <= value <= high:
                raise ConfigError(
                    "compression cannot be had",
                    where=name,
                    got=value,
                    expected=f"{low} to {high}",
                    do="choose a value in this range",
                )
        if self.kind not in ("none", "gzip", "lzf"):
            raise ConfigError(
                "compression is unknown",
                where="kind",
                got=self.kind,
                expected="none, gzip, lzf",
                do="choose one of these",
            )
