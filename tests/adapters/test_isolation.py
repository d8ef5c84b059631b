"""The worker's own namespaces: it cannot get behind the cover, and sandboxes inside still work."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from goalrun.adapters.isolation import isolated, probe
from goalrun.adapters.process import STATUS_FD

NOBODY = 65534
ATTACKS = """
S=$1
echo "id=$(id -u)"
look() { ls -A $S; cat $S/journal; }
look
umount $S; umount -l $S; look
for p in /proc/[0-9]*; do ls $p/root$S; cat $p/root$S/journal; done
nsenter -t 1 -m cat $S/journal; nsenter -t $PPID -m cat $S/journal
unshare -Urm sh -c "umount $S; umount -l $S; mount --bind / /mnt; ls -A $S /mnt$S; cat $S/journal /mnt$S/journal"
unshare -m sh -c "umount $S; cat $S/journal"
chroot /proc/1/root cat $S/journal
echo "processes=$(ls -d /proc/[0-9]* | wc -l)"
bwrap --unshare-all --ro-bind / / --proc /proc --dev /dev echo nested=works
bwrap --unshare-all --ro-bind / / --proc /proc --dev /dev sh -c "umount $S; cat $S/journal"
touch $S/planted
"""


@pytest.fixture
def state() -> Iterator[Path]:
    """A state folder that everybody may enter, so that only the cover protects it."""
    top = Path("/tmp") / f"goalrun-isolation-{os.getpid()}"
    (top / "state").mkdir(parents=True)
    (top / "state" / "journal").write_text("the-secret-of-the-journal\n")
    for path in (top, top / "state"):
        path.chmod(0o777)
    yield top / "state"
    shutil.rmtree(top)


@pytest.mark.parametrize("user", [0, NOBODY])
def test_the_state_stays_hidden_and_a_sandbox_inside_works(state: Path, user: int) -> None:
    if reason := probe():
        pytest.skip(f"workers cannot be isolated here: {reason}")
    if user != os.geteuid() and os.geteuid() != 0:
        pytest.skip("only root can become another user")
    argv = isolated(("bash", "-c", ATTACKS, "bash", str(state)), state.parent, state, root=user == 0)
    become = ("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups") if user != os.geteuid() else ()
    status = os.open(state.parent / "status", os.O_WRONLY | os.O_CREAT, 0o666)
    os.dup2(status, STATUS_FD)
    try:
        done = subprocess.run(
            (*become, *argv), capture_output=True, text=True, check=False, pass_fds=(STATUS_FD,), cwd="/tmp", timeout=60
        )
    finally:
        os.close(STATUS_FD)
        os.close(status)
    said = dict(line.split("=") for line in done.stdout.splitlines() if "=" in line)
    assert said["id"] == str(user), done.stderr
    assert "the-secret" not in done.stdout + done.stderr
    assert "journal\n" not in done.stdout
    assert int(said["processes"]) < 12
    assert said["nested"] == "works"
    assert sorted(path.name for path in state.iterdir()) == ["journal"]
