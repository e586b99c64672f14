/* Between a microcontroller's port and what is wired to its pins. The folder of a board has two
 * files: main.c (clock, line, timer, watchdog) and plant.c (sensors and motors: this header, and
 * port_read and port_drive of port.h). A robot on the same microcontroller is another plant.c. */
#ifndef EDGE_WM_PLANT_H
#define EDGE_WM_PLANT_H

#include "board.h"

const board_table *plant_start(void); /* pins, sensors and outputs; torque stays off */
void plant_torque_off(void);          /* registers only: also for fault handlers */
void plant_pins_changed(void);        /* the pins' interrupt, on boards that count by it */
uint32_t plant_clock_us(void);        /* main.c's microseconds, modulo 2^32 */

#endif
