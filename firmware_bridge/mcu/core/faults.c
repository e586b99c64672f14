#include "faults.h"

#include <stddef.h>
#include <string.h>

#include "modes_reasons.h"
#include "wire.h"

/* A motor's time constant with room to spare. */
enum { FOLLOWS_MS = 32 };

enum { LOG_MAGIC = 0x464C4F47, TEMPERATURE_LOW = -500, TEMPERATURE_HIGH = 2000 };

static const fault none = {0, NO_AXIS, 0, 0};

static int64_t magnitude(int64_t value) {
    return value < 0 ? -value : value;
}

/* Toward `reference` as a motor gets there: a 32nd of the way in a millisecond, all of it in the end. */
static int64_t follow(int64_t follows, int64_t reference, uint32_t milliseconds) {
    const int64_t gap = reference - follows;
    if (milliseconds >= FOLLOWS_MS || magnitude(gap) < FOLLOWS_MS) {
        return reference;
    }
    return follows + gap * (int64_t)milliseconds / FOLLOWS_MS;
}

/* The speed at which a motor surely moves, whether it follows at once or lags: none while it turns
 * round or has just been told to go or to stop; at a steady speed the reference's. */
static int64_t surely(int64_t reference, int64_t follows) {
    if ((reference < 0) != (follows < 0)) {
        return 0;
    }
    return magnitude(reference) < magnitude(follows) ? magnitude(reference) : magnitude(follows);
}

/* Is the position believable against the one before it? (An axis that turns round stands between two
 * counts while its reference runs ahead the other way.) */
static fault check_encoder(const board_axis *board, const axis_input *input, fault_memory *memory,
                           uint8_t axis, int64_t reference_velocity, uint32_t milliseconds) {
    /* Distance traveled wraps modulo 2^32: so does the difference. */
    const int32_t moved = (int32_t)((uint32_t)input->position - (uint32_t)memory->position);
    const bool known = memory->known;
    memory->follows = follow(memory->follows, reference_velocity, milliseconds);
    memory->position = input->position;
    memory->known = true;
    if (!known) {
        memory->travel = 0;
        return none;
    }
    if (magnitude(moved) > (int64_t)board->jump * milliseconds) {
        return (fault){REASON_ENCODER_JUMP, axis, moved, board->jump};
    }
    if (moved != 0) {
        memory->travel = 0;
        return none;
    }
    /* Driven or turning, and the reading has not changed by one bit. */
    int64_t speed = surely(reference_velocity, memory->follows) / MOTION_NANO;
    if (magnitude(input->velocity) > speed) {
        speed = magnitude(input->velocity);
    }
    memory->travel += speed * milliseconds; /* nrad */
    if (memory->travel > (int64_t)board->frozen_travel * MOTION_NANO) {
        return (fault){REASON_ENCODER_FROZEN, axis, (int32_t)(memory->travel / MOTION_NANO),
                       board->frozen_travel};
    }
    return none;
}

fault fault_check_axis(const board_axis *board, const axis_input *input, fault_memory *memory,
                       uint8_t axis, uint16_t current_max, int16_t temperature_max,
                       int64_t reference_velocity, uint32_t milliseconds) {
    const uint8_t valid = INPUT_POSITION | INPUT_CURRENT | INPUT_TEMPERATURE;
    if ((input->flags & INPUT_ANSWERED) == 0) {
        /* One missing answer may be the bus; two are a lost sensor. */
        memory->known = false;
        if (memory->lost < 2) {
            memory->lost++;
        }
        return memory->lost < 2 ? none : (fault){REASON_SENSOR_LOST, axis, memory->lost, 1};
    }
    memory->lost = 0;
    if ((input->flags & valid) != valid) {
        memory->known = false;
        return (fault){REASON_SENSOR_INVALID, axis, input->flags, valid};
    }
    if (magnitude(input->velocity) > 4 * (int64_t)board->velocity_max) {
        return (fault){REASON_SENSOR_INVALID, axis, input->velocity, (int32_t)board->velocity_max};
    }
    if (input->temperature < TEMPERATURE_LOW || input->temperature > TEMPERATURE_HIGH) {
        return (fault){REASON_SENSOR_INVALID, axis, input->temperature, TEMPERATURE_HIGH};
    }
    const fault encoder =
        check_encoder(board, input, memory, axis, reference_velocity, milliseconds);
    if (encoder.reason != 0) {
        return encoder;
    }
    if (input->temperature > temperature_max) {
        return (fault){REASON_OVER_TEMPERATURE, axis, input->temperature, temperature_max};
    }
    if (magnitude(input->current_mA) > current_max) {
        return (fault){REASON_OVER_CURRENT, axis, input->current_mA, current_max};
    }
    return none;
}

fault fault_check_bus(uint32_t bus_mV, uint16_t low_mV, uint16_t high_mV) {
    const int32_t value = bus_mV > INT32_MAX ? INT32_MAX : (int32_t)bus_mV;
    if (bus_mV < low_mV) {
        return (fault){REASON_UNDER_VOLTAGE, NO_AXIS, value, low_mV};
    }
    if (bus_mV > high_mV) {
        return (fault){REASON_OVER_VOLTAGE, NO_AXIS, value, high_mV};
    }
    return none;
}

bool fault_is_of_sensor(uint16_t reason) {
    return reason == REASON_SENSOR_INVALID || reason == REASON_SENSOR_LOST ||
           reason == REASON_ENCODER_JUMP || reason == REASON_ENCODER_FROZEN;
}

static uint32_t log_crc(const fault_log *log) {
    uint8_t bytes[sizeof(fault_log)];
    memcpy(bytes, log, sizeof(fault_log));
    return wire_crc32c(bytes, offsetof(fault_log, crc));
}

void fault_log_boot(fault_log *log) {
    if (log->magic != LOG_MAGIC || log->crc != log_crc(log)) {
        memset(log, 0, sizeof(*log));
        log->magic = LOG_MAGIC;
    }
    log->boots++;
    log->crc = log_crc(log);
}

void fault_log_add(fault_log *log, fault what, uint64_t now_us) {
    fault_entry *entry = &log->entry[log->written % FAULT_RECORDS];
    entry->device_us = now_us;
    entry->what = what;
    entry->boot = log->boots;
    log->written++;
    log->crc = log_crc(log);
}

uint32_t fault_log_count(const fault_log *log) {
    return log->written < FAULT_RECORDS ? log->written : FAULT_RECORDS;
}

const fault_entry *fault_log_at(const fault_log *log, uint32_t index) {
    return &log->entry[(log->written - 1U - index) % FAULT_RECORDS];
}
