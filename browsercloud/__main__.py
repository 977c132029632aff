"""`python -m browsercloud`: the command line."""

from browsercloud.cli import main

if __name__ == "__main__":
    main()
