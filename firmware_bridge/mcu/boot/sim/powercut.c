/* The updater on simulated flash, with the power cut at any operation: an executable for tests.
 *
 *   powercut cuts KEY HARDWARE GEOMETRY OLD NEW JOURNAL END TEAR SECOND SEED CUTS
 *   powercut check KEY HARDWARE GEOMETRY FLOOR < images    (each: length, u32 little-endian; bytes)
 *   powercut smp KEY HARDWARE GEOMETRY < bytes of the wire > what the server answers
 *
 * KEY: 64 hex digits. GEOMETRY: uniform, f405, f405-mixed, rp2040. OLD, NEW: image files.
 * JOURNAL: blank, garbage, or how many records an older life has left in it.
 * END: confirm, silent (never confirmed), or repair (slot 0 is damaged, slot 1 must run). TEAR, SECOND: 0 or 1. CUTS: how many of the operations
 * are cut, evenly spread; 0: every one.
 *
 * One life: request NEW, start (swap, trial), confirm or not, start, start. It is lived once to count
 * its operations, then again for every cut. An operation is one call of write or erase. A clean cut
 * falls before it. A torn one leaves a write or an erase half done: some of the bytes are through,
 * the bits of a piece are at random, and they read differently after every start until they are
 * erased ("weak"). With SECOND, more cuts fall at random while the first is recovered from.
 *
 * After every start slot 0 must hold OLD or NEW to the byte, and until NEW is confirmed the other
 * slot the other one. The flash refuses what real flash would spoil: programming what is not erased,
 * or not aligned. `check` prints an image_result a line. */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "smp.h"

enum { FLASH_BYTES = 1 << 20, WEAK_MAX = 64, MORE_CUTS = 2 };

/* ---- geometries -------------------------------------------------------------------------------*/
static bool sim_read(uint32_t offset, uint8_t *to, uint32_t length);
static bool sim_write(uint32_t offset, const uint8_t *from, uint32_t length);
static bool sim_erase(uint32_t offset, uint32_t length);

#define KB(n) ((n) * 1024U)
static const flash_run runs_4k[] = {{KB(4), 256}};
static const flash_run runs_f405[] = {{KB(16), 4}, {KB(64), 1}, {KB(128), 7}};
static const struct {
    const char *name;
    flash flash;
} geometries[] = {
    {"uniform", {runs_4k, 1, 8, {{KB(32), KB(64)}, {KB(96), KB(64)}}, {KB(160), KB(4)},
                 {{KB(164), KB(4)}, {KB(168), KB(4)}}, sim_read, sim_write, sim_erase}},
    /* STM32F405 (RM0090, table 5): bootloader in 16 kB sectors 0 and 1, journal in 2 and 3 */
    {"f405", {runs_f405, 3, 4, {{KB(128), KB(384)}, {KB(512), KB(384)}}, {KB(896), KB(128)},
              {{KB(32), KB(16)}, {KB(48), KB(16)}}, sim_read, sim_write, sim_erase}},
    /* one slot of 16/16/16/16/64 kB against one of 128 kB: one unit */
    {"f405-mixed", {runs_f405, 3, 4, {{0, KB(128)}, {KB(128), KB(128)}}, {KB(256), KB(128)},
                    {{KB(384), KB(128)}, {KB(512), KB(128)}}, sim_read, sim_write, sim_erase}},
    {"rp2040", {runs_4k, 1, 256, {{KB(32), KB(64)}, {KB(96), KB(64)}}, {KB(160), KB(4)},
                {{KB(164), KB(4)}, {KB(168), KB(4)}}, sim_read, sim_write, sim_erase}},
};
static const flash *the_flash;

/* ---- the memory -------------------------------------------------------------------------------*/
typedef struct {
    uint8_t cell[FLASH_BYTES];
    uint8_t programmed[FLASH_BYTES / 4]; /* by write_size: not to be programmed again */
    uint8_t weak[FLASH_BYTES];           /* bits that read differently at every start */
    struct {
        uint32_t offset, length;
    } weak_at[WEAK_MAX];
    uint32_t weak_count;
} memory;
static memory now, before;
static uint64_t random_state;
static long until_cut; /* operations that still go through; negative: no cut */
static long operations;
static bool tears;
static const char *spoiled; /* what real flash would have spoiled */
static jmp_buf power_cut;

static uint32_t random32(void) { /* xorshift64*, Vigna 2016 */
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (uint32_t)(random_state * 0x2545F4914F6CDD1DULL >> 32);
}

static void seed_random(uint64_t seed) {
    random_state = seed * 0x9E3779B97F4A7C15ULL + 1U;
    (void)random32();
}

static void unsettle(uint32_t offset, uint32_t length) {
    for (uint32_t at = offset; at < offset + length; at++) {
        now.cell[at] = (uint8_t)((now.cell[at] & ~now.weak[at]) | (random32() & now.weak[at]));
    }
}

static void make_weak(uint32_t offset, uint32_t length) {
    if (now.weak_count == WEAK_MAX) {
        now.weak_count = 0; /* the oldest settle as they are */
    }
    now.weak_at[now.weak_count].offset = offset;
    now.weak_at[now.weak_count].length = length;
    now.weak_count++;
}

/* At a start, a weak piece reads as one thing or another; sometimes all of it as it should be. */
static void power_on(void) {
    for (uint32_t i = 0; i < now.weak_count; i++) {
        const uint32_t offset = now.weak_at[i].offset, length = now.weak_at[i].length;
        const uint32_t how = random32() % 3U;
        for (uint32_t at = offset; how != 0 && at < offset + length; at++) {
            now.cell[at] = (uint8_t)(how == 1U ? now.cell[at] | now.weak[at]
                                               : now.cell[at] & ~now.weak[at]);
        }
        if (how == 0) {
            unsettle(offset, length);
        }
    }
}

static bool sim_read(uint32_t offset, uint8_t *to, uint32_t length) {
    if (offset > FLASH_BYTES || length > FLASH_BYTES - offset) {
        spoiled = "read outside the flash";
        return false;
    }
    memcpy(to, &now.cell[offset], length);
    return true;
}

static void program(uint32_t offset, const uint8_t *from, uint32_t length) {
    for (uint32_t i = 0; i < length; i++) {
        now.cell[offset + i] &= from[i];
        now.programmed[(offset + i) / the_flash->write_size] = 1;
    }
}

static void tear_write(uint32_t offset, const uint8_t *from, uint32_t length) {
    const uint32_t size = the_flash->write_size;
    const uint32_t whole = random32() % (length / size) * size;
    program(offset, from, whole);
    if (random32() % 4U == 0) {
        return;
    }
    for (uint32_t i = whole; i < whole + size; i++) {
        now.weak[offset + i] = (uint8_t)(now.cell[offset + i] & ~from[i]);
    }
    program(offset + whole, from, size);
    make_weak(offset + whole, size);
}

static bool sim_write(uint32_t offset, const uint8_t *from, uint32_t length) {
    const uint32_t size = the_flash->write_size;
    if (offset % size != 0 || length % size != 0 || length == 0 || offset > FLASH_BYTES - length) {
        spoiled = "a write that is not aligned";
        return false;
    }
    for (uint32_t at = offset; at < offset + length; at += size) {
        if (now.programmed[at / size] != 0 || !flash_is_erased(&now.cell[at], size)) {
            spoiled = "a write to what is not erased";
            return false;
        }
    }
    operations++;
    if (until_cut-- == 0) {
        if (tears) {
            tear_write(offset, from, length);
        }
        longjmp(power_cut, 1);
    }
    program(offset, from, length);
    return true;
}

static bool sim_erase(uint32_t offset, uint32_t length) {
    if (flash_sector(the_flash, offset) != length || length == 0) {
        spoiled = "an erase that is no sector";
        return false;
    }
    operations++;
    const bool cut = until_cut-- == 0;
    const bool random_bits = cut && tears && random32() % 2U == 0;
    if (cut && (!tears || random32() % 4U == 0)) {
        longjmp(power_cut, 1);
    }
    for (uint32_t at = offset; at < offset + length; at++) {
        now.weak[at] = random_bits ? (uint8_t)~now.cell[at] : 0;
        now.cell[at] = 0xFF;
    }
    /* what is half erased must not be programmed */
    memset(&now.programmed[offset / the_flash->write_size], cut, length / the_flash->write_size);
    if (random_bits) {
        make_weak(offset, length);
    }
    if (cut) {
        longjmp(power_cut, 1);
    }
    return true;
}

/* ---- the images and the board -----------------------------------------------------------------*/
static uint8_t the_key[1][32];
static image_policy policy = {.keys = the_key, .key_count = 1};
static uint8_t *images[2]; /* old, new */
static uint32_t sizes[2];

static int die(const char *what) {
    fprintf(stderr, "powercut: %s\n", what);
    exit(2);
}

static uint8_t *load(const char *path, uint32_t *size) {
    FILE *file = fopen(path, "rb");
    uint8_t *bytes = malloc(FLASH_BYTES);
    if (file == NULL || bytes == NULL) {
        die(path);
    }
    *size = (uint32_t)fread(bytes, 1, FLASH_BYTES, file);
    fclose(file);
    return bytes;
}

static void put_image(memory *m, flash_area area, const uint8_t *bytes, uint32_t size) {
    if (size > area.size) {
        die("the image is larger than its slot");
    }
    memset(&m->cell[area.offset], 0xFF, area.size);
    memcpy(&m->cell[area.offset], bytes, size);
    memset(&m->programmed[area.offset / the_flash->write_size], 1,
           (size + the_flash->write_size - 1U) / the_flash->write_size);
}

static bool holds(uint32_t slot, int which) {
    return memcmp(&now.cell[the_flash->slot[slot].offset], images[which], sizes[which]) == 0;
}

/* ---- one life ---------------------------------------------------------------------------------*/
typedef struct {
    bool confirm, repair, tear, second, life_goes_on;
    long cut; /* the operation that is cut; -1: none */
    uint64_t seed;
} life_plan;

typedef struct {
    const char *broken; /* NULL: all went well */
    int ran;            /* what runs in the end: 0 old, 1 new */
} life_end;

static bool confirmed, asked_to_confirm; /* what the life has seen so far */

/* Start, and see that what runs is whole. NULL, or what is wrong. */
static const char *start(int *ran) {
    boot b;
    image_info info;
    power_on();
    if (!boot_open(&b, the_flash, &policy)) {
        return "the journal could not be read";
    }
    const boot_verdict verdict = boot_start(&b, false, &info);
    if (spoiled != NULL) {
        return spoiled;
    }
    if (verdict != BOOT_RUN) {
        return verdict == BOOT_FLASH ? "start: the flash failed" : "start: no image may run";
    }
    const bool old = holds(0, 0), new = holds(0, 1);
    if (!old && !new) {
        return "what runs is neither the old nor the new image";
    }
    if (!asked_to_confirm && !holds(1, old ? 1 : 0)) {
        return "the other image is gone";
    }
    *ran = old ? 0 : 1;
    if (confirmed && old) {
        return "the confirmed image was taken back";
    }
    return NULL;
}

static const char *ask(bool confirm) {
    boot b;
    if (!boot_open(&b, the_flash, &policy)) {
        return "the journal could not be read";
    }
    if (!confirm) {
        return boot_request(&b) == BOOT_DONE ? NULL : "the request was refused";
    }
    asked_to_confirm = true;
    if (boot_confirm(&b) != BOOT_DONE) {
        return "the confirmation was refused";
    }
    confirmed = true;
    return NULL;
}

/* The life as planned, from its request; a cut leaves it by longjmp. */
static const char *live(const life_plan *plan, int *ran) {
    const char *broken = plan->repair ? NULL : ask(false);
    if (broken == NULL) {
        broken = start(ran);
    }
    if (broken == NULL && *ran != 1) {
        broken = "the new image was not tried";
    }
    if (broken == NULL && plan->confirm) {
        broken = ask(true);
    }
    for (int i = 0; i < 2 && broken == NULL; i++) {
        broken = start(ran);
        if (broken == NULL && *ran != (plan->confirm || plan->repair ? 1 : 0)) {
            broken = plan->confirm || plan->repair ? "the new image was not kept" : "the old image did not come back";
        }
    }
    return broken;
}

static life_end live_with_cuts(const life_plan *plan, long *length) {
    static volatile int cuts_left; /* it lives through longjmp */
    life_end end = {NULL, -1};
    now = before;
    spoiled = NULL;
    confirmed = false;
    asked_to_confirm = plan->repair; /* nothing to go back to */
    cuts_left = plan->second ? MORE_CUTS : 0;
    tears = plan->tear;
    seed_random(plan->seed + (uint64_t)plan->cut);
    until_cut = plan->cut;
    operations = 0;
    if (setjmp(power_cut) == 0) {
        end.broken = live(plan, &end.ran);
        if (length != NULL) {
            *length = operations;
        }
        return end;
    }
    /* The power comes back; nobody confirms any more, so that three starts settle it. */
    until_cut = -1;
    if (cuts_left > 0 && random32() % 4U != 0) {
        cuts_left--;
        until_cut = (long)(random32() % 4U == 0 ? random32() % 512U : random32() % 16U);
    }
    end = (life_end){NULL, -1};
    for (int i = 0; i < 3 && end.broken == NULL; i++) {
        end.broken = start(&end.ran);
    }
    until_cut = -1;
    if (end.broken == NULL && plan->repair && end.ran != 1) {
        end.broken = "the damaged image was not replaced";
    }
    if (end.broken == NULL && !asked_to_confirm && end.ran != 0) {
        end.broken = "an image that was never confirmed stays";
    }
    /* And the board is not stuck: the same update goes through, if it is still to be done. */
    if (end.broken == NULL && plan->life_goes_on && end.ran == 0) {
        const life_plan again = {.confirm = true, .cut = -1};
        end.broken = live(&again, &end.ran);
    }
    return end;
}

/* ---- commands ---------------------------------------------------------------------------------*/

static void fill_journal(const char *how) {
    boot b;
    for (int page = 0; page < 2; page++) {
        const flash_area area = the_flash->journal[page];
        memset(&now.cell[area.offset], 0xFF, area.size);
        memset(&now.programmed[area.offset / the_flash->write_size], 0,
               area.size / the_flash->write_size);
        for (uint32_t at = 0; strcmp(how, "garbage") == 0 && at < area.size; at++) {
            now.cell[area.offset + at] = (uint8_t)random32();
            now.programmed[(area.offset + at) / the_flash->write_size] = 1;
        }
    }
    for (int i = 0; i < atoi(how); i++) {
        const journal_entry entry = {.state = STATE_IDLE};
        if ((i % 40 == 0 && !boot_open(&b, the_flash, &policy)) ||
            !journal_append(&b.journal, &entry)) {
            die("the journal cannot be filled");
        }
    }
}

static int run_cuts(char **argv) {
    life_plan plan = {.confirm = strcmp(argv[4], "confirm") == 0,
                      .repair = strcmp(argv[4], "repair") == 0, .cut = -1};
    images[0] = load(argv[1], &sizes[0]);
    images[1] = load(argv[2], &sizes[1]);
    const uint64_t seed = strtoull(argv[7], NULL, 10);
    const long wanted = atol(argv[8]);
    seed_random(seed);
    until_cut = -1;
    memset(now.cell, 0x5A, sizeof(now.cell)); /* what lies in the scratch is nobody's concern */
    memset(now.programmed, 1, sizeof(now.programmed));
    put_image(&now, the_flash->slot[0], images[0], sizes[0]);
    put_image(&now, the_flash->slot[1], images[1], sizes[1]);
    fill_journal(argv[3]);
    if (plan.repair) {
        now.cell[the_flash->slot[0].offset + sizes[0] / 2] ^= 1U;
    }
    before = now;

    long length = 0;
    plan.seed = seed;
    const life_end whole = live_with_cuts(&plan, &length);
    if (whole.broken != NULL) {
        printf("operations 0 cuts 0 broken 1 old 0 new 0 at -1: %s\n", whole.broken);
        return 1;
    }
    plan.tear = atoi(argv[5]) != 0;
    plan.second = atoi(argv[6]) != 0;
    const long cuts = wanted == 0 || wanted > length ? length : wanted;
    long broken = 0, first = -1, ended[2] = {0, 0};
    const char *why = "";
    for (long i = 0; i < cuts; i++) {
        plan.cut = i * length / cuts;
        plan.life_goes_on = i % 8 == 0;
        const life_end end = live_with_cuts(&plan, NULL);
        if (end.broken != NULL) {
            broken++;
            if (first < 0) {
                first = plan.cut;
                why = end.broken;
            }
        } else {
            ended[end.ran]++;
        }
    }
    printf("operations %ld cuts %ld broken %ld old %ld new %ld at %ld: %s\n", length, cuts, broken,
           ended[0], ended[1], first, why);
    return broken == 0 ? 0 : 1;
}

static int run_checks(const char *floor) {
    static uint8_t bytes[FLASH_BYTES];
    uint8_t head[4];
    const flash_area slot = the_flash->slot[1];
    while (fread(head, 1, 4, stdin) == 4) {
        const uint32_t size = (uint32_t)head[0] | (uint32_t)head[1] << 8 | (uint32_t)head[2] << 16 |
                              (uint32_t)head[3] << 24;
        if (size > slot.size || fread(bytes, 1, size, stdin) != size) {
            die("images must be a length and that many bytes each, no larger than a slot");
        }
        image_info info;
        put_image(&now, slot, bytes, size);
        printf("%d\n", (int)image_check(the_flash, slot, &policy,
                                        (uint32_t)strtoul(floor, NULL, 10), &info));
    }
    return 0;
}

static int run_smp(void) {
    static smp_server server;
    uint8_t answer[SMP_LINES];
    boot b;
    memset(now.cell, 0xFF, sizeof(now.cell));
    if (!boot_open(&b, the_flash, &policy)) {
        die("the journal cannot be read");
    }
    smp_init(&server, &b);
    for (int byte = getchar(); byte != EOF; byte = getchar()) {
        (void)smp_receive(&server, (uint8_t)byte);
        (void)fwrite(answer, 1, smp_transmit(&server, answer, sizeof(answer)), stdout);
    }
    return 0;
}

int main(int argc, char **argv) {
    const bool cuts = argc == 13 && strcmp(argv[1], "cuts") == 0;
    const bool checks = argc == 6 && strcmp(argv[1], "check") == 0;
    const bool smp = argc == 5 && strcmp(argv[1], "smp") == 0;
    if ((!cuts && !checks && !smp) || strlen(argv[2]) != 64) {
        die("see the head of powercut.c for its arguments");
    }
    for (size_t i = 0; i < 32; i++) {
        unsigned byte;
        if (sscanf(&argv[2][2 * i], "%2x", &byte) != 1) {
            die("the key must be 64 hex digits");
        }
        the_key[0][i] = (uint8_t)byte;
    }
    policy.hardware = argv[3];
    for (size_t i = 0; i < sizeof(geometries) / sizeof(geometries[0]); i++) {
        if (strcmp(geometries[i].name, argv[4]) == 0) {
            the_flash = &geometries[i].flash;
        }
    }
    if (the_flash == NULL) {
        die("GEOMETRY must be uniform, f405, f405-mixed or rp2040");
    }
    until_cut = -1;
    return cuts ? run_cuts(&argv[4]) : checks ? run_checks(argv[5]) : run_smp();
}
