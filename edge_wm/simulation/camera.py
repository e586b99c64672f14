"""Renders one MuJoCo camera off-screen, without a display, in whichever thread asks.

An OpenGL context belongs to one thread at a time. Here it is made when the first image is asked
for and given up after every image, so several simulations can live in one process, one after
another or side by side, and the thread that renders need not be the one that made the simulation.
"""

from __future__ import annotations

import os
import weakref

os.environ.setdefault("MUJOCO_GL", "egl")  # before mujoco is imported: needs no display

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
        self._gl: GLContext | None = None
        self._finalizer: weakref.finalize[..., Camera] | None = None

    def render(self, data: mujoco.MjData) -> npt.NDArray[np.uint8]:
        """The image that the camera sees now: (height, width, 3) uint8, RGB.

        Raises: SystemTroubleError where this machine cannot render.
        """
        if self._gl is None:
            self._gl = _gl_context()
        self._gl.make_current()
        try:
            if self._context is None:
                scale = mujoco.mjtFontScale.mjFONTSCALE_100
                self._context = mujoco.MjrContext(self._model, scale.value)
                mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
                self._finalizer = weakref.finalize(self, _free, self._gl, self._context)
            everything = mujoco.mjtCatBit.mjCAT_ALL.value
            mujoco.mjv_updateScene(
                self._model, data, self._option, None, self._view, everything, self._scene
            )
            mujoco.mjr_render(self._rectangle, self._scene, self._context)
            mujoco.mjr_readPixels(self._pixels, None, self._rectangle, self._context)
        finally:
            _let_go()
        return np.ascontiguousarray(self._pixels[::-1])

    def close(self) -> None:
        """Free what the graphics library holds; may be called twice, and from any thread."""
        if self._finalizer is not None:
            self._finalizer()
            self._finalizer = self._context = self._gl = None


def _gl_context() -> GLContext:
    try:
        return GLContext(1, 1)  # the size is that of an on-screen buffer, which is not used
    except (ImportError, RuntimeError, egl.EGLError) as error:
        raise SystemTroubleError(
            "the simulated camera needs OpenGL without a display (EGL), which does not start on "
            f"this machine ({error}); install it: apt-get install libegl1 libegl-mesa0"
        ) from error


def _let_go() -> None:
    from mujoco import egl as display

    egl.eglMakeCurrent(
        display.EGL_DISPLAY, egl.EGL_NO_SURFACE, egl.EGL_NO_SURFACE, egl.EGL_NO_CONTEXT
    )


def _free(gl: GLContext, context: mujoco.MjrContext) -> None:
    gl.make_current()
    context.free()
    _let_go()
    gl.free()
