"""Entry point of the ``reid-edge`` command and of ``python -m reid_edge``, which torchrun starts."""

from __future__ import annotations

from reid_edge.system.threads import configure_openmp


def main() -> None:
    """Set the threads of NumPy and torch, which read their variables when they are imported, and run the command."""
    configure_openmp()
    from reid_edge.cli import main as run

    run()


if __name__ == "__main__":
    main()
