"""Commands of programs: their words, where they are found, and as whom they may run."""

import os
from pathlib import Path

import pytest

from smtpd_ps.config import commands
from smtpd_ps.config.commands import ProgramError, argv, command_words, directories, faults, find, identity
from smtpd_ps.contract.settings import ProgramSettings


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("filter-rspamd", ("filter-rspamd",)),
        (" /opt/f  -c /etc/f.conf --mode=fast\t10:20 ", ("/opt/f", "-c", "/etc/f.conf", "--mode=fast", "10:20")),
    ],
)
def test_plain_words_need_no_shell(text: str, words: tuple[str, ...]) -> None:
    """Blanks cut, and nothing in them means anything to a shell."""
    assert command_words(text) == (words, False) or command_words(text.strip()) == (words, False)


@pytest.mark.parametrize(
    "text",
    ["f 'a b'", 'f "a"', "f $HOME", "f | g", "f; g", "f &", "f *", "f ~/x", "f `g`", "f \\x", "X=1 f", "f > /x", "f #"],
)
def test_everything_else_is_a_text_for_the_shell(text: str) -> None:
    """Quotes, variables, pipes, assignments: as OpenSMTPD, which gives everything to one."""
    assert command_words(text) == ((text,), True)


@pytest.mark.parametrize("text", ["", "  \t", "x " * 65, "x" * 2049])
def test_a_command_has_words_and_bounds(text: str) -> None:
    """None, too many, too long."""
    with pytest.raises(ValueError, match="command"):
        command_words(text)


def test_the_directories_of_debian_need_the_machines_name() -> None:
    """Without it that one is left out."""
    assert "/usr/lib/x86_64-linux-gnu/opensmtpd" in directories("x86_64-linux-gnu")
    assert all("{" not in path for path in directories())


def test_a_name_is_found_in_the_first_directory_that_has_it() -> None:
    """In their order; below a root where there is one; an absolute path is only checked."""
    places = directories()
    have = {f"{places[2]}/filter-x", f"{places[1]}/filter-x", f"/jail{places[0]}/filter-y", "/opt/f"}
    assert find("filter-x", runs=have.__contains__) == f"{places[1]}/filter-x"
    assert find("filter-y", "/jail", have.__contains__) == f"{places[0]}/filter-y"
    assert find("/opt/f", runs=have.__contains__) == "/opt/f"
    with pytest.raises(ProgramError, match="filter-z is in none of /usr/local/libexec/smtpd"):
        find("filter-z", runs=have.__contains__)
    with pytest.raises(ProgramError, match="/opt/g is not there"):
        find("/opt/g", runs=have.__contains__)


def test_the_argument_vector(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Words as they are; a shell's text with its first word found; a table sees its own name."""
    monkeypatch.setattr(commands, "LIBEXEC", (str(tmp_path),))
    (tmp_path / "table-x").write_text("#!/bin/sh\n")
    (tmp_path / "table-x").chmod(0o755)
    path = f"{tmp_path}/table-x"
    assert argv(ProgramSettings("t", "table", ("table-x", "/etc/c"), title="users")) == (path, ("users", "/etc/c"))
    assert argv(ProgramSettings("t", "table", ("table-x",))) == (path, (path,))
    shell = ProgramSettings("t", "filter", ("table-x | tee /tmp/x",), shell=True)
    assert argv(shell) == ("/bin/sh", ("sh", "-c", f"exec {path} | tee /tmp/x"))
    absolute = ProgramSettings("t", "filter", ("/bin/cat '$x'",), shell=True)
    assert argv(absolute) == ("/bin/sh", ("sh", "-c", "exec /bin/cat '$x'"))
    with pytest.raises(ProgramError):
        argv(ProgramSettings("t", "filter", ("table-y | tee",), shell=True))


def test_users_that_may_not_run_programs() -> None:
    """Unknown ones, and those of our processes, which a program could then signal."""
    assert identity(ProgramSettings("f", "filter", ("x",), user="nobody"))[0] == "nobody"
    with pytest.raises(ProgramError, match="there is no user"):
        identity(ProgramSettings("f", "filter", ("x",), user="no-such-user-here"))
    with pytest.raises(ProgramError, match="there is no group"):
        identity(ProgramSettings("f", "filter", ("x",), user="nobody", group="no-such-group-here"))
    with pytest.raises(ProgramError, match="_sps_lookup"):
        identity(ProgramSettings("f", "filter", ("x",), user="_sps_lookup"))


def test_root_is_possible_and_warned_of() -> None:
    """Only where smtpd.conf says so. Without privileges users do not matter."""
    root = ProgramSettings("f", "filter", ("/bin/cat",), user="root")
    assert list(faults(root, True)) == [("runs as root", True)]
    assert list(faults(root, False)) == []
    group = ProgramSettings("f", "filter", ("/bin/cat",), user="nobody", group=os.path.basename("/root"))
    assert list(faults(group, True)) == [("runs with root's group", True)]
    bad = ProgramSettings("f", "filter", ("/no/such",), user="no-such-user-here", chroot="/no/dir")
    assert [warning for _text, warning in faults(bad, True)] == [False, False, False]
