"""The script that asks whether the tests notice, on a module of five lines."""

import json
import subprocess
import sys

import pytest

from benchmarks import mutants
from benchmarks.mutants import EQUIVALENT, ROOT, TESTS, Mutant

pytestmark = pytest.mark.slow

TINY = """\
import functools
import logging
log = logging.getLogger("tiny")


@functools.lru_cache(maxsize=7)
def fits(spent: float, price: float, hours: float, limit: float = 10.0) -> bool:
    log.info("asked %s", spent * 3)
    return spent + price * hours <= limit


def words(n: int) -> str | None:
    return f"{n + 1} of many" if not n else None
"""
STRONG = """\
from tiny import fits, words

def test_it():
    assert fits(9.0, 2.0, 0.5) and not fits(9.5, 2.0, 0.5)
    assert words(0) == "1 of many" and words(2) is None
"""
WEAK = "from tiny import fits\n\ndef test_it():\n    assert fits(1.0, 1.0, 1.0)\n"


def told(source: str) -> list[str]:
    return [f"{m.line}: {m.before} -> {m.after}" for m in mutants.mutants("tiny.py", source)]


def test_what_is_changed_is_what_matters_and_one_thing_at_a_time():
    found = told(TINY)
    assert "9: spent + price * hours <= limit -> spent + price * hours < limit" in found
    assert "9: price * hours -> price / hours" in found
    assert "7: limit=10.0 -> limit=11.0" in found
    assert "13: not n -> not not n" in found
    assert not [words for words in found if "maxsize" in words or "asked" in words or "n - 1" in words]
    assert len(found) == len(set(found)) == 10
    for mutant in mutants.mutants("tiny.py", TINY):
        compile(mutant.source, "tiny.py", "exec")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a < b", {"a <= b", "a >= b"}),
        ("a == b", {"a != b"}),
        ("a is None", {"a is not None"}),
        ("a and b", {"a or b"}),
        ("a - 1", {"a + 1", "a - 2", "a - 0"}),
        ("f(deep=True)", {"deep=False"}),
        ("[-1]", {"[-0]", "[-2]"}),
    ],
)
def test_each_kind_of_change(before, after):
    assert {m.after for m in mutants.mutants("tiny.py", before)} == after


def run(tmp_path, tests, sample):
    """The report, from a process of its own: the script forks."""
    for name, text in {"tiny.py": TINY, "test_tiny.py": tests}.items():
        (tmp_path / name).write_text(text)
    call = (
        "import json, pathlib; from benchmarks import mutants;"
        f"report = mutants.run(pathlib.Path({str(tmp_path)!r}), {{'tiny.py': ['test_tiny.py']}}, {sample}, 1);"
        "print(json.dumps(report)); print(mutants.told(report))"
    )
    done = subprocess.run([sys.executable, "-c", call], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    plain, _, shown = done.stdout.partition("\n")
    return json.loads(plain), shown, done.stderr


def test_strong_tests_notice_everything_and_weak_ones_leave_survivors_by_name(tmp_path):
    strong, _, progress = run(tmp_path, STRONG, sample=6)
    assert (strong["noticed"], strong["share"], strong["survivors"]) == (6, 1.0, [])
    assert "......\ntiny.py: 6 of 6" in progress
    weak, shown, _ = run(tmp_path, WEAK, sample=6)
    assert weak["tried"] == 6 and weak["share"] < mutants.ENOUGH
    survivor = weak["survivors"][0]
    assert f"survived: tiny.py:{survivor['line']}: {survivor['before']} -> {survivor['after']}" in shown
    assert (tmp_path / "tiny.py").read_text() == TINY, "only a copy is changed"


def test_what_is_on_the_list_of_changes_nobody_could_notice_exists_and_is_in_a_module_that_is_tried():
    for module, known in EQUIVALENT.items():
        found = list(mutants.mutants(module, (ROOT / module).read_text()))
        assert not known.keys() - {m.before for m in found} - {f"{m.before} -> {m.after}" for m in found}
        assert all(known.values())
    assert all((ROOT / path).exists() for paths in TESTS.values() for path in paths)


def test_too_few_noticed_is_an_error(monkeypatch, capsys):
    def run(root, tests, sample, seed):
        assert (sample, seed, list(tests)) == (7, 3, ["functions/retraining/gate.py"])
        survivor = {"module": "m.py", "line": 3, "before": "a < b", "after": "a <= b"}
        modules = {"m.py": {"tried": 7, "noticed": 6, "seconds": 1.0}}
        return {
            "modules": modules,
            "survivors": [survivor],
            "equivalent": [],
            "share": share,
            "tried": 7,
            "seconds": 1.0,
        }

    monkeypatch.setattr(mutants, "run", run)
    for share, status in ((0.89, 1), (0.9, 0)):
        argv = ["--sample", "7", "--seed", "3", "--module", "functions/retraining/gate.py"]
        assert mutants.main(argv) == status
        assert "survived: m.py:3: a < b -> a <= b" in capsys.readouterr().out
        assert mutants.main([*argv, "--json"]) == status
        assert json.loads(capsys.readouterr().out)["share"] == share


def test_a_mutant_says_where_it_is():
    assert str(Mutant("m.py", 3, "a < b", "a <= b", "")) == "m.py:3: a < b -> a <= b"
