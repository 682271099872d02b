"""The Received header that smtp puts above each message, and dates as mail writes them.

Runs in smtp (Received) and wherever a date is written. The bytes of strangers in it, HELO and
reverse DNS, were checked to be host names before.
"""

PROGRAM = "smtpd_ps"

_DAYS = ("Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed")  # day 0 of Unix time was a Thursday
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def date_text(unix_secs: int, offset_secs: int = 0, zone: str = "") -> str:
    """RFC 5322 3.3 date of a moment, in the zone `offset_secs` east of UTC named `zone`."""
    days, second = divmod(unix_secs + offset_secs, 86_400)
    year, month, day = _civil(days)
    sign = "-" if offset_secs < 0 else "+"
    offset_mins = abs(offset_secs) // 60
    text = (
        f"{_DAYS[days % 7]}, {day} {_MONTHS[month - 1]} {year} "
        f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02} "
        f"{sign}{offset_mins // 60:02}{offset_mins % 60:02}"
    )
    return f"{text} ({zone})" if zone.isascii() and zone.isalnum() else text


def _civil(days: int) -> tuple[int, int, int]:
    """Year, month and day of the proleptic Gregorian calendar; day 0 is 1970-01-01."""
    era, of_era = divmod(days + 719_468, 146_097)  # eras of 400 years, each beginning on 1 March
    year_of_era = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * of_year + 2) // 153
    day = of_year - (153 * shifted + 2) // 5 + 1
    month = shifted + 3 if shifted < 10 else shifted - 9
    return year_of_era + era * 400 + (month <= 2), month, day


def protocol(extended: bool, tls: bool, authenticated: bool, utf8: bool = False) -> str:
    """The word after "with": SMTP, ESMTP, ESMTPS, ESMTPA or ESMTPSA (RFC 3848), UTF8SMTP and so on (RFC 6531 4.3)."""
    return f"{'UTF8' if utf8 else 'E' if extended else ''}SMTP{'S' if tls else ''}{'A' if authenticated else ''}"


def bracketed(address: str) -> str:
    """An IP address, or "local", in the brackets that Received and the EHLO reply have around it."""
    return f"[{address}]"


def received_header(
    *,
    helo: str,
    name: str,
    address: str,
    hostname: str,
    protocol: str,
    msgid: int,
    tls: str,
    recipient: str,
    date: str,
    masked: bool = False,
    user: str = "",
    with_user: bool = False,
) -> bytes:
    """The header, CRLF at its end.

    `name` is the client's reverse DNS name or "<unknown>", `tls` "VERSION:CIPHER:BITS:YES" (NO
    where the client's certificate was not verified) or "", `recipient` "" unless there is just one.
    A `masked` header does not say where the mail came from; `with_user` says as whom the client
    authenticated, under TLS only.
    """
    secured = f" ({tls})" if tls else ""
    if tls and with_user:
        secured += f" auth=yes user={_printable(user)}" if user else " auth=no"
    source = "" if masked else f"from {helo} ({name} {bracketed(address)})"
    wanted = f"\r\n\tfor <{recipient}>" if recipient else ""
    return (
        f"Received: {source}\r\n"
        f"\tby {hostname} ({PROGRAM}) with {protocol} id {msgid:08x}{secured}{wanted};\r\n"
        f"\t{date}\r\n"
    ).encode()


def _printable(user: str) -> str:
    """A user's name that can stand in a header: no blank, nothing that ends or folds the line."""
    return "".join(c if "!" <= c <= "~" else "?" for c in user)
