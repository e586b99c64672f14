"""The rover's world model: what each function of the contract computes, in PyTorch.

    camera ──convolutions──► z (64) ──┐
    odometry ───────────► motion, pose │                encoder: all of the belief
                                       ▼
    z, motion, action, dt ──MLP──► z', motion', pose', risk, clearance        dynamics
    belief, action, goal ──► named cost terms, value;   risk ──► constraint

It is a joint-embedding predictive model: `dynamics` must predict what the encoder would say of
the frame to come, and no pixel is ever reconstructed on the way (the decoder is trained on z
with the gradient cut, for people to look at). In training, z must also tell what the robot's own
range scanner measures in front, now and in each imagined step: that teaches the camera geometry
from few worlds, and is not part of the exported model. What planning reads are three small
heads: the logit of touching something during the step, the clearance after it, and the motion.
The pose is not learned: it is the motion head's mean twist, integrated along an arc.

Every tensor is float32; batches come first; z is layer-normalized, so its scale is 1.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Z = 64
HIDDEN = 192
AXES = ("base.vx", "base.wz")
ACTION_SCALE = (0.7, 1.8)  # model_action = SI / scale
MOTION_SCALE = (0.7, 1.8)
STEP_S = 0.15
HORIZON = 12
DT_S = (0.05, 0.15)  # what dynamics is trained on
CLEARANCE_SCALE = 0.5  # m; the clearance head's unit
CLEARANCE_MOST = 1.0  # m: all that is farther away is as good as this
BEAMS = 41  # of the range scan, -60 to 60 degrees
BELIEF = {"z": Z, "motion": 2, "pose": 3, "risk": 1, "clearance": 1}


class Heads(nn.Module):
    """Risk and clearance, read from a latent and the motion: for the belief of the present."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(Z + 2, 48)
        self.out = nn.Linear(48, 2)

    def forward(self, z: Tensor, motion: Tensor) -> tuple[Tensor, Tensor]:
        out = self.out(F.relu(self.hidden(torch.cat([z, motion / scale(motion)], dim=1))))
        return out[:, :1], out[:, 1:] * CLEARANCE_SCALE


class Encoder(nn.Module):
    """An image to z: (B, 3, 64, 64) as gray levels 0..255 to (B, Z)."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            [
                nn.Conv2d(3, 16, 5, stride=2, padding=2),
                nn.Conv2d(16, 32, 3, stride=2, padding=1),
                nn.Conv2d(32, 48, 3, stride=2, padding=1),
                nn.Conv2d(48, 64, 3, stride=2, padding=1),
            ]
        )
        self.project = nn.Linear(64 * 4 * 4, Z)
        self.norm = nn.LayerNorm(Z)

    def forward(self, image: Tensor) -> Tensor:
        x = image * (1.0 / 255.0)
        x = x - x.mean(dim=(1, 2, 3), keepdim=True)  # the exposure changes; only contrast counts
        x = x / torch.sqrt((x * x).mean(dim=(1, 2, 3), keepdim=True) + 1e-3)
        for convolution in self.convolutions:
            x = F.relu(convolution(x))
        return self.norm(self.project(x.permute(0, 2, 3, 1).flatten(1)))


class Dynamics(nn.Module):
    """One step: where an action of duration dt leads."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(Z + 2 + 2 + 1, HIDDEN)
        self.second = nn.Linear(HIDDEN, HIDDEN)
        self.change = nn.Linear(HIDDEN, Z)
        self.norm = nn.LayerNorm(Z)
        self.head = nn.Linear(HIDDEN, 6)  # change of motion (2), mean twist (2), risk, clearance

    def forward(
        self, z: Tensor, motion: Tensor, action: Tensor, dt: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """z (B, Z), motion (B, 2) SI, action (B, 2) normalized, dt (B, 1) s.

        Returns z', motion', mean twist over the step (SI), risk (a logit), clearance (m).
        """
        now = motion / scale(motion)
        inputs = torch.cat([z, now, action, (dt - 0.1) * 20.0], dim=1)
        hidden = F.relu(self.second(F.relu(self.first(inputs))))
        head = self.head(hidden)
        after = (action + head[:, :2]) * scale(motion)  # servos follow: the error is what is left
        mean = (action + head[:, 2:4]) * scale(motion)
        z = self.norm(z + self.change(hidden))
        return z, after, mean, head[:, 4:5], head[:, 5:6] * CLEARANCE_SCALE


class Ranges(nn.Module):
    """The front 120 degrees of the range scan, as logarithms of m: in training only."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(Z, 96)
        self.out = nn.Linear(96, BEAMS)

    def forward(self, z: Tensor) -> Tensor:
        return self.out(F.relu(self.hidden(z)))


class Decoder(nn.Module):
    """z to an image (B, 64, 64, 3) from 0 to 1, for people."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Linear(Z, 32 * 4 * 4)
        widths = (32, 24, 16, 12, 3)
        self.convolutions = nn.ModuleList(
            [nn.Conv2d(a, 4 * b, 3, padding=1) for a, b in itertools.pairwise(widths)]
        )

    def forward(self, z: Tensor) -> Tensor:
        x = F.relu(self.expand(z)).reshape(-1, 4, 4, 32).permute(0, 3, 1, 2)
        for index, convolution in enumerate(self.convolutions):
            x = F.pixel_shuffle(convolution(x), 2)
            x = torch.sigmoid(x) if index == 3 else F.relu(x)
        return x.permute(0, 2, 3, 1)


class WorldModel(nn.Module):
    """All that is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.heads = Heads()
        self.dynamics = Dynamics()
        self.decoder = Decoder()
        self.ranges = Ranges()


def scale(motion: Tensor) -> Tensor:
    """What a twist is divided by, to be about 1."""
    return torch.tensor(MOTION_SCALE, dtype=motion.dtype, device=motion.device)


def along_arc(pose: Tensor, twist: Tensor, dt: Tensor) -> Tensor:
    """pose (B, 3) after driving `twist` (B, 2) for dt (B, 1), along the arc's chord."""
    turn = twist[:, 1:] * dt
    way = twist[:, :1] * dt
    middle = pose[:, 2:] + 0.5 * turn
    return torch.cat(
        [
            pose[:, :1] + way * torch.cos(middle),
            pose[:, 1:2] + way * torch.sin(middle),
            pose[:, 2:] + turn,
        ],
        dim=1,
    )
