#include "an386.h"

enum { ERASE_US = 1000, PROGRAM_US = 100, WRITE_SIZE = 8 }; /* a sector; FLASH_CHUNK bytes */

/* ---- timer, UART, watchdog --------------------------------------------------------------------*/
void an386_start(void) {
    TIMER_RELOAD = 0xFFFFFFFFU;
    TIMER_VALUE = 0xFFFFFFFFU;
    TIMER_CONTROL = 1U;
    UART_DIVIDER = 16U;
    UART_CONTROL = 3U; /* transmit, receive */
}

uint32_t an386_ticks(void) { return 0xFFFFFFFFU - TIMER_VALUE; }

void an386_watchdog(uint32_t us) {
    WATCHDOG_LOCK = 0x1ACCE551U;
    WATCHDOG_LOAD = us * CLOCK_MHZ;
    WATCHDOG_CONTROL = 3U;
    WATCHDOG_LOCK = 0;
}

void an386_feed(void) {
    WATCHDOG_LOCK = 0x1ACCE551U;
    WATCHDOG_CLEAR = 1U;
    WATCHDOG_LOCK = 0;
}

void an386_pause(void) {
    for (uint32_t i = 0; i < 500U; i++) {
        __asm volatile("nop");
    }
}

_Noreturn void an386_reset(void) {
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    AIRCR = 0x05FA0004U; /* SYSRESETREQ */
    for (;;) {
    }
}

/* ---- flash ------------------------------------------------------------------------------------*/
static volatile uint8_t *const cells = (volatile uint8_t *)AN386_FLASH_BASE;

static void take_time(uint32_t us) {
    const uint32_t begun = an386_ticks();
    while (an386_ticks() - begun < us * CLOCK_MHZ) {
        an386_pause();
    }
    an386_feed();
}

static bool read(uint32_t offset, uint8_t *to, uint32_t length) {
    for (uint32_t i = 0; i < length; i++) {
        to[i] = cells[offset + i];
    }
    return true;
}

static bool write(uint32_t offset, const uint8_t *from, uint32_t length) {
    for (uint32_t i = 0; i < length; i++) {
        if (cells[offset + i] != 0xFF) {
            return false;
        }
    }
    for (uint32_t i = 0; i < length; i++) {
        cells[offset + i] = from[i];
        if (i % 64U == 63U) {
            take_time(PROGRAM_US * 64U / FLASH_CHUNK);
        }
    }
    return true;
}

static bool erase(uint32_t offset, uint32_t length) {
    for (uint32_t i = 0; i < length; i++) {
        cells[offset + i] = 0xFF;
        if (i % 1024U == 1023U) {
            take_time(ERASE_US / 4U);
        }
    }
    return true;
}

static const flash_run runs[] = {{4096, 256}};
const flash an386_flash = {
    .runs = runs, .run_count = 1, .write_size = WRITE_SIZE,
    .slot = {{0x10000, 0x40000}, {0x50000, 0x40000}}, .scratch = {0x2000, 0x1000},
    .journal = {{0x0000, 0x1000}, {0x1000, 0x1000}}, .read = read, .write = write, .erase = erase};
