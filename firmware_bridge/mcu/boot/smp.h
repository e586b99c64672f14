/* A server for SMP, the protocol that smpmgr, smpclient and mcumgr speak, on the link's own wire.
 *
 * A message is 8 bytes of header and a CBOR map; on the wire it is length, message and CRC-16
 * (XMODEM), all of it in base64, in lines of at most 127 bytes:
 *
 *     06 09 base64 \n   04 14 base64 \n   ...
 *
 * The link's own frames lie between two 00 and hold none; outside of them no byte is theirs. So one
 * wire carries both, and smp_receive says whose a byte is.
 *
 * Served: echo, reset, parameters, information (group 0); state, upload, erase (group 1). Nothing is
 * served while the robot is armed, and slot 1 is not written while an image is on trial. A refusal
 * is {"rc": number, "rsn": sentence}. */
#ifndef EDGE_WM_SMP_H
#define EDGE_WM_SMP_H

#include <stddef.h>

#include "boot.h"

enum {
    SMP_MESSAGE = 1024,                          /* header and CBOR */
    SMP_FRAME = SMP_MESSAGE + 4,                 /* with length and CRC */
    SMP_LINES = (SMP_FRAME + 2) / 3 * 4 + 12 * 3 /* as base64, in lines of 120 letters */
};

typedef struct {
    boot *boot;
    bool armed;        /* by the port, before smp_receive: then everything is refused */
    bool reset_wanted; /* for the port, once smp_pending is 0 */

    uint8_t where;                 /* in the stream of bytes; smp.c's enum */
    uint8_t in[SMP_FRAME];         /* length, message, CRC as they arrive */
    uint32_t in_length, base64, base64_count, frame_bytes;
    uint8_t lines[SMP_LINES];      /* the answer */
    uint32_t lines_length, lines_sent;

    bool uploading;
    uint32_t upload_length, upload_offset; /* the offset is the next byte's that is wanted */
    bool has_sha;
    uint8_t sha[32];
    uint8_t page[FLASH_WRITE_MAX]; /* what came and is not yet a whole page */
} smp_server;

void smp_init(smp_server *s, boot *b);

/* One byte of the wire: true if it is SMP's, false if it is the link's. */
bool smp_receive(smp_server *s, uint8_t byte);

/* Did the last byte end a frame of the link, or a line? */
bool smp_between(const smp_server *s);

/* Bytes of the answer that wait; they go out in one piece, between two frames of the link. */
size_t smp_pending(const smp_server *s);
size_t smp_transmit(smp_server *s, uint8_t *out, size_t room);

#endif
