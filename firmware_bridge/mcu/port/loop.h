#ifndef EDGE_WM_LOOP_H
#define EDGE_WM_LOOP_H

#include <stdint.h>

void loop_start(void);
void loop_once(void);

/* Only the link's work, for a port whose port_wait is woken by bytes: a request is answered
 * within the millisecond. Control and safety run in loop_once alone. */
void loop_link(uint64_t now_us);

#endif
