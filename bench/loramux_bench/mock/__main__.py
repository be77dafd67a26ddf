"""`python -m loramux_bench.mock`."""

import sys

import uvloop

from loramux_bench.errors import BenchError
from loramux_bench.mock.server import serve
from loramux_bench.mock.settings import parse


def main() -> None:
    try:
        uvloop.run(serve(parse(sys.argv[1:])))
    except BenchError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_status)


if __name__ == "__main__":
    main()
