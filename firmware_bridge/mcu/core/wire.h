/* Frames on the wire; firmware_bridge/wire.py draws them and is the same in Python.
 *
 *     00 | COBS( header 22 | payload <= 240 | CRC-32C 4 ) | 00
 *
 * Pure: no allocation, no register, no clock; every loop is bounded by the sizes below.
 */
#ifndef EDGE_WM_CORE_WIRE_H
#define EDGE_WM_CORE_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WIRE_HEADER 22u
#define WIRE_MOST_PAYLOAD 240u
#define WIRE_MOST_BODY (WIRE_HEADER + WIRE_MOST_PAYLOAD)
#define WIRE_MOST_STUFFED (WIRE_MOST_BODY + 4u + 2u) /* CRC; COBS adds one a 254 bytes */
#define WIRE_MOST_FRAME (WIRE_MOST_STUFFED + 2u)

uint32_t wire_crc32c(const uint8_t *data, size_t size);

/* Writes the frame of a body (header and payload) and returns its size; 0 if the body is longer
 * than WIRE_MOST_BODY. `out` has room for WIRE_MOST_FRAME. */
size_t wire_frame(const uint8_t *body, size_t size, uint8_t out[WIRE_MOST_FRAME]);

struct wire_parser {
    uint8_t held[WIRE_MOST_STUFFED]; /* what came since the last zero; after a frame its body */
    uint16_t size;                   /* bytes in `held` */
    bool overlong;                   /* more came than a frame may have */
    uint32_t accepted;
    uint32_t damaged;                /* bad COBS, CRC or length */
};

/* Takes one byte. True if it ended a whole frame: its body then lies in `held`, `*size` bytes, until
 * the next byte is taken. An all-zero parser is ready. */
bool wire_take(struct wire_parser *parser, uint8_t byte, size_t *size);

#endif
