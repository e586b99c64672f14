/* STM32F405: clock, line (USART1), millisecond (TIM2), watchdog and reset cause. What is wired to
 * the other pins is plant.c.
 *
 *     PA9 TX, PA10 RX   1 Mbaud, 8N1
 *
 * Registers by the reference manual RM0090, whose sections are named; only what is used here, and
 * nothing of the vendor's code. QEMU's netduinoplus2 has USART1 and TIM2; of the rest it reads 0
 * (so the clock stays at 16 MHz there) and has no watchdog. */
#include <string.h>

#include "cortex_m.h"
#include "edge_wire/Identity_1_0.h"
#include "image.h"
#include "line_ring.h"
#include "loop.h"
#include "plant.h"
#include "port.h"

enum { BAUD = 1000000, PERIOD_US = 1000, USART1_IRQ = 37, INTERRUPTS = 82 };

/* RCC, section 7.3. */
#define RCC_CR REGISTER(0x40023800U)
#define RCC_PLLCFGR REGISTER(0x40023804U)
#define RCC_CFGR REGISTER(0x40023808U)
#define RCC_AHB1ENR REGISTER(0x40023830U)
#define RCC_APB1ENR REGISTER(0x40023840U)
#define RCC_APB2ENR REGISTER(0x40023844U)
#define RCC_CSR REGISTER(0x40023874U)
#define FLASH_ACR REGISTER(0x40023C00U) /* 3.9.1 */
/* GPIO A, section 8.4. */
#define GPIOA_MODER REGISTER(0x40020000U)
#define GPIOA_PUPDR REGISTER(0x4002000CU)
#define GPIOA_AFRH REGISTER(0x40020024U)
/* USART1, section 30.6. */
#define USART_SR REGISTER(0x40011000U)
#define USART_DR REGISTER(0x40011004U)
#define USART_BRR REGISTER(0x40011008U)
#define USART_CR1 REGISTER(0x4001100CU)
enum { SR_RXNE = 1U << 5, SR_TXE = 1U << 7 };
enum { CR1_RE = 1U << 2, CR1_TE = 1U << 3, CR1_RXNEIE = 1U << 5, CR1_TXEIE = 1U << 7,
       CR1_UE = 1U << 13 };
/* TIM2, 32 bits, section 18.4. */
#define TIM2_CR1 REGISTER(0x40000000U)
#define TIM2_EGR REGISTER(0x40000014U)
#define TIM2_CNT REGISTER(0x40000024U)
#define TIM2_PSC REGISTER(0x40000028U)
#define TIM2_ARR REGISTER(0x4000002CU)
/* Independent watchdog, section 21.4. */
#define IWDG_KR REGISTER(0x40003000U)
#define IWDG_PR REGISTER(0x40003004U)
#define IWDG_RLR REGISTER(0x40003008U)
/* The device's identity, sections 38.6.1 and 39.1. */
#define DBGMCU_IDCODE REGISTER(0xE0042000U)
#define UNIQUE_ID 0x1FFF7A10U
/* ARMv7-M, B3.2.6 and B3.4.3. */
#define AIRCR REGISTER(0xE000ED0CU)
#define NVIC_ISER1 REGISTER(0xE000E104U)
#define SYST_CSR REGISTER(0xE000E010U) /* B3.3 */
#define SYST_RVR REGISTER(0xE000E014U)
#define SYST_CVR REGISTER(0xE000E018U)

static line_ring received, sending;
static uint32_t core_MHz;

void board_torque_off(void) {
    plant_torque_off();
}

_Noreturn void board_reset(void) {
    AIRCR = 0x05FA0004U; /* SYSRESETREQ */
    for (;;) {
    }
}

/* ---- clock --------------------------------------------------------------------------------*/

static bool becomes(volatile uint32_t *at, uint32_t mask, uint32_t wanted) {
    for (uint32_t turn = 0; turn < 100000U; turn++) { /* some 20 ms at 16 MHz */
        if ((*at & mask) == wanted) {
            return true;
        }
    }
    return false;
}

/* 168 MHz from a crystal of 8 MHz; APB1 a quarter, APB2 a half of it (section 7.2). Without the
 * crystal or the PLL it stays at the internal 16 MHz, undivided, and all that counts is right to its
 * 1 %. Returns the clock of the timers of APB1 and of USART1, which is one and the same. */
static uint32_t clock_start(void) {
    RCC_CR |= 1U << 16; /* HSEON */
    if (!becomes(&RCC_CR, 1U << 17, 1U << 17)) {
        return 16000000U;
    }
    FLASH_ACR = 5U | 1U << 8 | 1U << 9 | 1U << 10; /* wait states; prefetch, both caches */
    /* HSE / 8 * 336 / 2, and / 7 for 48 MHz. */
    RCC_PLLCFGR = 8U | 336U << 6 | 1U << 22 | 7U << 24;
    RCC_CFGR = 5U << 10 | 4U << 13; /* APB1 / 4, APB2 / 2 */
    RCC_CR |= 1U << 24;
    if (!becomes(&RCC_CR, 1U << 25, 1U << 25)) {
        RCC_CFGR = 0;
        return 16000000U;
    }
    RCC_CFGR |= 2U;
    (void)becomes(&RCC_CFGR, 3U << 2, 2U << 2);
    return 84000000U; /* TIM2's is doubled from 42 (7.2, figure 21), USART1's is APB2's */
}

/* ---- line ---------------------------------------------------------------------------------*/

static void line_start(uint32_t clock_Hz) {
    GPIOA_MODER = (GPIOA_MODER & ~(0xFU << 18)) | 0xAU << 18; /* PA9, PA10: alternate function */
    GPIOA_PUPDR = (GPIOA_PUPDR & ~(0x3U << 20)) | 0x1U << 20; /* an open RX is no start bit */
    GPIOA_AFRH = (GPIOA_AFRH & ~(0xFFU << 4)) | 0x77U << 4;
    USART_BRR = (clock_Hz + BAUD / 2) / BAUD;
    USART_CR1 = CR1_UE | CR1_TE | CR1_RE | CR1_RXNEIE;
    NVIC_ISER1 = 1U << (USART1_IRQ - 32);
}

/* One byte each way, where there is one. Reading SR then DR also clears overrun and framing
 * errors: a byte that is lost or wrong shows in the frame's CRC. */
static void line_pump(void) {
    const uint32_t state = USART_SR;
    uint8_t byte;
    if ((state & SR_RXNE) != 0) {
        line_put(&received, (uint8_t)USART_DR);
    }
    if ((state & SR_TXE) != 0) {
        if (line_take(&sending, &byte)) {
            USART_DR = byte;
        } else {
            USART_CR1 &= ~(uint32_t)CR1_TXEIE;
        }
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
    if (length > 0) {
        const uint32_t before = interrupts_off();
        USART_CR1 |= CR1_TXEIE;
        interrupts_restore(before);
    }
}

/* ---- time ---------------------------------------------------------------------------------*/

/* QEMU's timers count at 1 GHz, whatever the clock tree says: its image is built with that. */
#ifdef EMULATED_TIMER_Hz
enum { TIMER_Hz = EMULATED_TIMER_Hz };
#else
enum { TIMER_Hz = 0 }; /* the clock that was found */
#endif

static void timer_start(uint32_t clock_Hz) {
    TIM2_PSC = (TIMER_Hz != 0 ? (uint32_t)TIMER_Hz : clock_Hz) / 1000000U - 1U;
    TIM2_ARR = 0xFFFFFFFFU;
    TIM2_EGR = 1U; /* takes the prescaler now */
    TIM2_CR1 = 1U;
}

uint32_t plant_clock_us(void) {
    return TIM2_CNT;
}

static void on_alarm(void) {
    SYST_CSR = 0;
}

/* TIM2 has the time; SysTick only ends the sleep. */
static void sleep_at_most(uint32_t us) {
    SYST_RVR = us * core_MHz;
    SYST_CVR = 0;
    SYST_CSR = 7U; /* from the core's clock, with its interrupt */
    __asm volatile("wfi");
}

uint64_t port_wait(void) {
    static uint32_t due_us, last_us;
    static uint64_t passed_us;
    uint32_t now_us = TIM2_CNT;
    /* A late period is not made up for by a burst. */
    due_us = now_us - due_us < PERIOD_US ? due_us + PERIOD_US : now_us + PERIOD_US;
    while ((int32_t)(now_us - due_us) < 0) {
        /* With interrupts off nothing comes between the look and the sleep; one that waits ends it. */
        const uint32_t before = interrupts_off();
        while (line_waiting(&sending) > 0 && (USART_SR & SR_TXE) != 0) {
            line_pump(); /* QEMU 7.2 has no transmit interrupt, and is always ready */
        }
        sleep_at_most(due_us - now_us);
        interrupts_restore(before);
        now_us = TIM2_CNT;
    }
    passed_us += now_us - last_us; /* modulo 2^32: it is called far more often than each hour */
    last_us = now_us;
    return passed_us;
}

/* ---- watchdog and resets ------------------------------------------------------------------*/

/* 20 ms by the internal RC of 32 kHz: 14 to 38 ms over its 17 to 47 kHz (datasheet, LSI). */
static void watchdog_start(void) {
    IWDG_KR = 0x5555U; /* write access */
    IWDG_PR = 0;       /* / 4 */
    IWDG_RLR = 160;
    IWDG_KR = 0xAAAAU;
    IWDG_KR = 0xCCCCU; /* cannot be stopped any more */
}

void port_feed(void) {
    IWDG_KR = 0xAAAAU;
}

/* What RCC_CSR (7.3.21) tells, and what a handler noted before it reset. */
static uint8_t reset_cause(void) {
    const uint32_t flags = RCC_CSR;
    const uint32_t noted = cause_taken();
    RCC_CSR = flags | 1U << 24; /* RMVF: the next start finds its own */
    if ((flags & (1U << 29 | 1U << 30)) != 0) {
        return edge_wire_Identity_1_0_RESET_WATCHDOG;
    }
    if ((flags & (1U << 25 | 1U << 27)) != 0) { /* brown-out or power: the memory was lost */
        return edge_wire_Identity_1_0_RESET_POWER_ON;
    }
    if (noted != 0) {
        return (uint8_t)noted;
    }
    if ((flags & 1U << 28) != 0) {
        return edge_wire_Identity_1_0_RESET_SOFTWARE;
    }
    return (flags & 1U << 26) != 0 ? edge_wire_Identity_1_0_RESET_PIN
                                   : edge_wire_Identity_1_0_RESET_POWER_ON;
}

fault_log *port_fault_log(void) {
    return &kept.log;
}

const board_table *port_init(core_identity *identity) {
    static const uint8_t sha256[32] = IMAGE_SHA256;
    RCC_AHB1ENR |= 7U;                /* GPIO A, B, C */
    RCC_APB1ENR |= 7U;                /* TIM2, TIM3, TIM4 */
    RCC_APB2ENR |= 1U << 1 | 1U << 4 | 1U << 8; /* TIM8, USART1, ADC1 */
    const board_table *board = plant_start();
    const uint32_t clock_Hz = clock_start();
    core_MHz = clock_Hz / 1000000U * (clock_Hz == 84000000U ? 2U : 1U);
    timer_start(clock_Hz);
    line_start(clock_Hz);
    identity->reset_cause = reset_cause();
    identity->capabilities = edge_wire_Identity_1_0_CAPABILITY_ESTOP_INPUT |
                             edge_wire_Identity_1_0_CAPABILITY_HARDWARE_WATCHDOG;
    identity->link_bits_per_s = BAUD;
    memcpy(identity->image_sha256, sha256, sizeof(identity->image_sha256));
    if ((DBGMCU_IDCODE & 0xFFFU) == 0x413U) { /* elsewhere there is no memory at UNIQUE_ID */
        memcpy(identity->serial, (const void *)UNIQUE_ID, sizeof(identity->serial));
    }
    return board;
}

__attribute__((section(".vectors"), used)) const uintptr_t vectors[16 + INTERRUPTS] = {
    [0] = (uintptr_t)&stack_top,
    [1] = (uintptr_t)reset,
    [2 ... 6] = (uintptr_t)hard_fault,
    [11 ... 12] = (uintptr_t)hard_fault,
    [14] = (uintptr_t)hard_fault,
    [15] = (uintptr_t)on_alarm,
    [16 ... 16 + USART1_IRQ - 1] = (uintptr_t)hard_fault,
    [16 + USART1_IRQ] = (uintptr_t)line_pump,
    [16 + USART1_IRQ + 1 ... 16 + INTERRUPTS - 1] = (uintptr_t)hard_fault};

int main(void) {
    guard_start();
    loop_start();
    watchdog_start();
    for (;;) {
        loop_once();
    }
}
