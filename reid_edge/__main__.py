"""``python -m reid_edge``, which is how torchrun starts it."""

from reid_edge.cli import main

if __name__ == "__main__":
    main()
