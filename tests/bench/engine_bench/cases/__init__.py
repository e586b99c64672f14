"""The cases by name; each is built when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from engine_bench.case import Case
from engine_bench.cases import encoders, jepa, mdn_lstm, rover, rssm, tdmpc2, tiny_gru

CASES: Mapping[str, Callable[[], Case]] = {
    "tdmpc2": tdmpc2.plan,
    "tdmpc2-1": tdmpc2.one_candidate,
    "tdmpc2-2048": tdmpc2.many_candidates,
    "mdn-lstm-256": mdn_lstm.hidden_256,
    "mdn-lstm-512": mdn_lstm.hidden_512,
    "jepa": jepa.plan,
    "rssm": rssm.step,
    "tiny-gru": tiny_gru.rollout,
    "vit-tiny": encoders.vit_tiny,
    "conv-vae": encoders.conv_vae,
    "rover": rover.plan,
}
