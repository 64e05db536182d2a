"""Telling that a file of haloes is damaged, in the same words whatever reads it."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from muster.errors import InvalidInput, MusterError
from muster.mocks.errors import CatalogNotFound, ValidationError
from muster.mocks.hdf5_text import fold_hdf5_text
from muster.storage import explain_os_error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def check_values(good: Any, name: str, expected: str, path: Path) -> None:
    """Refuse a column with values that no halo has.

    Parameters
    ----------
    good : array of bool
        Whether a value is one that a halo may have.
    name, expected : str
        The column, and what its values should be.
    path : Path
        The file.

    Raises
    ------
    ValidationError
        When one is not good.
    """
    bad = int(np.count_nonzero(~good))
    if bad:
        raise ValidationError(
            f"{name}: {bad} values that no halo has",
            where=path,
            expected=expected,
            do="fetch it again, or correct what box says of it",
        )


@contextlib.contextmanager
def damage_at(path: Path, kind: str, raised: tuple[type[Exception], ...]) -> Iterator[None]:
    """Raise what a damaged file makes libraries raise as a ValidationError.

    Parameters
    ----------
    path : Path
        The file.
    kind : str
        What it should be: HDF5 file of haloes.
    raised : tuple of type
        What the libraries that read it raise, beside OSError, for a file that is damaged or of
        another kind.

    Raises
    ------
    CatalogNotFound
        When it is not there.
    ValidationError
        When it is damaged, no file, or may not be read.
    Transient
        When the file system failed.
    """
    kinds: tuple[type[Exception], ...] = (*raised, OSError)
    try:
        yield
    except MusterError:
        raise
    except FileNotFoundError as error:
        raise CatalogNotFound(
            "no such file of haloes",
            where=error.filename or path,
            do="bring it there, or correct science.box",
        ) from error
    except kinds as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise _explain(error.errno, kind, path) from error
        raise ValidationError(
            f"not a readable {kind}",
            where=path,
            got=fold_hdf5_text(f"{type(error).__name__}: {error}"),
            do="fetch it again from where it came from",
        ) from error


def _explain(number: int, kind: str, path: Path) -> MusterError:
    """Explain an error of the file system; HDF5 puts a text of its own beside its number."""
    explained = explain_os_error(OSError(number, os.strerror(number)), path)
    if not isinstance(explained, InvalidInput):
        return explained
    return ValidationError(
        f"the {kind} cannot be read",
        where=path,
        got=os.strerror(number),
        expected="a regular file that may be read",
        do="put the file there, or correct science.box",
    )
