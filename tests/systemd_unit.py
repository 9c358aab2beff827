"""python -m tests.systemd_unit UNIT FOLDER: runs the command of a systemd unit under the limits of its lines.

It does what systemd does (systemd.exec(5)), where none runs; the folder holds what the unit keeps in /var. A line that
is not known here is an error, so that no line is without a test. Needs root, Linux 5.12 and libseccomp.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterable
from mmap import PROT_EXEC, PROT_WRITE
from pathlib import Path

# Applied here, or without effect on a process that has no privileges and nobody to manage it.
KNOWN = """
DynamicUser=yes NoNewPrivileges=yes CapabilityBoundingSet= ProtectSystem=strict ProtectHome=yes PrivateTmp=yes
ProtectProc=invisible RestrictNamespaces=yes SystemCallArchitectures=native SystemCallErrorNumber=EPERM
LockPersonality=yes PrivateDevices=yes PrivateUsers=yes ProtectClock=yes ProtectHostname=yes RemoveIPC=yes
ProtectControlGroups=yes ProtectKernelLogs=yes ProtectKernelModules=yes ProtectKernelTunables=yes
RestrictRealtime=yes RestrictSUIDSGID=yes IPAddressDeny=any IPAddressAllow=localhost
Type=exec Restart=on-failure RestartSec=1 KillMode=mixed KillSignal=SIGTERM TimeoutStopSec=20
"""
PLACES = {"StateDirectory": "/var/lib", "CacheDirectory": "/var/cache"}
USER = 61_184  # the first one of DynamicUser
# From the headers of the kernel and of libseccomp.
NEW_MOUNTS, BIND, RECURSIVE, PRIVATE, READ_ONLY = 0x20000, 0x1000, 0x4000, 0x40000, 1
MOUNT_SETATTR, ALL_BELOW = 442, 0x8000
NO_NEW_PRIVILEGES, DENY_WRITE_EXECUTE = 38, 65
ALLOW, ERROR = 0x7FFF0000, 0x50000
EQUAL, MASKED = 4, 7

libc = ctypes.CDLL(None, use_errno=True)


class Comparison(ctypes.Structure):
    """Which argument of a system call is compared, how, and with what (libseccomp's scmp_arg_cmp)."""

    _fields_ = [("argument", ctypes.c_uint), ("how", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


Rule = tuple[str, int, list[Comparison]]


def main() -> None:
    """Become the command of the unit in the first argument."""
    path, folder = map(Path, sys.argv[1:])
    settings: dict[str, str] = {}
    for line in path.read_text().partition("[Service]\n")[2].partition("\n[")[0].splitlines():
        if line and not line.startswith("#") and line not in KNOWN.split():
            name, _, value = line.partition("=")
            settings[name] = f"{settings[name]} {value}" if name in settings else value
    environment = dict(text.split("=", 1) for text in settings.pop("Environment").split())
    allowed = allowed_calls(settings.pop("SystemCallFilter").split())
    denied = denied_calls(settings.pop("RestrictAddressFamilies").split())
    if settings.pop("MemoryDenyWriteExecute", "no") == "yes":
        denied += code_calls()
        libc.prctl(DENY_WRITE_EXECUTE, 1, 0, 0, 0)  # an older kernel has the filter alone, as systemd 252 does
    writable = {f"{PLACES[name]}/{settings.pop(name)}": folder / name for name in PLACES if name in settings}
    work, command, mask = (settings.pop(name) for name in ("WorkingDirectory", "ExecStart", "UMask"))
    assert not settings, f"say in {__file__} what these lines do: {settings}"

    confine_files(writable)
    os.chdir(work)
    os.umask(int(mask, 8))
    os.setgroups([])
    os.setresgid(USER, USER, USER)
    os.setresuid(USER, USER, USER)
    check(libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    install(ALLOW, denied)
    install(ERROR | errno.EPERM, [(name, ALLOW, []) for name in allowed])
    words = shlex.split(command)
    os.execve(words[0], words, environment | {"HOME": "/", "PATH": "/usr/local/bin:/usr/bin:/bin"})


def confine_files(writable: dict[str, Path]) -> None:
    """See no home, and everything read-only but an empty /tmp and folders, each at its place."""
    check(libc.unshare(NEW_MOUNTS))
    mount(None, "/", flags=RECURSIVE | PRIVATE)
    project = Path(__file__).parent.parent
    handles = {path: os.open(path, os.O_PATH) for path in (project, Path(sys.prefix), Path(sys.base_prefix))}
    sources = {place: os.open(path, os.O_PATH) for place, path in writable.items()}
    for place in ("/home", "/root", *PLACES.values()):
        mount("tmpfs", place, "tmpfs", options="mode=755")
    for place in (temporary := ["/tmp", "/var/tmp", "/dev/shm"]):
        mount("tmpfs", place, "tmpfs", options="mode=1777")
    mount("proc", "/proc", "proc", options="hidepid=invisible")
    for path, handle in handles.items():
        if not path.exists():  # it lies in what has just been hidden
            path.mkdir(parents=True)
            mount(f"/proc/self/fd/{handle}", str(path), flags=BIND | RECURSIVE)
    for place, handle in sources.items():
        os.mkdir(place)
        os.chown(f"/proc/self/fd/{handle}", USER, USER)
        mount(f"/proc/self/fd/{handle}", place, flags=BIND)
    set_attributes("/", ALL_BELOW, added=READ_ONLY)
    for place in (*temporary, *sources):
        set_attributes(place, removed=READ_ONLY)
    for handle in (*handles.values(), *sources.values()):
        os.close(handle)


def mount(source: str | None, place: str, kind: str | None = None, *, flags: int = 0, options: str = "") -> None:
    check(libc.mount(source and source.encode(), place.encode(), kind and kind.encode(), flags, options.encode()))


def set_attributes(place: str, flags: int = 0, *, added: int = 0, removed: int = 0) -> None:
    check(libc.syscall(MOUNT_SETATTR, -1, place.encode(), flags, (ctypes.c_uint64 * 4)(added, removed), 32))


def allowed_calls(names: Iterable[str]) -> set[str]:
    """Return the system calls of names; from one with a tilde on, they are taken out."""
    printed = subprocess.run(["systemd-analyze", "syscall-filter"], capture_output=True, text=True, check=True).stdout
    members: dict[str, list[str]] = {}
    for line in printed.splitlines():
        if line.startswith("@"):
            members[line] = found = []
        elif line.startswith("    ") and "#" not in line:
            found.append(line.strip())

    def calls(name: str) -> set[str]:
        return set().union(*map(calls, members[name])) if name.startswith("@") else {name}

    allowed: set[str] = set()
    change = allowed.update
    for name in names:
        change = allowed.difference_update if name.startswith("~") else change
        change(calls(name.removeprefix("~")))
    return allowed


def denied_calls(families: Iterable[str]) -> list[Rule]:
    """Return what is refused of the system calls that are allowed, sockets of other families among them."""
    others = set(range(50)) - {getattr(socket, family) for family in families}
    sockets = [("socket", ERROR | errno.EAFNOSUPPORT, [Comparison(0, EQUAL, family, 0)]) for family in others]
    whole: list[Rule] = [(name, ERROR | errno.EPERM, []) for name in ("unshare", "setns", "personality")]
    return [*sockets, *whole, ("clone3", ERROR | errno.ENOSYS, [])]  # a filter does not see the flags of clone3


def code_calls() -> list[Rule]:
    """Return what makes memory that is written and run."""
    both = PROT_WRITE | PROT_EXEC
    changes = [Comparison(2, MASKED, PROT_EXEC, PROT_EXEC)]
    return [
        ("mmap", ERROR | errno.EPERM, [Comparison(2, MASKED, both, both)]),
        ("mprotect", ERROR | errno.EPERM, changes),
        ("pkey_mprotect", ERROR | errno.EPERM, changes),
    ]


def install(default: int, rules: Iterable[Rule]) -> None:
    """Filter the system calls of this process and its children."""
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(default))
    for name, action, compared in rules:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:  # else this processor has none
            arguments = (Comparison * len(compared))(*compared)
            check(library.seccomp_rule_add_array(context, action, number, len(compared), arguments))
    check(library.seccomp_load(context))


def check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno() or -result, os.strerror(ctypes.get_errno() or -result))


if __name__ == "__main__":
    main()
