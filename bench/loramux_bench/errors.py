"""Every error that the bench raises on purpose. The command line prints the message and exits with `exit_status`."""


class BenchError(Exception):
    """Something that the person who ran the command can put right. The message is a whole sentence."""

    exit_status = 2


class ScenarioError(BenchError):
    """A scenario that can not be read: unknown keys, wrong values, files that are not there."""


class EndpointError(BenchError):
    """An endpoint that can not be measured: not reachable, wrong key, answers that are not of its interface."""


class ResultsError(BenchError):
    """A directory of results that can not be read or written."""


class NotInstalled(BenchError):
    """A package that the load needs is missing."""


class NothingMeasured(BenchError):
    """A run in which no request was answered: there are no latencies to speak of."""
