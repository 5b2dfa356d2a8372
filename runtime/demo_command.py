"""`gconet demo`: a page on this machine where one drops photos and sees what they share."""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gconet.runtime.command_line import EXIT_DONE, Parser, add_signature_argument, positive, positive_float, warn
from gconet.runtime.demo_uploads import Limits
from gconet.runtime.detector import Detector, load
from gconet.runtime.encoded_group import graph_session
from gconet.runtime.errors import UsageError, one_line
from gconet.runtime.extras import needing
from gconet.runtime.photos import MAX_PIXELS

DESCRIPTION = "Serve a page where one drops photos and sees maps, attention, cut-outs and thumbnails."
EPILOG = """\
examples:
  gconet demo                          then open http://127.0.0.1:7860
  gconet demo --port 0                 on any free port, which it tells

The page is reachable from this machine only, unless --host says otherwise; it has no password. It loads nothing from
elsewhere and reports to nobody. Photos are kept in a temporary folder, and deleted an hour after their last use, and
when the command ends (Ctrl-C). One request is computed at a time.

Needs Gradio: pip install 'gconet-deploy[demo]'."""


def main(arguments: Sequence[str]) -> int:
    """Run `gconet demo` until it is interrupted; errors as raised by `load` and `serve`."""
    defaults = Limits()
    parser = Parser("gconet demo", DESCRIPTION, EPILOG)
    parser.add_argument("--bundle", default="build/gconet.gconet", help="bundle to run (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1 (default: %(default)s)")
    parser.add_argument("--threads", type=positive, help="CPU threads (default: the engine's choice)")
    add_signature_argument(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=7860, help="port; 0 is any free one (default: %(default)s)")
    parser.add_argument("--max-photos", type=positive, default=defaults.photos, metavar="N",
                        help="photos of a group (default: %(default)s)")  # fmt: skip
    parser.add_argument("--max-pixels", type=positive, default=defaults.pixels, metavar="N",
                        help=f"pixels of a photo, up to {MAX_PIXELS} (default: %(default)s)")  # fmt: skip
    parser.add_argument("--max-megabytes", type=positive_float, default=defaults.megabytes, metavar="MB",
                        help="size of an uploaded file (default: %(default)g)")  # fmt: skip
    options = parser.parse_args(arguments)
    if options.max_pixels > MAX_PIXELS:
        parser.error(f"--max-pixels {options.max_pixels} is above {MAX_PIXELS}, the most that is ever read")
    limits = Limits(options.max_photos, options.max_pixels, options.max_megabytes)
    detector = load(options.bundle, options.device, options.threads, require_signature=options.require_signature)
    graph_session(detector.session, "consensus")  # told now where the bundle lacks it, not to the first visitor
    detector.check_count(limits.photos)
    with serve(detector, limits, options.host, options.port) as url:
        if not is_loopback(options.host):
            warn(f"listening on {options.host}: whoever reaches this machine can use the page, it has no password")
        print(f"open {url} (Ctrl-C ends it)", flush=True)
        _wait()
    return EXIT_DONE


@contextlib.contextmanager
def serve(detector: Detector, limits: Limits, host: str, port: int) -> Iterator[str]:
    """Serve the page while the block lasts; yields its address.

    Raises
    ------
    TargetError
        If Gradio, or what pictures need, is missing.
    UsageError
        If there is no listening on this address and port.
    """
    port = _free_port(host, port)
    with tempfile.TemporaryDirectory(prefix="gconet-demo-", ignore_cleanup_errors=True) as folder:
        # Read when Gradio is imported. It must not report anything, nor keep files where other programs' are.
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "GRADIO_TEMP_DIR": folder}
        direct = [os.environ.get(name, "") for name in ("no_proxy", "NO_PROXY")]
        os.environ["no_proxy"] = ",".join(filter(None, [*direct, "127.0.0.1", "localhost", "::1"]))  # it asks itself
        with needing("demo", "gconet demo"):
            import cv2  # noqa: F401
            import gradio
            import matplotlib  # noqa: F401
            from starlette.middleware import Middleware
        from gconet.runtime.demo_headers import PageHeaders
        from gconet.runtime.demo_page import DemoPage
        from gconet.runtime.demo_results import STYLE

        page = DemoPage(detector, limits, Path(folder)).build()
        fonts: dict[str, Any] = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
        try:
            _, url, _ = page.launch(
                server_name=f"[{host}]" if ":" in host else host,  # it is put into an address
                server_port=port,
                theme=gradio.themes.Base(**fonts),  # the default's fonts are fetched from elsewhere
                css=STYLE,
                max_file_size=limits.bytes,
                app_kwargs={"middleware": [Middleware(PageHeaders)]},
                prevent_thread_lock=True,
                share=False,
                quiet=True,
                inbrowser=False,
                footer_links=[],
                run_history=False,
                mcp_server=False,
                ssr_mode=False,
                pwa=False,
                enable_monitoring=False,
            )
            yield url
        finally:
            page.close(verbose=False)


def is_loopback(host: str) -> bool:
    """Whether an address is reachable from this machine only."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _free_port(host: str, port: int) -> int:
    """The port, or any free one for 0; raises UsageError if it, or the address, cannot be listened on."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was just closed is free
            probe.bind(address)
            return int(probe.getsockname()[1])
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise UsageError(f"cannot listen on {host}, port {port} ({reason}): choose another --host or --port") from error


def _wait() -> None:
    """Until Ctrl-C, or until the process is asked to end: both as KeyboardInterrupt, so that folders are removed."""

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    threading.Event().wait()


def _port(text: str) -> int:
    value = int(text) if text.isdecimal() else -1
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: a whole number from 0 to 65535")
    return value
