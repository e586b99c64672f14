#include "core.h"

#include <string.h>

#include "safety.h"
#include "session.h"

enum { CATCH_UP_MAX = 20 }; /* milliseconds that one late tick makes up for */

void core_init(core *c, const board_table *board, const core_identity *identity, fault_log *log) {
    memset(c, 0, sizeof(*c));
    c->board = board;
    c->identity = *identity;
    c->log = log;
    fault_log_boot(log);
    safety_init(c);
}

void core_receive(core *c, const uint8_t *bytes, size_t length, uint64_t now_us) {
    c->now_us = now_us;
    for (size_t i = 0; i < length; i++) {
        session_receive(c, bytes[i]);
    }
    c->link_ran = true;
}

/* Milliseconds since the last tick; a board that was late makes up for some of them. */
static uint32_t elapsed(const core *c, uint64_t now_us) {
    if (!c->ticked || now_us < c->sampled_us) {
        return 1;
    }
    const uint64_t milliseconds = (now_us - c->sampled_us + 500U) / 1000U;
    if (milliseconds < 1) {
        return 1;
    }
    return milliseconds > CATCH_UP_MAX ? CATCH_UP_MAX : (uint32_t)milliseconds;
}

void core_tick(core *c, const core_inputs *inputs, uint64_t now_us, core_outputs *outputs) {
    const uint32_t milliseconds = elapsed(c, now_us);
    c->inputs = *inputs;
    c->now_us = now_us;
    c->sampled_us = now_us;
    c->ticked = true;
    safety_tick(c, milliseconds);
    session_tick(c);

    memset(outputs, 0, sizeof(*outputs));
    for (uint8_t axis = 0; axis < c->board->axes; axis++) {
        outputs->torque[axis] = c->torque_mNm[axis];
        outputs->reference_position[axis] =
            (int32_t)(uint32_t)(uint64_t)(c->reference[axis].position / MOTION_NANO);
        outputs->reference_velocity[axis] = (int32_t)(c->reference[axis].velocity / MOTION_NANO);
    }
    outputs->torque_enable = c->torque;
    outputs->damp = c->damp;
    outputs->mode = c->mode;
    outputs->reason = c->cause.reason;
    outputs->fault_axis = c->cause.axis;
    outputs->braking = c->braking;
    /* Control and safety have just run; the link must have, too. */
    outputs->feed_watchdog = c->link_ran;
    c->link_ran = false;
}

size_t core_transmit(core *c, uint8_t *out, size_t room) {
    core_session *s = &c->session;
    size_t length = 0;
    while (length < room && s->out_tail != s->out_head) {
        out[length] = s->out[s->out_tail % CORE_TRANSMIT];
        s->out_tail++;
        length++;
    }
    return length;
}
