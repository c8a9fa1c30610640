"""`python -m sim` is `moesim`."""

from sim.cli import main

if __name__ == "__main__":
    main()
