"""Where a command finds its store: MUSTER_STORE_URL, or the laptop's own Postgres."""

from __future__ import annotations

import os

from muster.errors import ConfigError
from muster.store.database import URL_VARIABLE, Database

URL_SCHEME = "postgresql"


def store_url() -> str:
    """Return the store's address; without MUSTER_STORE_URL the embedded Postgres is started."""
    url = os.environ.get(URL_VARIABLE)
    if url:
        return _check_url(url)
    from muster.laptop.services import embedded_store_url
    from muster.site import home_folder

    return embedded_store_url(home_folder())


def _check_url(url: str) -> str:
    scheme, found, _ = url.partition("://")
    if not found or scheme != URL_SCHEME:
        raise ConfigError(  # the rest of it may hold a password
            "not the address of a Postgres database",
            where=URL_VARIABLE,
            got=f"{scheme}://…" if found else "no URL",
            expected="postgresql://USER:PASSWORD@HOST:PORT/DATABASE",
        )
    return url


def share_store() -> None:
    """Open the store, and let a step that is called here find it: some load data into it."""
    os.environ[URL_VARIABLE] = open_database().url


def open_database() -> Database:
    """Open the store, bringing an embedded one to this version's schema."""
    embedded = not os.environ.get(URL_VARIABLE)
    url = store_url()
    if not embedded:
        return Database(url)
    from muster.site import home_folder
    from muster.store.schema import migrate

    migrate(url)
    return Database(url, place=f"store in {home_folder().resolve()}")
