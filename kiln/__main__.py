"""`python -m kiln` is the command `kiln`."""

from kiln.cli.main import main

if __name__ == "__main__":
    main()
