"""From the days of the last weeks to the days ahead: what to expect, and how far off it may be. Pure.

Usage of a day is taken as a level, which may rise or fall evenly, times the usual share of its weekday. Both are
fitted to the days known, recent ones counting more; what the fit leaves over says how far a sum of days ahead may
lie off. Days that are alike in a row (a burst that lasts) tell less than as many days by themselves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt

WEEK = 7
HALF_LIFE_DAYS = 14
# of a normal distribution: four of five outcomes lie between its 10th and its 90th percentile
Z = 1.2816
# a rise or fall counts when it is at least so many times its standard error
TREND_COUNTS_FROM = 2.0
DAYS_FOR_TREND = 14
WEEKS_FOR_WEEKDAYS = 2
# what few days cannot show: days of an API differ by about half of their mean
LEAST_SPREAD = 0.5
LONGEST_MEMORY = 0.9
# a rise may end, or steepen, by that part of it
DOUBT_OF_TREND = 0.25
# whoever began less than two weeks ago may soon use more, or less, by that part
DOUBT_OF_START = 0.3
LEAST_LEVEL = 0.25
LEAST_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Rest:
    """Units expected of the days ahead, together: `likely`, and four times out of five from `low` to `high`.

    `by_day`: the likely units of each day ahead.
    """

    low: float
    likely: float
    high: float
    by_day: tuple[float, ...]


NOTHING_AHEAD = Rest(0.0, 0.0, 0.0, ())


@dataclass(frozen=True, slots=True)
class _Fit:
    """`level` on the first day ahead, `slope` a day. `spread` of a day as a part of its level; variances of level
    and slope, and what these share.
    """

    level: float
    slope: float
    spread: float
    variances: tuple[float, float, float]
    freedom: float

    def at(self, day: int) -> float:
        return max(0.0, self.level + self.slope * day)


def project(days: Sequence[int], *, ahead: Sequence[float]) -> Rest | None:
    """Return what to expect of the days ahead, None where no day has any usage.

    `days`: units of whole days, oldest first, the last one yesterday. `ahead`: of each day from today on, the part
    that is still to come, 0 to 1.
    """
    days = _from_first_used(days)
    if not days:
        return None
    shares = _weekday_shares(days)
    fit = _fit(days, shares)
    parts = [(day, part, shares[(len(days) + day) % WEEK]) for day, part in enumerate(ahead)]
    by_day = tuple(part * share * fit.at(day) for day, part, share in parts)
    across = sum(part * share for _, part, share in parts)
    along = sum(part * share * day for day, part, share in parts)
    of_level, of_slope, of_both = fit.variances
    variance = sum(_day_variance(fit.at(day) * fit.spread, share) * part**2 for day, part, share in parts)
    variance += across**2 * of_level + along**2 * of_slope + 2 * across * along * of_both
    variance += (DOUBT_OF_TREND * fit.slope * along) ** 2
    if len(days) < DAYS_FOR_TREND:
        variance += (DOUBT_OF_START * fit.level * across) ** 2
    off = _quantile(fit.freedom) * sqrt(max(0.0, variance))
    likely = sum(by_day)
    return Rest(max(0.0, likely - off), likely, likely + off, by_day)


def project_from_hours(units: int, *, of_day: float, ahead: Sequence[float]) -> Rest | None:
    """Return what to expect where only a part of a first day is known: from a third to three times that pace."""
    if units <= 0 or of_day <= 0:
        return None
    by_day = tuple(part * units / of_day for part in ahead)
    likely = sum(by_day)
    return Rest(likely / 3, likely, likely * 3, by_day)


def _from_first_used(days: Sequence[int]) -> Sequence[int]:
    first = next((place for place, units in enumerate(days) if units > 0), len(days))
    return days[first:]


def _weekday_shares(days: Sequence[int]) -> list[float]:
    """Return the share of each weekday, 1 on average, the weekday of the first day first.

    A day is compared with the week around it, so that a rise is not taken for a share. Shares move away from 1 as
    far as the weeks agree about them.
    """
    around = WEEK // 2
    found: list[list[float]] = [[] for _ in range(WEEK)]
    for place in range(around, len(days) - around):
        week = sum(days[place - around : place + around + 1])
        if week > 0:
            found[place % WEEK].append(WEEK * days[place] / week)
    if min(len(of_weekday) for of_weekday in found) < WEEKS_FOR_WEEKDAYS:
        return [1.0] * WEEK
    means = [sum(of_weekday) / len(of_weekday) for of_weekday in found]
    count = sum(len(of_weekday) for of_weekday in found)
    within = sum((share - mean) ** 2 for mean, shares in zip(means, found, strict=True) for share in shares)
    by_chance = within / (count - WEEK) / (count / WEEK)
    average = sum(means) / WEEK
    between = sum((mean - average) ** 2 for mean in means) / (WEEK - 1)
    agreed = max(0.0, 1 - by_chance / between) if between > 0 else 0.0
    return [1 + agreed * (mean / average - 1) for mean in means]


def _fit(days: Sequence[int], shares: Sequence[float]) -> _Fit:
    """Return the level and, where it counts, the slope of the days, both as of the first day ahead."""
    steady = _weighted(days, shares, with_slope=False)
    if len(days) < DAYS_FOR_TREND:
        return steady
    rising = _weighted(days, shares, with_slope=True)
    return rising if abs(rising.slope) > TREND_COUNTS_FROM * sqrt(rising.variances[1]) else steady


def _weighted(days: Sequence[int], shares: Sequence[float], *, with_slope: bool) -> _Fit:
    """Fit by least squares; `age` of a day is below zero, 0 is the first day ahead."""
    points = [
        (0.5 ** ((len(days) - place) / HALF_LIFE_DAYS), shares[place % WEEK], place - len(days), units)
        for place, units in enumerate(days)
    ]
    squares = sum(weight * share**2 for weight, share, _, _ in points)
    if not squares:  # only weekdays on which nothing is used: nothing is known of others
        return _Fit(0.0, 0.0, 0.0, (0.0, 0.0, 0.0), 1.0)
    level = sum(weight * share * units for weight, share, _, units in points) / squares
    middle = slope = along = 0.0
    if with_slope:
        middle = sum(weight * share**2 * age for weight, share, age, _ in points) / squares
        along = sum(weight * (share * (age - middle)) ** 2 for weight, share, age, _ in points)
        slope = sum(weight * share * (age - middle) * units for weight, share, age, units in points) / along
    left = []
    for _, share, age, units in points:
        fitted = level + slope * (age - middle)
        # busier days lie off by more
        usual = max(fitted, LEAST_LEVEL * level) * sqrt(_day_variance(1.0, share))
        left.append((units - share * fitted) / usual)
    weights = [weight for weight, *_ in points]
    counted = sum(weights) ** 2 / sum(weight**2 for weight in weights)
    known_by = 1 + with_slope + (WEEK - 1 if min(shares) < max(shares) else 0)
    freedom = max(1.0, counted - known_by)
    # weekdays without calls say nothing about how far others lie off
    telling = [weight * share for weight, share, *_ in points]
    variance = sum(weight * one**2 for weight, one in zip(telling, left, strict=True)) / sum(telling)
    variance *= counted / freedom
    if len(days) < WEEK:
        variance = max(variance, LEAST_SPREAD**2)
    variance *= _inflation(left)
    of_day = [weight * share * level * sqrt(variance * _day_variance(1.0, share)) for weight, share, *_ in points]
    of_level = sum(one**2 for one in of_day) / squares**2
    of_slope = 0.0
    if with_slope:
        ages = [age - middle for _, _, age, _ in points]
        of_slope = sum((one * age) ** 2 for one, age in zip(of_day, ages, strict=True)) / along**2
    return _Fit(
        level=level - slope * middle,
        slope=slope,
        spread=sqrt(variance),
        # known best in the middle of the days: the first day ahead lies -middle days after it
        variances=(of_level + middle**2 * of_slope, of_slope, -middle * of_slope),
        freedom=freedom,
    )


def _day_variance(spread: float, share: float) -> float:
    """Return the variance of a day whose weekday has that share: days without calls do not lie off."""
    return spread**2 * max(share, LEAST_SHARE)


def _inflation(left: Sequence[float]) -> float:
    """Return by how much days that follow each other alike widen what a sum of days may lie off."""
    total = sum(one**2 for one in left)
    if len(left) <= WEEK or not total:
        return 1.0
    alike = sum(one * other for one, other in pairwise(left)) / total
    # what little is known makes days look less alike than they are
    alike = min(LONGEST_MEMORY, max(0.0, alike + (1 + 3 * alike) / len(left)))
    return (1 + alike) / (1 - alike)


def _quantile(freedom: float) -> float:
    """Return the 90th percentile of Student's distribution, near enough."""
    return Z + (Z**3 + Z) / (4 * freedom) + (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * freedom**2)
