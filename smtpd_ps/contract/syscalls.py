"""The system calls that a confined process may make on Linux, in named groups.

Part of the policy: contract/policy names the groups that each process gets, osdep/linux_seccomp
turns them into a filter. Loaded in every process before it is confined; parses nothing.

What no group of a process lists ends the process (SECCOMP_RET_KILL_PROCESS). A call with
alternatives is allowed when all conditions of one alternative hold, and otherwise ends with
`otherwise` (an errno) or, where that is 0, with the process's end.
"""

import errno
from dataclasses import dataclass, field

CLONE_THREAD = 0x10000
_CLONE_NEW = 0x7E020000  # every CLONE_NEW* namespace flag
_PROT_EXEC = 4
_AT_EMPTY_PATH = 0x1000
_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
_PR_SET_NAME, _PR_GET_SECCOMP = 15, 21
_FIONREAD, _FIONBIO, _FIONCLEX, _FIOCLEX = 0x541B, 0x5421, 0x5450, 0x5451
_FCNTL_DUP_AND_FLAGS = (0, 1, 2, 3, 4, 1030)  # F_DUPFD, [GS]ETFD, [GS]ETFL, F_DUPFD_CLOEXEC
_FCNTL_LOCKS = (5, 6, 7, 36, 37, 38)  # POSIX record locks and open file description locks


@dataclass(frozen=True, slots=True)
class Arg:
    """Argument `index`, after `mask`, must equal `value`; of 32-bit types only the low half is looked at."""

    index: int
    value: int
    mask: int = -1
    bits: int = 32
    own_pid: bool = False  # compare with the process's own id instead of `value`


@dataclass(frozen=True, slots=True)
class Call:
    """A system call; without alternatives it is allowed whatever its arguments."""

    name: str
    alternatives: tuple[tuple[Arg, ...], ...] = ()
    otherwise: int = 0
    never: bool = False  # always ends with `otherwise`


@dataclass(frozen=True, slots=True)
class Group:
    """Calls that are granted together, and why anyone needs them."""

    why: str
    names: str = ""  # calls without conditions, separated by blanks
    calls: tuple[Call, ...] = field(default=())

    def all_calls(self) -> tuple[Call, ...]:
        """Every call of the group."""
        return (*(Call(name) for name in self.names.split()), *self.calls)


def _refused(names: str, code: int) -> tuple[Call, ...]:
    return tuple(Call(name, otherwise=code, never=True) for name in names.split())


def _one_of(name: str, index: int, values: tuple[int, ...], otherwise: int) -> Call:
    return Call(name, tuple((Arg(index, value),) for value in values), otherwise)


_NOT_EXECUTABLE = Arg(2, 0, _PROT_EXEC, bits=64)

GROUPS: dict[str, Group] = {
    "run": Group(
        "what the interpreter and the C library need to compute, allocate, lock and end",
        "brk munmap mremap madvise futex rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack "
        "restart_syscall exit exit_group getrandom sched_yield sched_getaffinity membarrier rseq set_robust_list "
        "getpid getppid gettid getuid geteuid getgid getegid getresuid getresgid getgroups uname sysinfo "
        "getrlimit getrusage times clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time getcpu",
        (
            Call("mmap", ((_NOT_EXECUTABLE,),)),  # new code is never mapped
            Call("mprotect", ((_NOT_EXECUTABLE,),)),
            Call("tgkill", ((Arg(0, 0, own_pid=True),),)),  # abort()
            Call("prlimit64", ((Arg(0, 0), Arg(2, 0, bits=64)),), errno.EPERM),  # reads its own limits
            _one_of("prctl", 0, (_PR_SET_NAME, _PR_GET_SECCOMP), errno.EPERM),
            *_refused("clone3", errno.ENOSYS),  # its flags cannot be seen here; the C library then uses clone
        ),
    ),
    "descriptors": Group(
        "read, write and close what it holds; no descriptor can be made from a name",
        "read write readv writev close close_range dup dup2 dup3 lseek fstat pipe2",
        (
            Call("newfstatat", ((Arg(3, _AT_EMPTY_PATH, _AT_EMPTY_PATH),),), errno.EACCES),  # fstat(3)
            Call("statx", ((Arg(2, _AT_EMPTY_PATH, _AT_EMPTY_PATH),),), errno.EACCES),
            _one_of("ioctl", 1, (_FIONREAD, _FIONBIO, _FIONCLEX, _FIOCLEX), errno.ENOTTY),
            _one_of("fcntl", 1, _FCNTL_DUP_AND_FLAGS, errno.EPERM),
        ),
    ),
    "no-files": Group(
        "opening a name fails instead of killing: tracebacks and late imports look for source files",
        "",
        _refused(
            "open openat openat2 creat stat lstat access faccessat faccessat2 readlink readlinkat getcwd getdents64 "
            "statfs chdir",
            errno.EACCES,
        ),
    ),
    "events": Group(
        "wait for readiness in the event loop",
        "epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 poll ppoll select pselect6",
    ),
    "channels": Group(
        "messages and descriptors on sockets it was given",
        "sendmsg recvmsg sendto recvfrom getsockname getpeername getsockopt setsockopt shutdown",
    ),
    "accept": Group("take connections on listeners it was given", "accept accept4"),
    "connect": Group(
        "make TCP and UDP sockets and connect them; no other family",
        "connect bind",
        (_one_of("socket", 0, (_AF_INET, _AF_INET6), errno.EAFNOSUPPORT),),
    ),
    "threads": Group(
        "helper threads for calls that block, and the pair that wakes the loop; never a new process",
        "eventfd2 sched_getparam sched_getscheduler",
        (
            Call("clone", ((Arg(0, CLONE_THREAD, CLONE_THREAD | _CLONE_NEW, bits=64),),)),
            _one_of("socketpair", 0, (_AF_UNIX,), errno.EAFNOSUPPORT),
        ),
    ),
    "databases": Group("read entries of a database at their places", "pread64"),
    "bodies": Group(
        "read a body from the spool descriptor that came with the job",
        "pread64 preadv sendfile fadvise64",
    ),
    "others' memory": Group(
        "tracing, and reading or writing other processes' memory",
        "",
        _refused("ptrace process_vm_readv process_vm_writev process_madvise kcmp pidfd_getfd", errno.EPERM),
    ),
    "system": Group(
        "mounts, modules, the clock, reboot, accounting, keys: what only an administrator does",
        "",
        _refused(
            "mount umount2 pivot_root chroot move_mount fsopen fsconfig fsmount fspick open_tree mount_setattr "
            "init_module finit_module delete_module kexec_load kexec_file_load reboot swapon swapoff acct quotactl "
            "quotactl_fd settimeofday clock_settime clock_adjtime adjtimex sethostname setdomainname syslog iopl "
            "ioperm vhangup nfsservctl lookup_dcookie add_key request_key keyctl open_by_handle_at fanotify_init",
            errno.EPERM,
        ),
    ),
    "new kernel surface": Group(
        "user namespaces and programs in the kernel",
        "",
        (
            Call("clone", ((Arg(0, 0, _CLONE_NEW, bits=64),),), errno.EPERM),
            *_refused("clone3", errno.ENOSYS),  # its flags cannot be seen here; the C library then uses clone
            *_refused(
                "unshare setns bpf perf_event_open userfaultfd io_uring_setup io_uring_enter io_uring_register",
                errno.EPERM,
            ),
        ),
    ),
    "files": Group(
        "open, write, sync, rename and remove below its own directory (Landlock and the root say which)",
        "open openat creat stat lstat newfstatat statx access faccessat faccessat2 readlink readlinkat getcwd chdir "
        "fchdir getdents64 statfs fstatfs mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 link linkat "
        "pread64 pwrite64 preadv pwritev fsync fdatasync sync_file_range ftruncate fallocate fadvise64 flock "
        "chmod fchmod fchmodat fchown utimensat umask sendfile copy_file_range",
        (_one_of("fcntl", 1, _FCNTL_DUP_AND_FLAGS + _FCNTL_LOCKS, errno.EPERM),),
    ),
}
