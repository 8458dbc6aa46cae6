"""Brings a database to the newest schema."""

from pathlib import Path

from alembic import command
from alembic.config import Config

import control_plane

PACKAGE = Path(control_plane.__file__).parent


class MigrationsMissingError(RuntimeError):
    """Neither the installed package nor a checkout holds the migration scripts."""


def script_location() -> Path:
    """Return where the migration scripts are: inside an installed wheel, else at the checkout's root.

    Raises:
        MigrationsMissingError: in neither place.
    """
    for candidate in (PACKAGE / "alembic", PACKAGE.parent / "alembic"):
        if (candidate / "env.py").is_file():
            return candidate
    raise MigrationsMissingError(f"no migration scripts in {PACKAGE / 'alembic'} or {PACKAGE.parent / 'alembic'}")


def alembic_config(database_url: str) -> Config:
    """Return Alembic's configuration for one database, independent of any alembic.ini."""
    config = Config()
    config.set_main_option("script_location", str(script_location()).replace("%", "%%"))
    config.attributes["database_url"] = database_url
    return config


def upgrade(database_url: str) -> None:
    """Run `alembic upgrade head`. Idempotent; processes that start at once take turns. All or nothing."""
    config = alembic_config(database_url)
    config.attributes["compares_tables"] = False
    command.upgrade(config, "head")
