"""`lictor top` in a pseudo terminal, seen through a terminal emulator."""

import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
import threading

import pyte

import kit


class Terminal:
    """A program on a screen of its own."""

    def __init__(self, *command, columns=80, lines=24, **env):
        self.screen = pyte.Screen(columns, lines)
        self.stream = pyte.ByteStream(self.screen)
        self.master, slave = pty.openpty()
        self._size(columns, lines)
        self.raw = b""
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            env={"PATH": os.environ["PATH"], "TERM": "xterm-256color"} | env,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _read(self):
        with contextlib.suppress(OSError):
            while data := os.read(self.master, 65536):
                self.raw += data
                self.stream.feed(data)

    def _size(self, columns, lines):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def resize(self, columns, lines):
        """Another window; the kernel tells the program."""
        self.screen.resize(lines, columns)
        self._size(columns, lines)

    def press(self, keys):
        """What a person types."""
        os.write(self.master, keys.encode())

    def text(self):
        """What a person sees."""
        return "\n".join(self.screen.display)

    def until(self, what, *words):
        """Waits until all these words are on the screen."""
        return kit.eventually(what, lambda: all(word in self.text() for word in words) or None)


def test_top_shows_and_obeys():
    """Numbers, a failure's story, the filter, a pause, another size, and an end that leaves the terminal as it was."""
    with kit.Web() as web, kit.closed_port() as nobody:
        upstreams = {"users": {"listen": 0, "static": [web.address]}, "lost": {"listen": 0, "static": [nobody]}}
        with kit.Lictor(service="orders", upstreams=upstreams) as lictor:
            kit.curl("-o", "/dev/null", "-X", "POST", f"http://{lictor.address('lost')}/nowhere")
            with Terminal(kit.LICTOR, "top", "--admin", lictor.address("admin")) as top:
                top.until("all is there", "orders", "users", "lost", "connect_refused", "q quit", "live")
                assert "\x1b[32m".encode() in top.raw or b"38;5;2" in top.raw, "there are colours"
                top.press("\t\r")
                top.until("the story is told", "lictor says connect_refused", "What now")
                top.press("\x1b")
                top.until("all is back", "UPSTREAM")
                top.press("/users\r")
                kit.eventually("only users is left", lambda: "▸● users" in top.text() and "connect_refused" not in top.text())
                top.press("\x1b")
                top.until("lost is back", "lost")
                top.press("p")
                top.until("it stands still", "paused")
                top.press("p?")
                top.until("the keys are told", "balancer's average")
                top.press("q")
                top.resize(140, 40)
                top.until("there is room for plots beside the numbers", "STATE", "by name")
                assert top.process.poll() is None
                top.press("q")
                assert top.process.wait(10) == 0
                kit.eventually("the other screen is left", lambda: b"\x1b[?1049l" in top.raw)


def test_top_says_when_the_sidecar_is_gone():
    """It stays, says so, and ends by Ctrl-C."""
    with kit.Web() as web:
        with kit.Lictor(service="orders", upstreams={"users": {"listen": 0, "static": [web.address]}}) as lictor:
            top = Terminal(kit.LICTOR, "top", "--admin", lictor.address("admin"), NO_COLOR="1")
            top.until("all is there", "users", "live")
        with top:
            top.until("it is told", "■ lost")
            top.press("\x03")
            assert top.process.wait(10) == 0
            assert b"\x1b[32m" not in top.raw and b"38;5;" not in top.raw, "NO_COLOR"


def test_top_once_is_plain_text():
    """For scripts: one moment, no escapes."""
    with kit.Web() as web:
        with kit.Lictor(service="orders", upstreams={"users": {"listen": 0, "static": [web.address]}}) as lictor:
            text = kit.run(kit.LICTOR, "top", "--once", "--admin", lictor.address("admin"))
            assert "● users" in text and web.address in text and "\x1b" not in text, text
            narrow = kit.run(kit.LICTOR, "top", "--once", "--width", "80", "--admin", lictor.address("admin"))
            assert max(map(len, narrow.splitlines())) <= 80, narrow
