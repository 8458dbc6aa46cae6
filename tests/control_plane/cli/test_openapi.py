"""Our OpenAPI document against the running server: generated requests, right and wrong ones."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from control_plane.admin_api.app import create_app
from control_plane.admin_api.pattern_words import pattern_words
from control_plane.admin_api.services import Services
from tests.control_plane.cli.conftest import ServerProcess

EXAMPLES_OF_EACH = 2
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


async def no_rebuild(_now: datetime) -> None:
    raise NotImplementedError


DOCUMENT = create_app(Services(sessions=None, history=None, rebuild=no_rebuild)).openapi()
OPERATIONS = [found.ok() for found in schemathesis.openapi.from_dict(DOCUMENT).get_all_operations()]
INGEST = "/ingest/"
# health takes nothing that could be wrong
CASES = [
    pytest.param(operation, mode, id=f"{mode.value} {operation.label}")
    for operation in OPERATIONS
    for mode in GenerationMode
    if mode is GenerationMode.POSITIVE or operation.path.startswith(("/admin/", INGEST))
]


def _patterns(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("pattern"), str):
            yield node["pattern"]
        yield from node.get("patternProperties", {})
    for part in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _patterns(part)


def test_every_pattern_is_told_in_words():
    # events are read by another reader, with words of its own
    read = {path: found for path, found in DOCUMENT["paths"].items() if not path.startswith(INGEST)}
    patterns = set(_patterns([read, DOCUMENT["components"]]))
    assert len(patterns) > 30
    assert {pattern for pattern in patterns if pattern_words(pattern) is None} == set()


@pytest.mark.parametrize(("operation", "mode"), CASES)
def test_every_operation_answers_as_documented(operation, mode: GenerationMode, server: ServerProcess):
    token = {"Authorization": f"Bearer {server.env['KM_TOKEN']}"}
    # of a batch each event is judged by itself: wrong ones are named in a 207
    checks = [check for check in CHECKS if check is not negative_data_rejection or operation.path[:8] != INGEST]

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=EXAMPLES_OF_EACH, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    def check(case: schemathesis.Case) -> None:
        # a sign-in that is drawn to be wrong stays so
        headers = {} if case.meta.is_negative_at(ParameterLocation.HEADER) else token
        case.call_and_validate(base_url=server.url, headers=headers, checks=checks, timeout=30)

    check()
