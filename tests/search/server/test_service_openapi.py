"""The service held against its own OpenAPI: requests that fit it, and requests that do not."""

import pytest
from hypothesis import HealthCheck, given, settings

schemathesis = pytest.importorskip("schemathesis", reason="pip install schemathesis")
from schemathesis import GenerationMode  # noqa: E402
from schemathesis.checks import not_a_server_error  # noqa: E402
from schemathesis.specs.openapi import checks  # noqa: E402

from cqr.search.server.collected import Collected  # noqa: E402
from drawn_gallery import client, opened  # noqa: E402

# Not that each request which fits is answered: a row may be beyond the gallery, a body no picture.
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
    checks.negative_data_rejection,
    checks.unsupported_method,
]


@pytest.fixture(scope="module")
def operations(drawn_run, tmp_path_factory):
    collected = Collected.at(tmp_path_factory.mktemp("answers") / "answers.csv")
    app = client(opened(drawn_run), collected=collected).app
    schema = schemathesis.openapi.from_asgi("/api/openapi.json", app)
    return [found.ok() for found in schema.get_all_operations()]


def test_the_description_has_every_route(operations):
    assert sorted(f"{one.method.upper()} {one.path}" for one in operations) == [
        "GET /api/answers",
        "GET /api/gallery",
        "GET /api/gallery/place",
        "GET /api/health",
        "GET /api/images/{row}",
        "GET /api/images/{row}/about",
        "GET /api/images/{row}/thumb",
        "GET /api/info",
        "GET /api/marks",
        "GET /api/ready",
        "GET /api/suggestions",
        "GET /api/uploads/{name}",
        "GET /api/uploads/{name}/about",
        "POST /api/answers",
        "POST /api/attention",
        "POST /api/search",
        "POST /api/shares",
        "POST /api/uploads",
    ]


UNBREAKABLE = {
    "GET /api/answers",
    "GET /api/health",
    "GET /api/info",
    "GET /api/ready",
    "POST /api/uploads",
}
"""Nothing is said in the request, or any bytes are: none fails to fit."""


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_every_answer_is_as_described(operations, mode):
    seen = set()
    for operation in operations:
        if mode is GenerationMode.NEGATIVE and operation.label in UNBREAKABLE:
            continue

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=12,
            derandomize=True,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        def check(case):
            seen.add(case.call_and_validate(checks=CHECKS).status_code)

        check()
    assert seen >= ({200} if mode is GenerationMode.POSITIVE else {422})
