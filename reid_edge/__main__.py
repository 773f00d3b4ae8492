"""Entry point of the ``reid-edge`` command and of ``python -m reid_edge``, which torchrun starts."""

from __future__ import annotations

import sys

from reid_edge.system import stop_signals


def main() -> None:
    """Set the threads of NumPy and torch, which read their variables when they are imported, and run the command.

    ``run`` is a service: its signals are taken before anything else is imported, and it ends even if a thread of it
    waits for a camera.
    """
    is_service = sys.argv[1:2] == ["run"]
    if is_service:
        stop_signals.hold()
    try:
        _run()
    finally:
        if is_service:
            stop_signals.leave_if_threads_are_left(sys.exc_info()[1])


def _run() -> None:
    from reid_edge.system.threads import configure_openmp

    configure_openmp()
    from reid_edge.cli import main as run

    run()


if __name__ == "__main__":
    main()
