"""Time: aware UTC datetimes inside, integer milliseconds where the gateway's contract says so."""

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)


class NaiveTimeError(ValueError):
    """A datetime without a time zone came in; nobody can say which moment it means."""


def utc_now() -> datetime:
    """Return the system's time. Only edges call this; everything below takes `now`."""
    return datetime.now(UTC)


def as_utc(moment: datetime) -> datetime:
    """Return the same moment in UTC.

    Raises:
        NaiveTimeError: the datetime has no time zone.
    """
    if moment.tzinfo is UTC:
        return moment
    if moment.tzinfo is None:
        raise NaiveTimeError(f"{moment.isoformat()} has no time zone")
    return moment.astimezone(UTC)


def to_ms(moment: datetime) -> int:
    """Return whole milliseconds since 1970, rounded down (also before 1970); exact, without floats."""
    return (as_utc(moment) - EPOCH) // MILLISECOND


def from_ms(ms: int) -> datetime:
    """Return the aware UTC datetime of milliseconds since 1970."""
    return EPOCH + ms * MILLISECOND


def floor_ms(moment: datetime) -> datetime:
    """Return the moment cut to whole milliseconds, the gateway's resolution."""
    return from_ms(to_ms(moment))


def floor_hour(moment: datetime) -> datetime:
    """Return the start of the UTC hour that holds the moment."""
    return as_utc(moment).replace(minute=0, second=0, microsecond=0)


def floor_day(moment: datetime) -> datetime:
    """Return the start of the UTC day that holds the moment."""
    return floor_hour(moment).replace(hour=0)
