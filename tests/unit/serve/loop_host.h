/*
 * An application host in C with an event loop of its own, for tests of detached requests. Its tasks
 * are state machines: what one cannot do now it does in a later step.
 *
 *   /            "Hello, World!", in the call      /nap/N      after N ms
 *   /yield       in the next round of the loop     /block/N    there, with N ms of sleep before it
 *   /hold/N      blocks for N ms in the call; both with N = 0 until loop_host_gate is readable
 *   /echo        the body, whole                   /pump       piece by piece
 *   /stream/N    N blocks of 64 KiB                /head/N     begins a head, ends it after N ms
 *   /part/N      a block, and after N ms another
 *   /join        begins a response, and stays      /say/X      sends X to all who have joined
 *   /leave       ends theirs
 *   /wait        until it is woken for anything    /limit/N    the same, with N ms for itself
 *   /fail        fails in its second step          /nothing    ends there without a response
 *   /seen        what requests were woken for so far
 *   /where       which application on which thread
 *
 * The first application is asynchronous; others run on threads, and may not wait otherwise than in
 * /hold.
 */
#pragma once

#include "app/host.h"

/* `turns`: calls engine.turn when its own selector says so; else engine.wait is its selector. */
extern int loop_host_gate[2]; /* a pipe, made before the server is started */
void *loop_host_new(bool turns);
void loop_host_free(void *host);
extern const struct stk_host_ops loop_host_ops;
