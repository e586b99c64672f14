/* The limits that host and device agree on: the tighter of what is asked and what is compiled. */
#ifndef EDGE_WM_LIMITS_H
#define EDGE_WM_LIMITS_H

#include "core.h"

/* Take `asked`; a fault of reason 0 if c->limits now holds the effective ones. */
fault limits_agree(core *c, const edge_wire_Limits_1_0 *asked);
motion_limits limits_of_motion(const core *c, uint8_t axis);

#endif
