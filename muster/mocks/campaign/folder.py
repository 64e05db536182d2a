"""Where things lie in a campaign's folder, base_path/VERSION_NAME."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from muster import storage
from muster.errors import InvalidInput, Transient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True)
class CampaignFolder:
    """Places in a campaign's folder.

    Attributes
    ----------
    uri : str
        The folder: a path or file URI.
    """

    uri: str

    def _join(self, *names: str) -> str:
        return storage.join(self.uri, *names)

    @property
    def metadata_uri(self) -> str:
        """Folder of what is known of the campaign."""
        return self._join("metadata")

    @property
    def config_uri(self) -> str:
        """The configuration that it was initialized with, every key said, paths absolute."""
        return self._join("metadata", "campaign_config.yaml")

    @property
    def provenance_uri(self) -> str:
        """All that made its files: code, packages, configuration, host."""
        return self._join("metadata", "provenance.json")

    @property
    def database_uri(self) -> str:
        """Its record as SQLite."""
        return self._join("metadata", "campaign.db")

    @property
    def jobs_uri(self) -> str:
        """Its jobs as Parquet."""
        return self._join("metadata", "jobs.parquet")

    @property
    def statistics_uri(self) -> str:
        """Folder of the statistics of its catalogues, a Parquet file a batch."""
        return self._join("metadata", "statistics")

    @property
    def catalogs_uri(self) -> str:
        """Folder of the catalogues, a folder rNNNN a realization."""
        return self._join("catalogs")

    @property
    def logs_uri(self) -> str:
        """Folder of the logs of batches that ended."""
        return self._join("logs")

    @property
    def reports_uri(self) -> str:
        """Folder of validation reports, and of files that failed their validation."""
        return self._join("qa", "validation_reports")

    @property
    def plots_uri(self) -> str:
        """Folder of the plots of the ensemble."""
        return self._join("qa", "summary_plots")

    @property
    def folders(self) -> tuple[str, ...]:
        """Every folder that initializing makes."""
        return (
            self.metadata_uri,
            self.catalogs_uri,
            self.logs_uri,
            self.reports_uri,
            self.plots_uri,
        )


@contextlib.contextmanager
def folder_errors_at(path: Path, what: str, do: str) -> Iterator[None]:
    """Raise an OSError of the block as that of a folder that cannot be made or written.

    Raises
    ------
    InvalidInput
        With what the folder is, and what to do.
    Transient
        When the file system failed.
    """
    try:
        yield
    except OSError as error:
        explained = storage.explain_os_error(error, path)
        if isinstance(explained, Transient):
            raise explained from error
        raise InvalidInput(
            f"the {what} cannot be made or written", where=path, got=error.strerror, do=do
        ) from error
