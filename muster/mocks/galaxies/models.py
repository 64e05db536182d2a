"""The galaxy models that Muster brings: names, parameters and versions.

What computes lies in modules of its own, which are imported when haloes are populated.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from muster.config import parse_config
from muster.errors import ConfigError
from muster.mocks.galaxies.parameters import DiffskyParams, HodParams, RgrspitParams
from muster.mocks.installed import find_absent, require_installed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from muster.mocks.galaxies.catalog import GalaxyCatalog
    from muster.mocks.galaxies.model import Expectation
    from muster.mocks.galaxies.stream import RandomStream
    from muster.mocks.halos.catalog import HaloCatalog

_WHERE = "science.parameters"


def _versions_of(distributions: Iterable[str]) -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in distributions}


@dataclass(frozen=True)
class HodModel:
    """Zheng et al. (2007) in NumPy; see :mod:`muster.mocks.galaxies.hod`."""

    name: ClassVar[str] = "hod"
    compiles: ClassVar[bool] = False

    def check_installed(self) -> str | None:
        """Return what is missing; see :class:`muster.mocks.galaxies.model.GalaxyModel`."""
        missing = find_absent(["numpy", "scipy"])
        if not missing:
            return None
        return f"galaxy model hod needs {' and '.join(missing)}: pip install 'muster[compute]'"

    def parse(self, parameters: Mapping[str, Any]) -> HodParams:
        """Check parameters and fill in defaults."""
        return parse_config(HodParams, parameters, where=f"{_WHERE} of hod")

    def versions(self) -> dict[str, str]:
        """Return versions of the model and of its libraries."""
        return {"hod": "1", **_versions_of(["numpy", "scipy"])}

    def generate(
        self,
        halos: HaloCatalog,
        params: HodParams,
        stream: RandomStream,
        *,
        histories: bool = False,
    ) -> GalaxyCatalog:
        """Populate haloes; there are no formation histories to return."""
        from muster.mocks.galaxies.hod import populate

        if histories:
            raise ConfigError(
                "galaxy model hod has no formation histories",
                got="a full layout",
                do="choose the layout lean, or the model diffsky",
            )
        return populate(halos, params, stream)

    def expect(self, halos: HaloCatalog, params: HodParams) -> Expectation:
        """Return the expected number of galaxies."""
        from muster.mocks.galaxies.hod import expect_number

        return expect_number(halos, params)


@dataclass(frozen=True)
class DiffskyModel:
    """Diffsky's newest family; see :mod:`muster.mocks.galaxies.diffsky`."""

    name: ClassVar[str] = "diffsky"
    compiles: ClassVar[bool] = True
    _modules: ClassVar[tuple[str, ...]] = ("jax", "diffmah", "diffstar", "diffsky", "dsps")

    def check_installed(self) -> str | None:
        """Return what is missing; see :class:`muster.mocks.galaxies.model.GalaxyModel`."""
        missing = find_absent(self._modules)
        if missing:
            return f"galaxy model diffsky needs {', '.join(missing)}: make mocks"
        found = importlib.metadata.version("diffstar")
        if found.startswith("0."):  # those of rgrspit_diffsky
            return f"galaxy model diffsky needs diffstar of at least 1.0.3, not {found}: make mocks"
        return None

    def _prepare(self) -> None:
        """Set JAX up before the libraries are imported, which compile then."""
        require_installed(self)
        from muster.mocks.galaxies.jax_runtime import prepare_jax

        prepare_jax()

    def parse(self, parameters: Mapping[str, Any]) -> DiffskyParams:
        """Check parameters and fill in defaults."""
        return parse_config(DiffskyParams, parameters, where=f"{_WHERE} of diffsky")

    def versions(self) -> dict[str, str]:
        """Return versions of libraries, and JAX's precision and device."""
        require_installed(self)
        from muster.mocks.galaxies.jax_runtime import describe_device, prepare_jax

        prepare_jax()
        versions = _versions_of(["numpy", "jaxlib", *self._modules])
        return {**versions, "precision": "float32", "device": describe_device()}

    def generate(
        self,
        halos: HaloCatalog,
        params: DiffskyParams,
        stream: RandomStream,
        *,
        histories: bool = False,
    ) -> GalaxyCatalog:
        """Populate haloes."""
        self._prepare()
        from muster.mocks.galaxies.diffsky import populate

        return populate(halos, params, stream, histories=histories)

    def expect(self, halos: HaloCatalog, params: DiffskyParams) -> Expectation:
        """Return the expected number of galaxies."""
        self._prepare()
        from muster.mocks.galaxies.diffsky import expect_number

        return expect_number(halos, params)


@dataclass(frozen=True)
class RgrspitModel:
    """An adapter for rgrspit_diffsky; see :mod:`muster.mocks.galaxies.rgrspit`.

    Attributes
    ----------
    version : str or None
        Version that must be installed; None takes any.
    """

    version: str | None = None
    name: ClassVar[str] = "rgrspit"
    compiles: ClassVar[bool] = True
    _modules: ClassVar[tuple[str, ...]] = ("jax", "diffmah", "diffstar", "diffsky", "dsps")

    def check_installed(self) -> str | None:
        """Return what is missing; see :class:`muster.mocks.galaxies.model.GalaxyModel`."""
        missing = find_absent([*self._modules, "rgrspit_diffsky"])
        if missing:
            return (
                f"galaxy model rgrspit needs {', '.join(missing)}: install rgrspit_diffsky with the"
                " pins of its authors in an environment of its own, see docs/galaxy_models.md"
            )
        found = importlib.metadata.version("rgrspit_diffsky")
        if self.version is not None and found != self.version:
            return f"galaxy model rgrspit needs rgrspit_diffsky {self.version}, not {found}"
        return None

    def _prepare(self, params: RgrspitParams) -> None:
        """Set JAX up before the libraries are imported, which compile then."""
        require_installed(replace(self, version=params.version))
        from muster.mocks.galaxies.jax_runtime import prepare_jax

        prepare_jax()

    def parse(self, parameters: Mapping[str, Any]) -> RgrspitParams:
        """Check parameters and fill in defaults."""
        implied = {} if self.version is None else {"version": self.version}
        where = f"{_WHERE} of rgrspit"
        params = parse_config(RgrspitParams, {**implied, **parameters}, where=where)
        if self.version is not None and params.version != self.version:
            raise ConfigError(
                "the galaxy model's name and its parameters state two versions",
                where=where,
                got=params.version,
                expected=self.version,
                do="state the version once",
            )
        return params

    def versions(self) -> dict[str, str]:
        """Return versions of libraries, and JAX's precision and device."""
        require_installed(self)
        from muster.mocks.galaxies.jax_runtime import describe_device, prepare_jax

        prepare_jax()
        names = ["numpy", "jaxlib", *self._modules, "rgrspit_diffsky"]
        versions = _versions_of(names)
        return {**versions, "precision": "float64", "device": describe_device()}

    def generate(
        self,
        halos: HaloCatalog,
        params: RgrspitParams,
        stream: RandomStream,
        *,
        histories: bool = False,
    ) -> GalaxyCatalog:
        """Populate haloes."""
        self._prepare(params)
        from muster.mocks.galaxies.rgrspit import populate

        return populate(halos, params, stream, histories=histories)

    def expect(self, halos: HaloCatalog, params: RgrspitParams) -> Expectation | None:
        """Return the expected number of galaxies."""
        self._prepare(params)
        from muster.mocks.galaxies.rgrspit import expect_number

        return expect_number(halos, params)


HOD = HodModel()
DIFFSKY = DiffskyModel()
RGRSPIT = RgrspitModel()
