#include "measure.h"

enum { TURN_urad = 6283185 };

void encoder_sample(encoder *e, int32_t moved, uint32_t counts_per_turn, uint32_t now_us,
                    axis_input *input) {
    e->counts += moved;
    const int64_t urad = e->counts * TURN_urad / (int64_t)counts_per_turn;
    const int32_t position = (int32_t)(uint32_t)(uint64_t)urad;
    const uint32_t slot = e->samples % ENCODER_WINDOW;
    /* The oldest sample: the one that is about to be overwritten, or the first. */
    const uint32_t oldest = e->samples < ENCODER_WINDOW ? 0U : slot;
    int64_t velocity = 0;
    if (e->samples > 0) {
        const uint32_t took_us = now_us - e->at_us[oldest];
        const int32_t way = (int32_t)((uint32_t)position - (uint32_t)e->position[oldest]);
        velocity = took_us == 0 ? 0 : (int64_t)way * 1000000 / took_us;
    }
    e->position[slot] = position;
    e->at_us[slot] = now_us;
    e->samples++;
    input->position = position;
    input->velocity = velocity > INT32_MAX   ? INT32_MAX
                      : velocity < INT32_MIN ? INT32_MIN : (int32_t)velocity;
}

static bool inside(uint16_t raw) {
    return raw > 0 && raw < ANALOG_FULL;
}

bool analog_current(uint16_t raw, int32_t full_mA, int32_t *current_mA) {
    *current_mA = ((int32_t)raw - 2048) * full_mA / 2048;
    return inside(raw);
}

bool analog_temperature(uint16_t raw, int16_t *tenths) {
    *tenths = (int16_t)((int32_t)raw * ANALOG_mV / ANALOG_FULL - 500); /* 1 mV is 0.1 degC */
    return inside(raw);
}

uint32_t analog_bus_mV(uint16_t raw, uint32_t divider) {
    return (uint32_t)raw * ANALOG_mV / ANALOG_FULL * divider;
}

uint32_t measure_duty(int32_t torque, uint32_t torque_max, uint32_t full) {
    const uint64_t magnitude = torque < 0 ? (uint64_t)(-(int64_t)torque) : (uint64_t)torque;
    const uint64_t share = magnitude * full / torque_max;
    return share > full ? full : (uint32_t)share;
}
