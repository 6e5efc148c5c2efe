/* How many CPUs this process may really use. */
#pragma once

/*
 * CPUs by the affinity mask and the CPU quota of the control group (v1 and v2, rounded up), at
 * least 1. `root` is put in front of /proc and /sys ("" in production).
 */
unsigned stk_cpus_usable(const char *root);
/* The quota alone, rounded up; 0: none. */
unsigned stk_cpus_quota(const char *root);
