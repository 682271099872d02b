"""The example of smtpd-tables(7) is a table program."""

import re
import subprocess
from pathlib import Path

from smtpd_ps.pure.table_protocol import Reply, handshake, parse_reply, registered, request

PAGE = Path(__file__).parents[2] / "docs/man/smtpd-tables.7"


def test_the_example_of_the_manual_works(tmp_path: Path) -> None:
    """As it stands in the page: it registers, answers, and ends with its input."""
    examples = PAGE.read_text().split(".Sh EXAMPLES")[1]
    found = re.search(r"\.Bd -literal -offset indent\n(.*?)\.Ed\n", examples, re.DOTALL)
    assert found is not None
    program, domains = tmp_path / "program", tmp_path / "domains"
    program.write_text(found[1].replace("\\e", "\\"))
    domains.write_text("example.com\n-v\n")
    lines = [
        *handshake("t", "0"),
        request("t", "check", 1, 0, "domain", "example.com"),
        request("t", "check", 2, 0, "domain", "example"),
        request("t", "check", 3, 0, "domain", "-v"),
        request("t", "update", 4, 0),
    ]
    done = subprocess.run(
        ["/bin/sh", str(program), str(domains)], input=b"".join(line + b"\n" for line in lines),
        capture_output=True, timeout=30, check=True,
    )  # fmt: skip
    said = done.stdout.splitlines()
    assert [registered(line) for line in said[:2]] == ["domain", None]
    assert [parse_reply(line) for line in said[2:]] == [
        Reply("check", 1, "found"), Reply("check", 2, "not-found"), Reply("check", 3, "found"),
        Reply("update", 4, "found"),
    ]  # fmt: skip
    assert done.stderr == b""
