// What is compared: a parallel region of each threading library, on two threads.
#pragma once

constexpr int threads = 2;

// Calls body(context, task) once for every task in [0, tasks) and returns when all are done.
void parallel_region(int tasks, void (*body)(void* context, int task), void* context);
