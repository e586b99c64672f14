/* QEMU's MPS2 AN386 with flash that outlives it: the bootloader at 0 and the firmware in a slot.
 *
 *     0x00000000  bootloader (-kernel)
 *     0x20000000  RAM, of whichever runs
 *     0x203E0000  RAM that no start-up code clears: handover, and the firmware's window
 *     0x21100000  "flash": RAM that is a shared file, so that SIGKILL is a power cut
 *                 + 0x00000, 0x01000 journal   + 0x02000 scratch   + 0x03000 the serial number
 *                 + 0x10000 slot 0   + 0x50000 slot 1
 *
 * Erasing and programming take the time that they take on a NOR flash, or no kill would hit them. */
#ifndef EDGE_WM_AN386_H
#define EDGE_WM_AN386_H

#include "boot.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))
/* CMSDK timer 0 counts down at 25 MHz (Arm DDI 0479, section 4.3). */
#define TIMER_CONTROL REGISTER(0x40000000U)
#define TIMER_VALUE REGISTER(0x40000004U)
#define TIMER_RELOAD REGISTER(0x40000008U)
/* CMSDK UART 0 (section 4.4). */
#define UART_DATA REGISTER(0x40004000U)
#define UART_STATE REGISTER(0x40004004U)
#define UART_CONTROL REGISTER(0x40004008U)
#define UART_DIVIDER REGISTER(0x40004010U)
/* CMSDK watchdog (section 4.5): its first expiry is the NMI, its second a reset. */
#define WATCHDOG_LOAD REGISTER(0x40008000U)
#define WATCHDOG_CONTROL REGISTER(0x40008008U)
#define WATCHDOG_CLEAR REGISTER(0x4000800CU)
#define WATCHDOG_LOCK REGISTER(0x40008C00U)
#define AIRCR REGISTER(0xE000ED0CU)
#define VTOR REGISTER(0xE000ED08U)

enum { AN386_SERIAL = 0x3000 }; /* 12 bytes that the factory writes */
enum { CLOCK_MHZ = 25, UART_TX_FULL = 1, UART_RX_FULL = 2 };

#define AN386_FLASH_BASE 0x21100000U
extern const flash an386_flash;

/* What the bootloader leaves the firmware: its policy, in a word of the vector table that ARMv7-M
 * does not use. */
enum { POLICY_VECTOR = 7 };
static inline const image_policy *an386_policy(void) {
    uintptr_t at = POLICY_VECTOR * sizeof(void *);
    __asm("" : "+r"(at)); /* the compiler takes addresses near 0 for a mistake */
    return *(const image_policy *const *)at;
}

/* In RAM that is 0 at power-on. Whoever resets on purpose clears it; a reset that finds it set is
 * the watchdog's, or a crash. */
#define HANDOVER REGISTER(0x203E0000U)
#define HANDOVER_RUNNING 0xB007B007U

void an386_start(void);                /* timer and UART */
uint32_t an386_ticks(void);            /* counts up, 25 MHz */
void an386_watchdog(uint32_t us);      /* start it, or change its time */
void an386_feed(void);
void an386_pause(void); /* between two looks at registers: each takes the emulator's one lock */
_Noreturn void an386_reset(void);

#endif
