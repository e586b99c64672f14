/* The safety state machine: the only writer of mode, torque and latch. */
#ifndef EDGE_WM_SAFETY_H
#define EDGE_WM_SAFETY_H

#include "core.h"

void safety_init(core *c);
fault safety_arm(core *c, uint32_t limits_crc, uint32_t clock_error_us, uint16_t load_permille);
void safety_disarm(core *c, uint16_t reason);
void safety_estop(core *c);
/* The only way out of a latch; a fault of reason 0 if it is released. */
fault safety_release(core *c, uint16_t reason);
fault safety_accept(core *c, const edge_wire_Command_1_0 *command, uint32_t sequence);
void safety_tick(core *c, uint32_t milliseconds);

#endif
