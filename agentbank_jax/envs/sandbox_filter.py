"""The sandbox's filter of system calls: what a judged program never needs is refused; the rest is in `sandbox.py`."""

import errno
import functools
import tempfile

# System calls that are refused as if the kernel had none, or as not permitted.
_ABSENT_CALLS = (
    "memfd_create memfd_secret shmget shmat shmctl shmdt msgget msgsnd msgrcv msgctl semget semop semctl semtimedop "
    "mq_open mq_unlink io_uring_setup io_uring_enter io_uring_register userfaultfd clone3 pidfd_getfd")
_REFUSED_CALLS = (
    "add_key request_key keyctl bpf perf_event_open ptrace process_vm_readv process_vm_writev kcmp unshare setns mount "
    "umount2 pivot_root chroot fsopen fsconfig fsmount fspick open_tree move_mount mount_setattr name_to_handle_at "
    "open_by_handle_at fanotify_init quotactl swapon swapoff acct reboot kexec_load init_module finit_module "
    "delete_module syslog vhangup")
_CLONE_NEW = 0x7E020080  # every CLONE_NEW* of <linux/sched.h>
_FAMILIES = (1, 2, 10)  # of sockets that there are: AF_UNIX, AF_INET, AF_INET6
_TERMINAL_REQUESTS = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX: they type, as if at the terminal


@functools.cache
def compiled() -> bytes:
  """Returns the filter, compiled for this machine's kernel.

  Namespaces leave three doors open that this closes: memory that no limit counts (memfd, System V and POSIX
  queues, keys), sockets that a network namespace does not hold (AF_VSOCK reaches a virtual machine's host), and
  the kernel's youngest and most attacked parts (io_uring, bpf, userfaultfd, perf, mounts, new namespaces).

  Raises:
    ImportError, RuntimeError, OSError: libseccomp or its binding is absent, or too old to know a call.
  """
  import pyseccomp as seccomp

  calls = seccomp.SyscallFilter(seccomp.ALLOW)
  for error, names in ((errno.ENOSYS, _ABSENT_CALLS), (errno.EPERM, _REFUSED_CALLS)):
    for name in names.split():
      calls.add_rule(seccomp.ERRNO(error), name)
  for bit in (1 << i for i in range(32) if _CLONE_NEW >> i & 1):
    calls.add_rule(seccomp.ERRNO(errno.EPERM), "clone", seccomp.Arg(0, seccomp.MASKED_EQ, bit, bit))
  for call in ("socket", "socketpair"):
    for family in set(range(_FAMILIES[-1])).difference(_FAMILIES):
      calls.add_rule(seccomp.ERRNO(errno.EAFNOSUPPORT), call, seccomp.Arg(0, seccomp.EQ, family))
    calls.add_rule(seccomp.ERRNO(errno.EAFNOSUPPORT), call, seccomp.Arg(0, seccomp.GT, _FAMILIES[-1]))
  for request in _TERMINAL_REQUESTS:
    calls.add_rule(seccomp.ERRNO(errno.EPERM), "ioctl", seccomp.Arg(1, seccomp.MASKED_EQ, 0xFFFFFFFF, request))
  with tempfile.TemporaryFile() as file:
    calls.export_bpf(file)
    file.seek(0)
    return file.read()
