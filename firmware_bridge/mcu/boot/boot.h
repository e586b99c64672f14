/* The updater: what runs after a reset, and how a new image comes to run and is kept or taken back.
 *
 *                       boot_request            swap done               boot_confirm
 *     IDLE (old runs) ------------> REQUESTED -> SWAPPING -> TRIAL ------------------> IDLE (new runs)
 *       ^   ^                           | refused              | started again without confirm,
 *       |   +---------------------------+                      | or slot 0 no longer passes
 *       +------------------------------ REVERTING <------------+
 *     IDLE, slot 0 damaged, slot 1 good: REPAIRING -> IDLE
 *
 * Every arrow is one journal record. The two slots change places unit by unit, three copies each:
 *
 *     0: slot 0 -> scratch    1: slot 1 -> slot 0    2: scratch -> slot 1
 *
 * and the record that names the next step is written only when the copy has been compared. A step
 * that was cut off is done again from its start: its source is untouched until the next record.
 *
 * The invariant: at every moment the old and the new image are both whole, in the slots and the
 * scratch, until boot_confirm; and what boot_start lets run has passed image_check in this start. */
#ifndef EDGE_WM_BOOT_H
#define EDGE_WM_BOOT_H

#include "signed_image.h"
#include "journal.h"

/* Why the last update was not kept; REASON_REFUSED + an image_result: what was wrong with it. */
typedef enum {
    BOOT_KEPT = 0,
    BOOT_NOT_CONFIRMED = 1, /* the trial ended in a reset */
    BOOT_WATCHDOG = 2,      /* the same, and the port says that the watchdog did it */
    BOOT_REPAIRED = 3,      /* slot 0 was damaged */
    BOOT_REFUSED = 64,
} boot_reason;

typedef enum {
    BOOT_RUN,      /* slot 0 may run */
    BOOT_NO_IMAGE, /* neither slot holds an image that may run: wait for an upload */
    BOOT_FLASH,    /* the flash failed; a reset goes on where it stood */
} boot_verdict;

typedef enum {
    BOOT_DONE,
    BOOT_BUSY,         /* a trial is under way: confirm it, or reset and let it be taken back */
    BOOT_BAD_IMAGE,    /* slot 1 does not pass image_check; see `refused` */
    BOOT_FLASH_FAILED,
} boot_answer;

typedef struct {
    const flash *flash;
    const image_policy *policy;
    journal journal;
    image_result refused; /* the last image_check that did not pass */
} boot;

/* Read the journal. False if the flash does not answer. */
bool boot_open(boot *b, const flash *f, const image_policy *policy);

/* All that a bootloader does, resumable wherever the power is cut. `by_watchdog`: this start is a
 * watchdog's reset. `info` tells of the image that may run. */
boot_verdict boot_start(boot *b, bool by_watchdog, image_info *info);

/* For the running application, after boot_open: */

boot_answer boot_request(boot *b); /* check slot 1 and try it at the next reset */
boot_answer boot_confirm(boot *b); /* keep the image on trial, and raise the floor to its counter */
bool boot_may_write(const boot *b); /* may slot 1 be erased and written? only in STATE_IDLE */

/* Unit `index`, the smallest piece that both slots can erase: its place in a slot and its size, or
 * a size of 0 behind the last one. */
flash_area boot_unit(const flash *f, uint32_t index);

#endif
