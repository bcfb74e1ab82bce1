/* Calls a function that may leave by a jump over all frames in between. */
#include <setjmp.h>

static _Thread_local jmp_buf *innermost;

/* Whether the function has returned; if not, it has leapt. */
int stunts_calls(void (*function)(unsigned long), unsigned long argument) {
    jmp_buf here;
    jmp_buf *outer = innermost;
    volatile int returned = 0;
    innermost = &here;
    if (_setjmp(here) == 0) {
        function(argument);
        returned = 1;
    }
    innermost = outer;
    return returned;
}

void stunts_leaps(void) {
    longjmp(*innermost, 1);
}
