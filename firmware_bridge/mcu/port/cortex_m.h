/* What the Cortex-M boards share: start-up, stack guard, fault handlers, what survives a reset.
 *
 * The invariant: whatever goes wrong, torque is off before anything else runs: the first line of C
 * after a reset and of every fault handler is board_torque_off(). */
#ifndef EDGE_WM_CORTEX_M_H
#define EDGE_WM_CORTEX_M_H

#include <stdint.h>

#include "core.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))

/* In RAM that start-up code does not clear (.noinit); random after power-on. */
typedef struct {
    fault_log log;  /* has a CRC of its own */
    uint32_t magic; /* SURVIVOR_MAGIC: `cause` was written by request_reset */
    uint32_t cause; /* Identity's RESET_... */
} survivor;

extern survivor kept;

/* The board's: writes registers only, needs no memory, may be called at any time. */
void board_torque_off(void);
_Noreturn void board_reset(void); /* the processor and its peripherals start again */
extern const uintptr_t vectors[]; /* the board's table, in .vectors */
extern uint32_t stack_top;        /* the linker script's */

void reset(void);      /* the reset vector; calls main */
void hard_fault(void); /* the vector of every fault, and of every interrupt that nobody asked for */
_Noreturn void request_reset(uint32_t cause); /* torque off, note the cause, reset */
void guard_start(void); /* nothing may touch the lowest KiB of the stack */
/* The cause that request_reset noted before this start, 0 if it was another reset. Once. */
uint32_t cause_taken(void);

static inline uint32_t interrupts_off(void) {
    uint32_t before;
    __asm volatile("mrs %0, primask\ncpsid i" : "=r"(before)::"memory");
    return before;
}

static inline void interrupts_restore(uint32_t before) {
    __asm volatile("msr primask, %0" ::"r"(before) : "memory");
}

#endif
