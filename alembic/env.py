"""Runs migrations. The URL comes from whoever calls us, `-x url=...`, or KM_DATABASE_URL, in this order."""

import importlib
import os
import pkgutil

from alembic import context
from sqlalchemy import NullPool, create_engine, text

import control_plane
from control_plane.foundation.db import Base, UtcDateTime

LOCK_KEY = 4_242_001  # any number, the same for ever: migrating processes take turns on it
LOCK_TIMEOUT = "10s"  # a migration that waits for a table's lock makes every query behind it wait too


def import_all_tables() -> None:
    for module in pkgutil.walk_packages(control_plane.__path__, "control_plane."):
        if module.name.endswith(".tables") or module.name in {
            "control_plane.foundation.outbox",
            "control_plane.foundation.audit",
        }:
            importlib.import_module(module.name)


def database_url() -> str:
    url = (
        context.config.attributes.get("database_url")
        or context.get_x_argument(as_dictionary=True).get("url")
        or os.environ.get("KM_DATABASE_URL")
    )
    if not url:
        raise SystemExit("no database: set KM_DATABASE_URL (postgresql+psycopg://...) or pass -x url=...")
    return url


def render_item(kind: str, item: object, _context: object) -> str | bool:
    """Migrations name plain types: they must still run when ours have changed."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, UtcDateTime) else False


def run_online() -> None:
    engine = create_engine(database_url(), poolclass=NullPool, connect_args={"options": "-c timezone=UTC"})
    with engine.connect() as connection:
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            compare_type=True,
            compare_server_default=True,
            render_item=render_item,
        )
        with context.begin_transaction():
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK_KEY})
            connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
            context.run_migrations()
    engine.dispose()


def run_offline() -> None:
    context.configure(
        url="postgresql+psycopg://", target_metadata=Base.metadata, literal_binds=True, compare_type=True
    )
    with context.begin_transaction():
        context.execute(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
        context.run_migrations()


# an upgrade says by itself what it does; to load the tables that others compare with takes seconds
if context.config.attributes.get("compares_tables", True):
    import_all_tables()
if context.is_offline_mode():
    run_offline()
else:
    run_online()
