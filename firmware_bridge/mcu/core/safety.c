#include "safety.h"

#include <string.h>

#include "edge_wire/Identity_1_0.h"
#include "limits.h"
#include "modes_reasons.h"

enum {
    CLOCK_ERROR_MAX_US = 1000,
    LOAD_MAX_PERMILLE = 600,
    AHEAD_MAX_US = 100000,
    KNOTS_MAX_US = 1000000
};

static const fault none = {0, NO_AXIS, 0, 0};

static bool latched(const core *c) {
    return c->mode == MODE_FAULT || c->mode == MODE_ESTOP ||
           (c->braking && c->after != MODE_IDLE);
}

static void torque_off(core *c) {
    c->torque = false;
    c->braking = false;
    c->damp = 0;
    c->queued = 0;
    memset(c->integral, 0, sizeof(c->integral));
}

/* Stage one: play the suffix from where the reference is; `after` is the mode behind it. */
static void brake(core *c, fault cause, uint8_t during, uint8_t after) {
    c->cause = cause;
    c->after = after;
    c->queued = 0;
    if (after != MODE_IDLE) {
        fault_log_add(c->log, cause, c->now_us);
    }
    if (!c->torque) {
        c->mode = after;
        return;
    }
    c->mode = during;
    if (!c->braking) {
        c->braking = true;
        c->braking_since_us = c->now_us;
    }
    if (cause.axis < AXES_MAX && fault_is_of_sensor(cause.reason)) {
        c->damp |= (uint8_t)(1U << cause.axis);
    }
}

void safety_init(core *c) {
    const uint8_t reset = c->identity.reset_cause;
    c->mode = MODE_IDLE;
    c->after = MODE_IDLE;
    c->cause = none;
    if (reset == edge_wire_Identity_1_0_RESET_WATCHDOG || reset == edge_wire_Identity_1_0_RESET_HANG) {
        brake(c, (fault){REASON_WATCHDOG_RESET, NO_AXIS, reset, 0}, MODE_FAULT, MODE_FAULT);
    } else if (reset == edge_wire_Identity_1_0_RESET_HARD_FAULT ||
               reset == edge_wire_Identity_1_0_RESET_STACK_OVERFLOW) {
        brake(c, (fault){REASON_FIRMWARE_CRASHED, NO_AXIS, reset, 0}, MODE_FAULT, MODE_FAULT);
    }
}

/* The first fault of this millisecond's readings. */
static fault check(core *c, uint32_t milliseconds) {
    fault found = none;
    for (uint8_t axis = 0; axis < c->board->axes; axis++) {
        const edge_wire_AxisLimits_1_0 *limits = &c->limits.axis[axis];
        const int64_t driven = c->torque && (c->damp & (1U << axis)) == 0
                                   ? c->reference[axis].velocity : 0;
        const fault one = fault_check_axis(
            &c->board->axis[axis], &c->inputs.axis[axis], &c->memory[axis], axis,
            c->limits_agreed ? limits->current_max : c->board->axis[axis].current_max,
            c->limits_agreed ? limits->temperature_max : c->board->axis[axis].temperature_max,
            driven, milliseconds);
        if (found.reason == 0) {
            found = one;
        }
    }
    if (found.reason == 0) {
        found = fault_check_bus(
            c->inputs.bus_mV, c->limits_agreed ? c->limits.bus_min_mV : c->board->bus_min_mV,
            c->limits_agreed ? c->limits.bus_max_mV : c->board->bus_max_mV);
    }
    return found;
}

/* The same once more for Arm and Reset, without moving the memory of the checks. */
static fault check_again(core *c) {
    fault_memory memory[AXES_MAX];
    memcpy(memory, c->memory, sizeof(memory));
    for (uint8_t axis = 0; axis < c->board->axes; axis++) {
        if (c->memory[axis].lost != 0) {
            c->memory[axis].lost = 2;
        }
    }
    const fault found = c->ticked ? check(c, 1) : (fault){REASON_SENSOR_LOST, NO_AXIS, 0, 1};
    memcpy(c->memory, memory, sizeof(memory));
    return found;
}

fault safety_arm(core *c, uint32_t limits_crc, uint32_t clock_error_us, uint16_t load_permille) {
    const uint16_t load =
        load_permille > c->session.load_permille ? load_permille : c->session.load_permille;
    if (latched(c)) {
        return (fault){REASON_ALREADY_LATCHED, c->cause.axis, c->cause.reason, 0};
    }
    if (!c->limits_agreed || limits_crc != c->limits_crc) {
        return (fault){REASON_LIMITS_NOT_AGREED, NO_AXIS, (int32_t)limits_crc,
                       (int32_t)c->limits_crc};
    }
    if (c->braking) {
        return (fault){REASON_OPERATOR_STOP, NO_AXIS, c->mode, MODE_IDLE};
    }
    if (c->torque) {
        return none; /* it is: a repeated request changes nothing, the heartbeat neither */
    }
    if (clock_error_us > CLOCK_ERROR_MAX_US) {
        return (fault){REASON_CLOCK_NOT_AGREED, NO_AXIS,
                       clock_error_us > INT32_MAX ? INT32_MAX : (int32_t)clock_error_us,
                       CLOCK_ERROR_MAX_US};
    }
    if (load > LOAD_MAX_PERMILLE) {
        return (fault){REASON_LINK_OVERLOADED, NO_AXIS, load, LOAD_MAX_PERMILLE};
    }
    if (c->inputs.estop_open) {
        return (fault){REASON_ESTOP_PRESSED, NO_AXIS, 1, 0};
    }
    const fault found = check_again(c);
    if (found.reason != 0) {
        return found;
    }
    for (uint8_t axis = 0; axis < c->board->axes; axis++) {
        const int32_t velocity = c->inputs.axis[axis].velocity;
        const int32_t rest = c->board->axis[axis].rest_velocity;
        if (velocity > rest || velocity < -rest) {
            return (fault){REASON_VELOCITY_LIMIT, axis, velocity, rest};
        }
    }
    for (uint8_t axis = 0; axis < c->board->axes; axis++) {
        c->reference[axis] =
            (motion_state){(int64_t)c->inputs.axis[axis].position * MOTION_NANO, 0};
        c->integral[axis] = 0;
        /* Until a Command brings one: it is at rest already. */
        c->suffix_deceleration[axis] = c->limits.axis[axis].braking;
        c->suffix_ms[axis] = 1;
        c->memory[axis].travel = 0;
    }
    c->queued = 0;
    c->damp = 0;
    c->command_sequence = 0;
    c->heartbeat_us = c->now_us;
    c->cause = none;
    c->torque = true;
    c->mode = MODE_HOLD;
    return none;
}

void safety_disarm(core *c, uint16_t reason) {
    if (c->torque && !c->braking) {
        brake(c, (fault){reason, NO_AXIS, 0, 0}, MODE_STOP, MODE_IDLE);
    }
}

void safety_estop(core *c) {
    if (c->cause.reason != REASON_ESTOP_PRESSED) {
        brake(c, (fault){REASON_ESTOP_PRESSED, NO_AXIS, c->inputs.estop_open, 0}, MODE_ESTOP,
              MODE_ESTOP);
    }
}

/* The only way out of a latch: the operator names it, and its cause has gone. */
fault safety_release(core *c, uint16_t reason) {
    if (!latched(c)) {
        return none; /* nothing to release: a repeated request */
    }
    if (reason != c->cause.reason || c->braking) {
        return (fault){REASON_ALREADY_LATCHED, c->cause.axis, c->cause.reason, reason};
    }
    if (c->inputs.estop_open) {
        return (fault){REASON_ESTOP_PRESSED, NO_AXIS, 1, 0};
    }
    const fault lasting = check_again(c);
    if (lasting.reason == c->cause.reason) {
        return lasting;
    }
    c->mode = MODE_IDLE;
    c->after = MODE_IDLE;
    c->cause = none;
    return none;
}

/* May this Command be played? */
static fault judge(const core *c, const edge_wire_Command_1_0 *command) {
    if (latched(c)) {
        return (fault){REASON_ALREADY_LATCHED, c->cause.axis, c->cause.reason, 0};
    }
    if (!c->torque || c->braking) {
        return (fault){REASON_NOT_ARMED, NO_AXIS, c->mode, MODE_HOLD};
    }
    if (!c->limits_agreed || command->limits_crc != c->limits_crc) {
        return (fault){REASON_LIMITS_NOT_AGREED, NO_AXIS, 0, 0};
    }
    if (command->axes != c->board->axes) {
        return (fault){REASON_SETPOINT_INVALID, NO_AXIS, command->axes, c->board->axes};
    }
    if (command->knot_us == 0 || command->knot_us > KNOTS_MAX_US) {
        return (fault){REASON_SETPOINT_INVALID, NO_AXIS, 0, KNOTS_MAX_US};
    }
    if (command->apply_at_us > c->now_us && command->apply_at_us - c->now_us > AHEAD_MAX_US) {
        return (fault){REASON_SETPOINT_INVALID, NO_AXIS, 0, AHEAD_MAX_US};
    }
    if (command->apply_at_us <= c->now_us &&
        c->now_us - command->apply_at_us >= command->valid_us) {
        return (fault){REASON_SETPOINT_EXPIRED, NO_AXIS, 0, 0};
    }
    for (uint8_t axis = 0; axis < c->board->axes; axis++) {
        if (command->axis[axis].brake_deceleration == 0 || command->axis[axis].brake_ms == 0) {
            return (fault){REASON_SETPOINT_INVALID, axis, 0, 1};
        }
    }
    return none;
}

fault safety_accept(core *c, const edge_wire_Command_1_0 *command, uint32_t sequence) {
    const fault refused = judge(c, command);
    if (refused.reason != 0) {
        return refused;
    }
    /* The newest word counts: what would have begun with it or after it is forgotten. */
    while (c->queued > 0 &&
           c->queue[c->queued - 1].command.apply_at_us >= command->apply_at_us) {
        c->queued--;
    }
    if (c->queued == CORE_QUEUE) {
        return (fault){REASON_LINK_OVERLOADED, NO_AXIS, CORE_QUEUE, CORE_QUEUE};
    }
    c->queue[c->queued].command = *command;
    c->queue[c->queued].valid_until_us = command->apply_at_us + command->valid_us;
    c->queued++;
    c->command_sequence = sequence;
    c->heartbeat_us = c->now_us;
    for (uint8_t axis = 0; axis < c->board->axes; axis++) {
        c->suffix_deceleration[axis] = command->axis[axis].brake_deceleration;
        c->suffix_ms[axis] = command->axis[axis].brake_ms;
    }
    return none;
}

/* What is due takes effect. */
static void take_due(core *c) {
    uint8_t due = 0;
    while (due < c->queued && c->queue[due].command.apply_at_us <= c->now_us) {
        due++;
    }
    if (due > 0) {
        c->playing = c->queue[due - 1];
        c->queued = (uint8_t)(c->queued - due);
        memmove(&c->queue[0], &c->queue[due], c->queued * sizeof(c->queue[0]));
        c->mode = MODE_ACTIVE;
    }
}

/* One millisecond of the suffix; true when every axis is at rest or its time is over. */
static bool play_suffix(core *c) {
    const uint64_t since_us = c->now_us - c->braking_since_us;
    bool done = true;
    for (uint8_t axis = 0; axis < c->board->axes; axis++) {
        const motion_limits limits = limits_of_motion(c, axis);
        const bool rest =
            motion_brake(&limits, &c->reference[axis], c->suffix_deceleration[axis]);
        if (!rest && since_us < (uint64_t)c->suffix_ms[axis] * 1000U) {
            done = false;
        }
    }
    return done;
}

static void play(core *c) {
    for (uint8_t axis = 0; axis < c->board->axes; axis++) {
        const motion_limits limits = limits_of_motion(c, axis);
        motion_state target = {c->reference[axis].position, 0};
        if (c->mode == MODE_ACTIVE) {
            const edge_wire_Command_1_0 *command = &c->playing.command;
            const edge_wire_AxisCommand_1_0 *from = &command->axis[axis];
            const motion_segment segment = {{from->position[0], from->position[1]},
                                            {from->velocity[0], from->velocity[1]},
                                            command->knot_us};
            /* Not longer than valid_us, a uint32. */
            const uint32_t t_us = (uint32_t)(c->now_us - command->apply_at_us);
            target = motion_play(&segment, limits.has_position, t_us);
        }
        motion_limit(&limits, &c->reference[axis], target);
    }
}

static void servo(core *c) {
    for (uint8_t axis = 0; axis < c->board->axes; axis++) {
        c->torque_mNm[axis] = 0;
        if (c->torque && (c->damp & (1U << axis)) == 0) {
            const board_axis *board = &c->board->axis[axis];
            c->torque_mNm[axis] = motion_servo(
                &board->gains, axis_is_position(board), &c->reference[axis],
                c->inputs.axis[axis].position, c->inputs.axis[axis].velocity,
                c->limits.axis[axis]._torque_max, &c->integral[axis]);
        } else if (!c->torque) {
            c->reference[axis] =
                (motion_state){(int64_t)c->inputs.axis[axis].position * MOTION_NANO, 0};
        }
    }
}

/* Stage one of the dead-man: nothing valid to play, or nobody there. */
static void watch_commands(core *c) {
    const bool silent = c->now_us - c->heartbeat_us >= c->limits.dead_man_us;
    const bool over = c->mode == MODE_ACTIVE && c->now_us >= c->playing.valid_until_us;
    if (silent || over) {
        const uint64_t silence = c->now_us - c->heartbeat_us;
        brake(c, (fault){REASON_SETPOINT_EXPIRED, NO_AXIS,
                         silence > INT32_MAX ? INT32_MAX : (int32_t)silence,
                         (int32_t)c->limits.dead_man_us}, MODE_STOP, MODE_FAULT);
    }
}

void safety_tick(core *c, uint32_t milliseconds) {
    const fault found = check(c, milliseconds);
    if (c->inputs.estop_open) {
        safety_estop(c);
    }
    if (c->torque && found.reason != 0) {
        if (!latched(c)) {
            brake(c, found, MODE_FAULT, MODE_FAULT);
        } else if (found.axis < AXES_MAX && fault_is_of_sensor(found.reason)) {
            c->damp |= (uint8_t)(1U << found.axis); /* a second one, while it brakes */
        }
    }
    if (c->torque && !c->braking) {
        take_due(c);
        watch_commands(c);
    }
    for (uint32_t step = 0; step < milliseconds && c->torque; step++) {
        if (!c->braking) {
            play(c);
        } else if (play_suffix(c)) {
            c->mode = c->after;
            torque_off(c); /* stage two */
        }
    }
    servo(c);
}
