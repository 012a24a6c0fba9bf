"""``python -m minimr`` is the ``minimr`` command."""

from minimr.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
