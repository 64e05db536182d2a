import numpy as np
import pytest
from sklearn.preprocessing import PowerTransformer

from muster.errors import InvalidInput
from muster.traits.bundle.transform import TargetTransform, fit_transform

VALUES = np.array([-3.5, -0.2, 0.0, 0.4, 2.0, 117.0])


@pytest.mark.parametrize("power", [-1.3, 0.0, 0.4, 1.0, 2.0, 3.1])
def test_yeo_johnson_equals_scikit_learn_both_ways(power: float) -> None:
    peer = PowerTransformer("yeo-johnson", standardize=False).fit(VALUES[:, None])
    peer.lambdas_ = np.array([power])
    ours = TargetTransform(kind="yeo-johnson", lambda_=power)

    np.testing.assert_allclose(ours.forward(VALUES), peer.transform(VALUES[:, None])[:, 0])
    np.testing.assert_allclose(ours.inverse(ours.forward(VALUES)), VALUES, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["none", "log", "yeo-johnson"])
def test_standardised_transform_comes_back(kind: str) -> None:
    values = np.array([0.5, 1.0, 30.0])
    transform = TargetTransform.model_validate(
        {"kind": kind, "lambda": 0.3, "mean": 1.5, "scale": 4.0}
    )
    np.testing.assert_allclose(transform.inverse(transform.forward(values)), values)
    assert transform.forward(values)[1] != TargetTransform().forward(values)[1]


def test_fitted_lambda_is_scikit_learns() -> None:
    values = np.random.default_rng(3).lognormal(size=200)
    peer = PowerTransformer("yeo-johnson", standardize=False).fit(values[:, None])
    assert fit_transform("yeo-johnson", values).lambda_ == pytest.approx(peer.lambdas_[0], rel=1e-4)


def test_outside_yeo_johnsons_range_is_nan_and_not_a_number_made_up() -> None:
    bounded = TargetTransform(kind="yeo-johnson", lambda_=-0.5)  # maps y >= 0 below 2
    back = bounded.inverse(np.array([1.9, 2.0, 5.0, np.nan]))
    assert np.isfinite(back[0])
    assert np.isnan(back[1:]).all()


def test_log_of_zero_says_how_many() -> None:
    with pytest.raises(InvalidInput, match=r"2 of 3 values, the least -1.*yeo-johnson"):
        fit_transform("log", np.array([1.0, 0.0, -1.0]))
