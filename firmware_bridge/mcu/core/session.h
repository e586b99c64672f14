/* What the host says and hears; see firmware_bridge/session.py for the order of it. */
#ifndef EDGE_WM_SESSION_H
#define EDGE_WM_SESSION_H

#include "core.h"

void session_receive(core *c, uint8_t byte);
void session_tick(core *c); /* Status when due; the link's load */

#endif
