/* libFuzzer's target for the parser and the limiter; ASan and UBSan watch.
 *
 * The first byte chooses: 0 parser (any bytes), 1 a whole device (bytes and milliseconds, frames
 * with a right CRC made of the input), 2 limiter and player. Besides the sanitizers' findings it
 * aborts when a promise is broken: a reference beyond its limits, torque above its limit. */
#include <stdlib.h>
#include <string.h>

#include "core.h"
#include "edge_wire/Header_1_0.h"
#include "motion.h"
#include "schema_hash.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds) {
    if (!holds) {
        abort();
    }
}

static void fuzz_parser(const uint8_t *data, size_t size) {
    static wire_parser parser;
    memset(&parser, 0, sizeof(parser));
    for (size_t i = 0; i < size; i++) {
        if (wire_feed(&parser, data[i])) {
            require(parser.length >= WIRE_HEADER + WIRE_CRC && parser.length <= WIRE_RAW_MAX);
        }
    }
    /* And what is encoded comes back. */
    uint8_t raw[WIRE_RAW_MAX] = {0}, frame[WIRE_ENCODED_MAX];
    size_t length = size < WIRE_HEADER ? WIRE_HEADER : size;
    length = length > WIRE_RAW_MAX - WIRE_CRC ? WIRE_RAW_MAX - WIRE_CRC : length;
    memcpy(raw, data, size < length ? size : length);
    const size_t encoded = wire_encode(raw, length, frame);
    require(encoded <= WIRE_ENCODED_MAX);
    memset(&parser, 0, sizeof(parser));
    bool whole = false;
    for (size_t i = 0; i < encoded; i++) {
        whole = wire_feed(&parser, frame[i]) || whole;
    }
    require(whole && memcmp(parser.raw, raw, length) == 0);
}

static void fuzz_device(const uint8_t *data, size_t size) {
    static core c;
    static fault_log log;
    static const core_identity identity = {.reset_cause = 1};
    const board_table *board = size > 0 && (data[0] & 1) != 0 ? &board_rover : &board_arm;
    core_inputs inputs = {.bus_mV = 24000};
    core_outputs outputs;
    core_init(&c, board, &identity, &log);
    for (int axis = 0; axis < AXES_MAX; axis++) {
        inputs.axis[axis] = (axis_input){0, 0, 0, 250, 15};
    }
    uint64_t now_us = 1000;
    uint32_t sequence = 0;
    size_t at = 1;
    core_tick(&c, &inputs, now_us, &outputs);
    for (int turn = 0; turn < 64 && at + 2 < size; turn++) {
        /* id, length, payload: as a frame that is intact, in session and in order */
        uint8_t raw[WIRE_RAW_MAX] = {0}, frame[WIRE_ENCODED_MAX];
        const size_t payload = data[at + 1] % (WIRE_PAYLOAD_MAX + 1);
        const size_t given = size - at - 2 < payload ? size - at - 2 : payload;
        sequence++;
        const edge_wire_Header_1_0 header = {1, data[at] % 20, SCHEMA_HASH, c.session.id,
                                             sequence, 0};
        size_t length = WIRE_HEADER;
        (void)edge_wire_Header_1_0_serialize_(&header, raw, &length);
        memcpy(&raw[WIRE_HEADER], &data[at + 2], given);
        if ((data[at] & 0x80) != 0 && payload >= 4) { /* else no fuzzer guesses the limits' CRC */
            memcpy(&raw[WIRE_HEADER], &c.limits_crc, 4);
        }
        if ((data[at] & 0x40) != 0 && payload >= 12) {
            const uint64_t soon_us = now_us + data[at + 1];
            memcpy(&raw[WIRE_HEADER + 4], &soon_us, 8);
        }
        at += 2 + given;
        length = wire_encode(raw, WIRE_HEADER + payload, frame);
        core_receive(&c, frame, length, now_us);
        for (int tick = 0; tick < 3; tick++) {
            now_us += 1000;
            core_tick(&c, &inputs, now_us, &outputs);
            (void)core_transmit(&c, frame, sizeof(frame));
            for (uint8_t axis = 0; axis < board->axes; axis++) {
                require(llabs((long long)outputs.torque[axis]) <=
                        (long long)board->axis[axis].torque_max);
                require(outputs.torque_enable || outputs.torque[axis] == 0);
                require(!c.torque || llabs((long long)c.reference[axis].velocity) <=
                                         (long long)board->axis[axis].velocity_max * MOTION_NANO);
                inputs.axis[axis].position = outputs.reference_position[axis];
                inputs.axis[axis].velocity = outputs.reference_velocity[axis];
            }
        }
    }
}

static void fuzz_motion(const uint8_t *data, size_t size) {
    motion_segment segment;
    struct {
        int32_t low, span;
        uint32_t velocity, acceleration, braking, t_us;
        int32_t start;
    } given;
    if (size < sizeof(segment) + sizeof(given)) {
        return;
    }
    memcpy(&segment, data, sizeof(segment));
    memcpy(&given, data + sizeof(segment), sizeof(given));
    segment.knot_us = segment.knot_us % 1000000U + 1U;
    const int32_t low = given.low / 2;
    const int32_t high = low + (given.span & 0x3FFFFFFF) + 1;
    const motion_limits limits = {(data[0] & 1) != 0, low, high, given.velocity % 1000000000U + 1U,
                                  given.acceleration % 1000000000U + 1000U,
                                  given.braking % 1000000000U + 1000U};
    motion_state reference = {low * (int64_t)MOTION_NANO, 0};
    uint32_t t_us = given.t_us % 1000000U;
    for (int step = 0; step < 32; step++) {
        const motion_state target = motion_play(&segment, limits.has_position, t_us);
        motion_limit(&limits, &reference, target);
        t_us += 1000;
        require(llabs((long long)reference.velocity) <= (long long)limits.velocity_max * MOTION_NANO);
        require(!limits.has_position || (reference.position >= low * (int64_t)MOTION_NANO &&
                                         reference.position <= high * (int64_t)MOTION_NANO));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size > 0) {
        switch (data[0] % 3) {
        case 0: fuzz_parser(data + 1, size - 1); break;
        case 1: fuzz_device(data + 1, size - 1); break;
        default: fuzz_motion(data + 1, size - 1); break;
        }
    }
    return 0;
}
