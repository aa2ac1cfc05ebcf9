"""Two object stores on loopback, each behind a proxy that injects faults; dumps and Spark run as processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pyarrow.fs
import pytest

from pleo_extract import Client, load_export_jobs
from pleo_extract.sandbox import API_KEY, Sandbox, World, serve
from stores.proxy import Proxy, serve_proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

ACCOUNT = "devstoreaccount1"
KEYS = {
    "AWS_ACCESS_KEY_ID": "canaryid",
    "AWS_SECRET_ACCESS_KEY": "canarysecret",
    # the public default key of azurite, from its documentation
    "AZURE_STORAGE_ACCOUNT_KEY": "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
}


class Store:
    """One object store.

    Attributes:
        scheme: the scheme of its URLs.
        proxy: the proxy before it.
        options: the storage options that lead to the store directly.
        faulty: the storage options that lead through the proxy.

    """

    def __init__(self, scheme: str, port: int, proxy: Proxy) -> None:
        self.scheme = scheme
        self.proxy = proxy
        self.options = self._lead_to(port)
        self.faulty = self._lead_to(proxy.port)

    def _lead_to(self, port: int) -> dict[str, str]:
        url = f"http://127.0.0.1:{port}"
        if self.scheme == "s3":
            return {"aws_endpoint_url": url, "aws_allow_http": "true", "aws_region": "us-east-1"}
        return {
            "azure_storage_account_name": ACCOUNT,
            "azure_storage_endpoint": f"{url}/{ACCOUNT}",
            "azure_allow_http": "true",
        }

    def with_keys(self) -> dict[str, str]:
        """Return options for other libraries, with the keys in them."""
        prefix = "AWS" if self.scheme == "s3" else "AZURE"
        return self.options | {name.lower(): key for name, key in KEYS.items() if name.startswith(prefix)}


class Spark:
    """Spark in its own environment, see `spark_reader.py`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None

    def read(self, home: Home, workspace: Path) -> pl.DataFrame:
        """Return all rows of a table, and check that `failure_rates` counts them."""
        to = str(workspace / "spark.parquet")
        keys = home.store.with_keys()
        reported = {"uri": home.uri, "options": keys, "workspace": str(workspace), "to": to}
        workspace.mkdir(exist_ok=True)
        process = self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(reported) + "\n")
        process.stdin.flush()
        said = process.stdout.readline()
        assert said, (self._folder / "log").read_text()[-3000:]
        rows = pl.read_parquet(to)
        assert json.loads(said) == {"jobs": rows.height}
        return rows

    def end(self) -> None:
        """Close the standard input, which ends Spark."""
        if self._process is not None:
            self._process.communicate(timeout=60)

    def _start(self) -> subprocess.Popen[str]:
        if self._process is None:
            python = os.environ.get("SPARK_PYTHON")
            assert python, "Spark is missing: run .ci/stores, which installs it"
            with (self._folder / "log").open("w") as log:
                self._process = subprocess.Popen(
                    [python, str(Path(__file__).with_name("spark_reader.py"))],
                    env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
                    cwd=self._folder,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                )
        return self._process


class Home:
    """A world, its server, and a table of it in a store."""

    def __init__(self, store: Store, world: World, server: str, folder: Path, spark: Spark) -> None:
        self.spark = spark
        self.store = store
        self.world = world
        self.server = server
        self.folder = folder
        self.uri = f"{store.scheme}://lakes/{uuid.uuid4().hex[:8]}"
        self.said = ""

    def start(self, *words: str, machine: str = "one", faulty: bool = False) -> subprocess.Popen[str]:
        """Start a command of pleo-extract on this table, with the cache of this machine."""
        options = self.store.faulty if faulty else self.store.options
        store = [word for name, value in options.items() for word in ("--storage-option", f"{name}={value}")]
        at = ["--lake", self.uri] if words[0] == "sql" else [self.uri]
        rest = ["--rate", "100000"] if words[0] == "dump" else []
        command = [sys.executable, "-m", "pleo_extract", words[0], *at, *words[1:], *store, *rest]
        return subprocess.Popen(
            [*command, "--workspace", str(self.folder / machine)],
            env=os.environ | KEYS | {"PLEO_API_KEY": API_KEY, "PLEO_BASE_URL": self.server},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        """Wait for a command; return its exit code and its output."""
        out, err = process.communicate(timeout=100)
        self.said += out + err
        return process.returncode, out + err

    def run(self, *words: str, machine: str = "one", faulty: bool = False) -> tuple[int, str]:
        """Run a command to its end."""
        return self.end(self.start(*words, machine=machine, faulty=faulty))

    def truth(self) -> pl.DataFrame:
        """Return the jobs that the server lists now."""
        with Client(self.server, api_key=API_KEY, rate=10_000_000) as client:
            return load_export_jobs(client=client).sort("id").drop("expires_in")


def _find_ports(count: int) -> list[int]:
    """Return free ports; SeaweedFS puts gRPC 10,000 above them, which must be free, too."""
    found: list[int] = []
    port = 20_000 + os.getpid() % 2_000
    while len(found) < count:
        port += 1
        if all(_is_free(each) for each in (port, port + 10_000)):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _run_server(command: list[str], port: int, log: Path, env: dict[str, str]) -> Iterator[None]:
    """Run a server until the generator closes; end its process group, since PyPI's node starts another process."""
    with log.open("w") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env=os.environ | env, cwd=log.parent, start_new_session=True
        )
    try:
        until = time.monotonic() + 40
        while not _answers(port):
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < until, log.read_text()[-2000:]
            time.sleep(0.1)
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(4)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _find(name: str) -> str:
    found = shutil.which(name)
    assert found, f"{name} is missing: run .ci/stores, which installs it"
    return found


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Run SeaweedFS; yield the port of its S3 API."""
    folder = tmp_path_factory.mktemp("seaweed")
    master, volume, filer, s3, admin, webdav = _find_ports(6)
    command = [
        *(_find("weed"), "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
        *("-master.telemetry=false", "-bucket=lakes", "-s3.port.iceberg=0", "-s3.port.lance=0"),
        *(f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"),
        *(f"-s3.port={s3}", f"-admin.port={admin}", f"-webdav.port={webdav}"),
    ]
    server = _run_server(command, s3, folder / "log", KEYS)
    next(server)
    fs = pyarrow.fs.S3FileSystem(
        access_key=KEYS["AWS_ACCESS_KEY_ID"],
        secret_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        endpoint_override=f"http://127.0.0.1:{s3}",
        region="us-east-1",
    )
    _wait_for(lambda: fs.get_file_info("lakes").type == pyarrow.fs.FileType.Directory)
    yield s3
    server.close()  # type: ignore[attr-defined] # a generator


def _wait_for(is_so: object) -> None:
    until = time.monotonic() + 30
    while True:
        try:
            if is_so():  # type: ignore[operator]
                return
        except OSError:
            pass
        assert time.monotonic() < until, "the store does not come up"
        time.sleep(0.2)


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Run azurite with a container; yield the port of its blob API."""
    folder = tmp_path_factory.mktemp("azurite")
    (port,) = _find_ports(1)
    main = Path(_find("node")).parent.parent / "node_modules/azurite/dist/src/blob/main.js"
    command = [
        *(_find("node"), str(main), "--blobHost", "127.0.0.1", "--blobPort", str(port)),
        *("--skipApiVersionCheck", "--disableTelemetry", "--silent", "--inMemoryPersistence"),
    ]
    server = _run_server(command, port, folder / "log", {})
    next(server)
    fs = pyarrow.fs.AzureFileSystem(
        ACCOUNT,
        account_key=KEYS["AZURE_STORAGE_ACCOUNT_KEY"],
        blob_storage_authority=f"127.0.0.1:{port}",
        blob_storage_scheme="http",
        dfs_storage_authority=f"127.0.0.1:{port}",
        dfs_storage_scheme="http",
    )
    fs.create_dir("lakes")
    yield port
    server.close()  # type: ignore[attr-defined] # a generator


@pytest.fixture(params=["s3", "az"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """Yield each store in turn, behind a proxy without faults."""
    port: int = request.getfixturevalue("seaweed" if request.param == "s3" else "azurite")
    with serve_proxy(port) as proxy:
        yield Store(request.param, port, proxy)


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spark]:
    """Yield Spark, which starts at the first read."""
    found = Spark(tmp_path_factory.mktemp("spark"))
    yield found
    found.end()


@pytest.fixture
def home(store: Store, spark: Spark, tmp_path: Path) -> Iterator[Home]:
    """Yield a world and an empty place for its table; check at the end that no key leaked."""
    world = World(jobs=1_200, days=90)
    with serve(Sandbox(world)) as running:
        found = Home(store, world, running.url, tmp_path, spark)
        yield found
    left = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    for key in (*KEYS.values(), API_KEY):
        assert key not in found.said
        assert key.encode() not in left
