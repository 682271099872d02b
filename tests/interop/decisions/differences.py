"""Where we decide otherwise than OpenSMTPD 6.8 does, and why. Each stands in docs/DIFFERENCES.md."""

from typing import NamedTuple


class Difference(NamedTuple):
    """What we do: how the last reply begins, and the places; None where that is not what differs."""

    why: str
    replies: str | None = None
    places: tuple[str, ...] | None = None


_ENVIRONMENT = "spsanna/message X-Environment: ,spsanna@command.test,spsanna,command.test,,spsanna,spsanna"
DIFFERENT: dict[str, Difference] = {
    "forward 127.0.0.1 1 c.test s@src.test spsfone@asone.test": Difference(
        "as 7.8 does: where a fixed user delivers, the .forward files of others are not looked at",
        places=("spsanna/all/new Return-Path: <s@src.test> Delivered-To: spsfone@asone.test",),
    ),
    "forward 127.0.0.1 1 c.test <> spsanna@command.test": Difference(
        "an empty value stays a word of the command line: no value changes which word is which",
        places=(
            f"{_ENVIRONMENT},/var/tmp/sps-homes/spsanna,/bin/sh,6, spsanna@command.test spsanna spsanna COMMAND.TEST "
            "spsa Delivered-To: spsanna@command.test",
        ),
    ),
}
