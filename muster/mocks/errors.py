"""Errors of mock catalogues, under the names that their users know."""

from __future__ import annotations

from muster.errors import ConfigError, InvalidInput, MissingInput, SoftwareError


class CatalogNotFound(MissingInput, FileNotFoundError):
    """A halo catalogue, or a part of one, is not there."""


class ValidationError(InvalidInput, ValueError):
    """A halo catalogue is there, and is not what it should be."""


class ModelError(SoftwareError, RuntimeError):
    """A galaxy model failed, or made what no galaxy catalogue may hold."""


class ModelNotInstalled(ConfigError):
    """The packages of a galaxy model, or of a halo source, are not installed."""


class InvalidCatalogue(SoftwareError):
    """A catalogue that was made fails its validation; it is set aside and never published."""


class MPIError(SoftwareError, RuntimeError):
    """MPI is not as the step needs it."""


class RankFailed(MPIError):
    """Another rank failed, and this one cannot go on; the other says why."""

    is_echo = True


class JAXError(SoftwareError, RuntimeError):
    """JAX is not as the step needs it."""
