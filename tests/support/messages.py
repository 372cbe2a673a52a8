"""Collects from the sources what the extension can say to people, with ``…`` where a message has a value in it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

VALUE = "…"
SAYING = {"comment", "note", "not_applied", "error", "_line", "_require", "__init__"}
"""Functions that are given what is to be said, among others those of exceptions."""
SAID = {"reason", "problem"}
"""Variables that hold it."""
ANSWERING = {"note", "excludes", "unknown"}
"""Functions that return it, or None."""
TABLES = {"LEFT_OUT"}
"""Dictionaries of it."""
STATUS = "textinfo"
"""The host's attribute for what stands beside its progress bar."""


@dataclass(frozen=True)
class Message:
    """Its text, and where it is said: file and line."""

    text: str
    file: str
    line: int

    @property
    def has_words(self) -> bool:
        """Whether anything of it is always the same."""
        return len(re.findall(r"[A-Za-z]", self.text.replace("AsynDM", ""))) > 2


def messages(paths: list[Path], root: Path) -> list[Message]:
    """All messages of some files, in their order."""
    return [message for path in paths for message in _of(path, root) if message.has_words]


def normal(text: str) -> str:
    """White space as single spaces, neighbouring values as one."""
    return re.sub(rf"{VALUE}(\s*{VALUE})+", VALUE, " ".join(text.split()))


def _of(path: Path, root: Path) -> Iterator[Message]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    for node in ast.walk(tree):
        for said in _said(node):
            for text in _texts(said, _names(tree, functions, node)):
                yield Message(normal(text), str(path.relative_to(root)), node.lineno)  # type: ignore[attr-defined]


def _said(node: ast.AST) -> list[ast.expr]:
    """The expressions of a statement or call that people get to read."""
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
        return list(node.exc.args)
    if isinstance(node, ast.Call) and (_name(node.func) in SAYING or _goes_to_stderr(node)):
        return [argument for argument in node.args if not _is_a_name(argument)]
    if isinstance(node, ast.Assign):
        target = node.targets[0]
        if _name(target) in SAID or (isinstance(target, ast.Attribute) and target.attr == STATUS):
            return [node.value]
    if isinstance(node, ast.AnnAssign) and _name(node.target) in TABLES and isinstance(node.value, ast.Dict):
        return list(node.value.values)
    if isinstance(node, ast.FunctionDef) and node.name in ANSWERING:
        return [one.value for one in ast.walk(node) if isinstance(one, ast.Return) and one.value is not None]
    return []


def _goes_to_stderr(node: ast.Call) -> bool:
    return any(keyword.arg == "file" and _name(keyword.value) == "stderr" for keyword in node.keywords)


def _is_a_name(node: ast.expr) -> bool:
    """Of a CSS class, an attribute: one word."""
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value


def _texts(node: ast.expr, names: dict[str, list[ast.expr]], depth: int = 0) -> list[str]:
    """What an expression can be, as far as it is written there; nothing for one that is not."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else []
    if isinstance(node, ast.JoinedStr):
        return ["".join(str(part.value) if isinstance(part, ast.Constant) else VALUE for part in node.values)]
    if isinstance(node, ast.IfExp):
        return [*_texts(node.body, names, depth), *_texts(node.orelse, names, depth)]
    if isinstance(node, ast.Name) and depth < 2:
        return [text for value in names.get(node.id, []) for text in _texts(value, names, depth + 1)]
    return []


def _names(tree: ast.Module, functions: list[ast.FunctionDef], node: ast.AST) -> dict[str, list[ast.expr]]:
    """What is assigned to names in the module and in the function around a node."""
    line = getattr(node, "lineno", 0)
    scopes: list[ast.AST] = [f for f in functions if f.lineno <= line <= (f.end_lineno or 0)][-1:]
    found: dict[str, list[ast.expr]] = {}
    for statement in [*tree.body, *(one for scope in scopes for one in ast.walk(scope))]:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            found.setdefault(statement.targets[0].id, []).append(statement.value)
    return found


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
