"""`python -m einsumc.runtime.cli` is the command `einsumc`."""

from . import main

if __name__ == "__main__":
    main()
