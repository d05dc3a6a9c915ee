"""`flexllm chat` and `flexllm run --url` as their users see them, against a server on a fake card."""
import json
import os
import pathlib
import pty
import re
import select
import signal
import subprocess
import termios
import time

import pytest

BUILD = pathlib.Path(os.environ.get("FLEXLLM_BUILD", "build/release")).resolve()
FLEXLLM = BUILD / "flexllm"


@pytest.fixture(scope="module")
def url():
    environment = {name: value for name, value in os.environ.items() if name != "FLEXLLM_API_KEY"}
    with subprocess.Popen([BUILD / "server/tests/server_fake"], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True, env=environment) as server:
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        server.stdin.close()


@pytest.fixture
def environment(tmp_path):
    return {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TERM": "xterm",
            "XDG_STATE_HOME": str(tmp_path / "state")}


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, command, environment):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a job in the background ignores it
            os.execve(command[0], [str(part) for part in command], environment)
        self.seen = ""

    def type(self, text):
        os.write(self.fd, text.encode())

    def wait_for(self, pattern, seconds=30):
        """The text up to and with the pattern; it is taken away from what was seen."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.seen)):
            ready, _, _ = select.select([self.fd], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"no {pattern!r} in {self.seen!r}"
            try:
                self.seen += os.read(self.fd, 65536).decode(errors="replace")
            except OSError:  # the program has ended
                raise AssertionError(f"ended without {pattern!r}: {self.seen!r}") from None
        before, self.seen = self.seen[:found.end()], self.seen[found.end():]
        return before

    def wait_for_prompt(self, pattern=r"> "):
        """The text up to the prompt. libedit shows it just before it takes the terminal over; until
        then control keys are the terminal's own."""
        before = self.wait_for(pattern)
        deadline = time.monotonic() + 30
        while termios.tcgetattr(self.fd)[3] & termios.ICANON:
            assert time.monotonic() < deadline, "the terminal is not taken over"
            time.sleep(0.001)
        return before

    def end(self):
        """Reads to the end and returns the exit code."""
        try:
            while True:
                assert select.select([self.fd], [], [], 30)[0], "the program does not end"
                if not os.read(self.fd, 65536):
                    break
        except OSError:
            pass
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def terminal(url, environment):
    return Terminal([FLEXLLM, "chat", "--url", url, "--max-tokens", "400"], environment)


def run(*words, environment, stdin=""):
    return subprocess.run([FLEXLLM, *words], input=stdin, capture_output=True, text=True,
                          env=environment, timeout=60)


def test_conversation_on_a_terminal(terminal, environment):
    terminal.wait_for("Talking with fake")
    terminal.wait_for_prompt()
    terminal.type("hello\r")
    terminal.wait_for(r"hello.*\n")
    terminal.wait_for_prompt(r"\n> ")
    terminal.type("/help\r")
    terminal.wait_for("/system TEXT")
    terminal.wait_for_prompt()
    terminal.type("/nonsense\r")
    terminal.wait_for("no command /nonsense")
    terminal.type("/exit\r")
    assert terminal.end() == 0
    history = pathlib.Path(environment["XDG_STATE_HOME"], "flexllm/chat_history")
    assert "hello" in history.read_text()
    assert history.stat().st_mode & 0o077 == 0


def test_ctrl_c_at_the_prompt_drops_the_line_and_ctrl_d_leaves(terminal):
    terminal.wait_for_prompt()
    terminal.type("a line that is not sent")
    terminal.wait_for("not sent")
    terminal.type("\x03")
    terminal.wait_for_prompt()
    terminal.type("/help\r")
    terminal.wait_for("/system TEXT")
    terminal.wait_for_prompt()
    terminal.type("\x04")
    assert terminal.end() == 0


def test_ctrl_c_stops_the_answer_and_not_the_program(url, environment):
    terminal = Terminal([FLEXLLM, "chat", "--url", url, "--temperature", "2", "--seed", "3"],
                        environment)
    terminal.wait_for_prompt()
    for attempt in range(20):  # an answer may end by itself before Ctrl-C reaches it
        terminal.type(f"question {attempt}\r")
        terminal.wait_for(rf"question {attempt}.*\n.")
        terminal.type("\x03")
        if "[stopped]" in terminal.wait_for_prompt(r"\n> "):
            break
    else:
        raise AssertionError("Ctrl-C stopped no answer")
    terminal.type("and now?\r")
    terminal.wait_for(r"and now\?.*\n")
    terminal.type("\x03")
    terminal.wait_for_prompt(r"\n> ")
    terminal.type("\x04")
    assert terminal.end() == 0


def test_arrow_up_brings_the_last_line_back(url, environment):
    for _ in range(2):
        terminal = Terminal([FLEXLLM, "chat", "--url", url], environment)
        terminal.wait_for_prompt()
        terminal.type("/help first\r")
        terminal.wait_for("/system TEXT")
        terminal.wait_for_prompt()  # before it Ctrl-D is not a key of the line editor
        terminal.type("\x04")
        assert terminal.end() == 0
    terminal = Terminal([FLEXLLM, "chat", "--url", url], environment)
    terminal.wait_for_prompt()
    terminal.type("\x1b[A")
    terminal.wait_for("/help first")
    terminal.type("\x03")
    terminal.wait_for_prompt()
    terminal.type("\x04")
    assert terminal.end() == 0


def test_lines_from_a_pipe(url, environment):
    words = ("chat", "--url", url, "--temperature", "0", "--max-tokens", "12")
    one = run(*words, environment=environment, stdin="hello\n")
    assert one.returncode == 0 and one.stdout.strip() and not one.stderr
    both = run(*words, environment=environment, stdin="hello\n\nhello\n")
    first, second = both.stdout.splitlines()[0], both.stdout[len(one.stdout):]
    assert one.stdout.startswith(first)
    assert second != one.stdout, "the second answer does not depend on the first turn"
    cleared = run(*words, environment=environment, stdin="hello\n/clear\nhello\n")
    assert cleared.stdout == one.stdout * 2
    system = run(*words, "--system", "be brief", environment=environment, stdin="hello\n")
    assert system.stdout != one.stdout
    late = run(*words, environment=environment, stdin="/system be brief\nhello\n")
    assert late.stdout == system.stdout


def test_run_with_a_server(url, environment):
    words = ("run", "--url", url, "--temperature", "0", "--max-tokens", "12")
    plain = run(*words, "hello", environment=environment)
    assert plain.returncode == 0
    figures = json.loads(run(*words, "--json", "-", environment=environment, stdin="hello").stdout)
    assert figures["text"] == plain.stdout[:-1]
    assert figures["completion_tokens"] <= 12
    assert figures["prompt_tokens"] > 5
    assert 0 < figures["time_to_first_token_s"] <= figures["total_s"]
    piped = run("chat", "--url", url, "--temperature", "0", "--max-tokens", "12",
                environment=environment, stdin="hello\n")
    assert piped.stdout == plain.stdout


def test_text_that_is_not_utf8_is_sent_all_the_same(url, environment):
    words = [FLEXLLM, "chat", "--url", url, "--temperature", "0", "--max-tokens", "12"]
    answer = subprocess.run(words, input=b"caf\xe9\n", capture_output=True, env=environment,
                            timeout=60, check=False)
    assert (answer.returncode, answer.stderr) == (0, b"") and answer.stdout.strip()


def test_a_server_is_not_asked_for_the_model_of_the_environment(url, environment):
    words = ("run", "--url", url, "--temperature", "0", "--max-tokens", "4", "hello")
    answer = run(*words, environment=environment | {"FLEXLLM_MODEL": "/models/other.gguf"})
    assert (answer.returncode, answer.stderr) == (0, "") and answer.stdout.strip()


@pytest.fixture
def serve(environment, tmp_path):
    """A server as far as it comes without a model, which is exit code 3."""
    def start(*words, **variables):
        return run("serve", "--device", "emulated", "--port", "0", "--model", tmp_path / "none",
                   *words, environment=environment | variables)
    return start


def test_a_setting_of_keys_without_a_key_does_not_open_the_server(serve, tmp_path):
    empty = tmp_path / "keys"
    empty.write_text("# none yet\n")
    config = tmp_path / "config.json"
    for value in ('""', "[]", '[""]', "null", '","'):
        config.write_text('{"api_key": %s}' % value)
        assert serve("--config", config).returncode == 2, value
    for refused in (serve(FLEXLLM_API_KEY=""), serve(FLEXLLM_API_KEY=","), serve("--api-key", ","),
                    serve("--api-key", ""), serve("--api-key-file", empty),
                    serve("--api-key-file", empty, FLEXLLM_API_KEY="key"),
                    serve("--api-key-file", ""), serve(FLEXLLM_API_KEY_FILE="")):
        assert refused.returncode == 2, refused.stderr
        assert "key" in refused.stderr
    assert serve("--api-key", "key").returncode == 3
    assert serve(FLEXLLM_API_KEY="key").returncode == 3


def test_an_open_server_says_that_it_is_open(serve):
    warning = "without an API key"
    for host in ("0.0.0.0", "::"):
        assert warning in serve("--host", host).stderr
        assert warning not in serve("--host", host, "--api-key", "key").stderr
    for host in ("127.0.0.1", "::1"):
        assert warning not in serve("--host", host).stderr


def test_times_of_nothing_are_refused(serve):
    for option in ("keep-alive", "launch-timeout", "reset-timeout", "recovery-pause",
                   "idle-timeout", "body-timeout", "write-timeout"):
        refused = serve(f"--{option}", "0")
        assert refused.returncode == 2, option
        assert f"--{option} must be a number of seconds, at least 0.1" in refused.stderr
    for option in ("request-timeout", "drain-timeout"):
        assert serve(f"--{option}", "0").returncode == 3


def test_a_card_that_cannot_be_used_is_not_passed_over(environment, tmp_path):
    # The emulated card under another name passes for a card of this machine.
    library = tmp_path / "driver.so"
    library.symlink_to(BUILD / "lib/libflexllm_card.so")
    faults = tmp_path / "faults.json"
    faults.write_text('{"faults": [{"fault": "access_denied", "times": 0}]}')
    words = ("run", "--model", tmp_path / "none", "hello")
    denied = run(*words, environment=environment | {
        "LD_PRELOAD": str(library), "FLEXLLM_FAULTS": str(faults)})
    assert denied.returncode == 4, denied.stderr
    assert "may not be opened by this user" in denied.stderr
    assert "--device emulated" in denied.stderr


def test_exit_codes(url, environment, tmp_path):
    nobody = run("chat", "--url", "http://127.0.0.1:1", environment=environment)
    assert nobody.returncode == 5
    assert "no server answers at http://127.0.0.1:1" in nobody.stderr
    assert "flexllm serve" in nobody.stderr
    assert run("run", "--url", "http://127.0.0.1:1", "x", environment=environment).returncode == 5
    assert run("chat", "--url", "ftp://x", environment=environment).returncode == 2
    assert run("run", environment=environment).returncode == 2
    assert run("serve", environment=environment).returncode == 2
    assert run("serve", "--port", "x", environment=environment).returncode == 2
    assert run("nonsense", environment=environment).returncode == 2
    assert run("--version", environment=environment).returncode == 0
    refused = run("run", "--url", url, "--model", "other", "x", environment=environment)
    assert refused.returncode == 6
    assert "no such model" in refused.stderr
    missing = run("serve", "--device", "emulated", "--port", "0", "--model", tmp_path / "none.gguf",
                  environment=environment)
    assert missing.returncode == 3
    assert "none.gguf: there is no such file" in missing.stderr


def test_reference_page_is_complete(environment):
    page = run("serve", "--help-markdown", environment=environment)
    help_text = run("serve", "--help", environment=environment).stdout
    assert page.returncode == 0
    options = re.findall(r"`(--[a-z-]+)", page.stdout)
    assert len(options) > 25
    for option in options:
        assert option in help_text
    documented = pathlib.Path(__file__).parents[2] / "docs/serving.md"
    assert page.stdout in documented.read_text(), "docs/serving.md is not what the program says"
