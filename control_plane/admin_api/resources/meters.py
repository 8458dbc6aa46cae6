"""Declared meters: what prices can count beside calls, bytes and reported units; their values; backfills."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field, StringConstraints

from control_plane.admin_api.access import Authenticated
from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import (
    Answer,
    Code,
    CodePath,
    Moment,
    Name,
    PageAnswer,
    PageQuery,
    PrintableText,
    StrictBody,
    page_answer,
)
from control_plane.admin_api.services import Now
from control_plane.catalog import meter_operations, meter_queries
from control_plane.catalog.meters import (
    MAX_FILTER_VALUES,
    MAX_STATUS,
    MAX_TEXT,
    MAX_WEIGHT,
    Aggregation,
    MeteredEvents,
    MeterFacts,
    MeterFilters,
)
from control_plane.catalog.tables import Meter
from control_plane.usage.meters.backfills import backfill, backfills, start_backfill

router = APIRouter(prefix="/meters", tags=["meters"])

Text = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT), PrintableText]
Texts = Annotated[list[Text], Field(max_length=MAX_FILTER_VALUES)]
PropertyName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:-]{1,100}$")]
BackfillId = Annotated[str, Path(pattern=r"^mbf_[0-9a-hjkmnp-tv-z]{26}$", description="The backfill's id.")]


class FiltersForm(StrictBody):
    """What counts; every filter that is given must let it pass."""

    endpoints: Annotated[Texts, Field(description="Endpoints or routes of the API product: of calls only.")] = []  # noqa: RUF012 - pydantic copies defaults
    methods: Annotated[Texts, Field(description="Of calls only.", examples=[["POST"]])] = []  # noqa: RUF012 - pydantic copies defaults
    lowest_status: Annotated[int, Field(strict=True, ge=0, le=MAX_STATUS, description="Of calls only.")] = 0
    highest_status: Annotated[int, Field(strict=True, ge=0, le=MAX_STATUS)] = MAX_STATUS
    event_types: Annotated[Texts, Field(description="CloudEvents `type`: of reported events only.")] = []  # noqa: RUF012 - pydantic copies defaults
    sources: Annotated[Texts, Field(description="CloudEvents `source`: of reported events only.")] = []  # noqa: RUF012 - pydantic copies defaults
    properties: Annotated[
        dict[PropertyName, Text],
        Field(max_length=MAX_FILTER_VALUES, description="Properties and their values: of reported events only."),
    ] = {}  # noqa: RUF012 - pydantic copies defaults


class CreateMeter(StrictBody):
    code: Annotated[Code, Field(examples=["active-users"], description="Prices name it; never used again.")]
    name: Name
    api_product: Annotated[Code, Field(description="Its code.")]
    aggregation: Aggregation
    value: Annotated[
        Text | None,
        Field(
            description="Not for count. For sum, max and latest a dimension, or `bytes_in`, `bytes_out`,"
            " `upstream_ms`, `latency_ms`, `gateway_ms`, `units`. For unique `key_id`, `client_ip`, `endpoint`,"
            " `path` or `properties.NAME`.",
            examples=["properties.user"],
        ),
    ] = None
    events: Annotated[MeteredEvents, Field(description="Calls, events that applications report, or both.")] = (
        MeteredEvents.CALLS
    )
    filters: FiltersForm = Field(default_factory=FiltersForm)
    weights: Annotated[
        dict[Text, Annotated[int, Field(strict=True, ge=1, le=MAX_WEIGHT)]],
        Field(max_length=MAX_FILTER_VALUES, description="What a call of an endpoint counts for; 1 elsewhere."),
    ] = {}  # noqa: RUF012 - pydantic copies defaults

    def facts(self) -> MeterFacts:
        given = self.filters.model_dump()
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in given.items()
        }
        return MeterFacts(
            code=self.code,
            name=self.name,
            api_product=self.api_product,
            aggregation=self.aggregation,
            value=self.value,
            events=self.events,
            filters=MeterFilters(**values),
            weights=self.weights,
        )


class MeterAnswer(BaseModel):
    id: str
    code: str
    name: str
    api_product: str
    aggregation: Aggregation
    value: str | None
    events: MeteredEvents
    filters: FiltersForm
    weights: dict[str, int]
    created_at: Moment
    archived_at: Moment | None


class MeterUseAnswer(Answer):
    """A plan version with a price on the meter."""

    plan: str
    version: int
    status: str = Field(description="`published` or `superseded`.")
    model: str
    published_at: Moment | None


class MeterWithUsesAnswer(MeterAnswer):
    used_by: list[MeterUseAnswer] = Field(description="Plan versions with a price on it, newest first.")


class MetersQuery(PageQuery):
    product: Annotated[Code | None, Field(description="Only meters of this API product.")] = None
    archived: Annotated[bool, Field(description="Archived ones too.")] = False


class StartBackfill(StrictBody):
    starts_at: Annotated[
        Moment | None,
        Field(
            description="Count from this full hour on; left out, from the beginning of each subscription's current"
            " billing period."
        ),
    ] = None


class BackfillAnswer(Answer):
    id: str
    status: str = Field(description="`running`, `done`, or `stopped` where another meter took the meter's place.")
    starts_at: Moment | None
    ends_at: Moment
    subscriptions_total: int
    subscriptions_done: int
    hours_done: int
    hours_skipped: int = Field(description="Left as they are, since their events may have expired.")
    created_by: str
    created_at: Moment
    updated_at: Moment
    finished_at: Moment | None


@router.post("", status_code=201)
async def create_meter(body: CreateMeter, session: Database, caller: Authenticated, now: Now) -> MeterAnswer:
    """Declare a meter. It counts from now on; start a backfill for what was stored before."""
    return answer(await meter_operations.create_meter(session, meter=body.facts(), actor=caller.actor, now=now))


@router.get("")
async def list_meters(session: Database, query: Annotated[MetersQuery, Query()]) -> PageAnswer[MeterAnswer]:
    """List meters by code."""
    page = await meter_queries.meters_page(
        session, product_code=query.product, archived=query.archived, cursor=query.cursor, limit=query.limit
    )
    return page_answer(page, answer)


@router.get("/{code}")
async def get_meter(code: CodePath, session: Database) -> MeterWithUsesAnswer:
    """Return a meter, and which plan versions have a price on it."""
    meter = await meter_queries.meter(session, code)
    uses = await meter_queries.uses_of_meter(session, meter)
    return MeterWithUsesAnswer(
        **answer(meter).model_dump(), used_by=[MeterUseAnswer.model_validate(use) for use in uses]
    )


@router.post("/{code}/archive")
async def archive_meter(code: CodePath, session: Database, caller: Authenticated, now: Now) -> MeterAnswer:
    """Keep new prices from naming a meter; those that do go on. Repeatable."""
    return answer(await meter_operations.archive_meter(session, code=code, actor=caller.actor, now=now))


@router.post("/{code}/backfills", status_code=201)
async def start_meter_backfill(
    code: CodePath, body: StartBackfill, session: Database, caller: Authenticated, now: Now
) -> BackfillAnswer:
    """Count stored events for a meter in the background; ask for the job to see how far it is."""
    job = await start_backfill(session, code=code, starts_at=body.starts_at, actor=caller.actor, now=now)
    return BackfillAnswer.model_validate(job)


@router.get("/{code}/backfills")
async def list_meter_backfills(
    code: CodePath, session: Database, query: Annotated[PageQuery, Query()]
) -> PageAnswer[BackfillAnswer]:
    """List a meter's backfills, newest first."""
    meter = await meter_queries.meter(session, code)
    page = await backfills(session, meter_id=meter.id, cursor=query.cursor, limit=query.limit)
    return page_answer(page, BackfillAnswer.model_validate)


@router.get("/backfills/{backfill_id}")
async def get_meter_backfill(backfill_id: BackfillId, session: Database) -> BackfillAnswer:
    """Return a backfill with its progress."""
    return BackfillAnswer.model_validate(await backfill(session, backfill_id))


def answer(meter: Meter) -> MeterAnswer:
    facts = meter_queries.facts_of_meter(meter)
    return MeterAnswer(
        id=meter.id,
        code=facts.code,
        name=facts.name,
        api_product=facts.api_product,
        aggregation=facts.aggregation,
        value=facts.value,
        events=facts.events,
        filters=FiltersForm(**asdict(facts.filters)),
        weights=facts.weights,
        created_at=meter.created_at,
        archived_at=meter.archived_at,
    )
