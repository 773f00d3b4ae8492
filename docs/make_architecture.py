"""Write the table of docs/architecture.md that says who may import whom, from the contracts in pyproject.toml.

    python docs/make_architecture.py

``lint-imports`` holds the code to the contracts; ``tests/test_docs.py`` holds the page to them.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

REPOSITORY = Path(__file__).parent.parent
PAGE = REPOSITORY / "docs" / "architecture.md"
BEGIN, END = "<!-- imports: python docs/make_architecture.py -->\n", "<!-- end of imports -->\n"


def table() -> str:
    """Return the Markdown table: a row a module, a layer after the other, the topmost first."""
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    [layered] = [contract for contract in contracts["contracts"] if contract["type"] == "layers"]
    [torchless] = [contract for contract in contracts["contracts"] if "torch" in contract.get("forbidden_modules", ())]
    without_torch = {name.removeprefix("reid_edge.") for name in torchless["source_modules"]}
    lines = ["| layer | module | job | torch |", "|---|---|---|---|"]
    for number, layer in zip(reversed(range(len(layered["layers"]))), layered["layers"], strict=True):
        for name in re.findall(r"\w+", layer):
            apart = " (not one another)" if "|" in layer else ""
            torch = "" if name in without_torch else "may"
            lines.append(f"| {number}{apart} | `{name}` | {_job(name)} | {torch} |")
    return "\n".join(lines) + "\n"


def _job(name: str) -> str:
    """Return the first line of a module's docstring."""
    path = REPOSITORY / "reid_edge" / name
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    docstring = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    return docstring.splitlines()[0].rstrip(".").replace("``", "`")


def page() -> str:
    """Return the page with the table as the contracts have it now."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + table() + END + after


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
