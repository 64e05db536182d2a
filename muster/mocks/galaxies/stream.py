"""Random numbers of one slab: a stream by seed, realization, redshift and slab, and by no process.

Slabs are fixed by the configuration, so that the number of processes changes no draw.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from muster.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

_WORD = 2**31
_LIMITS = {"seed": 2**62, "realization": _WORD, "redshift_index": _WORD, "slab": _WORD}


@dataclass(frozen=True)
class RandomStream:
    """The randomness of one slab of one box.

    Attributes
    ----------
    seed : int
        Of the campaign, in [0, 2⁶²).
    realization, redshift_index, slab : int
        Coordinates in the campaign and in the box, each in [0, 2³¹).

    Raises
    ------
    ConfigError
        When one of them is out of its range.
    """

    seed: int
    realization: int = 0
    redshift_index: int = 0
    slab: int = 0

    def __post_init__(self) -> None:
        for name, limit in _LIMITS.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < limit:
                raise ConfigError(
                    f"{name} out of range",
                    got=repr(value),
                    expected=f"an integer in [0, {limit})",
                    do="choose a number in this range",
                )

    @property
    def coordinates(self) -> tuple[int, int, int]:
        """Realization, redshift index and slab: what is folded into the seed, in this order."""
        return self.realization, self.redshift_index, self.slab

    def numpy(self, purpose: int = 0) -> np.random.Generator:
        """Return a NumPy generator, at its start at each call.

        Generators of different purposes are independent (SeedSequence spawn keys).
        """
        import numpy as np

        key = (*self.coordinates, purpose)
        return np.random.Generator(
            np.random.SFC64(np.random.SeedSequence(self.seed, spawn_key=key))
        )

    def jax(self) -> Any:
        """Return a JAX key: key(seed), then fold_in of realization, redshift index and slab.

        A seed of more than 31 bits is folded in by its upper bits first, whatever the precision.
        """
        from jax import random

        key = random.key(self.seed % _WORD, impl="threefry2x32")
        if self.seed >= _WORD:
            key = random.fold_in(key, self.seed // _WORD)
        for coordinate in self.coordinates:
            key = random.fold_in(key, coordinate)
        return key
