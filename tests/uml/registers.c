// Programs, threads and a signal handler that all hold something else in the vector registers, the control word and a
// thread-local variable, and give up the processor in every way there is: system call, page fault, timer.
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROUNDS = 3000, REGISTERS = 16, BYTES = 32 };
static __thread unsigned mine;

#define ALL(f) f(0) f(1) f(2) f(3) f(4) f(5) f(6) f(7) f(8) f(9) f(10) f(11) f(12) f(13) f(14) f(15)
#define LOAD(n) "vmovdqu " #n "*32(%[in]), %%ymm" #n "\n"
#define STORE(n) "vmovdqu %%ymm" #n ", " #n "*32(%[out])\n"
#define LOAD_SSE(n) "movdqu " #n "*32(%[in]), %%xmm" #n "\n"
#define STORE_SSE(n) "movdqu %%xmm" #n ", " #n "*32(%[out])\n"
#define HOLD(load, between, store)                                                                                     \
    __asm__ volatile(load between store                                                                                \
                     : "+a"(number)                                                                                    \
                     : [in] "r"(in), [out] "r"(out), [page] "r"(page), "D"(0), "S"(0)                                  \
                     : "rcx", "r11", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", \
                       "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15")
#define CALL "syscall\n"
#define FAULT "movb $1, (%[page])\n"
#define SPIN "mov $20000, %%ecx\n1: dec %%ecx\njnz 1b\n"

static void hold(const char* in, char* out, volatile char* page, int way) {
    long number = SYS_sched_yield;
    memset(out, 0, REGISTERS * BYTES);
    if (__builtin_cpu_supports("avx")) {
        if (way == 0) HOLD(ALL(LOAD), CALL, ALL(STORE));
        if (way == 1) HOLD(ALL(LOAD), FAULT, ALL(STORE));
        if (way == 2) HOLD(ALL(LOAD), SPIN, ALL(STORE));
    } else {
        if (way == 0) HOLD(ALL(LOAD_SSE), CALL, ALL(STORE_SSE));
        if (way == 1) HOLD(ALL(LOAD_SSE), FAULT, ALL(STORE_SSE));
        if (way == 2) HOLD(ALL(LOAD_SSE), SPIN, ALL(STORE_SSE));
    }
}

static int width(void) {
    return __builtin_cpu_supports("avx") ? BYTES : BYTES / 2;
}

static void work(unsigned number, int rounds) {
    char in[REGISTERS * BYTES], out[REGISTERS * BYTES];
    uint16_t control_word = (uint16_t)(0x7f | number % 4 << 10), seen;
    char* pages = mmap(0, 4096 * (rounds / 3 + 1), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mine = number;
    for (size_t i = 0; i < sizeof in; i++) in[i] = (char)(number * 31 + i);
    __asm__ volatile("fldcw %0" : : "m"(control_word));
    for (int i = 0; i < rounds; i++) {
        hold(in, out, pages + i / 3 * 4096, i % 3);
        for (int n = 0; n < REGISTERS; n++)
            if (memcmp(in + n * BYTES, out + n * BYTES, width()) != 0) {
                printf("%u: register %d changed in round %d\n", number, n, i);
                exit(1);
            }
        __asm__ volatile("fnstcw %0" : "=m"(seen));
        if (seen != control_word || mine != number) {
            printf("%u: control word %x, thread-local %u in round %d\n", number, seen, mine, i);
            exit(1);
        }
    }
    munmap(pages, 4096 * (rounds / 3 + 1));
}

static void on_alarm(int signal) {
    unsigned before = mine;
    (void)signal;
    work(before + 100, 3);
    mine = before;
}

static void* thread(void* number) {
    work((unsigned)(uintptr_t)number, ROUNDS);
    return 0;
}

int main(void) {
    for (unsigned program = 0; program < 2; program++) {
        if (fork() != 0) continue;
        struct itimerval often = {{0, 3000}, {0, 3000}};
        pthread_t other;
        signal(SIGALRM, on_alarm);
        setitimer(ITIMER_REAL, &often, 0);
        pthread_create(&other, 0, thread, (void*)(uintptr_t)(10 * program + 1));
        work(10 * program + 2, ROUNDS);
        pthread_join(other, 0);
        return 0;
    }
    int failed = 0, status;
    while (wait(&status) > 0) failed |= status;
    puts(failed ? "wrong" : "right");
    return failed != 0;
}
