/* The firmware's end of the wire as a library, for tests/link: its frames, its parser, and each
 * message through nunavut's C, from bytes to a struct and back. */
#include <string.h>

#include "wire.h"

#define MESSAGES(X)                                                                             \
    X(Header) X(Hello) X(Identity) X(ClockRequest) X(ClockReply) X(AxisLimits) X(Limits)        \
    X(LimitsReply) X(Arm) X(Disarm) X(AxisCommand) X(Command) X(AxisStatus) X(Status)           \
    X(FaultQuery) X(FaultRecord) X(Reset) X(EmergencyStop) X(Ping) X(Pong) X(Refusal)

#include "all_messages.h" /* made by the test: an #include for each */

/* Bytes to a struct to bytes; the size, or -1. */
#define THROUGH(name)                                                                           \
    int through_##name(const uint8_t *in, size_t size, uint8_t *out, size_t room) {             \
        edge_wire_##name##_1_0 message;                                                         \
        size_t read = size, written = room;                                                     \
        if (edge_wire_##name##_1_0_deserialize_(&message, in, &read) < 0) return -1;            \
        if (edge_wire_##name##_1_0_serialize_(&message, out, &written) < 0) return -1;          \
        return (int)written;                                                                    \
    }
MESSAGES(THROUGH)

static struct wire_parser parser;

void parser_reset(void) { memset(&parser, 0, sizeof parser); }
uint32_t parser_accepted(void) { return parser.accepted; }
uint32_t parser_damaged(void) { return parser.damaged; }

/* Feeds bytes; writes each whole body as its size (2 bytes, little-endian) and its bytes. */
size_t parser_feed(const uint8_t *data, size_t size, uint8_t *out, size_t room) {
    size_t to = 0;
    for (size_t i = 0; i < size; ++i) {
        size_t whole = 0;
        if (!wire_take(&parser, data[i], &whole) || to + 2 + whole > room) continue;
        out[to++] = (uint8_t)whole;
        out[to++] = (uint8_t)(whole >> 8);
        memcpy(out + to, parser.held, whole);
        to += whole;
    }
    return to;
}
