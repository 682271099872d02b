"""Why filter-dkim cannot use a key.

Runs in filter-dkim. It stands alone so that it can be caught where dkimpy is missing.
"""


class BadKey(Exception):
    """A key that cannot be used; the text says why, with its path."""
