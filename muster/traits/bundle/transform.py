"""Target transforms: what a trait's values go through before a model sees them, and the way back.

A skewed trait is modelled on a transformed scale and mapped on its own; prediction and CoV both
need the way back, fold by fold, so the transform travels in the bundle with its parameters and is
applied here and nowhere else.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from muster.errors import InvalidInput
from muster.frozen import Frozen

Kind = Literal["none", "log", "yeo-johnson"]

_FloatArray = np.ndarray[Any, np.dtype[np.float64]]


class TargetTransform(Frozen):
    """A transform of the target and its parameters: ``(g(y) - mean) / scale``.

    Attributes
    ----------
    kind : {"none", "log", "yeo-johnson"}
        ``g``: the identity, the natural logarithm (values > 0), or the power transform of Yeo &
        Johnson (2000, Biometrika 87, 954-959), which takes any sign.
    lambda_ : float
        Power of Yeo-Johnson, unused by the others.
    mean, scale : float
        Standardisation after ``g``; 0 and 1 where there is none.  Muster's own training uses none;
        models imported from scikit-learn's ``PowerTransformer(standardize=True)`` carry theirs.
    """

    kind: Kind = "none"
    lambda_: Annotated[float, Field(alias="lambda", allow_inf_nan=False)] = 1.0
    mean: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0

    model_config = Frozen.model_config | {"populate_by_name": True, "serialize_by_alias": True}

    def forward(self, values: _FloatArray) -> _FloatArray:
        """Transform values from original units to the model's scale.

        Parameters
        ----------
        values : ndarray, any shape, float64
            In the trait's unit; for ``log`` greater than zero.

        Returns
        -------
        ndarray
            Same shape, dimensionless.

        Raises
        ------
        InvalidInput
            When ``log`` meets a value that is not greater than zero.
        """
        y = np.ascontiguousarray(values, dtype=np.float64)
        if self.kind == "log":
            if y.size and not bool(np.nanmin(y) > 0):
                raise InvalidInput(
                    "log transform of values that are not greater than zero",
                    got=f"{int(np.count_nonzero(y <= 0))} of {y.size} values, "
                    f"the least {float(np.nanmin(y)):.6g}",
                    expected="values > 0",
                    do="use the transform 'yeo-johnson' or 'none', or remove these rows",
                )
            transformed = np.log(y)
        elif self.kind == "yeo-johnson":
            transformed = _yeo_johnson(y, self.lambda_)
        else:
            transformed = y.copy()
        return (transformed - self.mean) / self.scale

    def inverse(self, values: _FloatArray) -> _FloatArray:
        """Transform values from the model's scale back to original units.

        Parameters
        ----------
        values : ndarray, any shape, float64
            On the model's scale.

        Returns
        -------
        ndarray
            Same shape, in the trait's unit.  NaN where Yeo-Johnson has no value that maps there
            (its range is bounded for lambda < 0 and lambda > 2), and where the input is NaN.
        """
        z = np.ascontiguousarray(values, dtype=np.float64) * self.scale + self.mean
        if self.kind == "log":
            return np.asarray(np.exp(z))
        if self.kind == "yeo-johnson":
            return _inverse_yeo_johnson(z, self.lambda_)
        return z


NO_TRANSFORM = TargetTransform()


def fit_transform(kind: Kind, values: _FloatArray) -> TargetTransform:
    """Choose a transform's parameters from training values.

    Parameters
    ----------
    kind : {"none", "log", "yeo-johnson"}
        The transform.
    values : ndarray, (plot,), float64
        Finite training values in the trait's unit.

    Returns
    -------
    TargetTransform
        For ``yeo-johnson`` with the lambda of the greatest likelihood
        (:func:`scipy.stats.yeojohnson_normmax`); no standardisation.

    Raises
    ------
    InvalidInput
        When ``log`` is asked for and a value is not greater than zero.
    """
    if kind == "yeo-johnson":
        from scipy import stats

        return TargetTransform(kind=kind, lambda_=float(stats.yeojohnson_normmax(values)))
    transform = TargetTransform(kind=kind)
    transform.forward(values)
    return transform


def _yeo_johnson(y: _FloatArray, power: float) -> _FloatArray:
    z = np.full_like(y, np.nan)
    upper = y >= 0
    lower = y < 0
    if power == 0:
        z[upper] = np.log1p(y[upper])
    else:
        z[upper] = np.expm1(power * np.log1p(y[upper])) / power
    if power == 2:
        z[lower] = -np.log1p(-y[lower])
    else:
        z[lower] = -np.expm1((2 - power) * np.log1p(-y[lower])) / (2 - power)
    return z


def _inverse_yeo_johnson(z: _FloatArray, power: float) -> _FloatArray:
    y = np.full_like(z, np.nan)
    upper = z >= 0
    lower = z < 0
    # Outside the range of the forward transform log1p's argument is <= -1: no value maps there.
    if power == 0:
        y[upper] = np.expm1(z[upper])
    else:
        reachable = upper & (z * power > -1)
        y[reachable] = np.expm1(np.log1p(z[reachable] * power) / power)
    if power == 2:
        y[lower] = -np.expm1(-z[lower])
    else:
        reachable = lower & (-z * (2 - power) > -1)
        y[reachable] = -np.expm1(np.log1p(-z[reachable] * (2 - power)) / (2 - power))
    return y
