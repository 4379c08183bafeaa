"""`python -m las`, the same as the command `las`."""

from las.cli import main

if __name__ == "__main__":
    main()
