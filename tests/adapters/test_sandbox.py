"""The levels themselves: what a command inside can and cannot do, tried with a real one."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from adapters.goals import goal_spec

from goalrun.adapters import process
from goalrun.adapters.deps import Frozen
from goalrun.adapters.sandbox import LEVELS, Place, Sandbox, Surroundings, choose, probe, strongest
from goalrun.adapters.sandbox.bwrap import BwrapSandbox
from goalrun.adapters.sandbox.landlock import LandlockSandbox
from goalrun.adapters.sandbox.landlock_run import restrict
from goalrun.adapters.sandbox.plain import ProcessSandbox
from goalrun.adapters.sandbox.seatbelt import PROGRAM, SeatbeltSandbox
from goalrun.core.spec import VerificationSpec
from goalrun.errors import ProcessFailure, SpecError

PATH = os.pathsep.join((str(Path(sys.executable).parent), "/usr/bin", "/bin"))
KERNEL = [
    pytest.param(level, marks=pytest.mark.skipif(bool(probe(level)), reason=f"{level}: {probe(level)}"))
    for level in ("bwrap", "landlock", "seatbelt")
]


class Trial:
    """A workspace beside things that are not a check's business, and a sandbox of one level."""

    def __init__(self, folder: Path, level: str) -> None:
        self.folder = folder
        folders = [folder / "scratch" / name for name in ("tree/project", "home", "tmp", "reports")]
        for each in folders:
            each.mkdir(parents=True)
        self.place = Place(*folders)
        self.state = folder / "state"
        self.state.mkdir()
        (self.state / "secret").write_text("hidden")
        spec = goal_spec(folder / "project", verification=VerificationSpec(sandbox=level, path=PATH))
        self.sandbox: Sandbox = choose(spec, self.state)

    def run(self, script: str, env: dict[str, str] | None = None) -> process.Finished:
        inside = self.sandbox.seen(self.place)
        known = {"PATH": self.sandbox.path, "TMPDIR": str(inside.tmp), "HOME": str(inside.home), **(env or {})}
        wrapped = self.sandbox.wrap(("/bin/bash", "-c", script), self.place, inside.top, known)
        status = self.folder / "status"
        status.unlink(missing_ok=True)
        return process.run(
            process.Command(
                argv=wrapped.argv,
                cwd=wrapped.cwd,
                env=wrapped.env,
                stdout=self.folder / "out",
                timeout=60,
                status=status if wrapped.recorded else None,
                launcher=wrapped.stays,
            ),
            lambda _: None,
            lambda: None,
        )

    def said(self) -> str:
        return (self.folder / "out").read_text()


@pytest.fixture(params=KERNEL)
def trial(request: pytest.FixtureRequest, tmp_path: Path) -> Trial:
    return Trial(tmp_path, request.param)


def test_a_command_does_its_work_in_its_own_folders(trial: Trial) -> None:
    finished = trial.run(
        "echo work > made && mv made moved && ln -s moved link && mkdir sub && mv moved sub/ && : > $TMPDIR/t\n"
        "cat <<< here > $HOME/h && echo gone > /dev/null && exit 7"
    )
    assert (finished.exit_code, trial.said()) == (7, "")
    assert (trial.place.top / "sub/moved").read_text() == "work\n"
    assert (trial.place.home / "h").read_text() == "here\n"
    assert (trial.place.tmp / "t").exists()


def test_what_is_elsewhere_is_neither_read_nor_written(trial: Trial) -> None:
    outside = trial.folder / "outside"
    outside.mkdir()
    (outside / "file").write_text("as it was")
    (trial.place.top / "way-out").symlink_to(outside)
    attempts = [
        f"cat {trial.state}/secret",
        f"ls {trial.state}",
        f"echo x > {trial.state}/new",
        f"echo x > {outside}/file",
        f": > {outside}/new",
        "echo x > way-out/file",
        f"rm {outside}/file",
        f"mv {outside}/file .",
        f"ln {outside}/file linked && echo x > linked",
        f"truncate -s 0 {outside}/file",
        f"test -e {trial.folder}/status && echo x > {trial.folder}/status",
    ]
    for attempt in attempts:
        assert trial.run(attempt).exit_code != 0, attempt
    assert (outside / "file").read_text() == "as it was"
    assert [path.name for path in outside.iterdir()] == ["file"]
    assert [path.name for path in trial.state.iterdir()] == ["secret"]


def test_nobody_outside_is_signalled_or_looked_into(trial: Trial) -> None:
    secret = {"PATH": "/usr/bin:/bin", "SECRET": "in-the-environment"}
    other = subprocess.Popen(["/bin/sleep", "60"], env=secret)
    try:
        assert trial.run(f"kill -TERM {other.pid}").exit_code != 0
        assert trial.run(f"cat /proc/{other.pid}/environ").exit_code != 0
        assert "in-the-environment" not in trial.said()
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_loopback_works_inside(trial: Trial) -> None:
    script = (
        "import socket\ns = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()\n"
        "c = socket.create_connection(s.getsockname()); c.sendall(b'hi'); print(s.accept()[0].recv(2))\n"
    )
    (trial.place.top / "net.py").write_text(script)
    finished = trial.run("python3 net.py")
    assert (finished.exit_code, trial.said()) == (0, "b'hi'\n")


@pytest.mark.parametrize("level", KERNEL[:1] + KERNEL[2:])
def test_without_network_the_machines_own_services_are_out_of_reach(level: str, tmp_path: Path) -> None:
    trial = Trial(tmp_path, level)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        script = f"import socket\nsocket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 5)\n"
        (trial.place.top / "net.py").write_text(script)
        assert trial.run("python3 net.py").exit_code != 0


@pytest.mark.skipif(bool(probe("bwrap")), reason="bwrap")
def test_with_network_names_can_be_looked_up(tmp_path: Path) -> None:
    place = Trial(tmp_path, "bwrap").place
    wrapped = BwrapSandbox(Surroundings(tmp_path / "project", PATH, network=True)).wrap(("true",), place, place.top, {})
    assert "--share-net" in wrapped.argv
    target = Path("/etc/resolv.conf").resolve()
    seen = any(target.is_relative_to(name) for name in ("/etc", "/usr")) or str(target) in wrapped.argv
    assert seen or not target.is_file()


def test_a_launcher_that_fails_is_no_result(trial: Trial) -> None:
    trial.place.tmp.rmdir()
    place = trial.place._replace(top=trial.folder / "gone")
    wrapped = trial.sandbox.wrap(("/bin/true",), place, trial.folder, {"PATH": PATH})
    command = process.Command(
        argv=(*wrapped.argv[:-1], "/no/such/program"),
        cwd=trial.folder,
        env=wrapped.env,
        stdout=trial.folder / "out",
        timeout=30,
        status=trial.folder / "status",
    )
    if trial.sandbox.level == "bwrap":
        with pytest.raises(ProcessFailure, match="could not be set up"):
            process.run(command, lambda _: None, lambda: None)
        return
    # A record is written only once every restriction holds; the program's own absence comes later.
    assert process.run(command, lambda _: None, lambda: None).exit_code != 0


@pytest.mark.skipif(bool(probe("landlock")), reason="landlock")
def test_a_landlock_order_that_cannot_be_followed_is_no_result(tmp_path: Path) -> None:
    trial = Trial(tmp_path, "landlock")
    wrapped = trial.sandbox.wrap(("/bin/true",), trial.place, tmp_path, {"PATH": PATH})
    order = wrapped.argv[4].replace(str(trial.place.home), str(tmp_path / "not-there"))
    command = process.Command(
        argv=(*wrapped.argv[:4], order, *wrapped.argv[5:]),
        cwd=tmp_path,
        env=wrapped.env,
        stdout=tmp_path / "out",
        timeout=30,
        status=tmp_path / "status",
    )
    with pytest.raises(ProcessFailure, match="could not be set up"):
        process.run(command, lambda _: None, lambda: None)


@pytest.mark.skipif(bool(probe("landlock")), reason="landlock")
def test_landlock_told_to_end_tells_the_command(tmp_path: Path) -> None:
    """The launcher is gone by then: a program of the same interpreter must not be spared."""
    trial = Trial(tmp_path, "landlock")
    script = (
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path('told').touch(), sys.exit(3)))\n"
        "pathlib.Path('up').touch()\ntime.sleep(60)\n"
    )
    (trial.place.top / "wait.py").write_text(script)

    wrapped = trial.sandbox.wrap((sys.executable, "wait.py"), trial.place, trial.place.top, {"PATH": PATH})
    assert wrapped.stays == ""
    command = process.Command(
        argv=wrapped.argv,
        cwd=wrapped.cwd,
        env=wrapped.env,
        stdout=tmp_path / "out",
        timeout=3,
        status=tmp_path / "status",
        launcher=wrapped.stays,
    )
    assert process.run(command, lambda _: None, lambda: None).timed_out
    assert (trial.place.top / "told").exists()


@pytest.mark.skipif(bool(probe("landlock")), reason="landlock")
def test_restricting_twice_only_ever_takes_away(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            restrict(["/usr", "/lib", "/lib64", "/etc"], [str(tmp_path)])
            restrict(["/"], ["/"])
            (tmp_path / "fine").touch()
            try:
                (tmp_path.parent / "not-fine").touch()
            except PermissionError:
                code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert (tmp_path / "fine").exists()


def test_dependencies_are_readable_and_no_more(tmp_path: Path) -> None:
    if probe("landlock"):
        pytest.skip(probe("landlock"))
    trial = Trial(tmp_path, "landlock")
    copy = trial.state / "deps/0"
    copy.mkdir(parents=True)
    (copy / "lib.txt").write_text("frozen")
    frozen = Frozen(tmp_path / "project/node_modules", copy, copy)
    trial.sandbox = LandlockSandbox(Surroundings(tmp_path / "project", PATH, (), (frozen,), (trial.state,)))
    trial.sandbox.furnish(trial.place)
    assert trial.run("cat node_modules/lib.txt").exit_code == 0
    assert trial.said() == "frozen"
    for attempt in ("echo x > node_modules/lib.txt", f"cat {trial.state}/secret"):
        assert trial.run(attempt).exit_code != 0


@pytest.mark.skipif(bool(probe("bwrap")), reason="bwrap")
def test_auto_is_the_strongest() -> None:
    assert strongest() == "bwrap"
    assert list(LEVELS) == ["bwrap", "seatbelt", "landlock", "process"]


def test_a_weaker_level_does_not_satisfy_what_is_required(tmp_path: Path) -> None:
    for level in ("landlock", "process"):
        verification = VerificationSpec(sandbox=level, require_sandbox=True, path=PATH)
        with pytest.raises(SpecError, match=f"asks for {level}"):
            choose(goal_spec(tmp_path, verification=verification), tmp_path)


@pytest.mark.skipif(Path(PROGRAM).exists(), reason="it works here")
def test_seatbelt_elsewhere_is_refused_with_a_reason(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="part of macOS"):
        choose(goal_spec(tmp_path, verification=VerificationSpec(sandbox="seatbelt", path=PATH)), tmp_path)


def test_a_seatbelt_profile_names_no_path_itself(tmp_path: Path) -> None:
    """Paths are parameters: a folder's name cannot add a rule."""
    evil = tmp_path / 'x")) (allow file-write*'
    evil.mkdir()
    place = Place(evil, tmp_path / "home", tmp_path / "tmp", tmp_path / "reports")
    wrapped = SeatbeltSandbox(Surroundings(evil, PATH, hidden=(tmp_path / "state",))).wrap(("true",), place, evil, {})
    profile = wrapped.argv[wrapped.argv.index("-p") + 1]
    assert str(tmp_path) not in profile
    assert any(word.endswith(f"={os.path.realpath(evil)}") for word in wrapped.argv)
    assert "(deny network*)" in profile
    assert isinstance(SeatbeltSandbox(Surroundings(evil, PATH)), ProcessSandbox)
