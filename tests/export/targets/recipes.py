"""Run the Python files of a target."""

import runpy
import sys


def run_recipe(folder, name, arguments, modules, monkeypatch):
    """Run a file in its folder, with stand-ins of the software's modules."""
    for module, held in modules.items():
        monkeypatch.setitem(sys.modules, module, held)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(folder / name), run_name="__main__")
