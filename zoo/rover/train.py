"""Train the rover's world model on what `make_data.py` wrote.

    python zoo/rover/train.py --data zoo/rover/work/data --out zoo/rover/work/model.pt

A window is a start frame and 12 steps of 1 to 3 camera frames (50 to 150 ms; mostly 3). From
the start frame's latent the dynamics imagine all 12 steps; the losses are

    consistency   imagined z against the slow (moving-average) encoder's z of the real frame
    risk          touched something during the step, cross-entropy
    clearance     distance to the nearest obstacle, Huber
    ranges        the front of the range scan, read from the imagined z, in logarithms
    motion        the twist at the end of the step, and its mean (which the pose is made of)
    spread        variance and covariance of z over the batch (VICReg), against collapse
    image         decoder on z with the gradient cut: for people, without effect on the rest

Half of each batch are windows in which contact lies ahead but has not happened yet: they are
rare in the data, and they are what planning must get right.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path

import numpy as np
import torch
from model import (
    ACTION_SCALE,
    CLEARANCE_MOST,
    HORIZON,
    MOTION_SCALE,
    WorldModel,
    along_arc,
)
from torch import Tensor
from torch.nn import functional as F

FRAMES_PER_STEP = 3
SPAN = HORIZON * FRAMES_PER_STEP
TARGET_STEPS = 2  # of the 12 imagined steps, those whose real frame is encoded, per batch
WEIGHTS = {
    "consistency": 1.0,
    "risk": 1.0,
    "clearance": 2.0,
    "ranges": 2.0,
    "motion": 5.0,
    "spread": 0.1,
    "image": 1.0,
}


class Data:
    """The columns of make_data.py, and windows of them."""

    def __init__(self, folders: list[Path]) -> None:
        def column(name: str) -> np.ndarray:
            parts = [np.load(f) for d in folders for f in sorted(d.glob(f"{name}.*.npy"))]
            return np.concatenate(parts)

        self.image = torch.from_numpy(column("image"))
        self.motion = torch.from_numpy(column("motion"))
        self.true_motion = torch.from_numpy(column("true_motion"))
        self.pose = torch.from_numpy(column("pose"))
        self.clearance = torch.from_numpy(column("clearance")).clamp(max=CLEARANCE_MOST)
        self.contact = torch.from_numpy(column("contact"))
        self.ranges = torch.from_numpy(column("ranges")).clamp(min=0.05).log()
        self.stamp = torch.from_numpy(column("stamp_s"))
        episode = column("episode")
        dt = np.diff(column("stamp_s"), prepend=0.0)[:, None]
        starts = np.flatnonzero(np.diff(episode, prepend=-1))
        dt[starts] = 0.0
        summed = {n: np.cumsum(column(n) * dt, 0) for n in ("target", "commanded")}
        self.target = torch.from_numpy(summed["target"])
        self.commanded = torch.from_numpy(summed["commanded"])
        self.touched = torch.from_numpy(np.cumsum(column("contact") * dt[:, 0]))

        count = len(episode)
        last = np.minimum(np.arange(count) + SPAN, count - 1)
        whole = (episode[last] == episode) & (np.arange(count) + SPAN < count)
        total = self.touched.numpy()
        ahead = (total[last] - total > 1e-9) & (self.contact.numpy() == 0.0)
        held_back = np.isin(episode, np.unique(episode)[::12])  # for validation
        self.windows = {
            "any": np.flatnonzero(whole & ~held_back),
            "ahead": np.flatnonzero(whole & ahead & ~held_back),
            "held back": np.flatnonzero(whole & held_back),
        }

    def batch(self, start: np.ndarray, generator: np.random.Generator, plain: bool) -> Batch:
        """Windows that begin at `start`; `plain`: 12 whole steps of targets, not mirrored."""
        count = len(start)
        strides = np.full((count, HORIZON), FRAMES_PER_STEP)
        first_commanded = np.zeros(count, np.bool_)
        mirrored = np.zeros(count, np.bool_)
        if not plain:
            strides[:, 0] = generator.integers(1, FRAMES_PER_STEP + 1, count)
            ragged = generator.random(count) < 0.25
            strides[ragged] = generator.integers(1, FRAMES_PER_STEP + 1, (ragged.sum(), HORIZON))
            first_commanded = generator.random(count) < 0.5
            mirrored = generator.random(count) < 0.5
        index = start[:, None] + np.concatenate([np.zeros((count, 1), int), strides.cumsum(1)], 1)
        return Batch(self, torch.from_numpy(index), first_commanded, mirrored)


class Batch:
    """B windows. index: (B, 13) frames; everything else is gathered from it."""

    def __init__(
        self, data: Data, index: Tensor, first_commanded: np.ndarray, mirrored: np.ndarray
    ) -> None:
        self.data, self.index = data, index
        self.mirrored = torch.from_numpy(mirrored)
        before, after = index[:, :-1], index[:, 1:]
        self.dt = (data.stamp[after] - data.stamp[before]).float()[:, :, None]
        action = (data.target[after] - data.target[before]).float() / self.dt
        commanded = (data.commanded[after] - data.commanded[before]).float() / self.dt
        action[:, 0] = torch.where(
            torch.from_numpy(first_commanded)[:, None], commanded[:, 0], action[:, 0]
        )
        self.action = self._mirror(action / torch.tensor(ACTION_SCALE))
        self.motion = self._mirror(data.motion[index[:, 0]])
        self.true_motion = self._mirror(data.true_motion[after])
        self.contact = (data.touched[after] - data.touched[before] > 1e-9).float()
        self.contact_now = (data.contact[index[:, 0]] > 0).float()
        self.clearance = data.clearance[index]
        ranges = data.ranges[index]
        self.ranges = torch.where(self.mirrored[:, None, None], ranges.flip(2), ranges)
        # The mean twist of each step, from true poses: the arc's chord and its turn.
        moved = data.pose[after] - data.pose[before]
        middle = data.pose[before][..., 2] + 0.5 * moved[..., 2]
        way = moved[..., 0] * torch.cos(middle) + moved[..., 1] * torch.sin(middle)
        self.twist = self._mirror(torch.stack([way, moved[..., 2]], dim=-1) / self.dt)

    def images(self, step: int) -> Tensor:
        """(B, 3, 64, 64) float, gray levels."""
        image = self.data.image[self.index[:, step]].permute(0, 3, 1, 2).float()
        return torch.where(self.mirrored[:, None, None, None], image.flip(3), image)

    def _mirror(self, twist: Tensor) -> Tensor:
        """(B, ..., 2): left becomes right."""
        sign = torch.where(self.mirrored, -1.0, 1.0).reshape(-1, *[1] * (twist.ndim - 2))
        return torch.stack([twist[..., 0], twist[..., 1] * sign], dim=-1)


def losses(
    model: WorldModel, slow: torch.nn.Module, batch: Batch, generator: np.random.Generator
) -> dict[str, Tensor]:
    """The unweighted losses of one batch, by name."""
    count = len(batch.index)
    colors = _recoloring(count, generator)
    first = batch.images(0)
    z = z0 = model.encoder(torch.einsum("bcd,bdhw->bchw", colors, first))
    motion = batch.motion
    size = torch.tensor(MOTION_SCALE)
    risk, clearance = model.heads(z, motion)
    found = {
        "risk": F.binary_cross_entropy_with_logits(risk[:, 0], batch.contact_now) / HORIZON,
        "clearance": F.smooth_l1_loss(clearance[:, 0], batch.clearance[:, 0], beta=0.1) / HORIZON,
    }
    found["ranges"] = F.smooth_l1_loss(model.ranges(z), batch.ranges[:, 0], beta=0.1) / 3
    spread = z0 - z0.mean(0)
    covariance = (spread.T @ spread) / (count - 1)
    found["spread"] = (
        F.relu(1.0 - torch.sqrt(covariance.diagonal() + 1e-4)).mean()
        + (covariance - covariance.diagonal().diag()).square().sum() / len(covariance) * 0.04
    )
    found["consistency"] = found["motion"] = torch.zeros(())
    chosen = set(generator.choice(HORIZON, TARGET_STEPS, replace=False).tolist())
    for step in range(HORIZON):
        z, motion, mean, risk, clearance = model.dynamics(
            z, motion, batch.action[:, step], batch.dt[:, step]
        )
        found["risk"] = (
            found["risk"]
            + F.binary_cross_entropy_with_logits(risk[:, 0], batch.contact[:, step]) / HORIZON
        )
        found["clearance"] = (
            found["clearance"]
            + F.smooth_l1_loss(clearance[:, 0], batch.clearance[:, step + 1], beta=0.1) / HORIZON
        )
        error = torch.cat([motion - batch.true_motion[:, step], mean - batch.twist[:, step]], 1)
        found["motion"] = found["motion"] + (error / size.repeat(2)).square().mean() / HORIZON
        far = F.smooth_l1_loss(model.ranges(z), batch.ranges[:, step + 1], beta=0.1)
        found["ranges"] = found["ranges"] + far / HORIZON
        if step in chosen:
            later = torch.einsum("bcd,bdhw->bchw", colors, batch.images(step + 1))
            with torch.no_grad():
                wanted = slow(later)
            found["consistency"] = found["consistency"] + F.mse_loss(z, wanted) / TARGET_STEPS
    few = slice(0, 16)
    shown = model.decoder(model.encoder(first[few]).detach())
    found["image"] = F.mse_loss(shown, (first[few] / 255.0).clamp(max=1.0).permute(0, 2, 3, 1))
    return found


def _recoloring(count: int, generator: np.random.Generator) -> Tensor:
    """(count, 3, 3): how to mix the colors of each window anew, so that none can be relied on."""
    gains = np.exp(generator.normal(0.0, 0.25, (count, 1, 3)))
    order = np.eye(3)[generator.permuted(np.tile(np.arange(3), (count, 1)), axis=1)]
    mixed = generator.dirichlet(np.ones(3), (count, 3))
    share = generator.uniform(0.0, 0.7, (count, 1, 1))
    return torch.from_numpy((1.0 - share) * order * gains + share * mixed).float()


@torch.no_grad()
def evaluate(model: WorldModel, data: Data, windows: int = 2048) -> dict[str, list[float]]:
    """Open-loop errors by horizon step on held-back episodes, beside "nothing changes"."""
    generator = np.random.default_rng(1)
    start = generator.choice(data.windows["held back"], windows)
    batch = data.batch(start, generator, plain=True)
    z = now = torch.cat(
        [model.encoder(batch.images(0)[i : i + 256]) for i in range(0, windows, 256)]
    )
    motion, pose = batch.motion, data.pose[batch.index[:, 0]]
    _, clearance_now = model.heads(z, motion)
    result: dict[str, list[float]] = {
        name: []
        for name in (
            "latent", "latent_nothing_changes", "clearance_m", "clearance_nothing_changes_m",
            "position_m", "position_nothing_changes_m", "risk_auc", "risk_auc_nothing_changes",
        )
    }  # fmt: skip
    for step in range(HORIZON):
        z, motion, mean, risk, clearance = model.dynamics(
            z, motion, batch.action[:, step], batch.dt[:, step]
        )
        pose = along_arc(pose, mean, batch.dt[:, step])
        image = batch.images(step + 1)
        real = torch.cat([model.encoder(image[i : i + 256]) for i in range(0, windows, 256)])
        true_pose = data.pose[batch.index[:, step + 1]]
        gone = true_pose[:, :2] - data.pose[batch.index[:, 0]][:, :2]
        true_clearance = batch.clearance[:, step + 1]
        touched = batch.contact[:, step]
        result["latent"].append(float((z - real).square().mean().sqrt()))
        result["latent_nothing_changes"].append(float((now - real).square().mean().sqrt()))
        result["clearance_m"].append(float((clearance[:, 0] - true_clearance).abs().mean()))
        result["clearance_nothing_changes_m"].append(
            float((clearance_now[:, 0] - true_clearance).abs().mean())
        )
        result["position_m"].append(float((pose - true_pose)[:, :2].norm(dim=1).mean()))
        result["position_nothing_changes_m"].append(float(gone.norm(dim=1).mean()))
        result["risk_auc"].append(_auc(risk[:, 0], touched))
        result["risk_auc_nothing_changes"].append(_auc(-clearance_now[:, 0], touched))
    return {name: [round(value, 4) for value in values] for name, values in result.items()}


def _auc(score: Tensor, label: Tensor) -> float:
    """The chance that a touching window scores higher than one that is not."""
    ranks = score.argsort().argsort().double() + 1
    positive = label > 0.5
    p, n = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - p * (p + 1) / 2) / max(p * n, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, nargs="+", default=[Path("zoo/rover/work/data")])
    parser.add_argument("--out", type=Path, default=Path("zoo/rover/work/model.pt"))
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start-from", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    generator = np.random.default_rng(arguments.seed)

    data = Data(arguments.data)
    print({name: len(rows) for name, rows in data.windows.items()}, flush=True)
    model = WorldModel()
    if arguments.start_from:
        model.load_state_dict(torch.load(arguments.start_from, weights_only=True))
    print(sum(p.numel() for p in model.parameters()), "parameters", flush=True)
    slow = copy.deepcopy(model.encoder).requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.rate, weight_decay=1e-2)
    began, step, means = time.monotonic(), 0, {}
    while (done := (time.monotonic() - began) / (60.0 * arguments.minutes)) < 1.0:
        warm = min(1.0, (step + 1) / 200)
        for group in optimizer.param_groups:
            group["lr"] = arguments.rate * warm * 0.5 * (1.0 + np.cos(np.pi * done)) + 1e-6
        half = arguments.batch // 2
        start = np.concatenate(
            [
                generator.choice(data.windows["any"], arguments.batch - half),
                generator.choice(data.windows["ahead"], half),
            ]
        )
        found = losses(model, slow, data.batch(start, generator, plain=False), generator)
        loss = sum(WEIGHTS[name] * value for name, value in found.items())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        keep = 0.99
        with torch.no_grad():
            for ours, theirs in zip(slow.parameters(), model.encoder.parameters(), strict=True):
                ours.lerp_(theirs, 1.0 - keep)
        for name, value in found.items():
            means[name] = 0.98 * means.get(name, value.item()) + 0.02 * value.item()
        step += 1
        if step % 200 == 0:
            line = " ".join(f"{name} {value:.4f}" for name, value in means.items())
            print(f"{step} {60 * arguments.minutes * done:.0f} s {line}", flush=True)
        if step % 2000 == 0:
            torch.save(model.state_dict(), arguments.out)
    torch.save(model.state_dict(), arguments.out)
    card = {
        "training": {
            "steps": step,
            "minutes": arguments.minutes,
            "frames": len(data.image),
            "windows": {name: len(rows) for name, rows in data.windows.items()},
            "parameters": sum(p.numel() for p in model.parameters()),
        },
        "open_loop": evaluate(model, data),
    }
    arguments.out.with_suffix(".json").write_text(json.dumps(card, indent=1))
    print(json.dumps(card["open_loop"], indent=None), flush=True)


if __name__ == "__main__":
    main()
