//! The attribute of alloc-tracker that makes a function announce its lines. In: a function, a method or an `impl` block.
//! Out: the same, with a probe before every statement.
#![forbid(unsafe_code)]

#[cfg(feature = "probes")]
mod ending;
#[cfg(feature = "probes")]
mod exits;
#[cfg(feature = "probes")]
mod extent;
#[cfg(feature = "probes")]
mod function;
#[cfg(feature = "probes")]
mod lines;
#[cfg(feature = "probes")]
mod receiver_name;

use proc_macro::TokenStream;

/// Makes a function announce which line it has reached, so that `profiler-cli lines` has an exact table of what each line
/// allocates, frees and how often it runs. Goes on functions, methods, whole `impl` blocks, async and generic functions.
///
/// ```
/// #[alloc_tracker::profile]
/// fn squares(count: u64) -> Vec<u64> {
///     let mut all = Vec::new();
///     for n in 0..count {
///         all.push(n * n);
///     }
///     all
/// }
///
/// assert_eq!(squares(4), [0, 1, 4, 9]);
/// ```
///
/// While nothing is recorded a probe costs a load and a branch. Without the feature `profile` of `alloc-tracker` the
/// attribute leaves the function as it is.
///
/// # What a line is
/// Every statement at every depth: of blocks, branches, arms, loops, closures and `async` blocks. A statement of several
/// lines belongs to its first; several statements on a line share its row; a macro call is one statement. The head of a
/// loop is reached once more than its body runs. What a statement does behind a block inside of it is at the last line of that
/// block, and so is what is done between two polls of an `async` block. What the end of a scope frees belongs to the line of its closing brace,
/// what an early `return` frees to the line of the `return`.
///
/// # What the columns mean
/// | column | meaning |
/// | --- | --- |
/// | Increment | bytes that this thread has allocated less those that it has freed while the function was at this line, in whatever it called |
/// | Occurrences | how often the line was reached |
/// | Mem usage | the live heap of the process when the line was last left |
/// | Allocated, Freed, Blocks | the two parts of Increment, and the same in blocks |
/// | At peak, Live at end | bytes of the blocks that got their size at this line and were live at the global peak, or are at the end |
/// | Temporary | blocks allocated at this line that were freed by the next heap event of the thread |
/// | Max usage | the highest Mem usage |
/// | Time | wall time at this line, callees included |
/// | RSS | change of the process's resident memory, with `profiler-cli run --lines rss` |
/// | Minor faults, Major faults | page faults of the thread, with `profiler-cli run --lines faults` |
///
/// A heap event counts once for each annotated function, on its innermost activation on the thread. So the sum of
/// Increment over the lines of a function is the change of the thread's heap over its outermost calls, in loops, in
/// recursion, and when annotated functions call each other.
///
/// Python's `memory_profiler` subtracts the resident memory of the process at the line that it traced before, whatever
/// function that was in: loops, recursion and nested calls then show memory of other lines. Here nothing is sampled and
/// nothing is subtracted.
///
/// # What it cannot do
/// A `self` by value is freed after the last line was announced, and is in no row, if a macro is defined in the method, or if one
/// gets it that is not known to the attribute, or that shows how it is written, such as `dbg!`. What a macro in the value of a block
/// frees by leaving the function may be at the closing brace; what `bail!` frees is not. What a closure has got as an argument is freed at
/// the line of whoever calls it. Lints of the compiler find what they find
/// without the attribute, but for `for_loops_over_fallibles`, `unused_mut` of a `self` and parentheses around a condition; some of clippy's,
/// about arguments by value, loops, `?`, statements that follow each other and the form of an `else`, find less, so that an `#[expect]` of
/// one may be unfulfilled; a crate that *forbids* one about the form of code by its name cannot use it on such a function, and one
/// that has `#![forbid(unreachable_code)]` on none. An async function that returns an `impl Fn` of references may need types in its
/// closure. Hundreds of `else if` in a row overflow the compiler's stack. The future of an async function has its arguments once more: generic ones that are nested many deep may become too large for a stack.
/// `const fn`, functions without a body, and everything that is no function are refused. In an `impl` block `const fn`s are
/// left alone, and methods that have the attribute themselves are announced once.
///
/// ```compile_fail
/// #[alloc_tracker::profile]
/// const fn may_run_in_the_compiler() {}
/// ```
/// ```compile_fail
/// #[alloc_tracker::profile]
/// unsafe extern "C" {
///     fn has_no_body_here();
/// }
/// ```
/// ```compile_fail
/// #[alloc_tracker::profile]
/// struct Something;
/// ```
/// ```compile_fail
/// trait Declared {
///     #[alloc_tracker::profile]
///     fn has_no_body(&self);
/// }
/// ```
/// ```compile_fail
/// #[alloc_tracker::profile(fast)]
/// fn takes_no_arguments() {}
/// ```
#[proc_macro_attribute]
pub fn profile(arguments: TokenStream, item: TokenStream) -> TokenStream {
    #[cfg(feature = "probes")]
    return function::expand(arguments.into(), item.into()).into();
    #[cfg(not(feature = "probes"))]
    {
        drop(arguments);
        item
    }
}
