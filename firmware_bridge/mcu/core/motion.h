/* What moves an axis, one millisecond at a time, in integers.
 *
 *     player -> target -> limiter -> reference -> servo -> torque
 *
 * Units: positions in nrad (or nm), velocities in nrad/s (nm/s): a thousandth of the wire's, so
 * that one millisecond of a velocity of 1 urad/s still counts. Limits stay in the wire's units.
 * The invariant: whatever the target is, the reference keeps the limits and can always stop
 * before the position limits. */
#ifndef EDGE_WM_MOTION_H
#define EDGE_WM_MOTION_H

#include <stdbool.h>
#include <stdint.h>

enum { MOTION_NANO = 1000 };

typedef struct {
    int64_t position; /* nrad */
    int64_t velocity; /* nrad/s */
} motion_state;

/* The part of the agreed limits that one axis' reference keeps; all > 0, at most 2^30. */
typedef struct {
    bool has_position; /* a position axis: min and max hold */
    int32_t position_min, position_max; /* urad */
    uint32_t velocity_max;     /* urad/s */
    uint32_t acceleration_max; /* urad/s^2 */
    uint32_t braking;          /* urad/s^2 */
} motion_limits;

typedef struct {
    int32_t position[2]; /* urad */
    int32_t velocity[2]; /* urad/s */
    uint32_t knot_us;    /* 1 .. 1,000,000 */
} motion_segment;

typedef struct {
    int32_t kp;            /* position axis: mN m per rad; velocity axis: mN m per rad/s */
    int32_t kd;            /* position axis: mN m per rad/s */
    int32_t ki;            /* velocity axis: mN m per rad */
} motion_gains;

uint32_t motion_isqrt(uint64_t value); /* largest root with root * root <= value */

/* Where the segment is at t_us after its first knot: a cubic Hermite of position on a position
 * axis, a straight line of velocity on a velocity axis; behind the second knot its velocity. */
motion_state motion_play(const motion_segment *segment, bool position_axis, uint32_t t_us);

/* One millisecond of the reference towards the target, within the limits. */
void motion_limit(const motion_limits *limits, motion_state *reference, motion_state target);

/* One millisecond of the braking suffix; true when at rest. */
bool motion_brake(const motion_limits *limits, motion_state *reference, uint32_t deceleration);

/* Torque in mN m from reference and measurement (urad, urad/s); `integral` is the velocity
 * axis' memory, in nrad. */
int32_t motion_servo(const motion_gains *gains, bool position_axis, const motion_state *reference,
                     int32_t position, int32_t velocity, uint32_t torque_max, int64_t *integral);

#endif
