"""Writes the data sets, the same on every run: `python deploy/demo/generate.py [FOLDER]`."""

import random
import sys
from pathlib import Path

from corpora.example import write
from corpora.personas import noble, pirate
from corpora.shop import shop
from corpora.tickets import tickets

DATA = Path(__file__).parent / "data"
CORPORA = {"ticket-json": tickets, "shop-sql": shop, "pirate": pirate, "pirate-v2": noble}


def main(folder: Path) -> None:
    for name, corpus in CORPORA.items():
        write(corpus(random.Random(name)), folder / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DATA)
