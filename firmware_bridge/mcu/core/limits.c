#include "limits.h"

#include <string.h>

/* nunavut writes an underscore before names that begin with to, which C keeps for itself. */
#include "modes_reasons.h"

static uint32_t smaller(uint32_t a, uint32_t b) {
    return a < b ? a : b;
}

/* Refused: nothing tight enough is left. */
static fault impossible(uint8_t axis, int64_t value, int64_t limit) {
    return (fault){REASON_LIMITS_IMPOSSIBLE, axis, (int32_t)value, (int32_t)limit};
}

static fault tighten_axis(edge_wire_AxisLimits_1_0 *axis, const board_axis *board, uint8_t number) {
    axis->velocity_max = smaller(axis->velocity_max, board->velocity_max);
    axis->acceleration_max = smaller(axis->acceleration_max, board->acceleration_max);
    axis->braking = smaller(axis->braking, board->braking);
    axis->_torque_max = smaller(axis->_torque_max, board->torque_max);
    axis->current_max = (uint16_t)smaller(axis->current_max, board->current_max);
    if (axis->temperature_max > board->temperature_max) {
        axis->temperature_max = board->temperature_max;
    }
    /* Below 1,000 the deceleration of one millisecond would be none. */
    if (axis->velocity_max == 0 || axis->acceleration_max < 1000 || axis->braking < 1000 ||
        axis->_torque_max == 0 || axis->current_max == 0 || axis->temperature_max <= 0) {
        return impossible(number, 0, 1);
    }
    if (axis_is_position(board)) {
        if (axis->position_min < board->position_min) {
            axis->position_min = board->position_min;
        }
        if (axis->position_max > board->position_max) {
            axis->position_max = board->position_max;
        }
        if (axis->position_min >= axis->position_max) {
            return impossible(number, axis->position_min, axis->position_max);
        }
    } else {
        axis->position_min = 0;
        axis->position_max = 0;
    }
    return (fault){0, NO_AXIS, 0, 0};
}

fault limits_agree(core *c, const edge_wire_Limits_1_0 *asked) {
    const board_table *board = c->board;
    if (c->mode != MODE_IDLE && c->torque) {
        return impossible(NO_AXIS, c->mode, MODE_IDLE); /* while armed they stand */
    }
    c->limits_agreed = false;
    if (asked->axes != board->axes) {
        return impossible(NO_AXIS, asked->axes, board->axes);
    }
    if (asked->dead_man_us == 0) {
        return impossible(NO_AXIS, 0, 1);
    }
    edge_wire_Limits_1_0 effective = *asked;
    effective.dead_man_us = smaller(asked->dead_man_us, board->dead_man_max_us);
    if (effective.bus_min_mV < board->bus_min_mV) {
        effective.bus_min_mV = board->bus_min_mV;
    }
    if (effective.bus_max_mV > board->bus_max_mV) {
        effective.bus_max_mV = board->bus_max_mV;
    }
    if (effective.bus_min_mV >= effective.bus_max_mV) {
        return impossible(NO_AXIS, effective.bus_min_mV, effective.bus_max_mV);
    }
    for (uint8_t axis = 0; axis < AXES_MAX; axis++) {
        if (axis >= board->axes) {
            memset(&effective.axis[axis], 0, sizeof(effective.axis[axis]));
            continue;
        }
        const fault refused = tighten_axis(&effective.axis[axis], &board->axis[axis], axis);
        if (refused.reason != 0) {
            return refused;
        }
    }
    uint8_t bytes[CORE_LIMITS_BYTES];
    size_t size = sizeof(bytes);
    (void)edge_wire_Limits_1_0_serialize_(&effective, bytes, &size);
    c->limits = effective;
    c->limits_crc = wire_crc32c(bytes, sizeof(bytes));
    c->limits_agreed = true;
    return (fault){0, NO_AXIS, 0, 0};
}

motion_limits limits_of_motion(const core *c, uint8_t axis) {
    const edge_wire_AxisLimits_1_0 *from = &c->limits.axis[axis];
    return (motion_limits){axis_is_position(&c->board->axis[axis]), from->position_min,
                           from->position_max, from->velocity_max, from->acceleration_max,
                           from->braking};
}
