"""The parent's answers about the system."""

import contextlib
import os
import pwd
import resource
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import ActionSettings, ListenerSettings
from smtpd_ps.contract.values import Process
from smtpd_ps.parent.agents import Agents
from smtpd_ps.parent.listeners import ListenError, bind_listener, bind_unix
from smtpd_ps.parent.system import SystemAuth, answer_lmtp, system_user
from smtpd_ps.runtime.log import Log
from smtpd_ps.runtime.loop import Loop


def test_users_are_found_by_name() -> None:
    """getpwnam decides; odd names are simply not there."""
    assert system_user(m.UserQuery(1, "root")) == m.UserInfo(1, True)
    assert system_user(m.UserQuery(2, "no-such-user-here")) == m.UserInfo(2, False)


def ask(actions: dict[str, ActionSettings], action: str) -> tuple[m.Message, tuple[int, ...]]:
    answers: list[tuple[m.Message, tuple[int, ...]]] = []
    answer_lmtp(actions, m.LmtpConnect(7, action), lambda message, *fds: answers.append((message, fds)))
    return answers[0]


def test_lmtp_socket_is_handed_over(tmp_path: Path) -> None:
    """Delivery names an action and gets the connected socket of that action's path."""
    path = str(tmp_path / "lmtp")
    actions = {"in": ActionSettings("in", "lmtp", lmtp_destination=path)}
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(1)
        message, (fd,) = ask(actions, "in")
        assert message == m.LmtpConnected(7)
        with socket.socket(fileno=fd) as client:
            accepted, _ = server.accept()
            accepted.sendall(b"220 hi\r\n")
            accepted.close()
            client.setblocking(True)
            assert client.recv(20) == b"220 hi\r\n"


@pytest.mark.parametrize("action", ["in", "relay", "other"])
def test_no_lmtp_socket_is_a_temporary_refusal(tmp_path: Path, action: str) -> None:
    """A missing socket, a foreign action, an unknown one: try later, no bounce."""
    actions = {
        "in": ActionSettings("in", "lmtp", lmtp_destination=str(tmp_path / "gone")),
        "relay": ActionSettings("relay", "relay"),
    }
    message, fds = ask(actions, action)
    assert isinstance(message, m.AgentRefused) and message.temporary and not fds


def test_unix_sockets_get_their_mode_and_replace_a_leftover(tmp_path: Path) -> None:
    """The control socket is 0600 from its first moment; one left by a crash does not stop the start."""
    path = str(tmp_path / "control.sock")
    bind_unix(path, 0o600).close()
    sock = bind_unix(path, 0o600)
    assert os.stat(path).st_mode & 0o777 == 0o600
    sock.close()


def test_a_file_in_the_sockets_place_is_not_removed(tmp_path: Path) -> None:
    """Only a socket is replaced."""
    path = tmp_path / "control.sock"
    path.write_text("a file")
    with pytest.raises(ListenError):
        bind_unix(str(path), 0o600)
    assert path.read_text() == "a file"


def test_an_address_in_use_is_named() -> None:
    """The error says which address and port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        with pytest.raises(ListenError, match=f"127.0.0.1 port {port}: Address already in use"):
            bind_listener(ListenerSettings(0, "127.0.0.1", port))


def test_an_address_in_use_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a kill the old smtp process may still be listening; with patience the address is tried again."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        monkeypatch.setattr("smtpd_ps.parent.listeners.time.sleep", lambda _secs: taken.close())
        bind_listener(ListenerSettings(0, "127.0.0.1", taken.getsockname()[1]), patience_secs=60).close()


def without_descriptors(call: Callable[[], object]) -> object:
    """`call` in a process that can open nothing; what it returned."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        answer = "died"
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (writer + 1, writer + 1))
            with contextlib.suppress(OSError):
                while True:
                    os.dup(0)
            answer = repr(call())
        finally:
            os.write(writer, answer.encode())
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as answer_pipe:
        answer = answer_pipe.read()
    os.waitpid(pid, 0)
    return answer.decode()


def test_without_descriptors_nobody_is_unknown() -> None:
    """ "Unknown user" would bounce the mail; that passwd cannot be read is a fault of this host."""
    user = next(entry.pw_name for entry in pwd.getpwall() if entry.pw_uid)  # root some systems know without a file
    for name in (user, "no-such-user-here"):
        assert without_descriptors(lambda name=name: system_user(m.UserQuery(1, name))) == repr(
            m.UserInfo(1, False, temporary=True)
        )
    agents = Agents(
        Loop(), Log(Process.PARENT, True), {"home": ActionSettings("home", "maildir")}, "mx.test", os.getuid() == 0,
        True, lambda message, *_fds: answers.append(message),
    )  # fmt: skip
    answers: list[m.Message] = []
    said = without_descriptors(lambda: (agents.start(m.AgentStart(5, user, "home")), answers))
    assert "AgentRefused(request=5, temporary=True" in str(said), said


def test_a_password_check_without_descriptors_is_an_error() -> None:
    """The client may try again; the parent lives."""
    answers: list[m.Message] = []
    auth = SystemAuth(Loop(), Log(Process.PARENT, True), answers.append)
    said = without_descriptors(lambda: (auth.check(m.SystemAuth(3, "bob", "x")), answers))
    assert repr(m.SystemAuthReply(3, "error")) in str(said), said
