//! Whether the program runs in Valgrind, which cannot run a process that shares the memory of
//! another one.
//!
//! In: nothing. Out: yes or no. Valgrind knows a request by a sequence of instructions that changes
//! nothing on a processor. Source: "Client requests" in the manual of Valgrind.

/// Whether the program runs in Valgrind.
pub(super) fn is_in_valgrind() -> bool {
    let request = [RUNNING_ON_VALGRIND, 0, 0, 0, 0, 0];
    ask(&request) != 0
}

/// The request whose answer is how many instances of Valgrind run the program.
const RUNNING_ON_VALGRIND: u64 = 0x1001;

#[cfg(all(target_arch = "x86_64", not(miri)))]
fn ask(request: &[u64; 6]) -> u64 {
    let mut answer = 0u64;
    // SAFETY: the rotations add up to two whole turns, and a register is exchanged with itself. In
    // Valgrind the sequence reads the request and changes `rdx`.
    unsafe {
        std::arch::asm!(
            "rol rdi, 3", "rol rdi, 13", "rol rdi, 61", "rol rdi, 51", "xchg rbx, rbx",
            inout("rdx") answer, in("rax") request.as_ptr(),
            out("rdi") _,
            options(nostack),
        );
    }
    std::hint::black_box(&mut answer);
    answer
}

#[cfg(all(target_arch = "aarch64", not(miri)))]
fn ask(request: &[u64; 6]) -> u64 {
    let mut answer = 0u64;
    // SAFETY: the rotations add up to two whole turns, and a register is combined with itself. In
    // Valgrind the sequence reads the request and changes `x3`.
    unsafe {
        std::arch::asm!(
            "ror x12, x12, #3", "ror x12, x12, #13", "ror x12, x12, #51", "ror x12, x12, #61",
            "orr x10, x10, x10",
            inout("x3") answer, in("x4") request.as_ptr(),
            out("x12") _,
            options(nostack),
        );
    }
    std::hint::black_box(&mut answer);
    answer
}

#[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri))))]
fn ask(_request: &[u64; 6]) -> u64 {
    0
}
