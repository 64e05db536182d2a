"""Pictures of a report: PNG files as they stand in the document, which fetches nothing."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from muster import storage
from muster.errors import InvalidInput, MissingInput

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Picture:
    """A PNG as it stands in the document; width and height in pixels."""

    data_uri: str
    width: int
    height: int


def read_picture(uri: str, most_bytes: int) -> tuple[Picture | None, str | None, int]:
    """Read a picture unless it is too large: the picture, or why there is none, and its size.

    Raises
    ------
    Transient
        When storage did not answer.
    """
    try:
        size = storage.stat(uri).bytes
        if size > most_bytes:
            return None, f"the pictures of this report would be too many bytes; see {uri}", 0
        data = storage.read_bytes(uri)
    except MissingInput:
        return None, f"there is no picture at {uri}", 0
    except InvalidInput as error:
        return None, str(error), 0
    if not data.startswith(_PNG_SIGNATURE) or len(data) < 24:
        return None, f"not a PNG: {uri}", 0
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    encoded = base64.b64encode(data).decode("ascii")
    return Picture(f"data:image/png;base64,{encoded}", width, height), None, len(data)
