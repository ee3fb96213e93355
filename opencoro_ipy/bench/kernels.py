"""A kernel process and a thin client: requests go out and replies come in on bare zmq sockets.

jupyter_client's own clients poll and hand over between threads; here a round trip ends when the frames arrive,
and only the headers of the frames are read. The client takes replies in the thread that sent the request.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import zmq
from jupyter_client.connect import write_connection_file
from jupyter_client.session import Session

from .child import ENVIRONMENT, die_with_parent

START_S, REPLY_S = 180.0, 60.0  # a kernel that takes longer to start, or to answer when it can, hangs
_numbers = itertools.count()
COMM = """
def _echo(comm, _):
    @comm.on_msg
    def _(msg): comm.send(msg["content"]["data"])
get_ipython().kernel.comm_manager.register_target("echo", _echo)
"""


class Blocked(Exception):
    """No reply in time."""


class Kernel:
    """``python *argv -f FILE`` and a connection to it. ready() comes first; a context manager that kills it."""

    def __init__(self, argv: list[str], option: str = "-f") -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="opencoro-bench-")
        # No TCP ports: they are chosen before they are bound, and with many kernels at once two choose the same.
        path, self._info = write_connection_file(os.path.join(self._folder.name, "kernel.json"), transport="ipc",
                                                 ip=os.path.join(self._folder.name, "ipc"))
        self._log = open(os.path.join(self._folder.name, "log"), "w+")
        environment = {**ENVIRONMENT, "JPY_PARENT_PID": str(os.getpid()),  # it ends with us
                       "IPYTHONDIR": self._folder.name}  # no configuration or history of the user
        connection = [f"{option}={path}"] if option.startswith("--") else [option, path]
        self._process = subprocess.Popen([sys.executable, *argv, *connection], env=environment, cwd=self._folder.name,
                                         stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
                                         preexec_fn=die_with_parent)
        self.pid = self._process.pid
        self.session = Session(key=self._info["key"].encode(), signature_scheme=self._info["signature_scheme"])
        self._context = zmq.Context()
        self._shell, self._control = self._socket(zmq.DEALER, "shell"), self._socket(zmq.DEALER, "control")
        self._iopub = self._socket(zmq.SUB, "iopub")
        self._iopub.subscribe(b"")
        self._comm = "opencoro-bench"
        self.subshell: str | None = None  # where requests go
        self.stopped = False

    def _socket(self, kind: int, channel: str) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.linger = 0
        socket.connect(f"ipc://{self._info['ip']}-{self._info[channel + '_port']}")
        return socket

    # -- requests ------------------------------------------------------------------------------------
    def send(self, kind: str, content: dict[str, Any], subshell: str | None = None) -> str:
        """The new message's id."""
        message = self.session.msg(kind, content)
        if subshell is not None:
            message["header"]["subshell_id"] = subshell
        self.session.send(self._control if kind.startswith("create_subshell") else self._shell, message)
        return message["header"]["msg_id"]

    def receive(self, channel: str, msg_id: str | None, kind: str, timeout_s: float = REPLY_S,
                wanted: Callable[[dict[str, Any]], bool] = lambda _: True) -> dict[str, Any]:
        """Content of the message to this request (None: to any); what else comes is dropped. Blocked."""
        socket = {"shell": self._shell, "control": self._control, "iopub": self._iopub}[channel]
        end = time.monotonic() + timeout_s
        while True:
            left = end - time.monotonic()
            if not socket.poll(min(max(left, 0), 1) * 1e3):
                if self._process.poll() is not None:
                    raise RuntimeError(f"the kernel ended: {self.log()}")
                if left <= 1:
                    raise Blocked(f"no {kind} within {timeout_s:g} s")
                continue
            frames = socket.recv_multipart()
            at = frames.index(b"<IDS|MSG>")
            if json.loads(frames[at + 2])["msg_type"] == kind and \
                    (msg_id is None or json.loads(frames[at + 3]).get("msg_id") == msg_id):
                content = json.loads(frames[at + 5])
                if wanted(content):
                    return content

    def request(self, kind: str, content: dict[str, Any], timeout_s: float = REPLY_S,
                subshell: str | None = None) -> dict[str, Any]:
        """``kind`` without "_request"; content of its reply."""
        msg_id = self.send(f"{kind}_request", content, subshell)
        return self.receive("control" if kind == "create_subshell" else "shell", msg_id, f"{kind}_reply", timeout_s)

    def start(self, code: str, subshell: str | None = None) -> str:
        """Execute and do not wait; the message's id."""
        return self.send("execute_request", {"code": code, "silent": False, "store_history": True, "allow_stdin": False,
                                             "user_expressions": {}, "stop_on_error": False}, subshell)

    def execute(self, code: str, timeout_s: float = REPLY_S, subshell: str | None = None) -> dict[str, Any]:
        """Execute and wait for the reply; RuntimeError if the code failed."""
        reply = self.receive("shell", self.start(code, subshell), "execute_reply", timeout_s)
        if reply["status"] != "ok":
            raise RuntimeError(f"{reply.get('ename')}: {reply.get('evalue')} in {code!r}")
        return reply

    def value(self, expression: str) -> Any:
        """An expression's value, through JSON."""
        msg_id = self.send("execute_request", {"code": "import json as _json", "silent": False, "store_history": False,
                                               "user_expressions": {"r": f"_json.dumps({expression})"},
                                               "allow_stdin": False, "stop_on_error": False})
        got = self.receive("shell", msg_id, "execute_reply", 300)["user_expressions"]["r"]
        if got["status"] != "ok":
            raise RuntimeError(f"{got.get('ename')}: {got.get('evalue')} in {expression!r}")
        return json.loads(got["data"]["text/plain"].strip("'"))

    def echo(self, timeout_s: float = REPLY_S) -> None:
        """One message to a comm and back. open() opened it."""
        sent = {"n": next(_numbers)}  # not every kernel answers with the request as parent
        self.send("comm_msg", {"comm_id": self._comm, "data": sent}, self.subshell)
        self.receive("iopub", None, "comm_msg", timeout_s, lambda content: content["data"] == sent)

    def drain(self) -> None:
        """Drop what came on iopub."""
        with suppress(zmq.Again):
            while True:
                self._iopub.recv_multipart(zmq.NOBLOCK)

    # -- life ----------------------------------------------------------------------------------------
    def ready(self) -> None:
        """Wait until it answers on shell and iopub. RuntimeError with its log."""
        try:
            self.request("kernel_info", {}, START_S)
            for _ in range(20):  # a subscription takes a moment
                with suppress(Blocked):
                    self.receive("iopub", self.start("pass"), "status", 0.5)
                    break
            else:
                raise Blocked("nothing on iopub")
        except Blocked as e:
            raise RuntimeError(f"the kernel did not start: {e}; {self.log()}") from None

    def open(self, subshell: bool = False) -> None:
        """Open the comm, and a subshell for requests to come if wanted."""
        self.execute(COMM)
        self.send("comm_open", {"comm_id": self._comm, "target_name": "echo", "data": {}})
        if subshell:
            self.subshell = self.request("create_subshell", {})["subshell_id"]
        self.echo()

    def cpu_s(self) -> float:
        """CPU time of its threads so far, seconds; of those that are still there."""
        tasks = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(t.read_text().split()[0]) for t in tasks) / 1e9

    def freeze(self) -> None:
        """The process stands still, for what else is measured. Idempotent."""
        if not self.stopped:
            self.stopped = True
            self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Undo freeze()."""
        if self.stopped:
            self.stopped = False
            self._process.send_signal(signal.SIGCONT)

    def log(self) -> str:
        """The end of what it wrote to stdout and stderr."""
        self._log.flush()
        self._log.seek(0)
        return self._log.read()[-2000:]

    def close(self) -> None:
        """Kill it and forget its files."""
        self._process.kill()
        self._process.wait()
        self._context.destroy(linger=0)
        self._log.close()
        self._folder.cleanup()

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
