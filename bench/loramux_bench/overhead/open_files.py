"""How many files a process may open: each connection is one."""

import resource

_NO_LIMIT = 2**31


def open_files() -> int:
    """The soft limit is raised to the hard one, for this process and those that it starts from now on; how many that
    is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return _NO_LIMIT if hard == resource.RLIM_INFINITY else hard
