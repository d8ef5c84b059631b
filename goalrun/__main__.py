"""``python -m goalrun`` and the console script."""

from goalrun.cli.app import main

if __name__ == "__main__":
    main()
