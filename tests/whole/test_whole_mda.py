"""Delivery by commands: what they are given, what their end means, and what a stranger's address cannot do."""

import json
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import Daemon, running, wait_until
from support.users import ensure_mail_user

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root: commands run as other users")
MESSAGE = "From: a@client.test\r\nTo: b@example.com\r\nSubject: {0}\r\n\r\nbody {0}\r\n.dot\r\n"


class Box:
    """A folder that a mail user may write, and what commands wrote there."""

    def __init__(self, path: Path, user: str) -> None:
        self.path = path
        self.user = user

    def read(self, name: str) -> str:
        return (self.path / name).read_text()

    def there(self, name: str) -> bool:
        return (self.path / name).exists()


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    """A folder of the mail user, below folders that everyone may enter."""
    user = ensure_mail_user()
    path = Path("/var/tmp") / f"sps-mda-{os.getpid()}-{tmp_path.name}"
    path.mkdir(mode=0o777)
    path.chmod(0o777)
    yield Box(path, user)
    shutil.rmtree(path)


def script(box: Box, text: str, name: str = "mda") -> Path:
    path = box.path / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def config(action: str, before: str = "") -> str:
    return f"""
{before}
listen on 127.0.0.1 port {{port}}
action here {action}
match from any for domain "example.com" action here
match for local action here
"""


def send(daemon: Daemon, rcpt: str, sender: str = "a@client.test", subject: str = "x") -> None:
    with daemon.smtp() as client:
        client.sendmail(sender, [rcpt], MESSAGE.format(subject))


def test_a_command_has_the_message_and_a_clean_environment(box: Box) -> None:
    """As the recipient, in a session of its own, in the home or "/"; these variables and no others; the
    message with our header lines and LF line ends; no descriptor but three; no way to more privileges."""
    it = script(box, f"""
cd -P . && pwd > {box.path}/cwd
env > {box.path}/env
cat > {box.path}/message
ls /proc/self/fd > {box.path}/fds
cat /proc/self/status > {box.path}/status
id -un > {box.path}/user
ps -o sid= -p $$ > {box.path}/sid; echo $$ > {box.path}/pid
""")  # fmt: skip
    with running(config(f"mda \"{it} '%{{dest.user:strip}}' %{{sender.domain}}\"")) as daemon:
        send(daemon, f"{box.user.upper()}+Tag@example.com", subject="one")
        daemon.wait_empty()
        daemon.wait_logged("result=Ok stat=Delivered")
    variables = dict(line.split("=", 1) for line in box.read("env").splitlines())
    rcpt = f"{box.user.upper()}+Tag@example.com"
    variables.pop("PWD", None), variables.pop("_", None), variables.pop("OLDPWD", None), variables.pop("SHLVL", None)
    assert variables == {
        "PATH": "/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin:/usr/local/sbin", "DOMAIN": "example.com",
        "HOME": variables["HOME"], "ORIGINAL_RECIPIENT": rcpt, "RECIPIENT": rcpt, "SHELL": "/bin/sh",
        "LOCAL": f"{box.user.upper()}+Tag", "LOGNAME": box.user, "USER": box.user, "SENDER": "a@client.test",
        "EXTENSION": "tag",
    }  # fmt: skip
    message = (box.path / "message").read_bytes()
    assert message.startswith(b"Return-Path: <a@client.test>\nDelivered-To: " + rcpt.encode() + b"\nReceived: ")
    assert message.endswith(b"\n\nbody one\n.dot\n") and b"\r" not in message
    assert box.read("user").strip() == box.user
    assert box.read("fds").split() == ["0", "1", "2", "3"]  # the last is the folder that ls reads
    status = dict(line.split(":", 1) for line in box.read("status").splitlines())
    assert status["NoNewPrivs"].strip() == "1" and set(status["CapBnd"].strip()) == {"0"}
    assert box.read("sid").strip()


@pytest.mark.parametrize(
    ("ends", "result", "text"),
    [
        ("echo no such; echo; exit 67", "PermFail", '5.3.0 user unknown: "no such"'),
        ("echo later >&2; exit 75", "TempFail", '4.3.0 temporary failure: "later"'),
        ("exit 71", "TempFail", "4.3.0 system resource problem"),
        ("exit 1", "PermFail", "5.3.0 exit status 1"),
        ("kill -9 $$", "TempFail", "4.3.0 terminated; signal 9"),
        ("sh -c 'kill -9 $$'; exit 137", "TempFail", "4.3.0 terminated; signal 9"),
        ("exec 0<&-; exit 0", "Ok", "Delivered"),
    ],
)
def test_what_the_end_of_a_command_means(box: Box, ends: str, result: str, text: str) -> None:
    """Exit status, signals, the last line that is not blank; input that is never read does not matter."""
    it = script(box, ends)
    with running(config(f'mda "{it}"')) as daemon:
        send(daemon, f"{box.user}@example.com")
        wait_until("an outcome", lambda: "mda delivery" in daemon.log)
        (line,) = (line for line in daemon.log.splitlines() if "mda delivery" in line)
        assert f"result={result} stat=" in line
        assert text.replace('"', "") in line.replace('"', "").replace("\\", "")
        if result == "TempFail":
            daemon.ctl("remove", "all")
        daemon.wait_empty()


def test_the_last_line_is_in_the_bounce(box: Box) -> None:
    """A refusal goes back to the sender with 5.3.0 and what the command said last, escaped and bounded."""
    it = script(box, f"""
case $SENDER in
"") cat > {box.path}/bounce;;
*) echo first; printf 'I do not \\033[31m want it %0500d\\n' 7; exit 77;;
esac
""")  # fmt: skip
    with running(config(f'mda "{it}"')) as daemon:
        with daemon.smtp() as client:
            client.sendmail(f"{box.user}@example.com", [f"{box.user}+x@example.com"], MESSAGE.format("no"))
        daemon.wait_empty()
    bounce = box.read("bounce")
    assert "Status: 5.3.0" in bounce
    assert 'permission denied: "I do not \\x1b[31m want it 000' in bounce.replace("\n ", " ").replace(
        "\n         ", " "
    )
    assert "\033" not in bounce and "first" not in bounce and "0" * 300 not in bounce


HOSTILE = (
    "`touch${IFS}pwned`", "$(touch${IFS}pwned)", "x;touch${IFS}pwned", "x|touch${IFS}pwned", "&touch&", "a'b",
    "*", "~root", "{a,b}", "#x", "-rf", "!x", "a=b",
)  # fmt: skip


def test_addresses_are_never_syntax(box: Box) -> None:
    """Shell metacharacters in sender and sub-address, in and out of quotes, and read twice by a wrapper."""
    it = script(box, f"""
printf '%s\\n' "$#" "$@" >> {box.path}/words
printf '%s\\n' "$SENDER" "$EXTENSION" >> {box.path}/values
""")  # fmt: skip
    before = f'mda wrapper twice "cd {box.path}; sh -c \\"%{{mda}}\\""'
    action = f"mda \"{it} %{{sender}} '%{{sender.user}}' %{{dest.user}} end\" wrapper twice"
    with running(config(action, before)) as daemon:
        sent = 0
        for local in HOSTILE:
            for sender in (f"{local}@client.test", f'"{local} x"@client.test'):
                with daemon.smtp() as client:
                    client.ehlo()
                    code = client.docmd("MAIL", f"FROM:<{sender}>")[0]
                    if code != 250 or client.docmd("RCPT", f"TO:<{box.user}+{local}@example.com>")[0] != 250:
                        continue  # no address at all
                    assert client.data(MESSAGE.format("x"))[0] == 250
                    sent += 1
        send(daemon, f"{box.user}@example.com", "")
        daemon.wait_empty()
    assert sent >= 8
    lines = box.read("words").splitlines()
    assert lines[0::5] == ["4"] * (sent + 1)
    assert lines[4::5] == ["end"] * (sent + 1)
    assert sorted(os.listdir(box.path)) == ["mda", "values", "words"]
    values = box.read("values")
    assert "`touch${IFS}pwned`@client.test" in values  # data, as it is


def test_raw_refuses_what_a_shell_acts_on(box: Box) -> None:
    """`:raw` changes nothing of a value and so does not deliver one that could be syntax."""
    it = script(box, f"""echo "$@" >> {box.path}/words""")
    with running(config(f'mda "{it} %{{sender:raw}}"')) as daemon:
        send(daemon, f"{box.user}@example.com", "plain+tag=x@client.test")
        send(daemon, f"{box.user}@example.com", "`id`@client.test")
        daemon.wait_empty()
        daemon.wait_logged("result=PermFail stat=5.3.0 %{sender} has characters that a shell acts on")
    assert box.read("words") == "plain+tag=x@client.test\n"


def everyone_may_run(program: str) -> bool:
    path = Path(program).resolve()
    return all(folder.stat().st_mode & 0o001 for folder in (path, *path.parents))


def test_a_wrapper_takes_the_place_of_the_command(box: Box) -> None:
    """%{mda} is the command with its words; a Maildir is stored by one of ours."""
    it = script(box, f"""printf '%s\\n' "$@" >> {box.path}/words; cat > {box.path}/message""")
    before = "mda wrapper marked \"sed 's/^Subject: /Subject: seen /' | %{mda}\""
    text = f"""
{before}
listen on 127.0.0.1 port {{port}}
action command mda "{it} %{{dest.user}} b" wrapper marked
action folder maildir "{box.path}/dir of/%{{dest.domain}}" wrapper marked
match from any for domain "command.example" action command
match from any for domain "folder.example" action folder
"""
    with running(text) as daemon:
        send(daemon, f"{box.user}@command.example", subject="one")
        daemon.wait_empty()
        assert box.read("words") == f"{box.user}\nb\n"
        assert "\nSubject: seen one\n" in box.read("message")
        send(daemon, f"{box.user}@folder.example", subject="two")
        if not everyone_may_run(sys.executable):
            wait_until("an outcome", lambda: f"python cannot be executed by {box.user}" in daemon.log)
            assert daemon.queued() == 1
            pytest.skip(f"mail users may not run {sys.executable}; the mail stays in the queue and the log says why")
        daemon.wait_empty()
        wait_until("both are logged", lambda: daemon.log.count("result=Ok") >= 2)
        assert daemon.log.count("result=Ok") == 2, daemon.log
    (stored,) = (box.path / "dir of" / "folder.example" / "new").iterdir()
    assert stored.owner() == box.user and stat.S_IMODE(stored.stat().st_mode) == 0o600
    assert "\nSubject: seen two\n" in stored.read_text()
    assert stored.read_text().startswith("Return-Path: <a@client.test>\nDelivered-To: ")


def test_two_users_at_once_and_limits(box: Box) -> None:
    """Commands of one user run side by side up to the limit, others' do not wait for them, and the audit
    finds the agents as declared, their commands not missing."""
    other = ensure_mail_user("spsmail2")
    it = script(box, f"""
echo $$ > {box.path}/running.$USER.$$
while ! test -e {box.path}/go; do sleep 0.05; done
rm {box.path}/running.$USER.$$; echo $USER >> {box.path}/done.$USER
""")  # fmt: skip
    before = "mda limit max-session-per-user 2 max-session 3"
    with running(config(f'mda "{it}"', before)) as daemon:
        for _ in range(4):
            send(daemon, f"{box.user}@example.com")
        send(daemon, f"{other}@example.com")

        def count(user: str) -> int:
            return len(list(box.path.glob(f"running.{user}.*")))

        wait_until("both users' commands run", lambda: (count(box.user), count(other)) == (2, 1))
        audit = json.loads(daemon.ctl("audit", "--json"))
        assert audit["ok"], audit
        assert sum(each["process"] == "agent" for each in audit["processes"]) == 2
        assert (count(box.user), count(other)) == (2, 1)
        (box.path / "go").touch()
        daemon.wait_empty()
    assert box.read(f"done.{box.user}").split() == [box.user] * 4
    assert box.read(f"done.{other}").split() == [other]


def test_commands_end_with_the_daemon(box: Box) -> None:
    """What still runs when the daemon stops is ended, and its message stays in the queue."""
    it = script(box, f"""echo $$ > {box.path}/pid; sleep 1000 & wait""")
    daemon = Daemon(config(f'mda "{it}"'))
    try:
        daemon.start()
        send(daemon, f"{box.user}@example.com")
        wait_until("the command runs", lambda: box.there("pid") and box.read("pid").strip())
        pid = int(box.read("pid"))
        assert daemon.stop(60) == 0
        wait_until("the command has ended", lambda: not Path(f"/proc/{pid}").exists())
        (box.path / "mda").write_text(f"#!/bin/sh\ncat > {box.path}/message\n")
        daemon.start()
        daemon.wait_empty()
        assert box.read("message").endswith("body x\n.dot\n")
        assert daemon.stop() == 0
    finally:
        daemon.remove()
