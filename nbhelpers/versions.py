"""The versions of what a result was made with, without importing any of it."""

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version


def version_of(package: str) -> str:
    """Returns a package's version, or that it isn't installed.

    Example:
        >>> version_of("no-such-package")
        'not installed'
    """
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Returns the versions of Python and of these packages, by name."""
    return {"python": platform.python_version(), **{p: version_of(p) for p in packages}}
