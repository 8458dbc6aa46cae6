"""The database: one `Base`, one naming convention, one way to make an engine."""

from collections.abc import Collection
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import ColumnElement, DateTime, Dialect, MetaData, Text, TypeDecorator, any_, cast
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute

from control_plane.foundation import arrays
from control_plane.foundation.clock import as_utc

NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

CONNECT_TIMEOUT_SECONDS = 10


class UtcDateTime(TypeDecorator[datetime]):
    """`timestamptz` that takes and gives only aware UTC datetimes; a naive one raises."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        return None if value is None else as_utc(value)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        return None if value is None else as_utc(value)


arrays.register()


class Base(DeclarativeBase):
    """Every table of the control plane."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: Text(),
        datetime: UtcDateTime(),
        dict[str, Any]: JSONB(none_as_null=True),
        list[dict[str, Any]]: JSONB(none_as_null=True),
        list[str]: ARRAY(Text()),
    }


def is_any_of(
    column: InstrumentedAttribute[str] | InstrumentedAttribute[str | None], values: Collection[str]
) -> ColumnElement[bool]:
    """Return `column = ANY (array)`: one parameter however many values, where IN stops at 65,535."""
    return column == any_(cast(sorted(values), ARRAY(Text())))


def create_engine(
    url: str,
    *,
    pool_size: int = 10,
    application_name: str = "kong-monetize",
    statement_timeout_ms: int = 0,
) -> AsyncEngine:
    """Return an engine for a `postgresql+psycopg://` URL; sessions run in UTC.

    It opens at most twice `pool_size` connections. A statement that takes longer than `statement_timeout_ms`,
    waiting for locks included, is cancelled (0: never).
    """
    # Nothing is prepared on the server: PostgreSQL may plan what is for all accounts and spans alike, and a large
    # account's chart took five times as long from the eleventh on. Forbidding such plans (plan_cache_mode) would
    # have it plan every check of a foreign key anew, which was most of an insert's time.
    options = f"-c timezone=UTC -c statement_timeout={statement_timeout_ms}"
    return create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=True,
        connect_args={
            "options": options,
            "application_name": application_name,
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "prepare_threshold": None,
        },
    )


def session_factory(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    """Return the factory of sessions; whoever opens one commits it, once, at the edge."""
    return async_sessionmaker(engine, expire_on_commit=False)
