/* The tables of the two emulated robots, a two-joint arm and a differential rover, and of a row of
 * bought servos. */
#include "board.h"

const board_table board_arm = {
    .hardware = "emulated-arm",
    .axes = 2,
    .dead_man_max_us = 250000,
    .bus_min_mV = 18000,
    .bus_max_mV = 30000,
    .axis = {{.kind = 1, .position_min = -3100000, .position_max = 3100000,
              .velocity_max = 6000000, .acceleration_max = 40000000, .braking = 40000000,
              .torque_max = 20000, .current_max = 20000, .temperature_max = 900,
              .gains = {.kp = 60000, .kd = 6000}, .jump = 100000, .frozen_travel = 3000,
              .rest_velocity = 50000},
             {.kind = 1, .position_min = -2600000, .position_max = 2600000,
              .velocity_max = 8000000, .acceleration_max = 60000000, .braking = 60000000,
              .torque_max = 10000, .current_max = 15000, .temperature_max = 900,
              .gains = {.kp = 25000, .kd = 2000}, .jump = 100000, .frozen_travel = 3000,
              .rest_velocity = 50000}}};

const board_table board_rover = {
    .hardware = "emulated-rover",
    .axes = 2,
    .dead_man_max_us = 250000,
    .bus_min_mV = 18000,
    .bus_max_mV = 30000,
    .axis = {{.kind = 4, .velocity_max = 2000000, .acceleration_max = 4000000, .braking = 4000000,
              .torque_max = 60000, .current_max = 20000, .temperature_max = 900,
              .gains = {.kp = 220000, .ki = 400000}, .jump = 50000, .frozen_travel = 2000,
              .rest_velocity = 30000},
             {.kind = 3, .velocity_max = 4000000, .acceleration_max = 16000000, .braking = 16000000,
              .torque_max = 20000, .current_max = 20000, .temperature_max = 900,
              .gains = {.kp = 4000, .ki = 8000}, .jump = 100000, .frozen_travel = 3000,
              .rest_velocity = 50000}}};

/* Servos that are bought, behind a driver process (firmware_bridge/motors): each follows the
 * reference by itself, so it gets no torque from here, and is read once in some milliseconds, in
 * steps of a coarse encoder. A robot file narrows all of it. */
#define SERVO                                                                                     \
    {.kind = 1, .position_min = -62831853, .position_max = 62831853, .velocity_max = 50000000,    \
     .acceleration_max = 1000000000, .braking = 1000000000, .torque_max = 1000000,                \
     .current_max = 60000, .temperature_max = 1000, .jump = 100000, .frozen_travel = 200000,      \
     .rest_velocity = 100000}

const board_table board_servos = {
    .hardware = "bought-servos",
    .axes = AXES_MAX,
    .dead_man_max_us = 250000,
    .bus_min_mV = 4000,
    .bus_max_mV = 60000,
    .axis = {SERVO, SERVO, SERVO, SERVO, SERVO, SERVO, SERVO, SERVO}};
