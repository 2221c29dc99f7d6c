"""`python -m musicrl` is the `musicrl` command."""

from musicrl.cli import main

if __name__ == "__main__":
    main()
