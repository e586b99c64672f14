#include "motion.h"

/* Beyond every int32 in nano units, and small enough for all sums below to fit an int64. */
#define FAR ((int64_t)INT32_MAX * MOTION_NANO)

static int64_t clamp(int64_t value, int64_t low, int64_t high) {
    if (value < low) {
        return low;
    }
    return value > high ? high : value;
}

static int64_t magnitude(int64_t value) {
    return value < 0 ? -value : value;
}

uint32_t motion_isqrt(uint64_t value) {
    /* Digit by digit, without a division: a microcontroller has none of 64 bits. */
    uint64_t root = 0;
    for (uint64_t bit = (uint64_t)1 << 62; bit > 0; bit >>= 2) {
        const uint64_t trial = root + bit;
        root >>= 1;
        if (value >= trial) {
            value -= trial;
            root += bit;
        }
    }
    return (uint32_t)root;
}

motion_state motion_play(const motion_segment *segment, bool position_axis, uint32_t t_us) {
    const int64_t knot = segment->knot_us;
    const int64_t t = t_us;
    const int64_t p0 = (int64_t)segment->position[0] * MOTION_NANO;
    const int64_t p1 = (int64_t)segment->position[1] * MOTION_NANO;
    const int64_t v0 = (int64_t)segment->velocity[0] * MOTION_NANO;
    const int64_t v1 = (int64_t)segment->velocity[1] * MOTION_NANO;
    motion_state state = {p1, v1};
    if (!position_axis) {
        state.position = 0; /* the caller integrates */
        if (t < knot) {
            state.velocity = v0 + (v1 - v0) * t / knot; /* 2^42 * 2^20 */
        }
        return state;
    }
    if (t >= knot) {
        state.position = clamp(p1 + (int64_t)segment->velocity[1] * (t - knot) / 1000, -FAR, FAR);
        return state;
    }
    /* s in Q20, so that (p1 - p0), at most 2^42, times it stays below 2^63. */
    const int64_t one = (int64_t)1 << 20;
    const int64_t s = t * one / knot;
    const int64_t s2 = s * s / one;
    const int64_t s3 = s2 * s / one;
    const int64_t across = p1 - p0;
    /* velocity * knot: urad/s * us / 1000 = nrad, at most 2^41 */
    const int64_t d0 = (int64_t)segment->velocity[0] * knot / 1000;
    const int64_t d1 = (int64_t)segment->velocity[1] * knot / 1000;
    state.position = p0 + across * (3 * s2 - 2 * s3) / one + d0 * (s3 - 2 * s2 + s) / one +
                     d1 * (s3 - s2) / one;
    const int64_t slope = across * (6 * s - 6 * s2) / one; /* nrad a knot */
    state.velocity = slope * 1000000 / knot + v0 * (3 * s2 - 4 * s + one) / one +
                     v1 * (3 * s2 - 2 * s) / one;
    state.position = clamp(state.position, -FAR, FAR);
    state.velocity = clamp(state.velocity, -FAR, FAR);
    return state;
}

/* The fastest velocity, nrad/s, from which `braking` stops within `room` (nrad), this
 * millisecond included: v dt + v^2 / 2b = room, solved for v in urad. */
static int64_t stoppable(int64_t room, uint32_t braking) {
    if (room <= 0) {
        return 0;
    }
    const uint64_t room_u = (uint64_t)(room / MOTION_NANO);
    const uint64_t step = braking / 1000U; /* b dt */
    const uint64_t root = motion_isqrt(step * step + 2U * (uint64_t)braking * room_u);
    return root > step ? (int64_t)(root - step) * MOTION_NANO : 0;
}

/* The last word: no faster than can be stopped before the position limits. Then move. */
static void advance(const motion_limits *limits, motion_state *reference, int64_t velocity) {
    if (limits->has_position) {
        const int64_t low = (int64_t)limits->position_min * MOTION_NANO;
        const int64_t high = (int64_t)limits->position_max * MOTION_NANO;
        velocity = clamp(velocity, -stoppable(reference->position - low, limits->braking),
                         stoppable(high - reference->position, limits->braking));
    }
    reference->velocity = velocity;
    reference->position += velocity / 1000;
}

void motion_limit(const motion_limits *limits, motion_state *reference, motion_state target) {
    const int64_t fastest = (int64_t)limits->velocity_max * MOTION_NANO;
    const int64_t change = (int64_t)limits->acceleration_max; /* nrad/s in a millisecond */
    int64_t wanted = target.velocity;
    if (limits->has_position) {
        /* What is missing is made up in one millisecond where it is little, and else as fast as
         * the acceleration limit can still stop at the target: v = sqrt(2 a e). */
        const int64_t missing = target.position - (reference->position + target.velocity / 1000);
        const uint64_t far_u = (uint64_t)clamp(magnitude(missing), 0, 2 * FAR) / MOTION_NANO;
        const int64_t root =
            (int64_t)motion_isqrt(2U * (uint64_t)limits->acceleration_max * (far_u + 1U));
        const int64_t most = root * MOTION_NANO;
        wanted += clamp(clamp(missing, -2 * FAR, 2 * FAR) * 1000, -most, most);
    }
    wanted = clamp(wanted, -fastest, fastest);
    wanted = clamp(wanted, reference->velocity - change, reference->velocity + change);
    advance(limits, reference, wanted);
}

bool motion_brake(const motion_limits *limits, motion_state *reference, uint32_t deceleration) {
    const uint32_t hardest = limits->braking > limits->acceleration_max
                                 ? limits->braking : limits->acceleration_max;
    const int64_t change = deceleration < hardest ? deceleration : hardest;
    int64_t velocity = reference->velocity;
    velocity = velocity > 0 ? clamp(velocity - change, 0, FAR) : clamp(velocity + change, -FAR, 0);
    advance(limits, reference, velocity);
    return reference->velocity == 0;
}

int32_t motion_servo(const motion_gains *gains, bool position_axis, const motion_state *reference,
                     int32_t position, int32_t velocity, uint32_t torque_max, int64_t *integral) {
    const int64_t most = torque_max;
    const int64_t slow = clamp(reference->velocity, -FAR, FAR) / MOTION_NANO - velocity; /* urad/s */
    int64_t torque = 0; /* mN m, times 10^6 */
    if (position_axis) {
        const int64_t behind = reference->position / MOTION_NANO - position; /* urad */
        torque = gains->kp * behind + gains->kd * slow;
        *integral = 0;
    } else {
        /* Anti-windup: the integral alone never asks for more than the axis may. */
        const int64_t full = gains->ki > 0 ? most * 1000000000 / gains->ki : 0;
        *integral = clamp(*integral + slow, -full, full);
        torque = gains->kp * slow + gains->ki * *integral / MOTION_NANO;
    }
    return (int32_t)clamp(torque / 1000000, -most, most);
}
