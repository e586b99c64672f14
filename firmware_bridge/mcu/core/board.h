/* What a board is, and what it reads and drives: tables and plain values, no registers. */
#ifndef EDGE_WM_BOARD_H
#define EDGE_WM_BOARD_H

#include <stdbool.h>
#include <stdint.h>

#include "motion.h"

enum { AXES_MAX = 8 };

/* Bits of axis_input.flags; the first three are Status' own. */
enum { INPUT_POSITION = 1, INPUT_CURRENT = 2, INPUT_TEMPERATURE = 4, INPUT_ANSWERED = 8 };

typedef struct {
    int32_t position;    /* urad or um; of a velocity axis the distance traveled, modulo 2^32 */
    int32_t velocity;    /* urad/s or um/s */
    int32_t current_mA;
    int16_t temperature; /* 0.1 degC */
    uint8_t flags;       /* INPUT_... */
} axis_input;

typedef struct {
    axis_input axis[AXES_MAX];
    uint32_t bus_mV;
    bool estop_open; /* normally closed: open means pressed or broken */
} core_inputs;

typedef struct {
    int32_t torque[AXES_MAX];             /* mN m (mN) */
    int32_t reference_position[AXES_MAX]; /* urad (um) */
    int32_t reference_velocity[AXES_MAX]; /* urad/s (um/s) */
    bool torque_enable;
    uint8_t damp;    /* bit per axis: its reading is not believed, so it gets no torque */
    uint8_t mode;    /* a number of mode.toml */
    uint16_t reason; /* a number of reasons.toml */
    uint8_t fault_axis;
    bool braking;
    bool feed_watchdog; /* control, link and safety work have all run since the last tick */
} core_outputs;

/* One axis of a board: compiled maxima that no host can widen, and its servo. */
typedef struct {
    uint8_t kind; /* Identity's AXIS_... */
    int32_t position_min, position_max;
    uint32_t velocity_max, acceleration_max, braking, torque_max; /* motion_limits' bounds */
    uint16_t current_max;
    int16_t temperature_max;
    motion_gains gains;
    int32_t jump;         /* urad in a millisecond that no motion makes */
    int32_t frozen_travel; /* urad that it should have moved while the reading stayed the same */
    int32_t rest_velocity; /* at rest for Arm */
} board_axis;

typedef struct {
    char hardware[16];
    uint8_t axes;
    uint32_t dead_man_max_us;
    uint16_t bus_min_mV, bus_max_mV;
    board_axis axis[AXES_MAX];
} board_table;

extern const board_table board_arm, board_rover, board_servos;

static inline bool axis_is_position(const board_axis *axis) {
    return axis->kind == 1U || axis->kind == 2U; /* AXIS_POSITION_ROTARY, _LINEAR */
}

#endif
