"""firmware_bridge.messages against nunavut's C, which the firmware is built with: bytes equal.

A small program reads each message with nunavut's C and writes it again, field by field; what comes
out must be what Python packed.
"""

from __future__ import annotations

import random
import shutil
import subprocess

import pytest

from firmware_bridge.emulated import build_firmware
from firmware_bridge.messages import MESSAGES

pytestmark = pytest.mark.skipif(
    shutil.which("gcc") is None, reason="no gcc here to build the firmware with"
)

CASE = """
    case {id}: {{
        edge_wire_{name}_1_0 message;
        memset(&message, 0xA5, sizeof(message));
        if (edge_wire_{name}_1_0_deserialize_(&message, in, &size) < 0) return 1;
        if (edge_wire_{name}_1_0_serialize_(&message, out, &size_out) < 0) return 1;
        break;
    }}"""

PROGRAM = """
#include <stdio.h>
#include <stdint.h>
#include <string.h>
{includes}
int main(void) {{
    uint8_t head[3];
    while (fread(head, 1, 3, stdin) == 3) {{
        uint8_t in[512], out[512];
        size_t size = (size_t)head[1] | (size_t)head[2] << 8, size_out = sizeof(out);
        if (size > 0 && fread(in, 1, size, stdin) != size) return 1;
        switch (head[0]) {{{cases}
        default: return 1;
        }}
        fwrite(out, 1, size_out, stdout);
    }}
    return 0;
}}
"""


def test_bytes_are_those_of_nunavuts_c(tmp_path):
    headers = build_firmware().parent / "generated"
    kinds = {number: kind.__name__ for number, kind in MESSAGES.items()}
    includes = "".join(f'#include "edge_wire/{name}_1_0.h"\n' for name in kinds.values())
    cases = "".join(CASE.format(id=number, name=name) for number, name in kinds.items())
    source, program = tmp_path / "golden.c", tmp_path / "golden"
    source.write_text(PROGRAM.format(includes=includes, cases=cases))
    subprocess.run(["gcc", "-std=c11", "-I", headers, source, "-o", program], check=True)
    noise = random.Random(5)
    question, expected = b"", b""
    for number, kind in MESSAGES.items():
        samples = [bytes(kind.SIZE), b"\xff" * kind.SIZE]
        samples += [noise.randbytes(kind.SIZE) for _ in range(50)]
        for data in samples:
            packed = kind.unpack(data).pack()
            question += bytes([number]) + kind.SIZE.to_bytes(2, "little") + packed
            expected += packed
    done = subprocess.run([program], input=question, capture_output=True)
    assert done.returncode == 0
    assert done.stdout == expected
