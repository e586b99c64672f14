/* The port of every firmware whose plant lies behind a window: the lock-step library, the posix
 * process with --window, and QEMU. */
#ifndef EDGE_WM_WINDOW_PORT_H
#define EDGE_WM_WINDOW_PORT_H

#include "core.h"
#include "window.h"

/* What survives a reset, in window.no_init. */
typedef struct {
    fault_log log;
    uint32_t cause; /* Identity's RESET_..., written by whoever resets; 0: power on */
} survivor;
_Static_assert(sizeof(survivor) <= sizeof(((window *)0)->no_init), "fits the window");

survivor *window_survivor(volatile window *w);
void window_use(volatile window *w, uint8_t capabilities); /* before loop_start */

/* What the firmware says of itself instead of its sources' hash and a made-up number: 32 and 12
 * bytes, which must stay; before loop_start. */
void window_identify(const uint8_t *image_sha256, const uint8_t *serial);

#endif
