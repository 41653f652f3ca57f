"""Drawings need nothing; 3D pictures need OpenGL, and are skipped where there is none."""

import dataclasses
import random
from itertools import combinations

import numpy as np
import pytest

from cqr.errors import UserError
from cqr.scenes import camera, draw, meshes, protocol, render
from cqr.scenes.arrange import Placed, View, arrange
from cqr.scenes.protocol import Object


@pytest.fixture(scope="module")
def renderer():
    try:
        renderer = render.Renderer()
    except UserError as error:
        pytest.skip(str(error))
    yield renderer
    renderer.close()


def random_views(count, seed=0):
    rng = random.Random(seed)
    return [arrange(protocol.reference(protocol.pairs("test"), rng), rng) for _ in range(count)]


def extent(mask, scale=1):
    ys, xs = np.nonzero(mask)
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) / scale


def alone(view, number):
    return View((view.objects[number],), view.camera, view.target, view.lights)


def full(shape, seed):
    """The largest objects in every cell: what is most likely to be cut or to touch."""
    return arrange(tuple(Object(c, "large", "red", shape) for c in range(9)), random.Random(seed))


def test_a_box_is_where_the_pixels_of_the_object_are(renderer):
    for view in random_views(8):
        for number, outline in enumerate(camera.outlines(view)):
            mask = renderer.numbers(alone(view, number)) == 1
            seen = extent(mask, render.FINENESS)
            assert np.abs(seen - outline.box).max() < 1
            assert mask.sum() / render.FINENESS**2 == pytest.approx(outline.area, rel=0.03)


def test_visible_fractions_and_boxes_are_what_is_left_of_an_object(renderer):
    for view in [*random_views(4, seed=1), full("triangle", 0)]:
        numbers = renderer.numbers(view)
        _, seen = renderer.render(view)
        for number, one in enumerate(seen):
            left = numbers == number + 1
            whole = renderer.numbers(alone(view, number)) == 1
            assert one.visible == pytest.approx(left.sum() / whole.sum(), abs=0.03)
            assert one.visible_box == tuple(extent(left, render.FINENESS))
            assert np.abs(np.array(one.box) - camera.outlines(view)[number].box).max() == 0


def test_a_hidden_object_has_no_visible_box(renderer):
    def stands(y, size):
        return Placed(Object(4, size, "red", "rectangle"), (0, y), 0, metal=False)

    view = View(
        (stands(-0.5, "large"), stands(0.5, "small")),
        (0, -20, 0.5),  # from close to the ground
        (0, 0, 0.5),
        full("circle", 0).lights,
    )
    _, (front, hidden) = renderer.render(view)
    assert front.visible == pytest.approx(1, abs=0.02)
    assert (hidden.visible, hidden.visible_box) == (0, None)


def test_colours_can_be_told_apart(renderer):
    """From each other and from the ground, whatever the material."""
    shown = []
    for color in render.COLORS:
        view = arrange((Object(4, "large", color, "circle"),), random.Random(5))
        for metal in (False, True):
            placed = dataclasses.replace(view.objects[0], metal=metal)
            picture, (seen,) = renderer.render(dataclasses.replace(view, objects=(placed,)))
            x1, y1, x2, y2 = (round(edge) for edge in seen.box)
            middle = np.median(picture[y1 + 15 : y2 - 15, x1 + 15 : x2 - 15], axis=(0, 1))
            assert np.linalg.norm(middle - picture[2, 2]) > 60
            shown.append((color, middle))
    for (one, middle), (other, another) in combinations(shown, 2):
        assert one == other or np.linalg.norm(middle - another) > 35, (one, other)


def test_an_empty_scene_is_a_picture_of_the_ground(renderer):
    picture, seen = renderer.render(arrange((), random.Random(0)))
    assert seen == []
    assert picture.shape == (camera.HEIGHT, camera.WIDTH, 3)
    assert picture.min() > 100


def test_a_view_is_always_rendered_alike(renderer):
    first, second = random_views(2, seed=2)
    picture, seen = renderer.render(first)
    renderer.render(second)
    again, seen_again = renderer.render(first)
    assert (picture == again).all()
    assert seen == seen_again


@pytest.mark.parametrize("shape", protocol.SHAPES)
def test_nothing_is_cut_by_the_edge_of_the_picture(shape):
    for seed in range(30):
        for outline in camera.outlines(full(shape, seed)):
            x1, y1, x2, y2 = outline.box
            assert min(x1, y1, camera.WIDTH - x2, camera.HEIGHT - y2) > 1


@pytest.mark.parametrize("shape", protocol.SHAPES)
def test_meshes_are_closed_and_face_outward(shape):
    """The divergence theorem gives the volume of a closed, outward mesh, and less of any other."""
    triangles = meshes.SOLIDS[shape][:, :3].reshape(-1, 3, 3).astype(float)
    volume = np.einsum("ni,ni->n", triangles[:, 0], np.cross(triangles[:, 1], triangles[:, 2]))
    edge = 2 * meshes.CUBE_HALF_EDGE
    expected = {"rectangle": edge**3, "circle": 4 / 3 * np.pi, "triangle": 2 * np.pi}[shape]
    assert volume.sum() / 6 == pytest.approx(expected, rel=0.02)
    normals = meshes.SOLIDS[shape][::3, 3:]
    flat = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    assert (np.einsum("ni,ni->n", normals, flat) > -1e-6).all()


def test_hull_area():
    square = np.array([[0, 0], [2, 0], [2, 3], [0, 3], [1, 1], [1, 0], [2, 2]], float)
    assert camera.hull_area(square) == pytest.approx(6)
    assert camera.hull_area(np.array([[0, 0], [4, 0], [0, 3]], float)) == pytest.approx(6)


def test_drawings_show_each_object_in_its_box_and_colour():
    for view in random_views(20, seed=3):
        pixels = np.asarray(draw.draw(view))
        assert pixels.shape == (draw.SIZE, draw.SIZE, 3)
        left = (pixels != 255).any(2)
        for placed in view.objects:
            x1, y1, x2, y2 = draw.box(placed)
            part = (pixels == draw.COLORS[placed.object.color]).all(2)[y1:y2, x1:x2]
            assert (extent(part) == (0, 0, x2 - x1, y2 - y1)).all()
            share = {"rectangle": 1, "circle": np.pi / 4, "triangle": 0.5}[placed.object.shape]
            assert part.mean() == pytest.approx(share, abs=0.1)
            assert x2 - x1 == {"small": 8, "large": 16}[placed.object.size]
            left[y1:y2, x1:x2] = False
        assert not left.any()  # nothing is drawn outside the boxes


@pytest.mark.parametrize("shape", protocol.SHAPES)
def test_drawn_objects_never_touch_or_leave_the_drawing(shape):
    for seed in range(50):
        taken = np.zeros((draw.SIZE, draw.SIZE), int)
        for placed in full(shape, seed).objects:
            x1, y1, x2, y2 = draw.box(placed)
            assert min(x1, y1) >= 0
            assert max(x2, y2) <= draw.SIZE
            taken[y1:y2, x1:x2] += 1
        assert taken.max() == 1


def test_without_moderngl_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "moderngl", None)
    with pytest.raises(UserError, match=r"pip install 'cqr\[scenes\]'"):
        render.Renderer()


def test_without_opengl_the_error_names_the_packages(monkeypatch):
    moderngl = pytest.importorskip("moderngl")

    def refuse(**options):
        raise Exception("cannot load libEGL.so.1")  # as moderngl does

    monkeypatch.setattr(moderngl, "create_context", refuse)
    with pytest.raises(UserError, match="libegl1 libgl1-mesa-dri libgl1"):
        render.Renderer()
