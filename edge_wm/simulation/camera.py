"""Renders one MuJoCo camera off-screen, without a display, in whichever thread asks.

An OpenGL context belongs to one thread at a time, and the first upload of a model into a new one
costs 0.2 s of shader building (4 ms for every further model; November 2026). So the process has
one context, made when the first image is asked for; a thread takes it, under a lock, for the
length of one image, and gives it up again. Any number of simulations can live in one process,
one after another or side by side, and each may be stepped by any thread.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import threading
import weakref
from collections.abc import Iterator

# Before mujoco and the graphics library are loaded. EGL needs no display. Mesa's software renderer
# splits even a 64 x 64 image among threads, whose hand-overs cost more than they win (3.7 ms a
# frame on a loaded machine with 2 cores, 1.6 ms without them; November 2026).
os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("LP_NUM_THREADS", "0")

import mujoco
import numpy as np
import numpy.typing as npt
from mujoco.egl import GLContext
from mujoco.egl import egl_ext as egl

from edge_wm.errors import SystemTroubleError


class Camera:
    """The named camera of a model, at a given size in pixels."""

    def __init__(self, model: mujoco.MjModel, name: str, height: int, width: int) -> None:
        self._model = model
        self._view = mujoco.MjvCamera()
        self._view.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._view.fixedcamid = model.camera(name).id
        self._option = mujoco.MjvOption()
        self._scene = mujoco.MjvScene(model, maxgeom=200)
        self._rectangle = mujoco.MjrRect(0, 0, width, height)
        self._pixels = np.empty((height, width, 3), np.uint8)
        self._context: mujoco.MjrContext | None = None
        self._finalizer: weakref.finalize[..., Camera] | None = None

    def render(self, data: mujoco.MjData) -> npt.NDArray[np.uint8]:
        """The image that the camera sees now: (height, width, 3) uint8, RGB.

        Raises: SystemTroubleError where this machine cannot render.
        """
        with _current():
            if self._context is None:
                scale = mujoco.mjtFontScale.mjFONTSCALE_100.value
                self._context = mujoco.MjrContext(self._model, scale)
                mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
                self._finalizer = weakref.finalize(self, _free, self._context)
            everything = mujoco.mjtCatBit.mjCAT_ALL.value
            mujoco.mjv_updateScene(
                self._model, data, self._option, None, self._view, everything, self._scene
            )
            mujoco.mjr_render(self._rectangle, self._scene, self._context)
            mujoco.mjr_readPixels(self._pixels, None, self._rectangle, self._context)
        return np.ascontiguousarray(self._pixels[::-1])

    def close(self) -> None:
        """Free what the graphics library holds; may be called twice, and from any thread."""
        if self._finalizer is not None:
            self._finalizer()
            self._finalizer = self._context = None


_LOCK = threading.RLock()  # a collected camera may be freed in the thread that is rendering


@contextlib.contextmanager
def _current() -> Iterator[None]:
    """Hold the process's OpenGL context, in this thread."""
    with _LOCK:
        gl = _gl()
        outermost = not egl.eglGetCurrentContext()
        gl.make_current()
        try:
            yield
        finally:
            if outermost:
                nothing = (egl.EGL_NO_SURFACE, egl.EGL_NO_SURFACE, egl.EGL_NO_CONTEXT)
                egl.eglMakeCurrent(mujoco.egl.EGL_DISPLAY, *nothing)


@functools.cache
def _gl() -> GLContext:
    try:
        gl = GLContext(1, 1)  # the size is that of an on-screen buffer, which is not used
    except (ImportError, RuntimeError, egl.EGLError) as error:
        raise SystemTroubleError(
            "the simulated camera needs OpenGL without a display (EGL), which does not start on "
            f"this machine ({error}); install it: apt-get install libegl1 libegl-mesa0"
        ) from error
    atexit.register(gl.free)
    return gl


def _free(context: mujoco.MjrContext) -> None:
    with _current():
        context.free()
