/* How many CPUs, and how much memory, this process may really use. */
#pragma once

/*
 * CPUs by the affinity mask and the CPU quota of the control group (v1 and v2, rounded up), at
 * least 1. `root` is put in front of /proc and /sys ("" in production).
 */
unsigned stk_cpus_usable(const char *root);
/* The quota alone, rounded up; 0: none. */
unsigned stk_cpus_quota(const char *root);
/* How many workers the memory limit of the control group has room for, at 64 MiB each; 0: none. */
unsigned stk_cpus_memory(const char *root);
/* The number of workers by default: one for each usable CPU, as far as the memory goes. */
unsigned stk_cpus_workers(const char *root);
