/* From what a microcontroller's peripherals count to the core's units. */
#ifndef EDGE_WM_MEASURE_H
#define EDGE_WM_MEASURE_H

#include "board.h"

enum { ENCODER_WINDOW = 16, ANALOG_FULL = 4095, ANALOG_mV = 3300 };

/* An incremental encoder: where it is, and how fast over the last samples, because one count in a
 * millisecond is much (0.77 rad/s of 8,192 counts a turn). */
typedef struct {
    int64_t counts;
    int32_t position[ENCODER_WINDOW]; /* urad */
    uint32_t at_us[ENCODER_WINDOW];
    uint32_t samples; /* ever */
} encoder;

/* `moved` counts since the last sample; fills the input's position (modulo 2^32) and velocity. */
void encoder_sample(encoder *e, int32_t moved, uint32_t counts_per_turn, uint32_t now_us,
                    axis_input *input);

/* Readings of a 12-bit converter at 3.3 V. At either end of its range a wire is broken or shorted:
 * false, and the value is not to be believed. */
bool analog_current(uint16_t raw, int32_t full_mA, int32_t *current_mA); /* 0 A at the middle */
bool analog_temperature(uint16_t raw, int16_t *tenths);    /* TMP36: 500 mV at 0, 10 mV a degC */
uint32_t analog_bus_mV(uint16_t raw, uint32_t divider);

/* The share of `full` that a torque is of the largest, rounded down; of its magnitude. */
uint32_t measure_duty(int32_t torque, uint32_t torque_max, uint32_t full);

#endif
