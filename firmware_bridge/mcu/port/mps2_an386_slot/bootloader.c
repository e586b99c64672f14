/* The bootloader: let what may run run, under the watchdog; if nothing may, wait for an upload. */
#include <string.h>

#include "an386.h"
#include "boot_keys.h"
#include "smp.h"

enum { TRIAL_US = 1500000 }; /* until the firmware has taken the watchdog over */

extern uint32_t stack_top, data_start, data_end, data_load, bss_start, bss_end;
int main(void);
_Noreturn void reset(void);

static const uint8_t keys[][32] = BOOT_KEYS;
static const image_policy policy = {"emulated-arm", keys, sizeof(keys) / sizeof(keys[0]),
                                    BOOT_DEVELOPER};

__attribute__((section(".vectors"), used)) static const uintptr_t vectors[16] = {
    (uintptr_t)&stack_top, (uintptr_t)reset, (uintptr_t)an386_reset, (uintptr_t)an386_reset,
    (uintptr_t)an386_reset, (uintptr_t)an386_reset, (uintptr_t)an386_reset,
    [POLICY_VECTOR] = (uintptr_t)&policy, [11] = (uintptr_t)an386_reset};

_Noreturn void reset(void) {
    memcpy(&data_start, &data_load, (size_t)((uintptr_t)&data_end - (uintptr_t)&data_start));
    memset(&bss_start, 0, (size_t)((uintptr_t)&bss_end - (uintptr_t)&bss_start));
    (void)main();
    an386_reset();
}

static void run(const image_info *info) {
    const uint32_t at = AN386_FLASH_BASE + an386_flash.slot[0].offset + info->header_size;
    const volatile uint32_t *image = (const volatile uint32_t *)at;
    const uint32_t stack = image[0], entry = image[1];
    HANDOVER = HANDOVER_RUNNING;
    an386_watchdog(TRIAL_US);
    VTOR = at;
    __asm volatile("dsb\nisb\nmsr msp, %0\nbx %1" : : "r"(stack), "r"(entry) : "memory");
}

/* No image: the same server as in the firmware, and nothing that could be armed. */
static void wait_for_upload(boot *b) {
    static smp_server server;
    uint8_t byte;
    smp_init(&server, b);
    for (;;) {
        if ((UART_STATE & UART_RX_FULL) != 0) {
            (void)smp_receive(&server, (uint8_t)UART_DATA);
        } else {
            an386_pause();
        }
        if ((UART_STATE & UART_TX_FULL) == 0 && smp_transmit(&server, &byte, 1) == 1) {
            UART_DATA = byte;
        }
        if (server.reset_wanted && smp_pending(&server) == 0) {
            an386_reset();
        }
    }
}

int main(void) {
    static boot b;
    image_info info;
    const bool by_watchdog = HANDOVER == HANDOVER_RUNNING;
    HANDOVER = 0;
    an386_start();
    if (!boot_open(&b, &an386_flash, &policy)) {
        an386_reset();
    }
    switch (boot_start(&b, by_watchdog, &info)) {
    case BOOT_RUN:
        run(&info);
        break;
    case BOOT_NO_IMAGE:
        wait_for_upload(&b);
        break;
    default:
        break;
    }
    an386_reset();
}
