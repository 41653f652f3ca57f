"""Three-dimensional pictures of scenes by OpenGL without a display (moderngl on EGL)."""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cqr.errors import UserError
from cqr.scenes import camera, meshes, shaders
from cqr.scenes.arrange import SIZE, Solid, View

COLORS = {
    "gray": (87, 87, 87),
    "red": (173, 35, 35),
    "blue": (42, 75, 215),
    "green": (29, 105, 20),
    "brown": (129, 74, 25),
    "purple": (129, 38, 192),
    "cyan": (41, 208, 208),
    "yellow": (255, 238, 51),
}
"""CLEVR's colours, sRGB."""

FINENESS = 2
"""The picture of numbers has this many pixels to one of the picture, each way."""
SHADOW_SIZE = 768
INTENSITY = (0.95, 0.38, 0.30)
GROUND_GRAY = (0.36, 0.36, 0.36)

# By their full names: the bare ones come only with the development packages.
EGL: dict[str, Any] = {"backend": "egl", "libgl": "libGL.so.1", "libegl": "libEGL.so.1"}

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Seen:
    """What the picture shows of one object.

    Attributes:
        box: (x1, y1, x2, y2) in pixels, of the whole object, hidden parts too.
        visible_box: of the visible part, to half a pixel; None if nothing is visible.
        visible: the visible fraction of the silhouette, 0 to 1; None if it was not looked at.
    """

    box: Box
    visible_box: Box | None
    visible: float | None


class Renderer:
    """An OpenGL context with all that does not change from picture to picture.

    The same view gives the same bytes each time on one machine.  Software
    OpenGL compiles for the processor that it finds, so bytes may differ in
    the last bit on another.

    Args:
        size: of the pictures, width and height in pixels.

    Raises:
        UserError: moderngl is absent, or no OpenGL 3.3 can be opened.
    """

    def __init__(self, size: tuple[int, int] = SIZE) -> None:
        self.size = size
        # Mesa's software renderer would start a thread a core in every process.
        os.environ.setdefault("LP_NUM_THREADS", "0")
        self._gl = gl = _open()
        self._lit = gl.program(shaders.LIT_VERTEX, shaders.LIT_FRAGMENT)
        self._depth = gl.program(shaders.PLAIN_VERTEX, shaders.DEPTH_FRAGMENT)
        self._number = gl.program(shaders.PLAIN_VERTEX, shaders.NUMBER_FRAGMENT)
        self._lit_mesh, self._depth_mesh, self._number_mesh = {}, {}, {}
        for name, mesh in {**meshes.SOLIDS, "ground": meshes.GROUND}.items():
            buffer = gl.buffer(mesh.tobytes())
            both, position = (buffer, "3f 3f", "position", "normal"), (buffer, "3f 12x", "position")
            self._lit_mesh[name] = gl.vertex_array(self._lit, [both])
            self._depth_mesh[name] = gl.vertex_array(self._depth, [position])
            self._number_mesh[name] = gl.vertex_array(self._number, [position])

        self._shadow_map = gl.depth_texture((SHADOW_SIZE, SHADOW_SIZE))
        self._shadow_map.compare_func = "<="
        self._shadow_map.repeat_x = self._shadow_map.repeat_y = False
        self._shadow = gl.framebuffer(depth_attachment=self._shadow_map)
        fine = (size[0] * FINENESS, size[1] * FINENESS)
        self._smooth = gl.framebuffer(
            gl.renderbuffer(size, 4, samples=4), gl.depth_renderbuffer(size, samples=4)
        )
        self._picture = gl.framebuffer(gl.renderbuffer(size, 4))
        self._numbers = gl.framebuffer(
            gl.renderbuffer(fine, 1, dtype="u1"), gl.depth_renderbuffer(fine)
        )

    def close(self) -> None:
        self._gl.release()

    def render(self, view: View[Solid]) -> tuple[NDArray[np.uint8], list[Seen]]:
        """The picture, height x width x 3, and what it shows of each object, in their order."""
        models = [camera.model(placed) for placed in view.objects]
        self._draw_shadows(view, models)
        numbers = self._draw_numbers(view, models)
        picture = self._draw_picture(view, models)
        seen = [
            _seen(outline, numbers == number)
            for number, outline in enumerate(camera.outlines(view), start=1)
        ]
        return picture, seen

    def numbers(self, view: View[Solid]) -> NDArray[np.uint8]:
        """Which object is seen where: FINENESS times the picture's size; 0: none, 1: the first."""
        return self._draw_numbers(view, [camera.model(placed) for placed in view.objects])

    def _draw_shadows(self, view: View[Solid], models: list[camera.Floats]) -> None:
        self._shadow.use()
        self._shadow.clear(depth=1.0)
        self._depth["camera"].write(_columns(camera.light_projection(view)))
        for placed, model in zip(view.objects, models, strict=True):
            self._depth["model"].write(_columns(model))
            self._depth_mesh[placed.mesh].render()

    def _draw_numbers(self, view: View[Solid], models: list[camera.Floats]) -> NDArray[np.uint8]:
        self._numbers.use()
        self._numbers.clear()
        self._number["camera"].write(_columns(camera.view_projection(view)))
        for number, (placed, model) in enumerate(zip(view.objects, models, strict=True), start=1):
            self._number["model"].write(_columns(model))
            self._number["number"].value = number
            self._number_mesh[placed.mesh].render()
        width, height = self.size
        raw = self._numbers.read(components=1, alignment=1, dtype="u1")
        return np.frombuffer(raw, np.uint8).reshape(height * FINENESS, width * FINENESS)[::-1]

    def _draw_picture(self, view: View[Solid], models: list[camera.Floats]) -> NDArray[np.uint8]:
        lit = self._lit
        self._smooth.use()
        self._smooth.clear()
        self._shadow_map.use(0)
        lit["shadow_map"].value = 0
        lit["camera"].write(_columns(camera.view_projection(view)))
        lit["light"].write(_columns(camera.light_projection(view)))
        lit["eye"].value = view.camera
        lit["lights"].value = list(view.lights)
        lit["intensity"].value = INTENSITY
        lit["is_object"].value = True
        for placed, model in zip(view.objects, models, strict=True):
            lit["model"].write(_columns(model))
            lit["base"].value = tuple((c / 255) ** 2.2 for c in COLORS[placed.color])
            lit["metal"].value = float(placed.metal)
            lit["roughness"].value = 0.35 if placed.metal else 0.75
            self._lit_mesh[placed.mesh].render()
        lit["is_object"].value = False
        lit["model"].write(_columns(np.eye(4)))
        lit["base"].value = GROUND_GRAY
        lit["metal"].value = 0.0
        lit["roughness"].value = 0.9
        self._lit_mesh["ground"].render()
        self._gl.copy_framebuffer(self._picture, self._smooth)
        width, height = self.size
        raw = self._picture.read(components=3, alignment=1)
        upright = np.frombuffer(raw, np.uint8).reshape(height, width, 3)[::-1]
        return np.ascontiguousarray(upright)


def _open() -> Any:
    """A moderngl context without a window."""
    try:
        import moderngl
    except ImportError as error:
        raise UserError(
            "3D pictures need the package moderngl, which is not installed: "
            "run `pip install 'cqr[scenes]'`"
        ) from error
    try:
        context = moderngl.create_context(standalone=True, **EGL)
    except Exception as error:  # what moderngl raises is just that
        raise UserError(
            f"3D pictures need OpenGL without a display, which could not be opened ({error}): "
            "install Mesa's, on Debian or Ubuntu with "
            "`apt-get install libegl1 libgl1-mesa-dri libgl1`"
        ) from error
    context.enable(moderngl.DEPTH_TEST | moderngl.CULL_FACE)
    return context


def _columns(matrix: camera.Floats) -> bytes:
    """As OpenGL reads a matrix: float32, column by column."""
    return matrix.T.astype(np.float32).tobytes()


def _seen(outline: camera.Outline, mask: NDArray[np.bool_]) -> Seen:
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not len(columns):
        return Seen(outline.box, None, 0.0)
    x1, y1, x2, y2 = (
        float(edge) / FINENESS for edge in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    )
    share = float(np.count_nonzero(mask)) / (outline.area * FINENESS**2)
    return Seen(outline.box, (x1, y1, x2, y2), min(share, 1.0))
