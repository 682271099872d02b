"""Specifiers in commands: no value changes what the line says, to a shell or to its second reader."""

import shlex
import subprocess

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from smtpd_ps.pure.command_line import expand_command, parse_command, quoted, store_command
from smtpd_ps.pure.format_specifier import FormatError, address_values

OWN = {"user.username": "ann", "user.directory": "/home/ann"}
HOSTILE = (
    "`id`@x", "$(id)@x", "a;b@x", "a|b&c>d<e@x", '"a b"@x', "a'b@x", "-rf@x", "*@x", "~root@x", "#@x", "a\\b@x", "",
    "@", "a\nb@x", "\u2028@x", "é@x", "${IFS}@x", "!!@x", "{a,b}@x", "[a-z]?@x", "%{sender}@x", "\x85@x", "\xa0@x",
)  # fmt: skip
ADDRESSES = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=40))
PLACES = (
    "%{sender}", "'%{sender}'", '"%{sender}"', "x%{sender}y", "-f%{sender}", "%{sender.user}@%{sender.domain}",
    "%{sender:uppercase|strip}", "%{rcpt[0:3]}", "%{dest.user[-2:]:lowercase}", "\\x%{mbox.from}", "\"a\\\"%{rcpt}'\"",
)  # fmt: skip


def line(text: str, sender: str = "s@s.test", rcpt: str = "r@r.test", dest: str = "d@d.test", **more: str) -> str:
    return expand_command(parse_command(text), OWN | address_values(sender, rcpt, dest) | more)


@given(st.lists(st.sampled_from(PLACES), min_size=1, max_size=4), ADDRESSES, ADDRESSES, ADDRESSES)
@example(["%{sender}"], "", "", "")
def test_a_value_never_changes_the_words(places: list[str], sender: str, rcpt: str, dest: str) -> None:
    """Whatever the addresses are, a shell finds as many words as with plain ones, also when it reads the
    line once more, and none becomes an option."""
    text = " ".join(("cmd", *places, "end"))
    try:
        plain, made = line(text), line(text, sender, rcpt, dest)
    except FormatError as error:
        assert "too much" in str(error)
        return
    words = shlex.split(made, comments=True)
    assert len(words) == len(shlex.split(plain)) and (words[0], words[-1]) == ("cmd", "end")
    twice = shlex.split(f'sh -c "{made}"' if '"' not in made else f"sh -c {quoted(made)}")
    assert twice[:2] == ["sh", "-c"] and len(twice) == 3
    assert not any(word.startswith("-") for word, place in zip(words[1:], places, strict=False) if place[0] == "%")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(ADDRESSES, ADDRESSES), min_size=8, max_size=8))
@example([(sender, sender) for sender in HOSTILE])
def test_a_real_shell_agrees(pairs: list[tuple[str, str]]) -> None:
    """/bin/sh itself counts the words, in every kind of quotes; nothing is run and nothing is redirected."""
    text = 'set -- %{sender} \'%{sender}\' "%{sender.user}" a%{dest}b %{dest.user} end; echo $# "$6"'
    script = "\n".join(line(text, sender, "r@r.test", dest) for sender, dest in pairs)
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, cwd="/", check=True, timeout=30)
    assert done.stdout == "6 end\n" * len(pairs)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("cmd %{sender} end", "cmd '' end"),
        ("cmd '%{sender}' end", "cmd '' end"),
        ('cmd "%{sender}" end', 'cmd "" end'),
        ("cmd \\'%{sender} end", "cmd \\''' end"),
        ("cmd '\"'%{sender}", "cmd '\"'''"),
        ("cmd -f%{sender}", "cmd -f''"),
    ],
)
def test_an_empty_value_loses_no_word(text: str, made: str) -> None:
    """The null sender is a word that is empty, not one that is missing."""
    assert line(text, "") == made


def test_what_stays_and_what_becomes_a_colon() -> None:
    """Addresses as they mostly are stay; per cent signs are written twice; names of specifiers have no case."""
    sender = "SRS0=ab+c_d.e-f=x.org=joe,k@s.test"
    assert line("c %{SENDER} 100%% %x", sender) == f"c {sender} 100% %x"
    assert line("c %{sender}", "a/b!c'd@s.test") == "c a:b:c:d@s.test"
    assert line("c %{sender}", "-a-b@s.test") == "c :a-b@s.test"
    assert line("c %{user.username} %{user.directory}/x") == "c ann /home/ann/x"
    assert line("c %{mbox.from}", "") == "c MAILER-DAEMON"


@given(st.text(max_size=30))
def test_raw_is_unchanged_or_refused(sender: str) -> None:
    """`:raw` never alters: what comes through is the value, and a shell takes it as it is, in any quotes."""
    try:
        made = line("x%{sender:raw}x", sender)
    except FormatError as error:
        assert "a shell acts on" in str(error)
        return
    assert made in (f"x{sender}x", "x''x")
    assert shlex.split(made, comments=True) == [f"x{sender}x"]


@pytest.mark.parametrize(
    "sender", ["`id`@x", "a b@x", "$x@x", "a;b@x", "-a@x", "a#b@x", "a*b@x", "{a}@x", "a'b@x", "~@x"]
)
def test_raw_refuses(sender: str) -> None:
    """Each character that some shell acts on."""
    with pytest.raises(FormatError, match=r"%\{sender\} has characters that a shell acts on"):
        line("'%{sender:raw}'", sender)
    with pytest.raises(FormatError, match=r"user\.directory"):
        line("%{user.directory}", **{"user.directory": "/home/a b"})


def test_wrappers() -> None:
    """%{mda} is the whole command, as it is; no address in it is expanded again."""
    wrapper = parse_command("nice -n %{sender.user[0]} %{mda} | %{mda}", wrapper=True)
    values = OWN | address_values("%{mda}@x", "r@r", "d@d")
    assert expand_command(wrapper, values, mda="a %{rcpt} 'b'") == "nice -n : a %{rcpt} 'b' | a %{rcpt} 'b'"
    assert shlex.split(store_command("/p y/python", "file", quoted("/it's"))) == [
        "/p y/python", "-I", "-X", "utf8", "-m", "smtpd_ps.agents.store", "file", "/it's",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "without words"), (" \t", "without words"), ("a\nb", "control"), ("a\0b", "control"),
        ("c %{", "without its"), ("c %{what}", "not known"), ("c %{mda}", "mda is not known"),
        ("c %{sender:lower}", "not a modifier"), ("c %{sender[x]}", "not a format specifier"),
        ("c %{sender[1:2:3]}", "not a format specifier"),
    ],
)  # fmt: skip
def test_bad_commands(text: str, says: str) -> None:
    """A configuration error says which specifier is wrong."""
    with pytest.raises(FormatError, match=says):
        parse_command(text)


def test_expansion_is_bounded() -> None:
    """A line does not grow without end."""
    with pytest.raises(FormatError, match="too much"):
        line("c" + " %{sender}" * 100, "a" * 200 + "@x")
