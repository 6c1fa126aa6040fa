from __future__ import annotations

from docs.generate_api_reference import PAGE, page


def test_the_reference_of_request_fields_says_what_the_schemas_say() -> None:
    assert PAGE.read_text() == page(), "run `python -m docs.generate_api_reference`"
