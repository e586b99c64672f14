#include "boot.h"

#include <string.h>

enum { COPIES = 3, TRIAL_STARTS = 1, TURNS_MAX = 8 };

/* ---- units ------------------------------------------------------------------------------------*/

flash_area boot_unit(const flash *f, uint32_t index) {
    flash_area unit = {0, 0};
    for (uint32_t i = 0; i <= index; i++) {
        unit.offset += unit.size;
        unit.size = 0;
        if (unit.offset >= f->slot[0].size) {
            return unit;
        }
        uint32_t end[2] = {0, 0};
        do { /* lengthen the shorter until both end at the same place; they do at the slots' end */
            const uint32_t which = end[0] <= end[1] ? 0 : 1;
            const uint32_t sector =
                flash_sector(f, f->slot[which].offset + unit.offset + end[which]);
            if (sector == 0) {
                return (flash_area){unit.offset, 0};
            }
            end[which] += sector;
        } while (end[0] != end[1]);
        unit.size = end[0];
    }
    return unit;
}

/* How many units hold the first `size` bytes of a slot. */
static uint16_t units_for(const flash *f, uint32_t size) {
    uint16_t count = 0;
    for (flash_area unit = boot_unit(f, 0); unit.size != 0 && unit.offset < size;
         unit = boot_unit(f, count)) {
        count++;
    }
    return count;
}

/* ---- the three copies -------------------------------------------------------------------------*/

static bool copy_step(const flash *f, uint16_t step) {
    const flash_area unit = boot_unit(f, step / COPIES);
    const uint32_t first = f->slot[0].offset + unit.offset, second = f->slot[1].offset + unit.offset;
    if (unit.size == 0 || unit.size > f->scratch.size) {
        return false;
    }
    switch (step % COPIES) {
    case 0:
        return flash_copy(f, first, f->scratch.offset, unit.size);
    case 1:
        return flash_copy(f, second, first, unit.size);
    default:
        return flash_copy(f, f->scratch.offset, second, unit.size);
    }
}

/* Do what is left of a swap, and end in `entry`. */
static bool swap(boot *b, const journal_entry *then) {
    journal_entry entry = b->journal.entry;
    while (entry.step < entry.units * COPIES) {
        if (!copy_step(b->flash, entry.step)) {
            return false;
        }
        entry.step++;
        if (!journal_append(&b->journal, &entry)) {
            return false;
        }
    }
    return journal_append(&b->journal, then);
}

static bool begin_swap(boot *b, journal_state state, boot_reason reason, uint16_t units) {
    journal_entry entry = b->journal.entry;
    entry.state = (uint8_t)state;
    entry.reason = (uint8_t)reason;
    entry.step = 0;
    entry.units = units;
    return journal_append(&b->journal, &entry);
}

/* ---- after a reset ----------------------------------------------------------------------------*/

static image_result check(boot *b, uint32_t slot, image_info *info) {
    const image_result result = image_check(b->flash, b->flash->slot[slot], b->policy,
                                            b->journal.entry.floor, info);
    if (result != IMAGE_GOOD) {
        b->refused = result;
    }
    return result;
}

static bool idle(boot *b, uint8_t reason) {
    journal_entry entry = b->journal.entry;
    entry.state = STATE_IDLE;
    entry.reason = reason;
    entry.boots = 0;
    entry.step = 0;
    entry.units = 0;
    return journal_append(&b->journal, &entry);
}

/* Slot 1 shall be tried: check it once more, and as many units change places as either image has. */
static bool take_up(boot *b, image_info *info) {
    image_info old;
    const image_result result = check(b, 1, info);
    if (result != IMAGE_GOOD) {
        return idle(b, (uint8_t)(BOOT_REFUSED + result));
    }
    const uint32_t old_size = image_read(b->flash, b->flash->slot[0], &old) == IMAGE_GOOD ? old.size : 0;
    memcpy(b->journal.entry.image, info->hash, sizeof(b->journal.entry.image));
    return begin_swap(b, STATE_SWAPPING, BOOT_KEPT,
                      units_for(b->flash, old_size > info->size ? old_size : info->size));
}

/* Slot 0 is not what it should be: take what lies in slot 1, if that may run. */
static bool repair(boot *b, image_info *info) {
    memcpy(b->journal.entry.image, info->hash, sizeof(b->journal.entry.image));
    return begin_swap(b, STATE_REPAIRING, BOOT_REPAIRED, units_for(b->flash, info->size));
}

/* A floor that was never set (a first installation) is the running image's. */
static bool raise_floor(boot *b, const image_info *info) {
    journal_entry entry = b->journal.entry;
    if (entry.state != STATE_IDLE || info->counter <= entry.floor) {
        return true;
    }
    entry.floor = info->counter;
    return journal_append(&b->journal, &entry);
}

/* Is `info` the image that failed its last trial? */
static bool failed_before(const journal_entry *entry, const image_info *info) {
    return (entry->reason == BOOT_NOT_CONFIRMED || entry->reason == BOOT_WATCHDOG) &&
           memcmp(entry->image, info->hash, sizeof(entry->image)) == 0;
}

/* One state's work. True if slot 0 may run now; `*failed` if the flash does not do its part. */
static bool turn(boot *b, bool by_watchdog, image_info *info, bool *failed, bool *empty) {
    journal_entry entry = b->journal.entry;
    entry.step = 0;
    entry.boots = 0;
    switch (b->journal.entry.state) {
    case STATE_REQUESTED:
        *failed = !take_up(b, info);
        return false;
    case STATE_SWAPPING:
        entry.state = STATE_TRIAL;
        *failed = !swap(b, &entry);
        return false;
    case STATE_REVERTING:
    case STATE_REPAIRING:
        entry.state = STATE_IDLE;
        entry.units = 0;
        *failed = !swap(b, &entry);
        return false;
    case STATE_TRIAL: {
        const bool tried = b->journal.entry.boots >= TRIAL_STARTS;
        const image_result result = tried ? IMAGE_GOOD : check(b, 0, info);
        if (tried || result != IMAGE_GOOD) {
            const uint32_t reason = !tried ? BOOT_REFUSED + (uint32_t)result
                                    : by_watchdog ? BOOT_WATCHDOG : BOOT_NOT_CONFIRMED;
            *failed = !begin_swap(b, STATE_REVERTING, (boot_reason)reason, entry.units);
            return false;
        }
        entry.boots = (uint8_t)(b->journal.entry.boots + 1U);
        *failed = !journal_append(&b->journal, &entry);
        return !*failed;
    }
    default:
        if (check(b, 0, info) == IMAGE_GOOD) {
            *failed = !raise_floor(b, info);
            return !*failed;
        }
        /* Better no image, and a bootloader that answers, than for good one that failed its trial. */
        *empty = check(b, 1, info) != IMAGE_GOOD || failed_before(&entry, info);
        *failed = !*empty && !repair(b, info);
        return false;
    }
}

boot_verdict boot_start(boot *b, bool by_watchdog, image_info *info) {
    if (!journal_firm(&b->journal)) {
        return BOOT_FLASH;
    }
    bool failed = false, empty = false;
    /* The longest way: requested, swapped, refused on trial, reverted, idle. */
    for (uint32_t turns = 0; turns < TURNS_MAX && !failed && !empty; turns++) {
        if (turn(b, by_watchdog, info, &failed, &empty)) {
            return BOOT_RUN;
        }
    }
    return failed ? BOOT_FLASH : BOOT_NO_IMAGE;
}

/* ---- for the application ----------------------------------------------------------------------*/

bool boot_open(boot *b, const flash *f, const image_policy *policy) {
    *b = (boot){.flash = f, .policy = policy};
    return journal_open(&b->journal, f);
}

bool boot_may_write(const boot *b) { return b->journal.entry.state == STATE_IDLE; }

boot_answer boot_request(boot *b) {
    image_info info;
    journal_entry entry = b->journal.entry;
    if (entry.state == STATE_REQUESTED) {
        return BOOT_DONE;
    }
    if (!boot_may_write(b)) {
        return BOOT_BUSY;
    }
    if (check(b, 1, &info) != IMAGE_GOOD) {
        return BOOT_BAD_IMAGE;
    }
    entry.state = STATE_REQUESTED;
    entry.reason = BOOT_KEPT;
    memcpy(entry.image, info.hash, sizeof(entry.image));
    return journal_append(&b->journal, &entry) ? BOOT_DONE : BOOT_FLASH_FAILED;
}

boot_answer boot_confirm(boot *b) {
    image_info info;
    if (b->journal.entry.state == STATE_IDLE) {
        return BOOT_DONE;
    }
    if (b->journal.entry.state != STATE_TRIAL) {
        return BOOT_BUSY;
    }
    if (check(b, 0, &info) != IMAGE_GOOD) {
        return BOOT_BAD_IMAGE;
    }
    if (info.counter > b->journal.entry.floor) {
        b->journal.entry.floor = info.counter;
    }
    return idle(b, BOOT_KEPT) ? BOOT_DONE : BOOT_FLASH_FAILED;
}
