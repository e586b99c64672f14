/* RP2040, core 0 alone: clocks, line (UART0), millisecond (timer and its alarm 0), watchdog and
 * reset cause. What is wired to the other pins is plant.c.
 *
 *     GPIO0 TX, GPIO1 RX   1 Mbaud, 8N1
 *
 * The line is the UART, not the processor's USB: USB CDC needs a device stack of some thousand
 * lines, whose work has no bound in time; a USB-UART adapter or a Raspberry Pi's own UART does it.
 *
 * The boot ROM copies the first 256 bytes of the flash, the second stage, to RAM and runs them;
 * they set up the flash for execution in place, by flash chip, and end in a CRC. They are not part
 * of this project: link.ld leaves their place, and BOOT2 (see the Makefile) names the object file
 * of one, for example boot2_w25q080 of the Pico SDK. Without it the image does not start from flash.
 *
 * Registers by the RP2040 datasheet, whose sections are named; only what is used here. */
#include <string.h>

#include "cortex_m.h"
#include "edge_wire/Identity_1_0.h"
#include "image.h"
#include "line_ring.h"
#include "loop.h"
#include "plant.h"
#include "port.h"

enum { BAUD = 1000000, PERIOD_US = 1000, CLOCK_MHZ = 125, CRYSTAL_MHZ = 12, WATCHDOG_US = 20000 };
enum { TIMER_IRQ = 0, BANK0_IRQ = 13, UART0_IRQ = 20, INTERRUPTS = 26 };

/* Writes to these aliases set or clear bits at once (2.1.2). */
#define SET(address) REGISTER((address) + 0x2000U)
#define CLEAR(address) REGISTER((address) + 0x3000U)

#define RESETS 0x4000C000U /* 2.14 */
#define RESETS_DONE REGISTER(RESETS + 8U)
enum { OF_ADC = 1U << 0, OF_IO_BANK0 = 1U << 5, OF_PADS_BANK0 = 1U << 8, OF_PLL_SYS = 1U << 12,
       OF_PLL_USB = 1U << 13, OF_PWM = 1U << 14, OF_TIMER = 1U << 21, OF_UART0 = 1U << 22 };
/* Crystal (2.16), phase-locked loops (2.18), clocks (2.15). */
#define XOSC_CTRL REGISTER(0x40024000U)
#define XOSC_STATUS REGISTER(0x40024004U)
#define XOSC_STARTUP REGISTER(0x4002400CU)
#define PLL_SYS 0x40028000U
#define PLL_USB 0x4002C000U
#define CLK_REF_CTRL REGISTER(0x40008030U)
#define CLK_REF_SELECTED REGISTER(0x40008038U)
#define CLK_SYS_CTRL REGISTER(0x4000803CU)
#define CLK_SYS_SELECTED REGISTER(0x40008044U)
#define CLK_PERI_CTRL REGISTER(0x40008048U)
#define CLK_ADC_CTRL REGISTER(0x40008060U)
/* UART0, an Arm PL011 (4.2). */
#define UART_DR REGISTER(0x40034000U)
#define UART_FR REGISTER(0x40034018U)
#define UART_IBRD REGISTER(0x40034024U)
#define UART_FBRD REGISTER(0x40034028U)
#define UART_LCR_H REGISTER(0x4003402CU)
#define UART_CR REGISTER(0x40034030U)
#define UART_IFLS REGISTER(0x40034034U)
#define UART_IMSC REGISTER(0x40034038U)
#define UART_ICR REGISTER(0x40034044U)
enum { FR_RXFE = 1U << 4, FR_TXFF = 1U << 5, UART_RX = 1U << 4, UART_TX = 1U << 5,
       UART_RX_TIMEOUT = 1U << 6 };
/* Timer (4.6), in microseconds. */
#define TIMER_ALARM0 REGISTER(0x40054010U)
#define TIMER_RAWH REGISTER(0x40054024U)
#define TIMER_RAWL REGISTER(0x40054028U)
#define TIMER_INTR REGISTER(0x40054034U)
#define TIMER_INTE REGISTER(0x40054038U)
/* Watchdog (4.7), what it resets (2.13.5), why it was reset (2.12.8). */
#define WATCHDOG_CTRL REGISTER(0x40058000U)
#define WATCHDOG_LOAD REGISTER(0x40058004U)
#define WATCHDOG_REASON REGISTER(0x40058008U)
#define WATCHDOG_TICK REGISTER(0x4005802CU)
#define PSM_WDSEL REGISTER(0x40010008U)
#define CHIP_RESET REGISTER(0x40064008U)
/* Pins 0 and 1 (2.19.6). */
#define IO_BANK0_CTRL(pin) REGISTER(0x40014004U + 8U * (pin))
enum { FUNCTION_UART = 2 };
#define NVIC_ISER REGISTER(0xE000E100U) /* ARMv6-M, B3.4.3 */

static line_ring received, sending;

void board_torque_off(void) {
    plant_torque_off();
}

/* The watchdog resets peripherals too, which AIRCR does not on this processor. */
static void reset_all_but_oscillators(void) {
    PSM_WDSEL = 0x0001FFFCU;
}

_Noreturn void board_reset(void) {
    reset_all_but_oscillators();
    SET(0x40058000U) = 1U << 31; /* TRIGGER */
    for (;;) {
    }
}

/* ---- clocks -------------------------------------------------------------------------------*/

static void release(uint32_t subsystems) {
    CLEAR(RESETS) = subsystems;
    while ((RESETS_DONE & subsystems) != subsystems) { /* some cycles; the hardware's promise */
    }
}

/* From the crystal's 12 MHz: times `feedback`, divided by both. */
static void pll_start(uint32_t base, uint32_t feedback, uint32_t divide1, uint32_t divide2) {
    REGISTER(base + 8U) = feedback;
    CLEAR(base + 4U) = 1U << 5 | 1U << 0; /* oscillator and main power */
    while ((REGISTER(base) >> 31) == 0) { /* without a lock there is nothing to run on: torque is off */
    }
    REGISTER(base + 12U) = divide1 << 16 | divide2 << 12;
    CLEAR(base + 4U) = 1U << 3;
}

static void clocks_start(void) {
    XOSC_STARTUP = 47;                        /* 1 ms (2.16.3) */
    XOSC_CTRL = 0xFABU << 12 | 0xAA0U;        /* on, 1 to 15 MHz */
    while ((XOSC_STATUS >> 31) == 0) {        /* as above */
    }
    CLK_REF_CTRL = 2U; /* the crystal; the switch has no glitch */
    while ((CLK_REF_SELECTED & 1U << 2) == 0) {
    }
    CLK_SYS_CTRL = 0;
    while ((CLK_SYS_SELECTED & 1U) == 0) {
    }
    release(OF_PLL_SYS | OF_PLL_USB);
    pll_start(PLL_SYS, 125, 6, 2); /* 1,500 MHz / 12 */
    pll_start(PLL_USB, 40, 5, 2);  /* 480 MHz / 10, for the converter */
    CLK_SYS_CTRL = 1U;             /* its auxiliary source, which is PLL_SYS */
    while ((CLK_SYS_SELECTED & 1U << 1) == 0) {
    }
    CLK_PERI_CTRL = 1U << 11;             /* the system's */
    CLK_ADC_CTRL = 1U << 11;              /* PLL_USB */
    WATCHDOG_TICK = 1U << 9 | CRYSTAL_MHZ; /* a microsecond, for watchdog and timer (4.7.2) */
}

/* ---- line ---------------------------------------------------------------------------------*/

static void line_start(void) {
    const uint32_t divider = CLOCK_MHZ * 1000000U * 4U / BAUD; /* sixteenths, in 64ths (4.2.7.1) */
    IO_BANK0_CTRL(0U) = FUNCTION_UART;
    IO_BANK0_CTRL(1U) = FUNCTION_UART;
    UART_IBRD = divider / 64U;
    UART_FBRD = divider % 64U;
    UART_LCR_H = 3U << 5 | 1U << 4; /* 8 bits, FIFOs of 32 */
    UART_IFLS = 0;                  /* from 4 bytes on; fewer after 32 bits of silence */
    UART_CR = 1U << 9 | 1U << 8 | 1U;
    UART_IMSC = UART_RX | UART_TX | UART_RX_TIMEOUT;
    NVIC_ISER = 1U << UART0_IRQ;
}

/* All that the FIFOs give and take. Damaged bytes come as they are: the frame's CRC refuses them. */
static void line_pump(void) {
    uint8_t byte;
    UART_ICR = UART_RX | UART_TX | UART_RX_TIMEOUT;
    for (uint32_t turn = 0; turn < 32U && (UART_FR & FR_RXFE) == 0; turn++) {
        line_put(&received, (uint8_t)UART_DR);
    }
    for (uint32_t turn = 0; turn < 32U && (UART_FR & FR_TXFF) == 0; turn++) {
        if (!line_take(&sending, &byte)) {
            break;
        }
        UART_DR = byte;
    }
}

size_t port_receive(uint8_t *bytes, size_t room) {
    size_t length = 0;
    while (length < room && line_take(&received, &bytes[length])) {
        length++;
    }
    return length;
}

size_t port_send_room(void) {
    return line_room(&sending);
}

void port_send(const uint8_t *bytes, size_t length) {
    for (size_t i = 0; i < length; i++) {
        line_put(&sending, bytes[i]);
    }
    /* The interrupt comes when the FIFO runs low, so the first bytes are put in by hand. */
    const uint32_t before = interrupts_off();
    line_pump();
    interrupts_restore(before);
}

/* ---- time ---------------------------------------------------------------------------------*/

uint32_t plant_clock_us(void) {
    return TIMER_RAWL;
}

static uint64_t now_us(void) {
    for (;;) { /* once, or twice where the low half has just wrapped */
        const uint32_t high = TIMER_RAWH;
        const uint32_t low = TIMER_RAWL;
        if (TIMER_RAWH == high) {
            return (uint64_t)high << 32 | low;
        }
    }
}

static void on_alarm(void) {
    TIMER_INTR = 1U;
}

uint64_t port_wait(void) {
    static uint64_t due_us;
    const uint64_t began_us = now_us();
    /* A late period is not made up for by a burst. */
    due_us = began_us - due_us < PERIOD_US ? due_us + PERIOD_US : began_us + PERIOD_US;
    TIMER_ALARM0 = (uint32_t)due_us;
    /* An alarm set to a moment that has just passed would come in 71 minutes: with interrupts off
     * nothing comes between the look and the sleep, and one that waits ends the sleep. */
    for (;;) {
        const uint32_t before = interrupts_off();
        if (now_us() + 2U >= due_us) {
            interrupts_restore(before);
            break;
        }
        __asm volatile("wfi");
        interrupts_restore(before);
    }
    while (now_us() < due_us) { /* at most 2 us */
    }
    return now_us();
}

/* ---- watchdog and resets ------------------------------------------------------------------*/

void port_feed(void) {
    WATCHDOG_LOAD = 2U * WATCHDOG_US; /* it counts twice a microsecond (erratum RP2040-E1) */
}

static void watchdog_start(void) {
    reset_all_but_oscillators();
    port_feed();
    WATCHDOG_CTRL = 1U << 30;
}

static uint8_t reset_cause(void) {
    const uint32_t why = WATCHDOG_REASON;
    const uint32_t noted = cause_taken();
    if ((why & 1U) != 0) { /* it ran out; board_reset triggers it by hand */
        return edge_wire_Identity_1_0_RESET_WATCHDOG;
    }
    if ((why & 2U) != 0) {
        return noted != 0 ? (uint8_t)noted : (uint8_t)edge_wire_Identity_1_0_RESET_SOFTWARE;
    }
    return (CHIP_RESET & 1U << 16) != 0 ? edge_wire_Identity_1_0_RESET_PIN
                                        : edge_wire_Identity_1_0_RESET_POWER_ON;
}

fault_log *port_fault_log(void) {
    return &kept.log;
}

const board_table *port_init(core_identity *identity) {
    static const uint8_t sha256[32] = IMAGE_SHA256;
    release(OF_IO_BANK0 | OF_PADS_BANK0);
    plant_torque_off();
    clocks_start();
    release(OF_TIMER | OF_UART0 | OF_PWM | OF_ADC);
    const board_table *board = plant_start();
    line_start();
    TIMER_INTE = 1U;
    NVIC_ISER = 1U << TIMER_IRQ;
    identity->reset_cause = reset_cause();
    identity->capabilities = edge_wire_Identity_1_0_CAPABILITY_ESTOP_INPUT |
                             edge_wire_Identity_1_0_CAPABILITY_HARDWARE_WATCHDOG;
    identity->link_bits_per_s = BAUD;
    memcpy(identity->image_sha256, sha256, sizeof(identity->image_sha256));
    /* The processor has no number of its own; the flash chip's cannot be read while it runs. */
    memcpy(identity->serial, "rp2040", 6);
    return board;
}

__attribute__((section(".vectors"), used)) const uintptr_t vectors[16 + INTERRUPTS] = {
    [0] = (uintptr_t)&stack_top,
    [1] = (uintptr_t)reset,
    [2 ... 3] = (uintptr_t)hard_fault,
    [11] = (uintptr_t)hard_fault,
    [14 ... 15] = (uintptr_t)hard_fault,
    [16 + TIMER_IRQ] = (uintptr_t)on_alarm,
    [16 + TIMER_IRQ + 1 ... 16 + BANK0_IRQ - 1] = (uintptr_t)hard_fault,
    [16 + BANK0_IRQ] = (uintptr_t)plant_pins_changed,
    [16 + BANK0_IRQ + 1 ... 16 + UART0_IRQ - 1] = (uintptr_t)hard_fault,
    [16 + UART0_IRQ] = (uintptr_t)line_pump,
    [16 + UART0_IRQ + 1 ... 16 + INTERRUPTS - 1] = (uintptr_t)hard_fault};

int main(void) {
    guard_start();
    loop_start();
    watchdog_start();
    for (;;) {
        loop_once();
    }
}
