"""Do the tests notice? Small random changes of the code, one at a time, each before the tests that belong to it.

    python -m benchmarks.mutants [--sample 100] [--seed 1] [--module PATH]... [--json]

A change is another comparison, another sign, a constant one off or twice as large, a turned boolean, a None returned.
Each is made in a copy of the tree; its module's tests run until the first one fails. A time-out counts as noticed.
Strings, annotations, decorators and logging are left alone. Exit status: 0 when at least 90 % were noticed, 1 when
fewer, 2 when the tests fail without any change.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import json
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
ENOUGH: Final = 0.9

#: module -> its tests, the quick ones
TESTS: Final[Mapping[str, tuple[str, ...]]] = {
    "functions/scheduling/plan.py": (
        "tests/functions/scheduling/test_plan.py",
        "tests/functions/scheduling/test_tick.py",
    ),
    "functions/retraining/lifecycle.py": (
        "tests/functions/retraining/test_lifecycle_steps.py",
        "tests/functions/retraining/test_lifecycle.py",
        "tests/functions/scheduling/test_tick.py",
    ),
    "functions/retraining/start.py": (
        "tests/functions/retraining/test_start_edges.py",
        "tests/functions/retraining/test_start.py",
    ),
    "functions/retraining/copying.py": (
        "tests/functions/retraining/test_copying.py",
        "tests/functions/retraining/test_release_loop.py",
    ),
    "functions/retraining/gate.py": (
        "tests/functions/retraining/test_gate_edges.py",
        "tests/functions/retraining/test_gate.py",
    ),
    "policy/guardrails.py": ("tests/policy/test_guardrails.py", "tests/policy/test_decide.py"),
    "functions/routing/router.py": ("tests/functions/routing/test_router.py",),
    "training_containers/serve/batcher.py": ("tests/training_containers/serve/test_batcher.py",),
}
#: crash sweeps run a whole use case a hundred times
TOO_SLOW: Final = "crash_between"

_UNUSED: Final = "whoever makes one says it"
_ONE_STEP: Final = "only a path of one step ends in the status in which it began"
#: module -> "before -> after", or "before" whatever comes after -> why nobody could tell the difference
EQUIVALENT: Final[Mapping[str, Mapping[str, str]]] = {
    "functions/scheduling/plan.py": {
        "default=0.0": "no switch was changed in 1970",
        "known[0] if known else serving -> known[-1] if known else serving": "a table has one endpoint of a cloud",
        "found[0] if found else None -> found[-1] if found else None": "without its own there is one other cloud's",
    },
    "functions/retraining/lifecycle.py": {
        "switched_s: float = 0.0": _UNUSED,
        "stop: bool = False -> stop: bool = True": _UNUSED,
        "record.finished_s or 0.0 -> record.finished_s or 1.0": "in 1970",
        "record.finished_s or 0.0 -> record.finished_s or -1.0": "in 1970",
        "path[-1].status -> path[-0].status": _ONE_STEP,
        "msgspec.structs.replace(path[-1], updated_s=job.held.record.updated_s) -> "
        "msgspec.structs.replace(path[-0], updated_s=job.held.record.updated_s)": _ONE_STEP,
    },
    "functions/retraining/copying.py": {
        "deadline.left() < RESERVE_S -> deadline.left() <= RESERVE_S": "no clock is that exact",
    },
    "functions/retraining/start.py": {
        "default=0.0": "no pair is of the first second of 1970",
        "return '' -> return None": "both say: nothing against it",
    },
    "functions/routing/router.py": {
        "sample > estimate -> sample >= estimate": "the mean of two equal numbers is that number",
        "sampled_s: float = 0.0": "without an estimate nothing fades",
        "probing: bool = False -> probing: bool = True": "every answer and every failure sets it",
        "self._rng.random() >= self._exploration -> self._rng.random() > self._exploration": "once in 2^53 requests",
        "max(min(costs), 1e-09) -> max(min(costs), 2e-09)": "no answer comes within nanoseconds",
        "c / fastest - 1.0": "every weight changes by the same factor, and only their ratio matters",
        "strict=True -> strict=False": "both lists are made of the same endpoints",
        "return self._rng.choices(endpoints, weights)[0] -> return self._rng.choices(endpoints, weights)[-1]": (
            "one is chosen"
        ),
    },
    "training_containers/serve/batcher.py": {
        "max_batch=16": _UNUSED,
        "max_waiting=64": _UNUSED,
        "self._known, self._last_end = (0, 0.0)": "before the first batch nobody is known, so nobody is waited for",
        "max(1, math.ceil(batches * self._batch_s)) -> max(0, math.ceil(batches * self._batch_s))": (
            "a batch takes some time, and a part of a second is a second"
        ),
        "(left_s := (until - time.perf_counter())) > 0 -> (left_s := (until - time.perf_counter())) >= 0": (
            "to wait for no time is not to wait"
        ),
        "(left_s := (until - time.perf_counter())) > 0 -> (left_s := (until - time.perf_counter())) > -1": (
            "to wait for less than no time is not to wait"
        ),
        "strict=True -> strict=False": "an engine answers each prompt",
    },
}

_COMPARISONS: Final[Mapping[type[ast.cmpop], tuple[type[ast.cmpop], ...]]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_ARITHMETIC: Final[Mapping[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One changed module."""

    module: str
    line: int
    before: str
    after: str
    source: str

    def __str__(self) -> str:
        """Where, and what."""
        return f"{self.module}:{self.line}: {self.before} -> {self.after}"

    @property
    def why_equivalent(self) -> str | None:
        """Why no test can notice it; None when one should."""
        known = EQUIVALENT.get(self.module, {})
        return known.get(f"{self.before} -> {self.after}") or known.get(self.before)


def mutants(module: str, source: str) -> Iterator[Mutant]:
    """Every change of a module."""
    tree = ast.parse(source)
    for node, shown in _changeable(tree, tree):
        for name, value in _changes(node):
            kept, before = getattr(node, name), ast.unparse(shown)
            setattr(node, name, value)
            line = getattr(node, "lineno", 0)
            yield Mutant(module, line, _short(before), _short(ast.unparse(shown)), ast.unparse(tree))
            setattr(node, name, kept)


def _changeable(node: ast.AST, shown: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """The nodes that may be changed, each with the one that shows it to a reader."""
    if isinstance(node, ast.JoinedStr) or _logs(node):
        return
    part = isinstance(node, ast.Constant | ast.Tuple | ast.Subscript) or (
        isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)
    )
    shown = shown if part else node
    yield node, shown
    if isinstance(node, ast.arguments):
        plain = [*node.posonlyargs, *node.args]
        named = [*zip(plain[len(plain) - len(node.defaults) :], node.defaults, strict=True)]
        for argument, default in [*named, *zip(node.kwonlyargs, node.kw_defaults, strict=True)]:
            if default is not None:
                yield from _changeable(default, ast.keyword(argument.arg, default))
        return
    for name, field in ast.iter_fields(node):
        if name not in ("annotation", "returns", "decorator_list"):
            for child in field if isinstance(field, list) else [field]:
                if isinstance(child, ast.AST):
                    yield from _changeable(child, shown)


def _logs(node: ast.AST) -> bool:
    call = node.value if isinstance(node, ast.Expr) else None
    return isinstance(call, ast.Call) and ast.unparse(call.func).startswith("log.")


def _changes(node: ast.AST) -> Iterator[tuple[str, Any]]:
    """(field, its new value) of one node."""
    match node:
        case ast.Compare(ops=ops):
            for place, op in enumerate(ops):
                for other in _COMPARISONS[type(op)]:
                    yield "ops", [*ops[:place], other(), *ops[place + 1 :]]
        case ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in _ARITHMETIC:
            yield "op", _ARITHMETIC[type(op)]()
        case ast.BoolOp(op=op):
            yield "op", ast.Or() if isinstance(op, ast.And) else ast.And()
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield "operand", ast.UnaryOp(ast.Not(), operand)
        case ast.Constant(value=bool(value)):
            yield "value", not value
        case ast.Constant(value=int(value) | float(value)):
            yield from (
                ("value", other) for other in dict.fromkeys((value + 1, value - 1, value * 2)) if other != value
            )
        case ast.Return(value=ast.expr() as value) if ast.unparse(value) != "None":
            yield "value", ast.Constant(None)


def _short(text: str) -> str:
    """On one line, the beginning and the end of what is long."""
    line = " ".join(text.split())
    return line if len(line) <= 160 else f"{line[:100]} ... {line[-55:]}"


def run(root: Path, tests: Mapping[str, Sequence[str]], sample: int, seed: int) -> dict[str, Any]:
    """Try a sample, spread evenly over the modules, in a copy of `root`.

    Raises:
        RuntimeError: a module's tests fail without any change.
    """
    began = time.monotonic()
    report: dict[str, Any] = {"seed": seed, "modules": {}, "survivors": [], "equivalent": []}
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Path(folder) / "tree"
        shutil.copytree(root, copy, ignore=shutil.ignore_patterns(".*", "build", "node_modules", "docs", "__pycache__"))
        for number, (module, paths) in enumerate(tests.items()):
            module_began = time.monotonic()
            checks = Tests(copy, paths)
            if (words := checks.first()) is not None:
                raise RuntimeError(f"{module}: its tests fail without any change:\n{words}")
            patience_s = 20.0 + 5.0 * (time.monotonic() - module_began)
            source = (root / module).read_text()
            found = list(mutants(module, source))
            random.Random(f"{seed} {module}").shuffle(found)
            known = [mutant for mutant in found if mutant.why_equivalent]
            wanted = sample * (number + 1) // len(tests) - sample * number // len(tests)
            tried = [mutant for mutant in found if not mutant.why_equivalent][:wanted]
            survivors = []
            for mutant in tried:
                (copy / module).write_text(mutant.source)
                if checks.pass_within(patience_s):
                    survivors.append(mutant)
                    print(f"\nsurvived: {mutant}", file=sys.stderr, flush=True)
                else:
                    print(".", end="", file=sys.stderr, flush=True)
            (copy / module).write_text(source)
            seconds = round(time.monotonic() - module_began, 1)
            report["modules"][module] = {
                "possible": len(found),
                "tried": len(tried),
                "noticed": len(tried) - len(survivors),
                "seconds": seconds,
            }
            report["survivors"] += [_plain(mutant) for mutant in survivors]
            report["equivalent"] += [{**_plain(mutant), "why": mutant.why_equivalent} for mutant in known]
            print(f"\n{module}: {len(tried) - len(survivors)} of {len(tried)}, {seconds} s", file=sys.stderr)
    report["tried"] = sum(of["tried"] for of in report["modules"].values())
    report["noticed"] = sum(of["noticed"] for of in report["modules"].values())
    report["share"] = report["noticed"] / max(1, report["tried"])
    report["seconds"] = round(time.monotonic() - began, 1)
    return report


def _plain(mutant: Mutant) -> dict[str, Any]:
    return {name: value for name, value in asdict(mutant).items() if name != "source"}


class Tests:
    """A module's tests, run in forks of this process: what they import from elsewhere is imported once, here."""

    def __init__(self, copy: Path, paths: Sequence[str]) -> None:
        self._copy, self._paths = copy, paths

    def first(self) -> str | None:
        """Run them on the unchanged code, keeping the bytecode. What they said if they fail, else None."""
        names = self._copy.parent / "modules.json"
        if not self.pass_within(math.inf, names):
            return (self._copy.parent / "said.txt").read_text()[-4000:]
        for name in json.loads(names.read_text()):
            with contextlib.suppress(Exception):
                importlib.import_module(name)
        return None

    def pass_within(self, seconds: float, names: Path | None = None) -> bool:
        """Whether they do; the modules they import go to `names`."""
        child = os.fork()
        if not child:
            try:
                os._exit(self._run(names))
            finally:
                os._exit(70)
        until_s = time.monotonic() + seconds
        while True:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return status == 0
            if time.monotonic() > until_s:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return False
            time.sleep(0.01)

    def _run(self, names: Path | None) -> int:
        import pytest

        said = os.open(self._copy.parent / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        os.chdir(self._copy)
        for name in [name for name, module in sys.modules.items() if _in(ROOT, module) and name != "__main__"]:
            del sys.modules[name]
        sys.path[:] = [str(self._copy), *(path for path in sys.path if path and Path(path) != ROOT)]
        os.environ["PYTHONPATH"] = str(self._copy)
        sys.dont_write_bytecode = names is None
        without = ["-p", "no:cacheprovider", "-p", "no:hypothesispytest"]  # the latter takes seconds to start
        quick = ["-m", "not slow and not emulator", "-k", f"not {TOO_SLOW}"]
        status = int(pytest.main(["-x", "-q", *without, *quick, *self._paths]))
        sys.stdout.flush()
        if names is not None:
            ours = [name for name, module in list(sys.modules.items()) if not _in(self._copy, module)]
            names.write_text(json.dumps([name for name in ours if name != "__main__"]))
        return status


def _in(folder: Path, module: Any) -> bool:
    """Whether a module is of this project, not of a library installed below it."""
    file = getattr(module, "__file__", None) or ""
    return Path(file).is_relative_to(folder) and not Path(file).relative_to(folder).parts[0].startswith(".")


def told(report: Mapping[str, Any]) -> str:
    """The report, for a person."""
    lines = [
        f"{of['noticed']:>4} of {of['tried']:<4} {of['seconds']:>6} s  {name}" for name, of in report["modules"].items()
    ]
    for title, kind in (("survived", "survivors"), ("nobody could tell", "equivalent")):
        for one in report[kind]:
            why = f"  # {one['why']}" if "why" in one else ""
            lines.append(f"{title}: {one['module']}:{one['line']}: {one['before']} -> {one['after']}{why}")
    lines.append(f"noticed: {report['share']:.1%} of {report['tried']} in {report['seconds']} s")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=100, help="how many changes are tried, over all modules")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--module", action="append", choices=TESTS, metavar="PATH", help=", ".join(TESTS))
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    args = parser.parse_args(argv)
    try:
        report = run(ROOT, {module: TESTS[module] for module in args.module or TESTS}, args.sample, args.seed)
    except RuntimeError as exc:
        print(exc, file=sys.stderr)
        return 2
    print(json.dumps(report, indent=2) if args.json else told(report))
    return 0 if report["share"] >= ENOUGH else 1


if __name__ == "__main__":
    sys.exit(main())
