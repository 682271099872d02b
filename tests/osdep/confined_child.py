"""A process that confines itself as one of the daemon's and then tries what it is told to.

Not a test: the tests of this folder start it. Arguments: a JSON object with the process's name,
the fields of Common, the `mutant` whose step is left out, and the `deeds` to try. Prints a line for each:
"ready", then "<deed>: ok" or "<deed>: <errno name>"; then it waits for the end of its input.
"""

import ctypes
import errno
import fcntl
import json
import mmap
import os
import select
import socket
import sys
import threading
import time

from smtpd_ps import osdep
from smtpd_ps.contract.messages import Common
from smtpd_ps.contract.values import Process
from smtpd_ps.osdep import linux


def say(line: str) -> None:
    os.write(1, (line + "\n").encode())


def open_file(path: str = "/etc/passwd") -> None:
    os.close(os.open(path, os.O_RDONLY))


def write_file(path: str) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(fd, b"x")
    os.fsync(fd)
    os.close(fd)


def rename_file(path: str) -> None:
    write_file(path)
    os.rename(path, path + ".new")
    os.unlink(path + ".new")


def make_directory(path: str) -> None:
    os.mkdir(path)
    rename_file(path + "/inside")
    os.rmdir(path)


def sqlite(path: str) -> None:
    database = MODULES["sqlite3"].connect(path)
    database.execute("pragma journal_mode=wal")
    database.execute("pragma synchronous=full")
    with database:
        database.execute("create table t (a)")
        database.executemany("insert into t values (?)", [(b"x" * 5000,)] * 200)
    database.execute("pragma wal_checkpoint(truncate)")
    database.close()


def tcp_connect(port: str) -> None:
    with socket.socket() as sock:
        sock.connect(("127.0.0.1", int(port)))


def tcp_bind() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 2600))


def tcp_source() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))


def udp() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", 53))


def unix_connect(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)


def pair_abstract(path: str) -> None:
    """Connect by a Unix socket that was made before, past the filter on socket()."""
    SOCKETS.pop().connect("\0" + path)


def signal_pid(pid: str) -> None:
    os.kill(int(pid), 0)


def execute() -> None:
    os.execv("/bin/true", ["true"])


def run_command() -> None:
    _pid, status = os.waitpid(os.posix_spawn("/bin/sh", ["sh", "-c", "id | cat > /dev/null"], {}), 0)
    if status:
        raise OSError(errno.ECHILD, f"status {status}")


def libc_call(name: str) -> None:
    """A call of the C library that needs no privileges to be tried, with arguments that do nothing."""
    arguments = {"ptrace": (0, 0, 0, 0), "mount": (b"none", b"/", b"tmpfs", 0, None), "unshare": (0x10000000,)}
    if LIBC[name](*arguments[name]) < 0:
        raise OSError(ctypes.get_errno(), name)


def fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def fork_and_wait() -> None:
    pid = os.fork()
    if pid == 0:
        time.sleep(5)
        os._exit(0)
    say(str(pid))


def trace() -> None:
    LIBC.ptrace(0, 0, 0, 0)


def become_root() -> None:
    os.setuid(0)


def netlink() -> None:
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close()


def listen() -> None:
    with socket.socket() as sock:
        sock.listen()


def lock_file(path: str) -> None:
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        fcntl.lockf(file, fcntl.LOCK_EX)


def link_file(path: str) -> None:
    write_file(path)
    os.link(path, path + ".new")
    os.utime(path)


def read_memory() -> None:
    LIBC.process_vm_readv(os.getppid(), None, 0, None, 0, 0)


def thread() -> None:
    worker = threading.Thread(target=time.sleep, args=(0.01,))
    worker.start()
    worker.join()


def map_code() -> None:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()


def mount() -> None:
    LIBC.mount(b"none", b"/", b"tmpfs", 0, None)


def new_call() -> None:
    """A system call newer than the policy: the C library must be able to fall back."""
    if LIBC.syscall(462, 0, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), "mseal")


def loop_work() -> None:
    """What every process does all day."""
    left, right = PAIR
    poller = select.epoll()
    poller.register(left, select.EPOLLIN)
    read, write = os.pipe()
    socket.send_fds(right, [b"x"], [read])
    assert poller.poll(1)
    _data, fds, _flags, _address = socket.recv_fds(left, 10, 2)
    for fd in (*fds, read, write):
        os.close(fd)
    left.setblocking(False)
    left.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    poller.close()
    os.fstat(left.fileno())
    bytearray(50_000_000).clear()
    time.sleep(0.001)
    time.localtime()
    time.strftime("%a, %d %b %Y %H:%M:%S %z")
    os.urandom(16)
    select.select([right], [], [], 0)
    print("to standard error", file=sys.stderr, flush=True)


def traceback_work() -> None:
    """An uncaught exception must still be readable."""
    MODULES["traceback"].print_exception(ValueError("shown"))


def abort() -> None:
    os.abort()


MODULES = {name: __import__(name) for name in ("sqlite3", "traceback", "linecache")}
LIBC = ctypes.CDLL(None, use_errno=True)
SOCKETS: list[socket.socket] = []
PAIR: list[socket.socket] = []

# Mutants: each leaves one step of confinement out, so that audit has something to see.


def _no_check() -> None:
    linux._Confinement._check = lambda self, status: None


def _skip_prctl(option: int) -> None:
    real = linux.Kernel.prctl

    def prctl(self, asked, arg2=0, arg3=0):
        return 0 if asked == option else real(self, asked, arg2, arg3)

    linux.Kernel.prctl = prctl
    _no_check()


def mutant_seccomp() -> None:
    linux.Filter.load = lambda self: None
    _no_check()


def mutant_no_new_privs() -> None:
    mutant_seccomp()
    linux.Landlock.restrict = lambda self: None
    _skip_prctl(linux.k.PR_SET_NO_NEW_PRIVS)


def mutant_dumpable() -> None:
    """The change of user alone makes a process not dumpable, so leaving the step out is not enough."""
    real = linux.Filter.load

    def load(self):
        LIBC.prctl(linux.k.PR_SET_DUMPABLE, 1, 0, 0, 0)
        real(self)

    linux.Filter.load = load


def mutant_bounding() -> None:
    linux.Kernel.drop_bounding_set = lambda self: True
    _no_check()


def mutant_capabilities() -> None:
    """Keep the permitted set across the change of user."""
    _skip_prctl(linux.k.PR_SET_KEEPCAPS)
    LIBC.prctl(8, 1, 0, 0, 0)
    linux.Kernel.clear_capabilities = lambda self: None


def mutant_limits() -> None:
    linux.set_limits = lambda policy: ()


def mutant_uid() -> None:
    """Real and effective uid only; the saved one stays root's."""
    linux.become_user = lambda common: (
        os.setgroups(()), os.setresgid(*[common.gid] * 3), os.setresuid(common.uid, common.uid, 0),
    )  # fmt: skip
    _no_check()


def mutant_groups() -> None:
    """Keep root's supplementary groups."""
    os.setgroups((0, 4))
    linux.become_user = lambda common: (
        os.setresgid(*[common.gid] * 3), os.setresuid(*[common.uid] * 3),
    )  # fmt: skip
    _no_check()


def mutant_root() -> None:
    linux.enter_root = lambda policy, common: None


def mutant_groups_checked() -> None:
    """The same, with the check left in."""
    os.setgroups((0, 4))
    os.setgroups = lambda groups: None


def mutant_no_new_privs_checked() -> None:
    real = linux.Kernel.prctl
    linux.Kernel.prctl = lambda self, asked, arg2=0, arg3=0: (
        0 if asked == linux.k.PR_SET_NO_NEW_PRIVS else real(self, asked, arg2, arg3)
    )
    linux.Landlock.restrict = lambda self: None
    linux.Filter.load = lambda self: None


def mutant_dumpable_checked() -> None:
    real = linux.Landlock.restrict
    linux.Landlock.restrict = lambda self: LIBC.prctl(linux.k.PR_SET_DUMPABLE, 1, 0, 0, 0) or real(self)


def mutant_saved_uid_checked() -> None:
    real = os.setresuid
    os.setresuid = lambda r, e, s: real(r, e, 0 if r else s)


def mutant_libseccomp() -> None:
    real = ctypes.CDLL

    def load(name, *args, **kwargs):
        if name and "seccomp" in name:
            raise OSError("not found")
        return real(name, *args, **kwargs)

    ctypes.CDLL = load


def mutant_landlock() -> None:
    real = linux.Kernel.syscall

    def syscall(self, number, *args):
        if number == 444:
            raise OSError(errno.ENOSYS, "no Landlock")
        return real(self, number, *args)

    linux.Kernel.syscall = syscall


def mutant_thread() -> None:
    """A thread that was there already."""
    threading.Thread(target=time.sleep, args=(30,), daemon=True).start()


def main() -> None:
    order = json.loads(sys.argv[1])
    process = Process[order["process"]]
    if "title" in order:
        __import__("setproctitle").setproctitle(order["title"])
    if "fd" in order:
        os.dup2(os.open(order["fd"], os.O_RDWR), 9)
    deeds = order.get("deeds", [])
    if any(deed[0] == "pair_abstract" for deed in deeds):
        SOCKETS.append(socket.socket(socket.AF_UNIX))
    if any(deed[0] == "loop_work" for deed in deeds):
        PAIR.extend(socket.socketpair())
    if "mutant" in order:
        globals()["mutant_" + order["mutant"]]()
    try:
        warnings = osdep.confine(process, Common(**order["common"])) if process is not Process.PARENT else ()
    except osdep.ConfineError as error:
        say(f"ConfineError: {error}")
        sys.exit(1)
    say(f"ready {json.dumps(warnings)}")
    for deed, *args in deeds:
        try:
            globals()[deed](*args)
        except OSError as error:
            say(f"{deed}: {errno.errorcode[error.errno or 0]}")
        except MODULES["sqlite3"].Error as error:
            say(f"{deed}: {error}")
        else:
            say(f"{deed}: ok")
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
