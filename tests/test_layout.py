"""No circle between files: the project's own imports, those inside functions too, are a graph without a cycle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("shared", "policy", "functions", "training_containers", "local", "infra", "cli", "benchmarks")


def modules() -> dict[str, Path]:
    """Every module of the project's packages by its dotted name."""
    found = {}
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            parts = file.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports_of(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Import statements at any depth, but for those that only a type checker runs."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from imports_of(ast.Module(node.orelse, []))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        else:
            yield from imports_of(node)


def imported(module: str, file: Path, known: dict[str, Path]) -> set[str]:
    """The project's modules that a module imports. `from a import b` is of a.b where that is a module, else of a."""
    found = set()
    for node in imports_of(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            base = node.module or ""
            if node.level:
                parents = module.split(".")[: -node.level] if file.name != "__init__.py" else module.split(".")
                base = ".".join([*parents, *filter(None, [node.module])])
            names = [f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base for alias in node.names]
        found |= {name for name in names if name in known and name != module}
    return found


def cycle_in(graph: dict[str, set[str]]) -> list[str]:
    """A shortest-found circle, first name repeated at the end; empty where there is none."""
    done: set[str] = set()

    def walk(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for following in sorted(graph[node]):
            if found := walk(following, [*path, node]):
                return found
        done.add(node)
        return []

    return next(filter(None, (walk(node, []) for node in sorted(graph))), [])


def test_no_module_imports_itself_through_others() -> None:
    known = modules()
    graph = {module: imported(module, file, known) for module, file in known.items()}
    assert sum(map(len, graph.values())) > 500  # the graph is not empty by mistake
    assert cycle_in(graph) == []


def test_a_circle_is_found_and_type_checking_imports_are_none() -> None:
    assert cycle_in({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]
    assert cycle_in({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
    tree = ast.parse("if TYPE_CHECKING:\n    import a\nelse:\n    import b\ndef f():\n    from c import d\n")
    assert [ast.unparse(node) for node in imports_of(tree)] == ["import b", "from c import d"]
