"""The explorer as a widget: three planes, alpha bars with a draggable threshold, profile and table.

In: an :class:`~lesionkit.explorer.Explorer`, which may have other views at the same time (another widget, napari). Out:
a widget for JupyterLab, Voila and whatever else shows anywidgets. The ``?`` button lists its keys.
"""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any, Literal

import anywidget
import numpy as np
import traitlets
from ipywidgets import VBox
from jaxtyping import Float, Num

from lesionkit.detection import FitConfig
from lesionkit.explorer import Explorer
from lesionkit.volume import Volume
from lesionkit.widgets.packing import COMMANDS, PARTS, VIEW, pack_case, pack_frame, pack_trajectory, static

Overlay = Literal["heatmap", "residual", "label", "none"]
SIGNALS = sorted(name for name in dir(Explorer) if name.endswith("_changed"))


class ExplorerWidget(anywidget.AnyWidget):
    """Show an explorer; the widget itself keeps only how it is looked at.

    Parameters
    ----------
    explorer : Explorer
        What is shown, and changed.
    title : str
        Heading.
    overlay : {"heatmap", "residual", "label", "none"}
        What lies over the image: the predicted map, what the steps so far have left of it (signed), or the label of the
        true points.
    compact : bool
        Planes and bars only.
    """

    _esm = static(*PARTS) + "\nexport default { render: renderExplorer };\n"
    _css = static("style.css")

    scene = traitlets.Dict().tag(sync=True)
    image = traitlets.Bytes().tag(sync=True)
    heat = traitlets.Bytes().tag(sync=True)
    trajectory = traitlets.Dict().tag(sync=True)
    frame = traitlets.Dict().tag(sync=True)
    view = traitlets.Dict().tag(sync=True)
    compact = traitlets.Bool(False).tag(sync=True)

    def __init__(
        self, explorer: Explorer, *, title: str = "", overlay: Overlay = "heatmap", compact: bool = False
    ) -> None:
        self.explorer = explorer
        self.title = title
        self._complaint = ""
        self._ack = 0
        self._answering = False
        self._sent: tuple[object, ...] = (None, None, None)
        super().__init__(compact=compact, view=VIEW | {"overlay": overlay})
        for name in SIGNALS:
            getattr(explorer, name).connect(self._follow, check_nargs=False)
        self.on_msg(self._hear)
        self._push()

    def close(self) -> None:
        """Stop listening, and leave the page."""
        for name in SIGNALS:
            getattr(self.explorer, name).disconnect(self._follow, missing_ok=True)
        super().close()

    def _follow(self, *_: object) -> None:
        """Send what somebody else has changed; a complaint about an earlier command is over then."""
        if not self._answering:
            self._complaint = ""
            self._push()

    def _push(self) -> None:
        """Send what has changed, as one message."""
        explorer = self.explorer
        heatmap, image, trajectory = self._sent
        with self.hold_sync():
            if explorer.heatmap is not heatmap or explorer.image is not image:
                self.scene, self.image, self.heat = pack_case(explorer, self.title)
            if explorer.trajectory is not trajectory:
                self.trajectory = pack_trajectory(explorer.trajectory)
            frame = pack_frame(explorer)
            self.frame = frame | {"ack": self._ack, "error": self._complaint or frame["error"]}
        self._sent = (explorer.heatmap, explorer.image, explorer.trajectory)

    def _hear(self, _: object, message: Any, buffers: object) -> None:
        """Do what a person asks for in the browser. Whatever goes wrong is shown: nobody sees an exception there."""
        self._answering, self._complaint = True, ""
        try:
            self._do(str(message["command"]), message.get("value"))
        except Exception as error:
            self._complaint = str(error) or type(error).__name__
        finally:
            self._answering = False
            self._ack = int(message["ack"])
            self._push()

    def _do(self, command: str, value: Any) -> None:
        if command not in COMMANDS:
            raise ValueError(f"command must be one of {', '.join(sorted(COMMANDS))}, got {command!r}")
        if command == "tick":
            self.explorer.tick()
        elif command == "toggle_playing":
            self.explorer.toggle_playing()
        else:
            getattr(self.explorer, command)(value)

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Add the picture that stands in where no script runs: on GitHub, in mail, in a notebook reopened."""
        from lesionkit.widgets.printing import print_explorer

        return with_picture(super()._repr_mimebundle_(**options), print_explorer(self.explorer, self.view["overlay"]))


def with_picture(bundle: Any, png: bytes) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Add a PNG to what a widget displays as."""
    if bundle is None:
        return None
    data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
    return {**data, "image/png": base64.b64encode(png).decode()}, metadata


def explore(
    heatmap: Volume | Num[np.ndarray, " ..."],
    *,
    image: Volume | Num[np.ndarray, " ..."] | None = None,
    truth: Any = None,
    affine: Float[np.ndarray, "m m"] | None = None,
    config: FitConfig | None = None,
    threshold: float = 0.2,
    title: str = "",
    overlay: Overlay = "heatmap",
    compact: bool = False,
) -> ExplorerWidget:
    """Show a heatmap and how it is taken apart; the widget's `explorer` is the state behind it.

    Parameters
    ----------
    heatmap, image, truth, affine, config, threshold
        As in :class:`~lesionkit.explorer.Explorer`.
    title, overlay, compact
        As in :class:`ExplorerWidget`.
    """
    explorer = Explorer(heatmap, image=image, truth=truth, affine=affine, config=config, threshold=threshold)
    explorer.wait()
    return ExplorerWidget(explorer, title=title, overlay=overlay, compact=compact)


def compare_sigmas(explorer: Explorer, first: float, second: float) -> VBox:
    """Show one map searched with two sigmas, one above the other; position, threshold and truth go together.

    Parameters
    ----------
    explorer : Explorer
        What is searched; it is not changed itself.
    first, second : float
        The sigmas to begin with, in voxels; each has a slider.
    """
    both = []
    for sigma in (first, second):
        one = Explorer(
            explorer.heatmap,
            image=explorer.image,
            truth=explorer.truth,
            affine=explorer.affine,
            config=replace(explorer.config, sigma=sigma),
            threshold=explorer.threshold,
            max_distance=explorer.max_distance,
        )
        one.wait()
        one.last()
        one.set_follow(False)
        one.move_to(one.detections.mu[one.detections.alpha.argmax()] if len(one.detections) else explorer.position)
        both.append(one)
    for one, other in (both, both[::-1]):  # a command that changes nothing announces nothing, so this ends
        one.position_changed.connect(other.move_to)
        one.threshold_changed.connect(other.set_threshold)
    both[1].move_to(both[0].position)
    names = ("first sigma", "second sigma")
    return VBox([ExplorerWidget(one, title=name, compact=True) for one, name in zip(both, names, strict=True)])
