#!/usr/bin/env python3
"""leveretctl as somebody at a terminal meets it: `top`, progress bars, completions, a password, Ctrl-C, pipes.

    interop/terminal.py --binary target/release/leveret [--screens DIR]

leveretctl is looked for beside the broker. Keys are typed into tmux and its screens are read; --screens keeps those that a
person should look at. Without tmux nothing is run, and the script says so; zsh's completions need zsh.
"""

import argparse
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from suite.brokers import Leveret
from suite.clients import prepared_python

try:
    import pika
except ImportError:
    os.execv(str(prepared_python()), [str(prepared_python()), *sys.argv])

WITHIN_SECONDS = 60
LOOK_SECONDS = 0.05
DEEP = 30_000
# Of the file that makes a restore last; it is no part of a store and is left alone by one.
FILLER_BYTES = 400 << 20
ESCAPE = "\x1b"


def check(holds, what):
    """One assertion, told when it fails."""
    if not holds:
        raise AssertionError(what)


class Terminal:
    """A shell in tmux, on a server of its own."""

    def __init__(self, directory, shell="bash --norc --noprofile", width=100, height=30):
        self.socket = os.path.join(directory, f"tmux-{os.urandom(4).hex()}")
        environment = dict(os.environ, PS1="$ ", LANG="C.UTF-8", TERM="xterm-256color")
        subprocess.run(
            ["tmux", "-S", self.socket, "-f", "/dev/null", "new-session", "-d", "-x", str(width), "-y", str(height), shell],
            env=environment, check=True,
        )  # fmt: skip

    def tmux(self, *words):
        """What a command of tmux prints."""
        return subprocess.run(["tmux", "-S", self.socket, *words], capture_output=True, text=True, check=True).stdout

    def type(self, text):
        """Types it."""
        self.tmux("send-keys", "-l", text)

    def key(self, *names):
        """Presses Enter, Tab, C-c and the like."""
        self.tmux("send-keys", *names)

    def run(self, line):
        """Types a line and Enter."""
        self.type(line)
        self.key("Enter")

    def screen(self, colours=False):
        """What is to be seen."""
        return self.tmux("capture-pane", "-p", *(["-e"] if colours else []))

    def wait(self, *wanted):
        """The first screen that has all of these."""
        deadline = time.monotonic() + WITHIN_SECONDS
        while True:
            screen = self.screen()
            if all(re.search(text, screen) for text in wanted):
                return screen
            check(time.monotonic() < deadline, f"{wanted} is not to be seen on\n{screen}")
            time.sleep(LOOK_SECONDS)

    def close(self):
        """Ends the shell and what runs in it."""
        subprocess.run(["tmux", "-S", self.socket, "kill-server"], check=False)


class Bench:
    """A broker with something in it, and where screens are kept."""

    def __init__(self, binary, screens):
        self.binary, self.screens = binary, screens
        self.directory = tempfile.mkdtemp(prefix="interop-terminal-")
        self.brokers = [Leveret(binary), Leveret(binary)]
        for broker in self.brokers:
            broker.start()
        self.broker = self.brokers[0]
        self.program = os.path.dirname(self.broker.binary)
        self.ctl = shlex.join(self.broker.control)

    def terminal(self, *more, **sizes):
        """One whose PATH has the programs."""
        terminal = Terminal(self.directory, *more, **sizes)
        terminal.run(f"PATH={shlex.quote(self.program)}:$PATH; export LEVERET_DATA_DIR={shlex.quote(self.broker.data)}; clear")
        return terminal

    def keep(self, name, screen):
        """For a person to look at."""
        if self.screens:
            pathlib.Path(self.screens).mkdir(parents=True, exist_ok=True)
            pathlib.Path(self.screens, f"{name}.txt").write_text(screen, encoding="utf-8")

    def fill(self, queue, count, broker=None):
        """Persistent messages in a durable queue."""
        connection = pika.BlockingConnection(pika.URLParameters((broker or self.broker).uri))
        channel = connection.channel()
        channel.queue_declare(queue, durable=True)
        for number in range(count):
            channel.basic_publish("", queue, str(number).encode(), pika.BasicProperties(delivery_mode=2))
        channel.queue_declare(queue, passive=True)
        connection.close()

    def count(self, *queues, broker=None):
        """Messages ready in these queues together."""
        listed = subprocess.run(
            [*(broker or self.broker).control, "-s", "list_queues", "name", "messages"], capture_output=True, text=True, check=True
        ).stdout  # fmt: skip
        rows = dict(line.rsplit("\t", 1) for line in listed.splitlines())
        return sum(int(rows.get(queue, 0)) for queue in queues)

    def remove(self):
        """Ends the brokers."""
        for broker in self.brokers:
            broker.remove()
        shutil.rmtree(self.directory, ignore_errors=True)


def top(bench):
    """`top` fills the screen, listens to keys, follows its size and leaves the terminal as it was."""
    bench.fill("first", 7)
    bench.fill("second <b>", 3)
    terminal = bench.terminal()
    try:
        terminal.run("leveretctl top --interval 0.2")
        screen = terminal.wait("QUEUE by messages", r"first \(/\) +7")
        bench.keep("top", screen)
        check(screen.index("first (/)") < screen.index("second <b> (/)"), f"the order:\n{screen}")
        terminal.key("n")
        bench.keep("top-by-name", terminal.wait("QUEUE by name"))
        terminal.tmux("resize-window", "-x", "60", "-y", "12")
        screen = terminal.wait("QUEUE by name", r"first \(/\)")
        check(all(len(line) <= 60 for line in screen.splitlines()), f"wider than the screen:\n{screen}")
        bench.keep("top-small", screen)
        for end in ("q", "C-c"):
            terminal.key(end)
            terminal.run("echo still $((40 + 2))")
            screen = terminal.wait("echo still", "still 42")
            check("QUEUE by" not in screen, f"the screen was not put back:\n{screen}")
            if end == "q":
                terminal.run("clear; leveretctl top --interval 0.2")
                terminal.wait("QUEUE by messages")
    finally:
        terminal.close()


def redrive(bench):
    """`redrive` draws a bar; Ctrl-C ends it between two messages."""
    bench.fill("dead", DEEP)
    bench.fill("alive", 0)
    terminal = bench.terminal()
    try:
        terminal.run("leveretctl redrive dead alive --rate 3000; echo code $?")
        bench.keep("redrive", terminal.wait(rf"\[#+\.+\] \d+ of {DEEP}"))
        terminal.key("C-c")
        screen = terminal.wait(r"code \d+")
        bench.keep("redrive-interrupted", screen)
        check("code 75" in screen and "interrupted; the same command goes on" in screen, screen)
        moved = bench.count("alive")
        check(0 < moved < DEEP and bench.count("dead", "alive") == DEEP, f"{moved} moved, {bench.count('dead', 'alive')} in all")
        terminal.run("clear; leveretctl redrive dead alive; echo code $?")
        screen = terminal.wait("code 0")
        check(re.search(rf"\[#+\] {DEEP - moved} of {DEEP - moved}", screen), screen)
        check(bench.count("alive") == DEEP, "the rest")
    finally:
        terminal.close()


def move(bench):
    """Ctrl-C in `move` ends it between two batches."""
    bench.fill("from", DEEP)
    bench.fill("to", 0)
    terminal = bench.terminal()
    try:
        terminal.run("leveretctl move from to; echo code $?")
        while bench.count("to") == 0:
            time.sleep(LOOK_SECONDS)
        terminal.key("C-c")
        screen = terminal.wait(r"code \d+")
        bench.keep("move-interrupted", screen)
        check(bench.count("from", "to") == DEEP, "messages are lost or doubled")
        done = bench.count("to")
        check(f"{done} messages moved" in screen, screen)
        # A fast machine may be through before the key comes.
        check("code 75" in screen or done == DEEP, screen)
    finally:
        terminal.close()


def migrate(bench):
    """`migrate` draws a bar; Ctrl-C ends it between two batches, and it goes on."""
    old = bench.brokers[1]
    bench.fill("deep", DEEP, old)
    source = f"--from {old.uri} --from-http {old.http.replace('//', '//guest:guest@')}"
    terminal = bench.terminal()
    try:
        terminal.run(f"leveretctl migrate {source}; echo code $?")
        bench.keep("migrate", terminal.wait(rf"\[[#.]+\] \d+ of {DEEP}  queue 'deep' in vhost '/'"))
        terminal.key("C-c")
        bench.keep("migrate-interrupted", terminal.wait(r"code \d+"))
        there, here = bench.count("deep", broker=old), bench.count("deep")
        check(there + here == DEEP, f"{there} there and {here} here")
        terminal.run(f"clear; leveretctl migrate {source}; echo code $?")
        terminal.wait("code 0", "finished")
        check(bench.count("deep") == DEEP, "the rest")
    finally:
        terminal.close()


def restore(bench):
    """A restore that is cut off leaves the old store or none, and goes through afterwards."""
    copy, data = os.path.join(bench.directory, "copy"), os.path.join(bench.directory, "restored")
    subprocess.run([*bench.broker.control, "-q", "backup", copy], check=True, capture_output=True)
    filler = os.path.join(copy, "db", "filler")
    with open(filler, "wb") as file:
        for _ in range(FILLER_BYTES >> 20):
            file.write(os.urandom(1 << 20))
    terminal = bench.terminal()
    words = f"leveretctl restore --data-dir {shlex.quote(data)} {shlex.quote(copy)}"
    try:
        terminal.run(f"{words}; echo code $?")
        while not os.path.exists(os.path.join(data, "db.part", "filler")):
            time.sleep(0.005)
        terminal.key("C-c")
        screen = terminal.wait("code 75", "nothing was changed")
        bench.keep("restore-interrupted", screen)
        check(not os.path.exists(os.path.join(data, "db")), f"it was over before the key came:\n{screen}")
        os.remove(filler)
        terminal.run(f"clear; {words}; echo code $?")
        bench.keep("restore", terminal.wait("code 0", "queues with"))
        terminal.run(f"clear; {words}; echo code $?")
        terminal.wait("code 74", "--replace")
        terminal.run(f"clear; {words} --replace; leveret --data-dir {shlex.quote(data)} check; echo code $?")
        bench.keep("restore-replace", terminal.wait("code 0", "0 findings"))
        terminal.run(f"clear; leveretctl restore {shlex.quote(copy)}; echo code $?")
        bench.keep("restore-running", terminal.wait("code 69", "leveretctl shutdown"))
    finally:
        terminal.close()


def password(bench):
    """A password that is asked for is not shown, and Ctrl-C gives up."""
    terminal = bench.terminal()
    try:
        terminal.run("leveretctl add_user typed; echo code $?")
        terminal.wait("assword")
        terminal.type("s3cret")
        terminal.key("Enter")
        screen = terminal.wait("code 0")
        bench.keep("password", screen)
        check("s3cret" not in screen, screen)
        terminal.run("clear; leveretctl authenticate_user typed s3cret; echo code $?")
        terminal.wait("Success", "code 0")
        terminal.run("clear; leveretctl add_user other; echo code $?")
        terminal.wait("assword")
        terminal.key("C-c")
        terminal.wait("code 130")
        terminal.run("echo to be $((40 + 2)) seen")
        terminal.wait("echo to be", "to be 42 seen")
    finally:
        terminal.close()


def tables(bench):
    """On a terminal columns are aligned, and nothing is coloured in a pipe."""
    terminal = bench.terminal()
    try:
        terminal.run("leveretctl list_queues name messages; echo code $?")
        screen = terminal.wait("code 0")
        bench.keep("list_queues", screen)
        check(re.search(r"name +messages\n", screen), screen)
        terminal.run("clear; leveretctl explain 'second <b>'; echo code $?")
        bench.keep("explain", terminal.wait("code 0"))
        terminal.run("clear; leveretctl doctor; echo code $?")
        bench.keep("doctor", terminal.wait(r"code \d+"))
        terminal.run("clear; leveretctl list_quues; echo code $?")
        bench.keep("mistake", terminal.wait("code 64", "Did you mean 'list_queues'"))
        terminal.run("clear; TERM=dumb NO_COLOR=1 leveretctl status | cat -v | head -50; echo code $?")
        terminal.wait("code 0")
    finally:
        terminal.close()


def pipes(bench):
    """A reader that goes early, a full disk and no terminal at all."""
    for words in ("status", "environment", "report", "list_queues", "help", "completions bash", "top", "doctor"):
        piped = f"set -o pipefail; {bench.ctl} {words} | head -1"
        done = subprocess.run(["bash", "-c", piped], capture_output=True, text=True, check=False)
        check(done.returncode == 0, f"{words} | head -1: {done}")
        check("panic" not in done.stderr and "roken pipe" not in done.stderr, f"{words}: {done.stderr}")
        alone = subprocess.run(
            ["setsid", *bench.broker.control, *words.split()],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        check(alone.returncode == 0, f"{words}: {alone}")
        check(ESCAPE not in alone.stdout + alone.stderr, f"{words} colours a pipe")
        full = subprocess.run(f"{bench.ctl} {words} > /dev/full", shell=True, capture_output=True, text=True, check=False)
        check(full.returncode == 74 and "No space left" in full.stderr, f"{words} > /dev/full: {full}")
    # The broker's own log, too.
    check(not any(ESCAPE in line for line in bench.broker.log), "the log is coloured in a pipe")
    streaming = subprocess.Popen([*bench.broker.control, "tail", "first"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    streaming.stderr.readline()
    streaming.stdout.close()
    bench.fill("first", 1)
    try:
        check(streaming.wait(WITHIN_SECONDS) == 0, "tail into a closed pipe")
    except subprocess.TimeoutExpired:
        streaming.send_signal(signal.SIGINT)
        raise AssertionError("tail goes on though nobody reads it") from None


def completions_bash(bench):
    """bash completes commands and options."""
    terminal = bench.terminal()
    try:
        terminal.run("source <(leveretctl completions bash); clear")
        terminal.type("leveretctl list_ex")
        terminal.key("Tab")
        terminal.wait("leveretctl list_exchanges")
        terminal.key("C-u")
        terminal.type("leveretctl list_queues --onl")
        terminal.key("Tab")
        terminal.wait("leveretctl list_queues --online")
        terminal.key("C-u")
        terminal.type("leveretctl set_p")
        terminal.key("Tab", "Tab")
        bench.keep("completions-bash", terminal.wait("set_parameter", "set_permissions_globally", "set_policy"))
    finally:
        terminal.close()


def completions_zsh(bench):
    """zsh completes commands, with what they are for."""
    folder = os.path.join(bench.directory, "zsh")
    os.makedirs(folder, exist_ok=True)
    script = subprocess.run([*bench.broker.control, "completions", "zsh"], capture_output=True, check=True).stdout
    pathlib.Path(folder, "_leveretctl").write_bytes(script)
    terminal = bench.terminal("zsh -f")
    try:
        terminal.run(f"fpath=({shlex.quote(folder)} $fpath); autoload -U compinit; compinit -u -D; PS1='$ '; clear")
        terminal.type("leveretctl list_ex")
        terminal.key("Tab")
        terminal.wait("leveretctl list_exchanges")
        terminal.key("C-u")
        terminal.type("leveretctl set_p")
        terminal.key("Tab", "Tab")
        bench.keep("completions-zsh", terminal.wait("set_policy +-- Sets or updates a policy"))
    finally:
        terminal.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", default="target/release/leveret")
    parser.add_argument("--screens", help="a folder for screens that a person should look at")
    parser.add_argument("--only", help="one part")
    options = parser.parse_args()
    if shutil.which("tmux") is None:
        print("SKIPPED terminal: tmux not found (apt-get install tmux)")
        return 0
    parts = [top, redrive, move, migrate, restore, password, tables, pipes, completions_bash, completions_zsh]
    failed = 0
    bench = Bench(options.binary, options.screens)
    try:
        for part in parts:
            if options.only not in (None, part.__name__):
                continue
            if part is completions_zsh and shutil.which("zsh") is None:
                print("SKIPPED completions_zsh: zsh not found (apt-get install zsh)")
                continue
            try:
                part(bench)
                print(f"PASS {part.__name__}: {part.__doc__}", flush=True)
            except AssertionError as problem:
                failed += 1
                print(f"FAIL {part.__name__}: {problem}", flush=True)
    finally:
        bench.remove()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
