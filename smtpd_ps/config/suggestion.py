"""A known word that is near one that is not known.

Runs in the parent and in `smtpd_ps -n`, on the way to an error only.
"""

from collections.abc import Iterable


def suggestion(word: str, known: Iterable[str]) -> str:
    """`; did you mean ...` where a known word is near, else nothing."""
    import difflib  # the parent stays small

    near = difflib.get_close_matches(word, list(known), n=1)
    return f'; did you mean "{near[0]}"?' if near else ""
