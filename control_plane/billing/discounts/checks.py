"""What must be true of coupons and promotion codes. Pure."""

import re
from decimal import Decimal

from control_plane.billing.discounts.model import COUNTED, CodeTerms, CouponTerms
from control_plane.foundation.errors import Problem, ValidationFailedError
from control_plane.foundation.money import UnknownCurrencyError, minor_units
from control_plane.foundation.text import CODE_RULE, clean_name, is_code

MAX_PERCENT = Decimal(100)
PERCENT_DIGITS = 4
MAX_COUNT = 120
PROMOTION_CODE_RULE = "must be 3 to 48 letters, digits, `-` and `_`, and begin with a letter or digit"
_PROMOTION_CODE = re.compile(r"[A-Z0-9][A-Z0-9_-]{2,47}")


def check_promotion_code(text: str) -> str:
    """Return what people type as it is kept: upper-case, without spaces around it.

    Raises:
        ValidationFailedError: field `code`.
    """
    code = text.strip().upper()
    if not _PROMOTION_CODE.fullmatch(code):
        raise ValidationFailedError("code", PROMOTION_CODE_RULE)
    return code


def check_coupon_code(code: str) -> str:
    """Return the code.

    Raises:
        ValidationFailedError: field `code`.
    """
    if not is_code(code):
        raise ValidationFailedError("code", CODE_RULE)
    return code


def check_terms(terms: CouponTerms) -> CouponTerms:
    """Return the terms.

    Raises:
        ValidationFailedError: names every field that is not usable.
    """
    clean_name(terms.name)
    problems = [*_amount_problems(terms), *_count_problems(terms)]
    if terms.max_redemptions is not None and terms.max_redemptions < 1:
        problems.append(Problem("max_redemptions", "must be at least 1"))
    if problems:
        first, *more = problems
        raise ValidationFailedError(first.field, first.message, *more)
    return terms


def check_code_terms(terms: CodeTerms) -> CodeTerms:
    """Return the terms.

    Raises:
        ValidationFailedError: names every field that is not usable.
    """
    problems = []
    if terms.max_redemptions is not None and terms.max_redemptions < 1:
        problems.append(Problem("max_redemptions", "must be at least 1"))
    if terms.minimum_minor is not None and terms.minimum_minor < 1:
        problems.append(Problem("minimum_amount", "must be above zero"))
    if (terms.minimum_minor is None) is not (terms.minimum_currency is None) or (
        terms.minimum_currency is not None and not _is_currency(terms.minimum_currency)
    ):
        problems.append(Problem("minimum_currency", "must be an ISO 4217 code, and go with a minimum amount"))
    if problems:
        first, *more = problems
        raise ValidationFailedError(first.field, first.message, *more)
    return terms


def _is_currency(code: str) -> bool:
    try:
        minor_units(code)
    except UnknownCurrencyError:
        return False
    return True


def _amount_problems(terms: CouponTerms) -> list[Problem]:
    if (terms.percent is None) is (terms.amount_minor is None):
        return [Problem("percent", "give either a percentage or an amount")]
    if terms.percent is not None:
        if terms.currency is not None:
            return [Problem("currency", "belongs to an amount: a percentage holds for every currency")]
        return percent_problems(terms.percent, "percent")
    if not _is_currency(terms.currency or ""):
        return [Problem("currency", "must be an ISO 4217 code such as USD")]
    if (terms.amount_minor or 0) < 1:
        return [Problem("amount", "must be above zero")]
    return []


def percent_problems(percent: Decimal, field_name: str) -> list[Problem]:
    """Return what is wrong with a percentage: above 0, up to 100, at most four decimals."""
    exponent = percent.as_tuple().exponent
    if not percent.is_finite() or not 0 < percent <= MAX_PERCENT:
        return [Problem(field_name, "must be above 0 and at most 100")]
    if isinstance(exponent, int) and exponent < -PERCENT_DIGITS:
        return [Problem(field_name, f"must have at most {PERCENT_DIGITS} decimals")]
    return []


def _count_problems(terms: CouponTerms) -> list[Problem]:
    if terms.duration in COUNTED:
        if terms.count is None or not 1 <= terms.count <= MAX_COUNT:
            return [Problem("count", f"must be between 1 and {MAX_COUNT} for the duration {terms.duration}")]
    elif terms.count is not None:
        return [Problem("count", f"is not used for the duration {terms.duration}: leave it out")]
    return []
