"""Durations as OpenSMTPD's logs write them: `1d2h3m4s`.

Pure; used by delivery. Parses nothing.
"""


def duration_text(secs: int) -> str:
    """`secs` in days, hours, minutes and seconds, parts that are 0 left out; `0s` for none."""
    if secs < 60:
        return f"{max(secs, 0)}s"
    minutes, seconds = divmod(secs, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = ((days, "d"), (hours, "h"), (minutes, "m"), (seconds, "s"))
    return "".join(f"{count}{unit}" for count, unit in parts if count)
