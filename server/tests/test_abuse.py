"""The server under load and abuse: what is asked properly is served, the rest is refused or cut
off, each answer comes in bounded time, and nothing grows.

FLEXLLM_LONG makes the random abuse last ten minutes; FLEXLLM_BUILD may be that of a sanitizer.
"""

import asyncio
import contextlib
import json
import os
import pathlib
import random
import resource
import signal
import subprocess
import time

import pytest

BUILD = pathlib.Path(os.environ.get("FLEXLLM_BUILD", "build/release"))
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("FLEXLLM_")}
# Or a sanitizer keeps what was freed, and memory grows.
ENVIRONMENT["ASAN_OPTIONS"] = "quarantine_size_mb=8:thread_local_quarantine_size_kb=256"
ABUSE_S = 600 if os.environ.get("FLEXLLM_LONG") else 6
BOUND_S = 20  # for any answer, on a slow machine too
MEBIBYTE = 1 << 20


class Process:
    def __init__(self, process):
        self.process = process
        self.port = int(process.stdout.readline())

    def lives(self):
        return self.process.poll() is None

    def usage(self):
        """File descriptors, threads, bytes of memory."""
        proc = pathlib.Path("/proc", str(self.process.pid))
        status = (proc / "status").read_text()
        memory = int(status.split("VmRSS:")[1].split()[0]) << 10
        return len(list((proc / "fd").iterdir())), len(list((proc / "task").iterdir())), memory


@contextlib.contextmanager
def server_fake(*options):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))  # both sides need many
    command = [BUILD / "server/tests/server_fake", *map(str, options)]
    try:
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
        ) as process:
            yield Process(process)
            process.stdin.close()
            assert process.wait(60) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Client:
    """Speaks bytes; reads answers by their length or their chunks."""

    def __init__(self, port):
        self.port = port

    async def __aenter__(self):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_):
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    async def send(self, data):
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self):
        """Status and body; 0 if the server closed."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
            if b"chunked" in head:
                body = b""
                while size := int(await self.reader.readline(), 16):
                    body += (await self.reader.readexactly(size + 2))[:-2]
                await self.reader.readline()
            else:
                length = head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]
                body = await self.reader.readexactly(int(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            return 0, b""
        return int(head.split()[1]), body

    async def ask(self, data):
        with contextlib.suppress(ConnectionError):
            await self.send(data)
        return await asyncio.wait_for(self.answer(), BOUND_S)


def post(body, path="/v1/completions", headers=b""):
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n".encode() + headers + b"\r\n" + body
    )  # fmt: skip


def get(path=b"/health", headers=b""):
    return b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n" + headers + b"\r\n"


async def settles(server, before, memory):
    """Until descriptors and threads are back where they were; then memory is within its bound."""
    for _ in range(200):
        files, threads, used = server.usage()
        if files <= before[0] and threads <= before[1]:
            break
        await asyncio.sleep(0.1)
    assert files <= before[0]
    assert threads <= before[1]
    assert used <= before[2] + memory


async def warm_up(server):
    """What is made once, such as buffers of the allocator."""
    for _ in range(50):
        async with Client(server.port) as client:
            status, _ = await client.ask(post({"prompt": "x", "max_tokens": 5}))
            assert status == 200
    await asyncio.sleep(0.5)
    return server.usage()


def test_idle_connections_and_streams():
    async def stream(port, number):
        async with Client(port) as client:
            body = {"prompt": f"{number}", "max_tokens": 40, "stream": True, "ignore_eos": True}
            status, events = await asyncio.wait_for(client.ask(post(body)), 120)
            assert status == 200
            assert events.endswith(b"data: [DONE]\n\n")
            assert events.count(b"\ndata: {") >= 10

    async def run(server):
        before = await warm_up(server)
        async with contextlib.AsyncExitStack() as stack:
            idle = [await stack.enter_async_context(Client(server.port)) for _ in range(1000)]
            await asyncio.gather(*(stream(server.port, number) for number in range(64)))
            for client in idle:
                status, _ = await client.ask(get())
                assert status == 200
            assert server.usage()[1] <= before[1]  # no thread for a connection
        await settles(server, before, 64 * MEBIBYTE)

    with server_fake("--connections", 1100) as server:
        asyncio.run(run(server))


HOSTILE = {
    "deep": (post(b"[" * 10000 + b"]" * 10000), 400),
    "deep in a field": (post(b'{"prompt":' + b"[" * 10000 + b"]" * 10000 + b"}"), 400),
    "deep and open": (post(b'{"a":' * 10000), 400),
    "not UTF-8 in the body": (post(b'{"prompt":"\xff\xfe\xc0\x80"}'), 400),
    "a surrogate": (post(b'{"prompt":"\\ud800"}'), 400),
    "not UTF-8 in the path": (get(b"/v1/\xff\xfe"), 404),
    "coded not UTF-8 in the path": (get(b"/v1/models/%ff%fe%00"), 404),
    "not UTF-8 in a header": (get(headers=b"X-Request-Id: \xff\xfe\r\n"), 200),
    "not UTF-8 as a key": (get(headers=b"Authorization: Bearer \xff\r\n"), 200),
    "a giant header": (get(headers=b"X: " + b"x" * (1 << 20) + b"\r\n"), 431),
    "many headers": (get(headers=b"".join(b"X-%d: x\r\n" % i for i in range(20000))), 431),
    "a giant path": (get(b"/" + b"x" * (1 << 20)), 431),
    "no prompt": (post({"prompt": ""}), 400),
    "no tokens": (post({"prompt": []}), 400),
    "no body": (post(b""), 400),
    "a million token ids": (post({"prompt": [1] * 1_000_000}), 400),
    "a million tokens of text": (post({"prompt": "x" * 1_000_000}), 400),
    "a body beyond the limit": (post(b"x" * (9 << 20)), 413),
    "two lengths": (get(headers=b"Content-Length: 1\r\nContent-Length: 2\r\n"), 400),
    "length and chunks": (
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "a negative length": (get(headers=b"Content-Length: -1\r\n"), 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100) + b"\r\n\r\n", 400),
    "zeroes": (bytes(1000) + b"\r\n\r\n", 400),
}  # fmt: skip


@pytest.fixture(scope="module")
def patient():
    with server_fake("--small") as server:
        yield server


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_requests_get_their_errors(patient, name):
    request, expected = HOSTILE[name]

    async def run():
        async with Client(patient.port) as client:
            status, body = await client.ask(request)
        assert status == expected, body
        if status != 200:
            assert json.loads(body)["error"]["type"]
        async with Client(patient.port) as client:
            assert (await client.ask(get()))[0] == 200

    asyncio.run(run())


def test_too_many_tokens_are_counted_not_computed(patient):
    async def run():
        async with Client(patient.port) as client:
            status, body = await client.ask(post({"prompt": [1] * 1_000_000}))
        error = json.loads(body)["error"]
        assert (status, error["type"]) == (400, "exceed_context_size_error")
        assert (error["n_prompt_tokens"], error["n_ctx"]) == (1_000_000, 2048)

    asyncio.run(run())


async def drip(client, data, pause=0.1):
    """Byte by byte, until the server closes or all is sent."""
    for byte in data:
        if client.reader.at_eof():
            return
        with contextlib.suppress(ConnectionError):
            await client.send(bytes([byte]))
        await asyncio.sleep(pause)


def test_slow_heads_and_bodies_are_cut_off_and_hold_nobody_up():
    async def slow(port, data, patience):
        begin = time.monotonic()
        async with Client(port) as client:
            dripping = asyncio.create_task(drip(client, data))
            try:
                status, _ = await asyncio.wait_for(client.answer(), BOUND_S)
            finally:
                dripping.cancel()
        assert status in (0, 408)
        assert time.monotonic() - begin >= patience * 0.9

    async def run(server):
        before = await warm_up(server)
        head = get(headers=b"X: " + b"x" * 1000 + b"\r\n")
        body = b'{"prompt": "' + b"x" * 1000 + b'"}'
        upload = post(body)
        begun = upload[: -len(body)]

        async def slow_body():
            async with Client(server.port) as client:
                await client.send(begun)
                await drip(client, body)
                assert (await asyncio.wait_for(client.answer(), BOUND_S))[0] in (0, 408)

        attack = asyncio.gather(
            *(slow(server.port, head, 2) for _ in range(100)), *(slow_body() for _ in range(100))
        )
        for _ in range(20):
            async with Client(server.port) as client:
                begin = time.monotonic()
                status, _ = await client.ask(post({"prompt": "x", "max_tokens": 3}))
                assert status == 200
                assert time.monotonic() - begin < BOUND_S
        await attack
        await settles(server, before, 64 * MEBIBYTE)

    with server_fake("--patience", 2) as server:
        asyncio.run(run(server))


def test_half_closed_sockets(patient):
    async def run():
        before = patient.usage()
        for data in (b"", b"GET /hea", get(), post({"prompt": "x"}), post({"prompt": "x"})[:-5]):
            async with Client(patient.port) as client:
                await client.send(data)
                client.writer.write_eof()
                await asyncio.wait_for(client.reader.read(), BOUND_S)  # to its end
        await settles(patient, before, 64 * MEBIBYTE)

    asyncio.run(run())


class Abuser:
    """One client that does something at random, again and again."""

    def __init__(self, port, seed):
        self.port = port
        self.random = random.Random(seed)
        self.answers = 0

    async def run(self, until):
        actions = [self.good, self.hostile, self.garbage, self.leaver, self.cut, self.mutant,
                   self.pipeline, self.slow_reader]  # fmt: skip
        while time.monotonic() < until:
            with contextlib.suppress(ConnectionError):
                async with Client(self.port) as client:
                    await self.random.choice(actions)(client)

    async def expect(self, client, data, *statuses):
        status, body = await client.ask(data)
        self.answers += 1
        assert not statuses or status in statuses, (status, body[:300])

    def request(self):
        choice = self.random
        return post({"prompt": "x" * choice.randrange(1, 300), "max_tokens": choice.randrange(60),
                     "n": choice.choice([1, 1, 4]), "stream": choice.random() < 0.5})  # fmt: skip

    async def good(self, client):
        for _ in range(self.random.randrange(1, 4)):
            await self.expect(client, self.request(), 200, 400, 429, 503)

    async def hostile(self, client):
        request, status = HOSTILE[self.random.choice(list(HOSTILE))]
        await self.expect(client, request, status, 0)

    async def garbage(self, client):
        await client.send(self.random.randbytes(self.random.randrange(2000)) + b"\r\n\r\n")
        client.writer.write_eof()
        await asyncio.wait_for(client.reader.read(), BOUND_S)

    async def leaver(self, client):
        await client.send(self.request())
        await asyncio.sleep(self.random.random() * 0.05)
        if self.random.random() < 0.5:
            client.writer.transport.abort()

    async def cut(self, client):
        request = self.request()
        await client.send(request[: self.random.randrange(len(request))])
        if self.random.random() < 0.5:
            client.writer.write_eof()
            await asyncio.wait_for(client.reader.read(), BOUND_S)

    async def mutant(self, client):
        request = bytearray(self.request())
        for _ in range(self.random.randrange(1, 10)):
            request[self.random.randrange(len(request))] = self.random.randrange(256)
        await client.send(bytes(request))
        client.writer.write_eof()
        await asyncio.wait_for(client.reader.read(), BOUND_S)

    async def pipeline(self, client):
        count = self.random.randrange(2, 20)
        await client.send(get() * count)
        for _ in range(count):
            status, _ = await asyncio.wait_for(client.answer(), BOUND_S)
            self.answers += 1
            assert status == 200

    async def slow_reader(self, client):
        body = {"prompt": "x", "max_tokens": 400, "stream": True, "logprobs": 5}
        await client.send(post(body))
        for _ in range(20):
            await client.reader.read(10)
            await asyncio.sleep(0.01)


def test_random_abuse():
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")

    async def run(server):
        before = await warm_up(server)
        until = time.monotonic() + ABUSE_S
        abusers = [Abuser(server.port, seed + number) for number in range(24)]
        await asyncio.gather(*(abuser.run(until) for abuser in abusers))
        assert server.lives()
        assert sum(abuser.answers for abuser in abusers) > 20
        async with Client(server.port) as client:
            assert (await client.ask(post({"prompt": "x", "max_tokens": 3})))[0] == 200
        await settles(server, before, 256 * MEBIBYTE)

    with server_fake("--patience", 3) as server:
        asyncio.run(run(server))


def test_killed_and_started_again_on_its_unix_socket(tmp_path):
    path = tmp_path / "socket"
    command = [BUILD / "server/tests/server_fake", "--unix", path]
    for _ in range(3):
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRONMENT
        ) as process:
            process.stdout.readline()
            assert path.is_socket()
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert path.is_socket()
    with server_fake("--unix", path):
        pass
    assert not path.exists()
