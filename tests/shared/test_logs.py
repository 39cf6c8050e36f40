import json
import logging
import subprocess
import sys

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


def test_a_process_writes_its_own_events_and_libraries_warnings_as_json_lines():
    program = (
        "import logging; from shared.logs import log_json; log_json(cloud='aws')\n"
        "for name in ('opportune.tick', 'training_containers.serve.app', 'urllib3'):\n"
        "    logging.getLogger(name).info('hello'); logging.getLogger(name).warning('careful')\n"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    told = [json.loads(line) for line in out.splitlines()]
    assert {event["cloud"] for event in told} == {"aws"}
    said = [(event["logger"].split(".")[0], event["message"]) for event in told]
    assert said == [
        ("opportune", "hello"),
        ("opportune", "careful"),
        ("training_containers", "hello"),
        ("training_containers", "careful"),
        ("urllib3", "careful"),
    ]
