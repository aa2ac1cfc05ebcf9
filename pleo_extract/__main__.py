"""`python -m pleo_extract` is `pleo-extract`."""

from pleo_extract.cli import start

if __name__ == "__main__":
    start()
