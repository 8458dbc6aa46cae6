"""Tax rates."""

from datetime import datetime
from decimal import Decimal

from sqlalchemy import CheckConstraint, Index, Numeric
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.foundation.db import Base


class TaxRate(Base):
    """A tax of a country, or of a region of it, from `valid_from` until before `valid_until`.

    Buyers in a region that has rates of its own pay these, and none of the country's. A rate without a country is
    for accounts that have no billing profile, or one that names no country. Rates never change but for their end.
    """

    __tablename__ = "tax_rates"
    __table_args__ = (
        CheckConstraint("country = '' OR country ~ '^[A-Z]{2}$'", name="country"),
        CheckConstraint("region = '' OR country <> ''", name="region"),
        CheckConstraint("char_length(name) BETWEEN 1 AND 200", name="name_length"),
        CheckConstraint("percent > 0 AND percent <= 100", name="percent"),
        CheckConstraint("scope IN ('all', 'fixed', 'usage')", name="scope"),
        CheckConstraint("valid_until >= valid_from", name="valid_until"),
        Index(None, "country", "region"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    country: Mapped[str] = mapped_column(default="", server_default="")
    region: Mapped[str] = mapped_column(default="", server_default="")
    name: Mapped[str]
    percent: Mapped[Decimal] = mapped_column(Numeric(7, 4))
    scope: Mapped[str] = mapped_column(default="all", server_default="all")
    valid_from: Mapped[datetime]
    valid_until: Mapped[datetime | None]
    created_at: Mapped[datetime]
