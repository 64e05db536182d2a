"""What HDF5 says of an error, in a short line of plain words."""

from __future__ import annotations

import re

from muster.errors import shorten

_OF_C = re.compile(r"(?:time|filename|buf|file descriptor) = [^,)]*,? ?")
_LONGEST = 200


def fold_hdf5_text(text: str) -> str:
    """Return what h5py says in a short line, without addresses, times and descriptors of C."""
    return shorten(_OF_C.sub("", " ".join(text.split())), _LONGEST)
