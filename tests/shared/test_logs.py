import json
import logging

from shared.logs import JsonFormatter


def rendered(level=logging.INFO, **extra):
    record = logging.LogRecord("opportune.x", level, "f.py", 1, "job is %s", ("live",), None)
    record.__dict__.update(extra)
    record.created, record.msecs = 1_800_000_000.25, 250.0
    return json.loads(JsonFormatter(cloud="azure").format(record))


def test_an_event_is_one_json_object_with_its_ids():
    event = rendered(action="route", trace_id="a" * 32)
    assert event == {
        "timestamp": "2027-01-15T08:00:00.250Z",
        "level": "INFO",
        "message": "job is live",
        "logger": "opportune.x",
        "cloud": "azure",
        "action": "route",
        "trace_id": "a" * 32,
    }


def test_what_json_does_not_know_is_shown_as_text():
    assert rendered(value={1})["value"] == "{1}"


def test_an_exception_keeps_its_traceback():
    try:
        raise ValueError("boom")
    except ValueError as exc:
        error = (ValueError, exc, exc.__traceback__)
    assert "ValueError: boom" in rendered(exc_info=error)["exception"]
