"""A real kernel process, spoken to over the real protocol."""

import queue
import sys
import time

import pytest
from jupyter_client.manager import KernelManager

OUTPUT = ("stream", "execute_result", "display_data", "error", "clear_output", "update_display_data")


class Kernel:
    """Collects every message by parent, so that nothing is lost whichever request is waited for."""

    def __init__(self, load=True, extra=()):
        self.km = KernelManager(kernel_name="python3")
        self.km.kernel_spec.argv[0] = sys.executable
        self.km.start_kernel(extra_arguments=list(extra))
        self.kc = self.km.client()
        self.kc.start_channels()
        self.kc.wait_for_ready(timeout=60)
        self.replies, self.iopub, self.inputs = {}, {}, []
        if load:
            assert self.run("%load_ext opencoro_ipy")["status"] == "ok"

    def pump(self, timeout=0.005):
        for channel, take in (("shell", self.kc.get_shell_msg), ("iopub", self.kc.get_iopub_msg),
                              ("stdin", self.kc.get_stdin_msg)):
            while True:
                try:
                    msg = take(timeout=timeout if channel != "stdin" else 0)
                except queue.Empty:
                    break
                parent = msg["parent_header"].get("msg_id")
                if channel == "shell":
                    self.replies.setdefault(parent, []).append(msg["content"])
                elif channel == "iopub":
                    self.iopub.setdefault(parent, []).append(msg)
                else:
                    self.inputs.append(msg)

    def until(self, condition, timeout=30, what="it"):
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, f"{what} did not happen within {timeout} s"
            self.pump()

    def start(self, code, **options):
        return self.kc.execute(code, **options)

    def reply(self, msg_id, timeout=30):
        self.until(lambda: msg_id in self.replies, timeout, f"the reply to {msg_id}")
        assert len(self.replies[msg_id]) == 1
        return self.replies[msg_id][0]

    def idle(self, msg_id, timeout=30):
        def is_idle():
            return any(m["content"].get("execution_state") == "idle" for m in self.iopub.get(msg_id, []))

        self.until(is_idle, timeout, "idle")

    def run(self, code, timeout=30, **options):
        msg_id = self.start(code, **options)
        content = self.reply(msg_id, timeout)
        self.idle(msg_id)
        return content

    def busy(self, msg_id):
        """Wait until the cell has said so by printing."""
        self.until(lambda: any(m["msg_type"] == "stream" for m in self.iopub.get(msg_id, [])), what="a print")

    def outputs(self, msg_id):
        return [m for m in self.iopub.get(msg_id, []) if m["msg_type"] in OUTPUT]

    def text(self, msg_id):
        return "".join(m["content"]["text"] for m in self.outputs(msg_id) if m["msg_type"] == "stream")

    def value(self, code):
        """repr of an expression."""
        msg_id = self.start(code)
        self.reply(msg_id)
        self.idle(msg_id)
        return next(m["content"]["data"]["text/plain"] for m in self.outputs(msg_id)
                    if m["msg_type"] == "execute_result")

    def close(self):
        self.kc.stop_channels()
        self.km.shutdown_kernel(now=True)


@pytest.fixture
def kernel():
    k = Kernel()
    yield k
    k.close()


@pytest.fixture
def plain_kernel():
    k = Kernel(load=False)
    yield k
    k.close()


@pytest.fixture
def startup_kernel():
    k = Kernel(load=False, extra=["--ext=opencoro_ipy"])
    yield k
    k.close()
