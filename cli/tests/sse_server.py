"""A small OpenAI-style server that behaves as the `model` of a request says, well or badly.

Each behaviour is a method of `Answer`. Pieces of text are "w1 ", "w2 ", ..., as many as `max_tokens` says.
"""
import contextlib
import http.server
import itertools
import json
import socket
import threading
import time

PAUSE = 0.02  # seconds between tokens


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def setup(self):
        super().setup()
        with self.server.lock:
            self.server.connections += 1

    def do_GET(self):
        body = json.dumps({"data": [{"id": "good"}]}).encode()
        self.plain(200, "application/json", body)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.lock:
            server.requests.append({"path": self.path, "headers": dict(self.headers), "body": body})
            number = len(server.requests)
            server.running += 1
            server.most_running = max(server.most_running, server.running)
        self.tokens, self.number = body["max_tokens"], number
        try:
            getattr(self, body["model"])()
        except OSError:
            self.close_connection = True
        finally:
            with server.lock:
                server.running -= 1

    # Parts of answers

    def plain(self, status, kind, body):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def begin(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.chunk({"role": "assistant", "content": ""})

    def raw(self, text):
        data = text.encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def event(self, value):
        self.raw(f"data: {json.dumps(value)}\n\n")

    def chunk(self, delta):
        self.event({"id": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})

    def text(self, count, pause=PAUSE):
        for number in range(count):
            time.sleep(pause)
            self.chunk({"content": f"w{number} "})

    def usage(self):
        self.event({"id": "x", "choices": [],
                    "usage": {"prompt_tokens": 11, "completion_tokens": self.tokens}})

    def end(self):
        self.raw("data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    # Behaviours

    def good(self):
        self.begin()
        self.text(self.tokens)
        self.usage()
        self.end()

    def no_usage(self):
        self.begin()
        self.text(self.tokens)
        self.end()

    def in_fours(self):
        """Four tokens a chunk."""
        self.begin()
        self.text(self.tokens // 4)
        self.usage()
        self.end()

    def endless(self):
        self.begin()
        self.text(10**6)

    def good_then_endless(self):
        self.good() if self.number <= 4 else self.endless()

    def bytewise(self):
        self.begin()
        text = "".join(f'data: {{"choices": [{{"delta": {{"content": "w{i}"}}}}]}}\r\n\r\n'
                       for i in range(self.tokens))
        for byte in text:
            self.raw(byte)
        self.usage()
        self.end()

    def hangs_up(self):
        """Says that it keeps the connection and closes it."""
        self.good()
        self.close_connection = True

    def no_end(self):
        """[DONE], and then neither the end of the body nor of the connection."""
        self.begin()
        self.text(self.tokens)
        self.raw("data: [DONE]\n\n")
        time.sleep(1000)

    def half_closed(self):
        """Ends its sending side within the stream, and goes on reading."""
        self.begin()
        self.text(2)
        self.connection.shutdown(socket.SHUT_WR)
        self.rfile.read()

    def no_answer(self):
        self.close_connection = True

    def silent(self):
        time.sleep(1000)

    def slow(self):
        self.begin()
        self.text(self.tokens, 0.2)
        self.end()

    def malformed(self):
        self.begin()
        self.text(1)
        self.raw('data: {"choices": [{"delta": {"content\n\n')
        self.end()

    def not_http(self):
        self.wfile.write(b"what?\r\n\r\n")
        self.close_connection = True

    def not_chunked(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"zzz\r\n")

    def not_a_stream(self):
        self.plain(200, "application/json", b'{"choices": []}')

    def stream_error(self):
        self.begin()
        self.text(1)
        self.event({"error": {"type": "unavailable_error", "message": "the card is lost"}})
        self.close_connection = True

    def empty(self):
        self.begin()
        self.end()

    def full(self):
        body = json.dumps({"error": {"type": "rate_limit_error", "message": "queue full"}})
        self.plain(429, "application/json", body.encode())

    def every_third(self):
        """Good, refused and half-closed, in turn."""
        next(itertools.islice((self.good, self.full, self.half_closed), self.number % 3, None))()

    def proxy(self):
        self.plain(502, "text/html", b"<html>\x1b[31mBad gateway</html>")


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.lock = threading.Lock()
        self.requests = []
        self.connections = self.running = self.most_running = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_):  # clients leave in the middle
        pass


@contextlib.contextmanager
def serving():
    server = Server()
    server.block_on_close = False  # some answers never end
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
