from prometheus_client.parser import text_string_to_metric_families

from functions.web.exposition import Family, page


def test_every_kind_is_read_back_as_it_was_told():
    jobs = Family("llm_jobs_total", "counter", 'Jobs "done" \\ over\nlines.')
    jobs.add(3, cloud="aws")
    jobs.add(1e15, cloud='a"b\\c\nd')
    took = Family("llm_took_seconds", "summary", "Time.")
    took.add(1.5, "_sum")
    took.add(2, "_count")
    odd = Family("llm_odd", "gauge", "No number.")
    odd.add(float("inf"))
    text = page([jobs, took, odd, Family("llm_empty", "gauge", "Nothing.")], {"service": "qa"})
    found = {family.name: family for family in text_string_to_metric_families(text)}
    assert set(found) == {"llm_jobs", "llm_took_seconds", "llm_odd"}
    assert found["llm_jobs"].type == "counter" and found["llm_took_seconds"].type == "summary"
    assert [(s.labels, s.value) for s in found["llm_jobs"].samples] == [
        ({"service": "qa", "cloud": "aws"}, 3),
        ({"service": "qa", "cloud": 'a"b\\c\nd'}, 1e15),
    ]
    assert [(s.name, s.value) for s in found["llm_took_seconds"].samples] == [
        ("llm_took_seconds_sum", 1.5),
        ("llm_took_seconds_count", 2),
    ]
    assert found["llm_odd"].samples[0].value == float("inf")
    assert text.endswith("\n") and "\n\n" not in text
