/* What a board must offer to run the core: all that core/ does not know. See
 * docs/porting-a-board.md. A port's main calls port_init, core_init, then for ever: port_wait,
 * port_receive -> core_receive, port_read, core_tick, port_drive, core_transmit -> port_send,
 * port_feed if the outputs say so. */
#ifndef EDGE_WM_PORT_H
#define EDGE_WM_PORT_H

#include <stddef.h>
#include <stdint.h>

#include "core.h"

const board_table *port_init(core_identity *identity); /* torque is off before it returns */
fault_log *port_fault_log(void);          /* memory that start-up code does not clear */
uint64_t port_wait(void);                 /* until the next millisecond; its time, us */
size_t port_receive(uint8_t *bytes, size_t room);
void port_send(const uint8_t *bytes, size_t length);
size_t port_send_room(void);
void port_read(core_inputs *inputs);
void port_drive(const core_outputs *outputs); /* torque-enable pin and motors */
void port_feed(void);                         /* the watchdog */

#endif
