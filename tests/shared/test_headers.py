import pytest

from shared.errors import InvalidInputError
from shared.headers import requested_timeout_s


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"X-Opportune-Timeout": "2.5"}, 2.5),
        ({"X-Opportune-Deadline-Ms": "2500"}, 2.5),  # from a caller that does not know the other one yet
        ({"X-Opportune-Timeout": "1", "X-Opportune-Deadline-Ms": "2500"}, 1.0),
    ],
)
def test_a_caller_says_how_long_it_waits(headers: dict[str, str], seconds: float | None) -> None:
    assert requested_timeout_s(headers.get) == seconds


@pytest.mark.parametrize("name", ["X-Opportune-Timeout", "X-Opportune-Deadline-Ms"])
@pytest.mark.parametrize("value", ["0", "-1", "soon", "", "nan", "inf"])
def test_what_is_no_time_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{name} is '{value}'"):
        requested_timeout_s({name: value}.get)
