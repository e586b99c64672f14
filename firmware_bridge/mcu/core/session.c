#include "session.h"

#include <string.h>

#include "edge_wire/Arm_1_0.h"
#include "edge_wire/ClockReply_1_0.h"
#include "edge_wire/ClockRequest_1_0.h"
#include "edge_wire/Disarm_1_0.h"
#include "edge_wire/EmergencyStop_1_0.h"
#include "edge_wire/FaultQuery_1_0.h"
#include "edge_wire/FaultRecord_1_0.h"
#include "edge_wire/Header_1_0.h"
#include "edge_wire/Hello_1_0.h"
#include "edge_wire/Identity_1_0.h"
#include "edge_wire/LimitsReply_1_0.h"
#include "edge_wire/Ping_1_0.h"
#include "edge_wire/Pong_1_0.h"
#include "edge_wire/Refusal_1_0.h"
#include "edge_wire/Reset_1_0.h"
#include "edge_wire/Status_1_0.h"
#include "limits.h"
#include "modes_reasons.h"
#include "safety.h"
#include "schema_hash.h"

enum { STATUS_EVERY_US = 5000, LOAD_WINDOW_US = 100000, LOAD_SCALE = 10 * 10 * 1000 };

_Static_assert(edge_wire_Header_1_0_SERIALIZATION_BUFFER_SIZE_BYTES_ == WIRE_HEADER, "header");
_Static_assert(edge_wire_LimitsReply_1_0_SERIALIZATION_BUFFER_SIZE_BYTES_ == WIRE_PAYLOAD_MAX,
               "the longest message");
_Static_assert(edge_wire_Limits_1_0_SERIALIZATION_BUFFER_SIZE_BYTES_ == CORE_LIMITS_BYTES, "limits");

/* ---- saying ---------------------------------------------------------------------------------*/

/* Header, CRC and borders around the payload that lies at raw[WIRE_HEADER]; a frame for which
 * there is no room is dropped whole. */
static void say(core *c, uint8_t id, uint8_t *raw, size_t payload) {
    core_session *s = &c->session;
    s->said++;
    const edge_wire_Header_1_0 header = {edge_wire_Header_1_0_PROTOCOL_VERSION, id, SCHEMA_HASH,
                                         s->id, s->said, c->now_us};
    size_t size = WIRE_HEADER;
    (void)edge_wire_Header_1_0_serialize_(&header, raw, &size);
    uint8_t frame[WIRE_ENCODED_MAX];
    const size_t length = wire_encode(raw, WIRE_HEADER + payload, frame);
    if (length > CORE_TRANSMIT - (size_t)(s->out_head - s->out_tail)) {
        return;
    }
    for (size_t i = 0; i < length; i++) {
        s->out[s->out_head % CORE_TRANSMIT] = frame[i];
        s->out_head++;
    }
    s->load_out += (uint32_t)length;
}

#define SAY(c, Type, message)                                                                   \
    do {                                                                                        \
        uint8_t raw_[WIRE_RAW_MAX];                                                             \
        size_t size_ = sizeof(raw_) - WIRE_HEADER;                                              \
        (void)Type##_serialize_((message), &raw_[WIRE_HEADER], &size_);                         \
        say((c), Type##_ID, raw_, size_);                                                       \
    } while (0)

static void say_status(core *c) {
    const core_session *s = &c->session;
    edge_wire_Status_1_0 status = {0};
    status.mode = c->mode;
    status.reason = c->cause.reason;
    status.fault_axis = c->cause.axis;
    status.flags = (uint8_t)((c->torque ? edge_wire_Status_1_0_TORQUE_ENABLED : 0U) |
                             (c->torque && !c->braking ? edge_wire_Status_1_0_ARMED : 0U) |
                             (c->inputs.estop_open ? edge_wire_Status_1_0_ESTOP_INPUT_OPEN : 0U) |
                             (c->braking ? edge_wire_Status_1_0_BRAKING : 0U));
    status.command_sequence = c->command_sequence;
    status.sampled_us = c->sampled_us;
    status.bus_mV = c->inputs.bus_mV > UINT16_MAX ? UINT16_MAX : (uint16_t)c->inputs.bus_mV;
    status.link_load_permille = s->load_permille;
    status.frames_accepted = s->frames_accepted;
    status.frames_damaged = s->parser.frames_damaged;
    status.frames_refused = s->frames_refused;
    status.last_refusal = s->last_refusal;
    status.fault_records = (uint16_t)fault_log_count(c->log);
    for (uint8_t axis = 0; axis < c->board->axes; axis++) {
        const axis_input *in = &c->inputs.axis[axis];
        edge_wire_AxisStatus_1_0 *to = &status.axis[axis];
        const int32_t torque = c->torque_mNm[axis] / 10;
        const int32_t current = in->current_mA / 4;
        to->position = in->position;
        to->velocity = in->velocity;
        to->_torque = (int16_t)(torque > INT16_MAX   ? INT16_MAX
                               : torque < INT16_MIN ? INT16_MIN : torque);
        to->current = (int16_t)(current > INT16_MAX   ? INT16_MAX
                                : current < INT16_MIN ? INT16_MIN : current);
        to->temperature = in->temperature;
        to->flags = (in->flags & INPUT_ANSWERED) != 0 ? (uint8_t)(in->flags & 7U) : 0;
    }
    SAY(c, edge_wire_Status_1_0, &status);
    c->session.status_due_us = c->now_us + STATUS_EVERY_US;
}

static void say_refusal(core *c, uint8_t id, uint32_t sequence, fault why) {
    const edge_wire_Refusal_1_0 refusal = {id, sequence, why.reason, why.axis, why.value, why.limit};
    SAY(c, edge_wire_Refusal_1_0, &refusal);
}

static void say_identity(core *c) {
    edge_wire_Identity_1_0 identity = {0};
    identity.nonce = c->session.nonce;
    memcpy(identity.firmware_version, c->identity.version, sizeof(identity.firmware_version));
    memcpy(identity.image_sha256, c->identity.image_sha256, sizeof(identity.image_sha256));
    memcpy(identity.hardware, c->board->hardware, sizeof(identity.hardware));
    memcpy(identity.serial, c->identity.serial, sizeof(identity.serial));
    identity.reset_cause = c->identity.reset_cause;
    identity.capabilities = c->identity.capabilities;
    identity.boots = c->log->boots;
    for (uint8_t axis = 0; axis < c->board->axes; axis++) {
        identity.axis_kind[axis] = c->board->axis[axis].kind;
    }
    identity.dead_man_max_us = c->board->dead_man_max_us;
    identity.link_bits_per_s = c->identity.link_bits_per_s;
    SAY(c, edge_wire_Identity_1_0, &identity);
}

/* ---- hearing --------------------------------------------------------------------------------*/

/* A new session: the old one's limits and commands are gone, and a moving device brakes. */
static void hear_hello(core *c, const edge_wire_Hello_1_0 *hello) {
    core_session *s = &c->session;
    if (s->open && hello->nonce == s->nonce) {
        say_identity(c); /* the same one twice, and the session not yet used: the same answer */
        return;
    }
    safety_disarm(c, REASON_OPERATOR_STOP);
    c->limits_stale = true;
    uint8_t seed[16];
    s->opened++;
    const uint32_t words[4] = {c->log->boots, s->opened, hello->nonce, s->id};
    memcpy(seed, words, sizeof(seed));
    const uint32_t previous = s->id;
    uint32_t id = wire_crc32c(seed, sizeof(seed));
    while (id == 0 || id == previous) {
        id++; /* at most twice */
    }
    s->id = id;
    s->nonce = hello->nonce;
    s->open = true;
    s->heard = 0;
    s->said = 0;
    say_identity(c);
    s->status_due_us = c->now_us;
}

static void hear_fault_query(core *c, uint8_t index) {
    edge_wire_FaultRecord_1_0 record = {0};
    const uint32_t count = fault_log_count(c->log);
    record.index = index;
    record.count = (uint8_t)count;
    if (index < count) {
        const fault_entry *entry = fault_log_at(c->log, index);
        record.reason = entry->what.reason;
        record.axis = entry->what.axis;
        record.value = entry->what.value;
        record.limit = entry->what.limit;
        record.boots = entry->boot;
        record.device_us = entry->device_us;
    }
    SAY(c, edge_wire_FaultRecord_1_0, &record);
}

/* The payload's size of each message that the host may send; -1 for all others. */
static int32_t size_of(uint8_t id) {
    switch (id) {
    case edge_wire_Hello_1_0_ID: return (int32_t)edge_wire_Hello_1_0_EXTENT_BYTES_;
    case edge_wire_ClockRequest_1_0_ID: return (int32_t)edge_wire_ClockRequest_1_0_EXTENT_BYTES_;
    case edge_wire_Limits_1_0_ID: return (int32_t)edge_wire_Limits_1_0_EXTENT_BYTES_;
    case edge_wire_Arm_1_0_ID: return (int32_t)edge_wire_Arm_1_0_EXTENT_BYTES_;
    case edge_wire_Disarm_1_0_ID: return (int32_t)edge_wire_Disarm_1_0_EXTENT_BYTES_;
    case edge_wire_Command_1_0_ID: return (int32_t)edge_wire_Command_1_0_EXTENT_BYTES_;
    case edge_wire_FaultQuery_1_0_ID: return (int32_t)edge_wire_FaultQuery_1_0_EXTENT_BYTES_;
    case edge_wire_Reset_1_0_ID: return (int32_t)edge_wire_Reset_1_0_EXTENT_BYTES_;
    case edge_wire_EmergencyStop_1_0_ID: return (int32_t)edge_wire_EmergencyStop_1_0_EXTENT_BYTES_;
    case edge_wire_Ping_1_0_ID: return (int32_t)edge_wire_Ping_1_0_EXTENT_BYTES_;
    default: return -1;
    }
}

/* Do what an admitted message says. A fault of reason 0 if it was done. */
static fault obey(core *c, const edge_wire_Header_1_0 *header, const uint8_t *payload, size_t size) {
    fault refused = {0, NO_AXIS, 0, 0};
    switch (header->message_id) {
    case edge_wire_Hello_1_0_ID: {
        edge_wire_Hello_1_0 hello = {0};
        (void)edge_wire_Hello_1_0_deserialize_(&hello, payload, &size);
        hear_hello(c, &hello);
        break;
    }
    case edge_wire_ClockRequest_1_0_ID: {
        edge_wire_ClockRequest_1_0 request = {0};
        (void)edge_wire_ClockRequest_1_0_deserialize_(&request, payload, &size);
        const edge_wire_ClockReply_1_0 reply = {request._token, c->now_us};
        SAY(c, edge_wire_ClockReply_1_0, &reply);
        break;
    }
    case edge_wire_Limits_1_0_ID: {
        edge_wire_LimitsReply_1_0 reply = {0};
        (void)edge_wire_Limits_1_0_deserialize_(&reply.limits, payload, &size);
        refused = limits_agree(c, &reply.limits);
        if (refused.reason == 0) {
            c->limits_stale = false;
            reply.limits = c->limits;
            reply.crc = c->limits_crc;
            SAY(c, edge_wire_LimitsReply_1_0, &reply);
        }
        break;
    }
    case edge_wire_Arm_1_0_ID: {
        edge_wire_Arm_1_0 arm = {0};
        (void)edge_wire_Arm_1_0_deserialize_(&arm, payload, &size);
        refused = c->limits_stale
                      ? (fault){REASON_LIMITS_NOT_AGREED, NO_AXIS, 0, 0}
                      : safety_arm(c, arm.limits_crc, arm.clock_error_us, arm.link_load_permille);
        break;
    }
    case edge_wire_Disarm_1_0_ID:
        safety_disarm(c, REASON_OPERATOR_STOP);
        break;
    case edge_wire_Command_1_0_ID: {
        edge_wire_Command_1_0 command = {0};
        (void)edge_wire_Command_1_0_deserialize_(&command, payload, &size);
        refused = safety_accept(c, &command, header->sequence);
        break;
    }
    case edge_wire_FaultQuery_1_0_ID:
        hear_fault_query(c, payload[0]);
        break;
    case edge_wire_Reset_1_0_ID: {
        edge_wire_Reset_1_0 reset = {0};
        (void)edge_wire_Reset_1_0_deserialize_(&reset, payload, &size);
        refused = safety_release(c, reset.reason);
        break;
    }
    case edge_wire_EmergencyStop_1_0_ID:
        safety_estop(c);
        break;
    default: { /* Ping, the last of size_of */
        edge_wire_Pong_1_0 pong;
        memcpy(pong.data, payload, sizeof(pong.data));
        SAY(c, edge_wire_Pong_1_0, &pong);
        break;
    }
    }
    return refused;
}

/* May it be heard at all? The reason, or 0. Hello is always; EmergencyStop from any session. */
static uint16_t admit(const core *c, const edge_wire_Header_1_0 *header, size_t payload) {
    const core_session *s = &c->session;
    const bool hello = header->message_id == edge_wire_Hello_1_0_ID;
    const bool estop = header->message_id == edge_wire_EmergencyStop_1_0_ID;
    const int32_t size = size_of(header->message_id);
    if (header->protocol_version != edge_wire_Header_1_0_PROTOCOL_VERSION) {
        return REASON_LINK_WRONG_SCHEMA;
    }
    if (!hello && header->schema_hash != SCHEMA_HASH) {
        return REASON_LINK_WRONG_SCHEMA;
    }
    if (size < 0 || (size_t)size != payload) {
        return REASON_LINK_WRONG_SCHEMA;
    }
    if (hello) {
        /* A repeat of the Hello that opened this session must not end it once it is in use. */
        return s->open && s->heard > 0 && c->hello_nonce == s->nonce ? REASON_LINK_REPEATED : 0;
    }
    if (estop) {
        return 0;
    }
    if (!s->open || header->session_id != s->id) {
        return REASON_LINK_WRONG_SESSION;
    }
    return header->sequence <= s->heard ? REASON_LINK_REPEATED : 0;
}

/* An intact frame lies in the parser. */
static void hear(core *c) {
    core_session *s = &c->session;
    const size_t payload = (size_t)s->parser.length - WIRE_HEADER - WIRE_CRC;
    const uint8_t *at = &s->parser.raw[WIRE_HEADER];
    edge_wire_Header_1_0 header = {0};
    size_t size = WIRE_HEADER;
    (void)edge_wire_Header_1_0_deserialize_(&header, s->parser.raw, &size);
    if (header.message_id == edge_wire_Hello_1_0_ID && payload == 4) {
        edge_wire_Hello_1_0 hello = {0};
        size = payload;
        (void)edge_wire_Hello_1_0_deserialize_(&hello, at, &size);
        c->hello_nonce = hello.nonce;
    }
    const uint16_t unheard = admit(c, &header, payload);
    if (unheard != 0) {
        s->frames_refused++;
        s->last_refusal = unheard;
        if (unheard != REASON_LINK_REPEATED && header.message_id != edge_wire_Command_1_0_ID) {
            say_refusal(c, header.message_id, header.sequence, (fault){unheard, NO_AXIS, 0, 0});
        }
        return;
    }
    const bool mine = s->open && header.session_id == s->id;
    const fault refused = obey(c, &header, at, payload);
    if (mine && header.message_id != edge_wire_Hello_1_0_ID && header.sequence > s->heard) {
        s->heard = header.sequence;
    }
    if (refused.reason != 0) {
        s->frames_refused++;
        s->last_refusal = refused.reason;
        /* A refused Command shows in Status alone, so that the link stays quiet. */
        if (header.message_id != edge_wire_Command_1_0_ID) {
            say_refusal(c, header.message_id, header.sequence, refused);
        }
        return;
    }
    s->frames_accepted++;
    switch (header.message_id) {
    case edge_wire_Arm_1_0_ID:
    case edge_wire_Disarm_1_0_ID:
    case edge_wire_Reset_1_0_ID:
    case edge_wire_EmergencyStop_1_0_ID:
        say_status(c);
        break;
    default:
        break;
    }
}

void session_receive(core *c, uint8_t byte) {
    c->session.load_in++;
    if (wire_feed(&c->session.parser, byte)) {
        hear(c);
    }
}

void session_tick(core *c) {
    core_session *s = &c->session;
    if (c->now_us - s->load_since_us >= LOAD_WINDOW_US) {
        const uint64_t busier = s->load_in > s->load_out ? s->load_in : s->load_out;
        const uint32_t rate = c->identity.link_bits_per_s;
        /* 10 bits a byte, ten windows a second, in permille */
        const uint64_t load = rate == 0 ? 0 : busier * LOAD_SCALE / rate;
        s->load_permille = load > UINT16_MAX ? UINT16_MAX : (uint16_t)load;
        s->load_in = 0;
        s->load_out = 0;
        s->load_since_us = c->now_us;
    }
    if (s->open && c->now_us >= s->status_due_us) {
        say_status(c);
    }
}
