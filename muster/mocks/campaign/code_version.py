"""Which code makes a campaign: the commit of Muster's tree, or the version that is installed."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
from pathlib import Path
from typing import Annotated

from pydantic import Field

import muster
from muster.errors import ConfigError, one_line
from muster.frozen import Frozen

CODE_FOLDER = Path(muster.__file__).resolve().parent.parent
"""Where this Muster lies: a git tree, or a folder of installed packages."""

MOST_CHANGED = 20
_TIMEOUT_S = 60
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+/-]{0,199}")
_OF_GIT = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX")


class CodeVersion(Frozen):
    """A version of the code.

    Attributes
    ----------
    version : str
        Of the package.
    commit : str or None
        40 hexadecimal digits; None of what is no git tree.
    changed : tuple of str
        Files that differ from the commit, as git status tells them, the first 20.
    """

    version: Annotated[str, Field(max_length=200)]
    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40}([0-9a-f]{24})?$")] | None = None
    changed: tuple[Annotated[str, Field(max_length=5000)], ...] = ()

    @property
    def is_dirty(self) -> bool:
        """Whether files differ from the commit."""
        return bool(self.changed)

    @property
    def text(self) -> str:
        """In a few words."""
        if self.commit is None:
            return f"version {self.version}"
        return f"commit {self.commit[:12]}{' with changes' if self.changed else ''}"


def read_code_version(folder: Path = CODE_FOLDER) -> CodeVersion:
    """Return the version of the code in a folder.

    Parameters
    ----------
    folder : Path
        The folder that holds the package ``muster``.

    Raises
    ------
    ConfigError
        When it is a git tree that git cannot read.
    """
    version = _package_version()
    if not _is_tracked(folder):
        return CodeVersion(version=version)
    commit = _git(folder, "rev-parse", "HEAD").strip()
    status = _git(folder, "status", "--porcelain=v1", "--untracked-files=normal")
    return CodeVersion(
        version=version, commit=commit, changed=tuple(status.splitlines()[:MOST_CHANGED])
    )


def check_clean(code: CodeVersion) -> None:
    """Refuse code that differs from its commit.

    Raises
    ------
    ConfigError
        Names the files.
    """
    if code.is_dirty:
        shown = ", ".join(line.strip() for line in code.changed[:5])
        more = ", …" if len(code.changed) > 5 else ""
        raise ConfigError(
            "the code was changed since its commit, so that nothing says what made the catalogues",
            where=code.text,
            got=f"{shown}{more}",
            do="commit the changes, or allow a dirty tree",
        )


def check_tag(folder: Path, tag: str, code: CodeVersion) -> None:
    """Refuse a tag that cannot be made at the commit.

    Raises
    ------
    ConfigError
        When the code is no git tree or has changes, the name is no tag's, or the tag names another
        commit.
    """
    if not _TAG.fullmatch(tag) or ".." in tag or "//" in tag or tag.endswith(("/", ".", ".lock")):
        raise ConfigError(
            "no name of a git tag",
            got=repr(tag),
            do="take letters, digits and . _ + / -, a letter or digit first",
        )
    if code.commit is None:
        raise ConfigError(
            "no tag can be made: the code is no git tree",
            where=folder,
            do="leave --git-tag out, or run Muster from a git clone",
        )
    if code.is_dirty:
        raise ConfigError(
            "no tag is made of a changed tree: it would not name the changes",
            do="commit the changes, or leave --git-tag out",
        )
    tagged = _tagged_commit(folder, tag)
    if tagged not in (None, code.commit):
        raise ConfigError(
            "the tag names another commit",
            where=folder,
            got=f"{tag} → {tagged}",
            do="choose another tag",
        )


def make_tag(folder: Path, tag: str, code: CodeVersion, message: str) -> None:
    """Make an annotated tag at the commit; one that is there at this commit stays."""
    check_tag(folder, tag, code)
    if _tagged_commit(folder, tag) is None:
        assert code.commit is not None
        _git(
            folder,
            *("-c", "user.name=muster", "-c", "user.email=muster@localhost"),
            *("tag", "--annotate", "--no-sign", "--message", message, tag, code.commit),
        )


def _tagged_commit(folder: Path, tag: str) -> str | None:
    found = _run(folder, "rev-parse", "--verify", "--quiet", f"refs/tags/{tag}^{{commit}}")
    return found.stdout.strip() or None


def _package_version() -> str:
    try:
        return importlib.metadata.version("muster")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _is_tracked(folder: Path) -> bool:
    """Say whether git tracks this very code; an environment may lie in a tree of something else."""
    inside = any((parent / ".git").exists() for parent in (folder, *folder.parents))
    if not inside:
        return False
    listed = _run(folder, "ls-files", "--error-unmatch", "muster/__init__.py")
    if listed.returncode == 0:
        return True
    if "did not match any file" in listed.stderr:
        return False
    raise _explain(folder, listed)


def _git(folder: Path, *arguments: str) -> str:
    ended = _run(folder, *arguments)
    if ended.returncode != 0:
        raise _explain(folder, ended)
    return ended.stdout


def _explain(folder: Path, ended: subprocess.CompletedProcess[str]) -> ConfigError:
    return ConfigError(
        "git cannot tell the version of the code",
        where=folder,
        got=one_line(ended.stderr)[:300],
        do="run git status there and mend what it tells, such as the owner of the tree",
    )


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in _OF_GIT}
    environment |= {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    try:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError:
        raise ConfigError(
            "git is not installed, and the code is a git tree", where=folder, do="install git"
        ) from None
    except subprocess.TimeoutExpired:
        raise ConfigError(
            "git does not answer",
            where=folder,
            got=f"nothing in {_TIMEOUT_S} s",
            do="try again; check that the file system of the tree answers",
        ) from None
