"""Real servers, really killed. Each test has a home of its own, and none may leave a process."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest
import redis

from cf_lab_resources import embedded
from cf_lab_resources.embedded import EmbeddedError, Endpoints, processes, servers, supervisor
from cf_lab_resources.embedded.files import Credentials, ServiceFiles
from cf_lab_resources.embedded.privileges import NOBODY, Demotion, as_user, in_namespace
from cf_lab_resources.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[2]
EXTERNAL_POSTGRES = "postgresql://somebody:secret@db.example:5432/catalog"
EXTERNAL_REDIS = "redis://:secret@cache.example:6379/0"

# A user in a process of its own: says "ready", then waits to be ended.
USER = """
import sys, time
from pathlib import Path
from cf_lab_resources import embedded
from cf_lab_resources.settings import Settings
home, postgres, redis = sys.argv[1:4]
settings = Settings(Path(home), postgres_url=postgres or None, redis_url=redis or None)
with embedded.running(settings) as endpoints:
    print(endpoints.postgres_url, endpoints.redis_url, flush=True)
    sys.stdin.read()
"""


def processes_of(home: Path) -> dict[int, str]:
    """What still runs for a home: everything that names it or carries its mark."""
    mark = servers.mark_of(home)
    return {
        pid: text
        for pid, text in processes.command_lines()
        if pid != os.getpid() and (str(home) in text or mark in text)
    }


def eventually(condition: Callable[[], object], seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def home(memory_folder: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    folder = memory_folder / f"home_{abs(hash(request.node.name))}"
    folder.mkdir()
    yield folder
    gone = eventually(lambda: not processes_of(folder))
    left = processes_of(folder)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)
    assert gone, f"left behind: {left}"


def only(name: str, home: Path) -> Settings:
    """Settings with one embedded service, since most of what is tested is the same for both."""
    if name == "postgres":
        return Settings(home, redis_url=EXTERNAL_REDIS)
    return Settings(home, postgres_url=EXTERNAL_POSTGRES)


def write(name: str, endpoints: Endpoints, value: str) -> None:
    if name == "redis":
        with redis.Redis.from_url(endpoints.redis_url) as client:
            client.set("value", value)
        return
    connection = psycopg2.connect(endpoints.postgres_url)
    with connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS kept (value text)")
        cursor.execute("INSERT INTO kept VALUES (%s)", (value,))
    connection.close()


def read(name: str, endpoints: Endpoints) -> str | None:
    """The last value, or None where the server does not answer."""
    if name == "redis":
        try:
            with redis.Redis.from_url(endpoints.redis_url) as client:
                return client.get("value").decode()
        except redis.ConnectionError:
            return None
    try:
        connection = psycopg2.connect(endpoints.postgres_url)
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT value FROM kept")
            row = cursor.fetchall()[-1]
        connection.close()
        return str(row[0])
    except psycopg2.OperationalError:
        return None


def server_pids(settings: Settings) -> set[int]:
    return {s.pid for s in embedded.status(settings) if s.pid}


def server_pid(name: str, settings: Settings) -> int:
    pid = next(s.pid for s in embedded.status(settings) if s.name == name)
    assert pid is not None
    return pid


def supervisor_pid(name: str, home: Path) -> int:
    return int(ServiceFiles(home, name).read_state()["pid"])


def kill_and_wait(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: pid not in dict(processes.command_lines()))


both = pytest.mark.parametrize("name", ["postgres", "redis"])


def test_both_start_serve_and_end_with_their_user(home: Path) -> None:
    settings = Settings(home)
    with embedded.running(settings) as endpoints:
        assert [s.state for s in embedded.status(settings)] == ["running", "running"]
        for name in ("postgres", "redis"):
            write(name, endpoints, "1")
            assert read(name, endpoints) == "1"
        connection = psycopg2.connect(endpoints.dagster_postgres_url)
        assert connection.info.dbname == "cf_lab_dagster"
        assert connection.server_version >= 180000
        connection.close()
        assert endpoints.bucket_url == (home / "bucket").as_uri()
    assert eventually(lambda: not processes_of(home), 10)
    # A process that ends has no command line any more, and still its lock for a moment.
    stopped = ["stopped", "stopped"]
    assert eventually(lambda: [s.state for s in embedded.status(settings)] == stopped, 5)


@both
def test_a_second_start_has_the_same_port_and_the_data(name: str, home: Path) -> None:
    settings = only(name, home)
    with embedded.running(settings) as first:
        write(name, first, "kept")
    assert eventually(lambda: not processes_of(home))
    with embedded.running(settings) as second:
        assert second == first
        assert read(name, second) == "kept"


def test_a_user_right_after_another_finds_the_same_server(home: Path) -> None:
    settings = only("redis", home)
    with embedded.running(settings):
        pid = server_pid("redis", settings)
    with embedded.running(settings):
        time.sleep(supervisor.LINGER_SECONDS + 0.5)
        assert server_pid("redis", settings) == pid


@both
def test_a_killed_server_comes_back_with_its_data(name: str, home: Path) -> None:
    settings = only(name, home)
    with embedded.running(settings) as endpoints:
        write(name, endpoints, "kept")
        if name == "redis":
            time.sleep(1.2)  # its file is synced every second
        pid = server_pid(name, settings)
        os.kill(pid, signal.SIGKILL)
        assert eventually(lambda: read(name, endpoints) == "kept")
        assert eventually(lambda: server_pids(settings) - {pid})


def test_a_killed_postmaster_comes_back_over_busy_orphans(home: Path) -> None:
    settings = only("postgres", home)
    with embedded.running(settings) as endpoints:
        write("postgres", endpoints, "kept")
        busy = psycopg2.connect(endpoints.postgres_url)
        backend = busy.info.backend_pid

        def loop() -> None:
            # Never looks up from its work, so it does not notice that the postmaster is gone.
            with pytest.raises(psycopg2.Error), busy.cursor() as cursor:
                cursor.execute("SELECT count(*) FROM generate_series(1, 100000000000)")

        thread = threading.Thread(target=loop)
        thread.start()
        time.sleep(0.3)
        os.kill(server_pid("postgres", settings), signal.SIGKILL)
        assert eventually(lambda: read("postgres", endpoints) == "kept")
        thread.join(20)
        assert not thread.is_alive()
        assert backend not in dict(processes.command_lines())
        busy.close()


@both
def test_a_killed_supervisor_is_replaced_and_its_server_too(name: str, home: Path) -> None:
    settings = only(name, home)
    with embedded.running(settings) as endpoints:
        write(name, endpoints, "kept")
        if name == "redis":
            time.sleep(1.2)
        first = supervisor_pid(name, home)
        kill_and_wait(first)
        assert eventually(
            lambda: (
                ServiceFiles(home, name).read_state().get("pid", first) != first
                and ServiceFiles(home, name).read_state()["phase"] == "ready"
            )
        )
        assert read(name, endpoints) == "kept"


@both
def test_when_supervisor_and_user_are_killed_no_server_lives_on(name: str, home: Path) -> None:
    user = start_user(only(name, home))
    pid = supervisor_pid(name, home)
    end(user, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: not processes_of(home))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals the child of a dead parent")
@both
def test_when_every_python_process_is_killed_no_server_lives_on(name: str, home: Path) -> None:
    user = start_user(only(name, home))
    python = [pid for pid, text in processes_of(home).items() if "cf_lab_resources" in text]
    assert len(python) == 3  # the user, whose code names it too, the supervisor and its guard
    for pid in python:
        os.kill(pid, signal.SIGKILL)
    end(user, signal.SIGKILL)
    assert eventually(lambda: not processes_of(home))


@both
def test_a_killed_guard_is_replaced(name: str, home: Path) -> None:
    settings = only(name, home)
    with embedded.running(settings):
        first = supervisor_pid(name, home)

        def guards() -> list[int]:
            return [
                pid
                for pid, text in processes_of(home).items()
                if "cf_lab_resources.embedded" in text and pid != first
            ]

        (guard,) = guards()
        server = server_pid(name, settings)
        os.kill(guard, signal.SIGKILL)
        assert eventually(lambda: len(guards()) == 1 and guards() != [guard])
        assert server_pid(name, settings) == server


def test_a_killed_user_is_noticed(home: Path) -> None:
    user = start_user(Settings(home))
    assert processes_of(home)
    end(user, signal.SIGKILL)
    assert eventually(lambda: not processes_of(home), supervisor.LINGER_SECONDS + 10)


def test_ctrl_c_reaches_the_user_and_not_the_servers(home: Path) -> None:
    settings = only("redis", home)
    with embedded.running(settings) as endpoints:
        user = start_user(settings, start_new_session=True)
        os.killpg(user.pid, signal.SIGINT)
        user.communicate(timeout=20)
        write("redis", endpoints, "still here")
        assert read("redis", endpoints) == "still here"
        for pid in (server_pid("redis", settings), supervisor_pid("redis", home)):
            assert os.getsid(pid) != os.getsid(0)


def test_of_two_that_start_at_once_one_wins_and_both_work(home: Path) -> None:
    settings = Settings(home)
    users = [spawn_user(settings) for _ in range(3)]
    told = {said(user) for user in users}
    assert len(told) == 1

    def count(shown: str) -> int:
        return sum(shown in text for text in processes_of(home).values())

    assert count("valkey-server") == 1
    assert count("postgres: ") > 0
    # A child of the postmaster looks like its parent until it has set its title.
    assert eventually(lambda: count(f"/postgres -D {home}") == 1)
    for user in users:
        end(user, signal.SIGTERM)


def test_a_url_replaces_its_service_and_nothing_of_it_is_started(home: Path) -> None:
    settings = Settings(
        home,
        postgres_url=EXTERNAL_POSTGRES,
        redis_url=EXTERNAL_REDIS,
        bucket_url="s3://bucket",
    )
    with embedded.running(settings) as endpoints:
        assert endpoints == Endpoints(
            EXTERNAL_POSTGRES, EXTERNAL_REDIS, "s3://bucket", EXTERNAL_POSTGRES
        )
        assert not processes_of(home)
        assert {s.state for s in embedded.status(settings)} == {"external"}
        assert "secret" not in str(embedded.status(settings))
    with embedded.running(only("redis", home)) as endpoints:
        assert endpoints.postgres_url == EXTERNAL_POSTGRES
        assert not any("postgres" in Path(t.split()[0]).name for t in processes_of(home).values())
        assert not (home / "postgres").exists()


def test_children_use_what_the_parent_started(home: Path) -> None:
    with embedded.running(only("redis", home)) as endpoints:
        environ = endpoints.environ()
        child = Settings.from_env(environ)
        assert child.redis_url == endpoints.redis_url
        assert child.postgres_url == EXTERNAL_POSTGRES
        assert child.dagster_postgres_url == endpoints.dagster_postgres_url
        with embedded.running(child) as same:
            assert same == endpoints


def test_passwords_are_asked_for_and_seen_by_nobody_else(home: Path) -> None:
    settings = Settings(home)
    with embedded.running(settings) as endpoints:
        for name in ("postgres", "redis"):
            credentials = ServiceFiles(home, name).read_credentials()
            assert credentials is not None
            shown = [*processes_of(home).values(), repr(endpoints), repr(credentials)]
            assert not any(credentials.password in text for text in shown)
            for path in home.rglob("*"):
                if path.is_file() and path.stat().st_mode & 0o077:
                    assert credentials.password.encode() not in path.read_bytes(), path
            wrong = endpoints.postgres_url.replace(credentials.password, "wrong")
            if name == "postgres":
                with pytest.raises(psycopg2.OperationalError, match="password"):
                    psycopg2.connect(wrong)
        assert stat.S_IMODE((home / "services").stat().st_mode) == 0o700
        wrong = endpoints.redis_url.replace(credentials.password, "wrong")
        with redis.Redis.from_url(wrong) as client, pytest.raises(redis.AuthenticationError):
            client.ping()


def test_a_lost_password_file_is_made_anew_over_the_data(home: Path) -> None:
    settings = only("postgres", home)
    with embedded.running(settings) as endpoints:
        write("postgres", endpoints, "kept")
    assert eventually(lambda: not processes_of(home))
    (home / "services" / "postgres.secret").unlink()
    with embedded.running(settings) as renewed:
        assert renewed.postgres_url != endpoints.postgres_url
        assert read("postgres", renewed) == "kept"


def test_a_port_that_is_taken_meanwhile_is_replaced(home: Path) -> None:
    import socket

    settings = only("redis", home)
    with embedded.running(settings) as first:
        write("redis", first, "kept")
    assert eventually(lambda: not processes_of(home))
    credentials = ServiceFiles(home, "redis").read_credentials()
    assert credentials is not None
    taken = socket.create_server(("127.0.0.1", credentials.port))
    with taken, embedded.running(settings) as second:
        assert second.redis_url != first.redis_url
        assert read("redis", second) == "kept"


def test_an_interrupted_initialisation_is_begun_again(home: Path) -> None:
    (home / "postgres" / "new").mkdir(parents=True)
    (home / "postgres" / "new" / "PG_VERSION").write_text("half")
    with embedded.running(only("postgres", home)) as endpoints:
        write("postgres", endpoints, "1")
        assert read("postgres", endpoints) == "1"


@both
def test_a_server_that_cannot_start_shows_the_end_of_its_log(name: str, home: Path) -> None:
    settings = only(name, home)
    broken = home / name / ("data/PG_VERSION" if name == "postgres" else "appendonlydir")
    broken.parent.mkdir(parents=True)
    broken.write_text("this is not what it should be")
    ServiceFiles.of(settings, name).write_credentials(Credentials(servers.free_port(), "pw"))
    with pytest.raises(EmbeddedError) as caught, embedded.running(settings):
        pass
    message = str(caught.value)
    assert f"{name} did not start" in message
    assert str(home / "log" / f"{name}.log") in message
    assert message.count("\n    ") >= 2


def test_a_home_that_cannot_be_written_says_so(home: Path) -> None:
    (home / "services").write_text("a file where the folder should be")
    with (
        pytest.raises(EmbeddedError, match="CF_LAB_HOME"),
        embedded.running(Settings(home)),
    ):
        pass


def test_stop_ends_the_servers_under_their_users_until_the_next_start(home: Path) -> None:
    settings = only("redis", home)
    with embedded.running(settings):
        embedded.stop(settings)
        assert not processes_of(home)
        time.sleep(1.5)  # the user watches, and must not start it again
        assert not processes_of(home)
    with embedded.running(settings) as endpoints:
        write("redis", endpoints, "1")
    embedded.stop(settings)
    embedded.stop(settings)
    assert not processes_of(home)


def test_stop_and_status_make_no_folder(home: Path) -> None:
    settings = Settings(home / "new")
    embedded.stop(settings)
    assert {s.state for s in embedded.status(settings)} == {"stopped"}
    assert not settings.home.exists()


def test_a_home_that_is_deleted_takes_its_servers_along(home: Path) -> None:
    inner = home / "inner"
    with embedded.running(only("redis", inner)):
        shutil.rmtree(inner)
        assert eventually(lambda: not any("valkey" in t for t in processes_of(home).values()))
    shutil.rmtree(inner, ignore_errors=True)


def test_a_long_path_with_blanks_and_quotes_does(home: Path) -> None:
    deep = home / ("a 'quoted\" folder " + "x" * 100) / ("y" * 120) / ".cf_lab"
    parent_modes = [p.stat().st_mode for p in (home, home.parent)]
    with embedded.running(Settings(deep)) as endpoints:
        for name in ("postgres", "redis"):
            write(name, endpoints, "deep")
            assert read(name, endpoints) == "deep"
    assert eventually(lambda: not processes_of(deep))
    assert [p.stat().st_mode for p in (home, home.parent)] == parent_modes


def test_a_log_stays_bounded(home: Path) -> None:
    log = ServiceFiles.of(Settings(home), "redis").log
    log.write_bytes(b"x" * (supervisor.LOG_BYTES + 1))
    with embedded.running(only("redis", home)):
        assert eventually(lambda: log.stat().st_size < supervisor.LOG_BYTES)
        assert log.with_suffix(".log.1").stat().st_size > supervisor.LOG_BYTES


def ordinary_python() -> str | None:
    """An interpreter that an ordinary user may run, with our packages in its reach."""
    for candidate in (sys.executable, *sorted(map(str, Path("/usr/bin").glob("python3.1?")))):
        code = "import psycopg2, cf_lab_resources"
        # By way of a shell, since setpriv itself still has root's view of what it executes.
        command = [*as_user(NOBODY).prefix, "sh", "-c", '"$0" -c "$1"', candidate, code]
        done = subprocess.run(command, env=ordinary_environ(), capture_output=True, check=False)
        if done.returncode == 0:
            return candidate
    return None


def ordinary_environ() -> dict[str, str]:
    packages = Path(psycopg2.__file__).parent.parent
    return {"PATH": os.environ["PATH"], "PYTHONPATH": f"{REPOSITORY}:{packages}"}


@pytest.mark.skipif(os.geteuid() != 0, reason="every other test runs as an ordinary user already")
@pytest.mark.parametrize("uid", [NOBODY, 54321], ids=["with a name", "a container's bare uid"])
def test_an_ordinary_user_needs_no_privilege(uid: int, home: Path) -> None:
    python = ordinary_python()
    if python is None:
        pytest.skip("no interpreter with our packages is open to ordinary users here")
    way = as_user(uid).prefix
    if uid != NOBODY and not processes.succeeds([*way, *in_namespace().prefix, "true"]):
        pytest.skip("initdb needs a user with a name, or a user namespace")
    home.parent.chmod(0o755)
    os.chown(home, uid, uid)
    with subprocess.Popen(
        [*way, python, "-c", USER, str(home), "", ""],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ordinary_environ(),
        text=True,
    ) as user:
        postgres, _ = said(user).split()
        psycopg2.connect(postgres).close()
        assert {path.stat().st_uid for path in home.rglob("*")} == {uid}
        user.communicate("")
    assert user.returncode == 0
    assert eventually(lambda: not processes_of(home))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives up privileges")
def test_root_without_namespaces_runs_postgres_as_nobody(home: Path) -> None:
    postgres = servers.postgres_binary("postgres")
    if not processes.succeeds([*as_user(NOBODY).prefix, "sh", "-c", f"'{postgres}' --version"]):
        pytest.skip("the PostgreSQL programs are not open to ordinary users here")
    home.parent.chmod(0o755)
    # What is owned by somebody else is run as that user, so this is how nobody gets its turn.
    (home / "postgres").mkdir(mode=0o700)
    os.chown(home / "postgres", NOBODY, NOBODY)
    settings = only("postgres", home)
    with embedded.running(settings) as endpoints:
        write("postgres", endpoints, "1")
        assert read("postgres", endpoints) == "1"
        assert (home / "postgres" / "data").stat().st_uid == NOBODY
        assert Path("/proc", str(server_pid("postgres", settings))).stat().st_uid == NOBODY


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives up privileges")
def test_root_that_cannot_give_up_its_privileges_is_told_what_to_do(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cf_lab_resources.embedded import privileges

    monkeypatch.setattr(privileges, "succeeds", lambda command: False)
    with pytest.raises(EmbeddedError, match="CF_LAB_POSTGRES_URL"):
        privileges.demotion(Path("/bin/true"), home)


def test_an_ordinary_user_gives_up_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cf_lab_resources.embedded import privileges

    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    assert privileges.demotion(Path("/bin/true"), home) == Demotion()


@pytest.mark.skipif(
    not (shutil.which("ps") and Path("/proc").exists()), reason="compares ps with /proc"
)
def test_macos_and_linux_see_the_same_processes(home: Path) -> None:
    settings = Settings(home)
    with embedded.running(settings):
        ours = servers.Postgres(settings).owns, servers.Valkey(settings).owns
        for owns in ours:
            from_ps = {pid for pid, text in processes._from_ps() if owns(text)}
            assert server_pids(settings) & from_ps
            assert from_ps == {pid for pid, text in processes._from_proc() if owns(text)}


def spawn_user(settings: Settings, **options: bool) -> subprocess.Popen[str]:
    urls = [settings.postgres_url or "", settings.redis_url or ""]
    return subprocess.Popen(
        [sys.executable, "-c", USER, str(settings.home), *urls],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def said(user: subprocess.Popen[str]) -> str:
    assert user.stdout is not None
    line = user.stdout.readline()
    if not line:
        pytest.fail(f"the user ended: {user.communicate()[1]}")
    return line


def start_user(settings: Settings, **options: bool) -> subprocess.Popen[str]:
    user = spawn_user(settings, **options)
    said(user)
    return user


def end(user: subprocess.Popen[str], number: signal.Signals) -> None:
    user.send_signal(number)
    user.communicate(timeout=20)
