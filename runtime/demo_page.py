"""The demo page: Gradio components and what happens when they are used; importing needs Gradio."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from gconet.runtime.demo_group import Visit, write_zip
from gconet.runtime.demo_results import change_html, findings_html, messages_html
from gconet.runtime.demo_uploads import Limits
from gconet.runtime.detector import Detector
from gconet.runtime.errors import GconetError

TITLE = "GCoNet: what do these photos share?"
LIFETIME = 3600  # seconds that a visitor's photos are kept after they were last used
WAITING = 8  # requests in the queue; one is served at a time: the engine has all cores anyway
GONE = "the photos were deleted an hour after their last use, or `gconet demo` was started anew: upload them again"

Update = Any  # of Gradio's components: a value, or what gr.update() returns


class DemoPage:
    """One page for many visitors.

    Parameters
    ----------
    folder : where visitors' photos go, each visitor's in a folder of its own.
    """

    def __init__(self, detector: Detector, limits: Limits, folder: Path) -> None:
        self._detector, self._limits, self._folder = detector, limits, folder
        self._visits: dict[str, Visit] = {}  # by the name of their folder, which is what Gradio's state holds

    def build(self) -> gr.Blocks:
        """The page, to be launched."""
        page = gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(LIFETIME // 4, LIFETIME))
        with page:
            gr.HTML(
                f"<h1>{TITLE}</h1><p>Drop photos that show the same kind of object. They stay on this machine, and are "
                f"deleted an hour after their last use. {self._limits.sentence()}</p>"
            )
            token = gr.State(None, time_to_live=LIFETIME, delete_callback=self.forget)
            files = gr.File(label="Photos", file_count="multiple", height=160, elem_id="upload")
            messages = gr.HTML(elem_id="messages")
            with gr.Column(visible=False) as group:
                ticked = gr.CheckboxGroup(label="Photos of the group: untick one to leave it out", elem_id="ticked")
                change = gr.HTML(elem_id="change")
                results = gr.HTML(elem_id="results")
                with gr.Row():
                    pack = gr.Button("Make a ZIP of maps, cut-outs and thumbnails", elem_id="pack", variant="primary")
                    clear = gr.Button("Start over", elem_id="clear")
                archive = gr.File(label="ZIP", visible=False, interactive=False, elem_id="archive")

            shown = [token, files, group, ticked, messages, change, results, archive]
            self._on(files.upload, self.add, [files, ticked, token], shown)
            self._on(ticked.input, self.choose, [ticked, token], shown, trigger_mode="always_last")
            self._on(clear.click, self.clear, [token], shown)
            self._on(pack.click, self.pack, [ticked, token], [token, messages, archive])
        page.queue(max_size=WAITING, default_concurrency_limit=1)
        return page

    def add(self, files: Sequence[str] | None, ticked: Sequence[str], token: str | None) -> Sequence[Update]:
        """Take uploaded files into the group."""
        token, visit, lines = self._visit(token, bool(ticked))
        before = set(visit.uploads)
        lines += visit.add([Path(file) for file in files or ()], self._limits)
        new = [upload.label for upload in visit.uploads if upload not in before]
        return self._look(token, visit, [*ticked, *new], lines)

    def choose(self, ticked: Sequence[str], token: str | None) -> Sequence[Update]:
        """Take the photos that are ticked as the group."""
        token, visit, lines = self._visit(token, True)
        return self._look(token, visit, ticked, lines)

    def pack(self, ticked: Sequence[str], token: str | None) -> Sequence[Update]:
        """Make the ZIP."""
        token, visit, lines = self._visit(token, True)
        path = visit.folder / "gconet.zip"
        try:
            write_zip(self._detector, visit.chosen(ticked), path)
        except GconetError as error:
            return token, messages_html([*lines, str(error)]), gr.update(value=None, visible=False)
        return token, messages_html(lines), gr.update(value=str(path), visible=True)

    def clear(self, token: str | None) -> Sequence[Update]:
        """Forget all photos."""
        self.forget(token)
        return None, None, gr.update(visible=False), gr.update(choices=[], value=[]), "", "", "", _no_archive()

    def forget(self, token: str | None) -> None:
        """End a visit; Gradio calls this when a page has been closed, or was idle for an hour."""
        visit = self._visits.pop(token, None) if token else None
        if visit:
            shutil.rmtree(visit.folder, ignore_errors=True)

    def _look(self, token: str, visit: Visit, ticked: Sequence[str], lines: Sequence[str]) -> Sequence[Update]:
        labels = [upload.label for upload in visit.uploads]
        ticked = [label for label in labels if label in ticked]
        group = gr.update(visible=bool(labels))
        choices = gr.update(choices=labels, value=ticked)
        try:
            if not labels:
                return token, None, group, choices, messages_html(lines), "", "", _no_archive()
            findings, change = visit.find(self._detector, ticked)
        except GconetError as error:
            said = messages_html([*lines, str(error)])
            return token, None, group, choices, said, "", "", _no_archive()
        changed = change_html(findings, change)
        return token, None, group, choices, messages_html(lines), changed, findings_html(findings), _no_archive()

    def _visit(self, token: str | None, expected: bool) -> tuple[str, Visit, list[str]]:
        """A visitor's photos; a new visit where there is none, with a line that says so if the page shows some."""
        if token and token in self._visits:
            return token, self._visits[token], []
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        self._visits[folder.name] = Visit(folder)
        return folder.name, self._visits[folder.name], [GONE] if expected else []

    @staticmethod
    def _on(
        event: Callable[..., object],
        function: Callable[..., object],
        inputs: Sequence[object],
        outputs: Sequence[object],
        **options: object,
    ) -> None:
        """What all events have in common: one at a time, and no name by which other programs may call them."""
        event(function, inputs, outputs, concurrency_id="engine", concurrency_limit=1, api_visibility="private",
              **options)  # fmt: skip


def _no_archive() -> Update:
    """A ZIP of another group is not offered."""
    return gr.update(value=None, visible=False)
