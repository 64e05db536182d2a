"""Names of datasets: each is a key in the store, a file's name and a column's."""

from __future__ import annotations

import pytest

from muster.errors import ConfigError
from muster.resampling.config.params import parse_params


@pytest.mark.parametrize("name", ["field@2024-03", "merge:field"])
def test_a_name_that_could_be_a_key_of_something_else_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"'{name}': a name holds no '@' and no ':'") as told:
        parse_params(
            {
                "target": {"like": "/data/field.tif"},
                "datasets": [{"name": name, "path": "/data/field.tif", "method": "mode"}],
                "output": "/out",
            }
        )
    assert "\n" not in str(told.value)
