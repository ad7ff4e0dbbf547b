"""On systems other than this one: what they lack is taken away, what they have is put in."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# What Linux has and Windows hasn't. Other packages do without, so they are imported before it
# goes, by importing ours once.
MODULES = ("fcntl", "resource", "termios", "pwd", "grp", "pty", "syslog")
NAMES = {
    "os": ("fork", "pwrite", "pread", "geteuid", "killpg", "mkfifo", "setsid", "O_NONBLOCK"),
    "signal": ("SIGALRM", "SIGKILL", "SIGHUP", "setitimer", "getitimer", "ITIMER_REAL", "alarm"),
}
WINDOWS = f"""
import importlib, os, pkgutil, signal, sys
import nbhelpers

def import_all():
    import nblabs
    for package in (nbhelpers, nblabs):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if not module.name.endswith(".__main__"):
                importlib.import_module(module.name)

if "--all" in sys.argv:
    import_all()
else:
    import nbhelpers.evaluation
ours = [name for name in sys.modules if name.startswith(("nbhelpers.", "nblabs."))]
for name in ours:
    del sys.modules[name]
sys.modules.update(dict.fromkeys({MODULES!r}))  # each import of them fails
for module, names in {NAMES!r}.items():
    for name in names:
        vars(importlib.import_module(module)).pop(name, None)
sys.modules["msvcrt"] = types.SimpleNamespace(locking=locking, LK_NBLCK=2)
"""
# The lock of Windows, as its documentation has it: of bytes from where the file stands, refused
# with EACCES, let go of when the file is closed. Here it is made of POSIX's lock of a range, which
# a file that is only read can hold only together with others.
MSVCRT = """
import errno, fcntl as posix, os, sys, types

def locking(descriptor, mode, count):
    reads = posix.fcntl(descriptor, posix.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    kind = posix.LOCK_SH if reads else posix.LOCK_EX
    try:
        posix.lockf(descriptor, kind | posix.LOCK_NB, count, 0, os.SEEK_CUR)
    except OSError as error:
        raise PermissionError(errno.EACCES, "Permission denied") from error
"""


def on_windows(code, args=()):
    """Run code in a Python that lacks what Windows lacks."""
    command = [sys.executable, "-c", MSVCRT + WINDOWS + code, *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_all_of_it_is_imported_on_windows():
    done = on_windows("import_all(); print(len(ours))", ["--all"])
    paths = [*(ROOT / "nbhelpers").rglob("*.py"), *(ROOT / "book" / "nblabs").rglob("*.py")]
    modules = {path.name for path in paths} - {"__main__.py"}
    assert int(done.stdout or 0) >= len(modules), done.stderr


RUN = """
from pathlib import Path
from nbhelpers.evaluation import RunOptions, Store, run, write_report

def evaluate(items):
    return [{"id": item["id"], "done": 1} for item in items]

store = Store(Path(sys.argv[1]), {"of": "this"}, [{"id": str(i)} for i in range(5)])
"""


def test_a_run_is_kept_and_read_on_windows(tmp_path):
    code = (
        RUN
        + """
run(store, lambda: evaluate, RunOptions(seconds=1.0, progress=False))
print(len(store.results()), sorted(store.pending()))
"""
    )
    done = on_windows(code, args=[tmp_path])
    assert done.stdout.strip() == "5 []", done.stderr


def test_a_lock_holds_against_others_on_windows(tmp_path):
    holds = (
        RUN
        + """
with store.share((0, 2)):
    print("held", flush=True)
    sys.stdin.read()
"""
    )
    meets = (
        RUN
        + """
for shard in ((0, 2), (0, 3), (1, 2)):
    try:
        with store.share(shard):
            print(shard, "taken")
    except BlockingIOError as error:
        print(error)
"""
    )
    command = [sys.executable, "-c", MSVCRT + WINDOWS + holds, tmp_path]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    with subprocess.Popen(command, **pipes) as first:
        assert first.stdout.readline() == "held\n"
        same, other, free = on_windows(meets, args=[tmp_path]).stdout.splitlines()
        first.stdin.close()
    assert f"is being filled by process {first.pid} on" in same
    assert f"is being filled by process {first.pid} on" in other and "in 2 shares" in other
    assert free == "(1, 2) taken"
    again = on_windows(meets, args=[tmp_path]).stdout.splitlines()
    assert again == ["(0, 2) taken", "(0, 3) taken", "(1, 2) taken"]
