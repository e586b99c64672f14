/* The fault table: what is looked for every millisecond, and the records that survive a reset. */
#ifndef EDGE_WM_FAULTS_H
#define EDGE_WM_FAULTS_H

#include <stdbool.h>
#include <stdint.h>

#include "board.h"

enum { FAULT_RECORDS = 32, NO_AXIS = 255 };

typedef struct {
    uint16_t reason; /* 0: none */
    uint8_t axis;
    int32_t value, limit; /* in the unit of the limit */
} fault;

typedef struct {
    uint64_t device_us;
    fault what;
    uint32_t boot;
} fault_entry;

/* Lies where the port's start-up code does not clear it; believed only if magic and CRC fit. */
typedef struct {
    uint32_t magic;
    uint32_t boots;
    uint32_t written; /* records ever; the newest is entry[(written - 1) % FAULT_RECORDS] */
    fault_entry entry[FAULT_RECORDS];
    uint32_t crc;
} fault_log;

/* What the checks remember between milliseconds. */
typedef struct {
    int32_t position;
    int64_t follows; /* the reference as a motor follows it: see check_encoder */
    int64_t travel;  /* how far the axis should have moved since the reading last changed */
    uint8_t lost;   /* periods without an answer */
    bool known;     /* position holds a reading */
} fault_memory;

/* The first fault of this axis, or none. `reference_velocity` is nrad/s, 0 while not driven. */
fault fault_check_axis(const board_axis *board, const axis_input *input, fault_memory *memory,
                       uint8_t axis, uint16_t current_max, int16_t temperature_max,
                       int64_t reference_velocity, uint32_t milliseconds);
fault fault_check_bus(uint32_t bus_mV, uint16_t low_mV, uint16_t high_mV);
bool fault_is_of_sensor(uint16_t reason); /* the axis' reading can't be braked by */

void fault_log_boot(fault_log *log); /* believe or clear it, and count the boot */
void fault_log_add(fault_log *log, fault what, uint64_t now_us);
uint32_t fault_log_count(const fault_log *log);
/* The record `index`, 0 being the newest; index < fault_log_count. */
const fault_entry *fault_log_at(const fault_log *log, uint32_t index);

#endif
