"""Entry point of the ``reid-edge`` command and of ``python -m reid_edge``, which torchrun starts."""

from __future__ import annotations

import sys

from reid_edge.system import stop_signals


def main() -> None:
    """Set the threads of NumPy and torch, which read their variables when they are imported, and run the command.

    The signals of ``run``, a service, are taken before anything else is imported.
    """
    if sys.argv[1:2] == ["run"]:
        stop_signals.hold()
    from reid_edge.system.threads import configure_openmp

    configure_openmp()
    from reid_edge.cli import main as run

    run()


if __name__ == "__main__":
    main()
