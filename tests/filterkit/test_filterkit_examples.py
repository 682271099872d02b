"""The programs of docs/FILTERKIT.md, run as they stand in it; and the loop around them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

CHAPTER = Path(__file__).parents[2] / "docs/FILTERKIT.md"
HANDSHAKE = b"config|smtpd-version|7.8.0\nconfig|protocol|0.7\nconfig|subsystem|smtp-in\nconfig|ready\n"


def program(tmp_path: Path, number: int) -> Path:
    """An example of the chapter, as a file."""
    examples = re.findall(r"```python\n(.*?)```", CHAPTER.read_text(), re.S)
    path = tmp_path / "example.py"
    path.write_text(examples[number])
    return path


def run(path: Path, *words: str, input: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-I", str(path), *words], input=input, capture_output=True, timeout=60, check=False
    )


class Open:
    """A program that is spoken to line by line."""

    def __init__(self, path: Path, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-I", str(path), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip

    def say(self, text: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()

    def lines(self, count: int) -> list[str]:
        assert self.process.stdout
        read = [self.process.stdout.readline().decode() for _ in range(count)]
        assert all(read), "it has ended"
        return [line.rstrip("\n") for line in read]

    def end(self) -> bytes:
        """Its errors; it ends with its input."""
        out, errors = self.process.communicate(timeout=60)
        assert (self.process.returncode, out) == (0, b"")
        return errors


def test_the_filter_of_the_chapter(tmp_path: Path) -> None:
    """Every handler of it does what the text says; one of them is asynchronous."""
    filter = Open(program(tmp_path, 0), "mx.example.org")
    filter.say(HANDSHAKE.decode().strip())
    registered = []
    while (line := filter.lines(1)[0]) != "register|ready":
        registered.append(line)
    assert "register|filter|smtp-in|ehlo" in registered and "register|filter|smtp-in|rcpt-to" not in registered
    head, ask = "report|0.7|1.0|smtp-in|", "filter|0.7|1.0|smtp-in|"
    filter.say(f"{head}link-connect|a1|c.test|fail|192.0.2.9:1000|192.0.2.1:25")
    filter.say(f"{ask}ehlo|a1|01|MX.example.org")
    assert filter.lines(1) == ["filter-result|a1|01|reject|550 5.7.1 That is my name"]
    filter.say(f"{ask}ehlo|a1|02|c.test")
    assert filter.lines(1) == ["filter-result|a1|02|proceed"]
    filter.say(f"{head}link-identify|a1|EHLO|c.test")
    filter.say(f"{ask}mail-from|a1|03|x@c.test")
    assert filter.lines(1) == ["filter-result|a1|03|junk"]
    for event in ("tx-begin|a1|0a", "tx-mail|a1|0a|ok|x@c.test", "tx-rcpt|a1|0a|ok|y@d.test"):
        filter.say(head + event)
    for text in ("Subject: x", "", "..dot", "."):
        filter.say(f"{ask}data-line|a1|04|{text}")
    assert [line.removeprefix("filter-dataline|a1|04|") for line in filter.lines(5)] == [
        "X-Doorman: 192.0.2.9 as c.test for 1", "Subject: x", "", "..dot", ".",
    ]  # fmt: skip
    filter.say(f"{head}link-disconnect|a1")
    assert filter.end() == b""


def test_the_table_of_the_chapter(tmp_path: Path) -> None:
    """It has no asynchronous operation."""
    path = program(tmp_path, 1)
    domains = tmp_path / "domains"
    domains.write_text("Example.org\n")
    lines = ["config|tablename|d", "config|ready"]
    lines += [f"table|0.1|1.0|d|check|domain|{number}|{key}" for number, key in ((1, "example.org"), (2, "else"))]
    done = run(path, str(domains), input="\n".join([*lines, ""]).encode())
    assert done.stdout.decode().splitlines() == [
        "register|domain", "register|ready", "check-result|1|found", "check-result|2|not-found",
    ]  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")


PRINTS = """
import sys
from smtpd_ps.filterkit import Filter, StopProgram, run_filter
class Noisy(Filter):
    def ready(self):
        if "stop" in sys.argv: raise StopProgram("no key")
    {async_}def filter_helo(self, session, request):
        print("hello", flush=True)
        raise ValueError("oh\\nno")
sys.exit(run_filter(Noisy()))
"""


@pytest.mark.parametrize("asynchronous", ["", "async "])
def test_standard_output_belongs_to_the_protocol(tmp_path: Path, asynchronous: str) -> None:
    """What a handler prints or raises is on standard error, one line for what it raises."""
    path = tmp_path / "noisy.py"
    path.write_text(PRINTS.replace("{async_}", asynchronous))
    filter = Open(path)
    filter.say(HANDSHAKE.decode() + "filter|0.7|1|smtp-in|helo|a1|b2|x")
    while filter.lines(1) != ["register|ready"]:
        pass
    assert filter.lines(1) == ["filter-result|a1|b2|reject|451 4.3.0 The filter has failed"]
    errors = filter.end().decode().splitlines()
    assert errors[0] == "hello" and errors[1].startswith("session a1: helo: ValueError: oh\\nno (")
    assert len(errors) == 2


@pytest.mark.parametrize("asynchronous", ["", "async "])
def test_ends_with_a_line_that_says_why(tmp_path: Path, asynchronous: str) -> None:
    """Status 1, and no traceback: for a program that stops, and for lines that are none."""
    path = tmp_path / "noisy.py"
    path.write_text(PRINTS.replace("{async_}", asynchronous))
    done = run(path, "stop", input=HANDSHAKE)
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"no key\n")
    done = run(path, input=HANDSHAKE + b"rubbish\n")
    assert done.returncode == 1 and done.stderr == b"neither a report nor a request: 'rubbish'\n"


def test_programs_without_asynchronous_handlers_load_no_asyncio(tmp_path: Path) -> None:
    """It would be some megabytes more."""
    path = tmp_path / "small.py"
    path.write_text(
        "import sys\nfrom smtpd_ps.filterkit import Filter, run_filter\nrun_filter(Filter())\n"
        "print(*sorted({'asyncio', 'ssl', 'msgspec', 'sqlite3', 'logging'} & set(sys.modules)), file=sys.stderr)\n"
    )
    done = run(path, input=HANDSHAKE)
    assert (done.returncode, done.stderr) == (0, b"\n")
