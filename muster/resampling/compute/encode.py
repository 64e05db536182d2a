"""From computed float64 values to what is stored: rounded, kept within the type, gaps filled in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from muster.resampling.compute.axes import FloatArray


@dataclass(frozen=True)
class Finish:
    """How values are stored.

    Attributes
    ----------
    dtype : str
        Of the result.
    nodata : float
        Stands for no value; NaN for floating-point types.
    """

    dtype: str
    nodata: float

    def put(self, values: FloatArray, into: np.ndarray[Any, Any]) -> None:
        """Store values, NaN for none, in an array of the result's type.

        Whole-number types: rounded half to even; what the type cannot hold takes its nearest end,
        and what would read as nodata the number beside it.
        """
        kind = np.dtype(self.dtype)
        if kind.kind == "f":
            with np.errstate(over="ignore"):
                into[:] = values
            return
        limits = np.iinfo(kind)
        whole = np.rint(np.clip(values, limits.min, limits.max))
        whole[whole == self.nodata] += 1 if self.nodata == limits.min else -1
        whole[np.isnan(values)] = self.nodata
        into[:] = whole.astype(kind)
