"""Tests that images arrive through the shipped transport profile, and that a loss is noticed."""

from __future__ import annotations

from ros2.delivery import RATES_HZ, deliver


def test_a_vga_camera_an_imu_and_joints_arrive_and_no_loss_goes_unnoticed():
    delivery = deliver(4.0)
    for stream in RATES_HZ:
        assert delivery.sent[stream] >= 3.5 * RATES_HZ[stream]
        assert delivery.share(stream) >= 0.95, delivery  # here; 99 % over 60 s in the proof
        assert delivery.unnoticed(stream) <= 1, delivery  # the last one has no successor
