/* The firmware without its board: bytes and readings in, torque and bytes out.
 *
 *     core_receive (bytes) -> session -> limits, queue of commands -\
 *     core_tick (readings, time) -> faults -> safety -> motion -> torque, Status
 *     core_transmit (bytes)
 *
 * Pure: time and readings are arguments, memory is the caller's, loops are bounded; nothing here
 * knows a register. core_tick is called every millisecond.
 *
 * The modes, and the only ways between them:
 *
 *     IDLE --Arm--> HOLD --a Command takes effect--> ACTIVE
 *       ^             |   no Command in time           |
 *       |             +--> STOP (suffix) <-------------+--> FAULT / ESTOP (suffix, then torque off)
 *       |                  | Disarm, Hello: back to IDLE         |
 *       |                  +--> FAULT, latched, torque off       |
 *       +---------------------- Reset(reason), core_release -----+ */
#ifndef EDGE_WM_CORE_H
#define EDGE_WM_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "board.h"
#include "edge_wire/Command_1_0.h"
#include "edge_wire/Limits_1_0.h"
#include "faults.h"
#include "wire.h"

enum { CORE_QUEUE = 8, CORE_TRANSMIT = 2048, CORE_LIMITS_BYTES = 233 };

typedef struct {
    uint16_t version[3];
    uint8_t image_sha256[32];
    uint8_t serial[12];
    uint8_t reset_cause; /* Identity's RESET_... */
    uint8_t capabilities;
    uint32_t link_bits_per_s; /* 0: not a wire with a rate */
} core_identity;

typedef struct {
    bool open;
    uint32_t id, previous_id, opened;
    uint32_t nonce;
    uint32_t heard;  /* sequence of the last accepted message */
    uint32_t said;   /* sequence of the last one sent */
    uint32_t frames_accepted, frames_refused;
    uint16_t last_refusal;
    uint64_t received_us; /* when the last byte of the newest frame arrived */
    uint64_t status_due_us;
    wire_parser parser;
    uint8_t out[CORE_TRANSMIT];
    uint32_t out_head, out_tail; /* counters; modulo CORE_TRANSMIT in `out` */
    uint32_t load_in, load_out;  /* bytes in this window of 100 ms */
    uint64_t load_since_us;
    uint16_t load_permille;
} core_session;

typedef struct {
    edge_wire_Command_1_0 command;
    uint64_t valid_until_us;
} core_queued;

typedef struct {
    const board_table *board;
    core_identity identity;
    fault_log *log;
    core_session session;

    bool limits_agreed;
    bool limits_stale; /* agreed in an earlier session: they bind, but do not arm */
    uint32_t limits_crc;
    edge_wire_Limits_1_0 limits; /* the effective ones */

    core_queued queue[CORE_QUEUE]; /* accepted, in the order of apply_at */
    uint8_t queued;
    core_queued playing;
    uint32_t command_sequence;
    uint64_t heartbeat_us; /* the last accepted Command, or Arm */

    uint8_t mode;  /* a number of mode.toml */
    uint8_t after; /* the mode when the suffix has run */
    bool braking;
    bool torque;
    fault cause; /* why it brakes or is latched */
    uint8_t damp;
    uint64_t braking_since_us;
    uint32_t suffix_deceleration[AXES_MAX];
    uint16_t suffix_ms[AXES_MAX];

    motion_state reference[AXES_MAX];
    int64_t integral[AXES_MAX];
    int32_t torque_mNm[AXES_MAX];
    fault_memory memory[AXES_MAX];
    core_inputs inputs; /* of the last tick */
    uint64_t now_us;     /* of the newest call */
    uint64_t sampled_us; /* of the last tick */
    uint32_t hello_nonce; /* of the newest Hello, intact or repeated */
    bool ticked;
    bool link_ran;
} core;

/* `log` lies in memory that survives a reset. A reset by watchdog, hang, hard fault or stack
 * overflow starts latched. */
void core_init(core *c, const board_table *board, const core_identity *identity, fault_log *log);

/* Bytes from the host; call it every millisecond, with none too. */
void core_receive(core *c, const uint8_t *bytes, size_t length, uint64_t now_us);

/* One millisecond of control and safety work. */
void core_tick(core *c, const core_inputs *inputs, uint64_t now_us, core_outputs *outputs);

/* Up to `room` bytes for the host; returns how many. */
size_t core_transmit(core *c, uint8_t *out, size_t room);

#endif
