/* What the updater must remember over a power cut: the newest of a row of small records.
 *
 * A record, 32 bytes, little-endian, in a place of 32 bytes or of one write_size if that is more:
 *
 *     0  sequence  4   rises by 1 a place; place and page follow from it
 *     4  state     1   journal_state
 *     5  reason    1   why the last update was not kept: boot_reason
 *     6  boots     1   starts of the trial so far
 *     7  zero      1
 *     8  step      2   the step that comes next, from 0
 *    10  units     2   units that change places
 *    12  floor     4   images with a lower security counter are refused
 *    16  image     8   first bytes of the hash of the image on trial, or of the one not kept
 *    24  zero      4
 *    28  crc       4   CRC-32C of the 28 bytes before
 *
 * A cut leaves at most one broken record, behind the ones that counted before. But cells that lost
 * power while they were written or erased may read differently at every start, as written, as erased or
 * as anything. Hence three rules:
 *
 *   - The first write after a start goes to a page that is erased for it; so no cell that a cut may
 *     have hurt is written again.
 *   - A page begins with the newest record, twice. Where a page holds two good records, all but the
 *     last of them were surely whole; only then is the other page erased, else this one again.
 *   - Nothing is acted on before that was done (journal_firm), except STATE_IDLE when the two newest
 *     records agree on it: most starts write nothing. */
#ifndef EDGE_WM_JOURNAL_H
#define EDGE_WM_JOURNAL_H

#include "flash.h"

enum { JOURNAL_RECORD = 32 };

typedef enum {
    STATE_IDLE = 1,      /* slot 0 is confirmed */
    STATE_REQUESTED = 2, /* slot 1 shall be tried */
    STATE_SWAPPING = 3,
    STATE_TRIAL = 4,     /* slot 0 is new and not confirmed, slot 1 is what ran before */
    STATE_REVERTING = 5,
    STATE_REPAIRING = 6, /* slot 0 is damaged: slot 1 takes its place for good */
} journal_state;

typedef struct {
    uint8_t state, reason, boots;
    uint16_t step, units;
    uint32_t floor;
    uint8_t image[8];
} journal_entry;

typedef struct {
    const flash *flash;
    journal_entry entry; /* the newest; STATE_IDLE and zeros while there is none */
    uint32_t newest;     /* its sequence */
    bool any;            /* is there a record? */
    bool writing;        /* has this start begun a page? */
    uint32_t in_page;    /* good records in the newest one's page */
    bool agreed;         /* do the two newest records say the same? */
} journal;

/* Find the newest record. False if the flash cannot be read. */
bool journal_open(journal *j, const flash *f);

/* To be called once after every start, before the newest record is acted on. */
bool journal_firm(journal *j);

/* Write a record and make it the newest. */
bool journal_append(journal *j, const journal_entry *entry);

#endif
