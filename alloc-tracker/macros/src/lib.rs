//! The macros of alloc-tracker. `#[profile]` makes a function report its lines. In: a function, a
//! method or an `impl` block. Out: the same, with a probe before every statement. `#[budget]`
//! bounds what a test allocates. In: a function. Out: the same, with a check around its body.
#![forbid(unsafe_code)]

#[cfg(feature = "probes")]
mod arguments;
#[cfg(feature = "probes")]
mod attributes;
#[cfg(feature = "budgets")]
mod bounds;
#[cfg(feature = "budgets")]
mod budget;
#[cfg(feature = "probes")]
mod canonical;
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

/// Makes a function report which line it has reached, so that `profiler-cli lines` has an exact
/// table of what each line allocates, what it frees and how often it runs. Can be put on functions,
/// methods and whole `impl` blocks, also of async and generic functions.
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
/// While nothing is recorded, a probe costs a load and a branch. Without the feature `profile` of
/// `alloc-tracker`, the attribute leaves the function as it is.
///
/// # What a line is
/// Every statement at every depth has a line: those of blocks, branches, match arms, loops,
/// closures and `async` blocks.
///
/// - A statement that spans several lines belongs to its first line.
/// - Several statements on one line share a row.
/// - A macro call is one statement.
/// - The head of a loop is reached once more than its body runs.
/// - What a statement does after a block inside of it counts at the last line of that block. So
///   does what is done between two polls of an `async` block.
/// - What the end of a scope frees counts at the line of its closing brace.
/// - What an early `return` frees counts at the line of the `return`.
/// - A method `clone(&self)` with the body `*self` has no lines and no table: it touches no heap,
///   and clippy reports every other body of a `Copy` type's `clone`.
///
/// # What the columns mean
/// | column | meaning |
/// | --- | --- |
/// | Increment | bytes that this thread allocated less bytes that it freed while the function was at this line, in whatever it called |
/// | Occurrences | how often the line was reached |
/// | Mem usage | the live heap of the process when the line was last left |
/// | Allocated, Freed | the two parts of Increment |
/// | Blocks | blocks allocated less blocks freed |
/// | At peak | bytes of the blocks that got their size at this line and were live at the global peak |
/// | Live at end | bytes of the blocks that got their size at this line and are live at the end |
/// | Temporary | blocks allocated at this line that were freed by the next heap event of the thread |
/// | Max usage | the highest Mem usage |
/// | Time | wall time at this line, callees included |
/// | RSS | change of the process's resident memory, with `profiler-cli run --lines rss` |
/// | Minor faults, Major faults | page faults of the thread, with `profiler-cli run --lines faults` |
///
/// A heap event counts once for each annotated function, on its innermost activation on the thread.
/// So the sum of Increment over the lines of a function is the change of the thread's heap over the
/// function's outermost calls. This holds in loops, in recursion, and when annotated functions call
/// each other.
///
/// Python's `memory_profiler` takes the resident memory of the process at each line and subtracts
/// that at the line traced before, in whatever function that was. Loops, recursion and nested calls
/// then show memory of other lines. Here nothing is sampled and nothing is subtracted.
///
/// # Limits
/// Some memory is in another row than one might expect, or in none:
///
/// - A `self` by value is freed after the last line was reported, and is in no row, in two cases:
///   if a macro is defined in the method; or if `self` is an argument of a macro that the attribute
///   does not know, or of one that shows how its arguments are written, such as `dbg!`.
/// - If a macro in the value of a block leaves the function, what is freed then may count at the
///   closing brace. What `bail!` frees does not.
/// - What a closure gets as an argument is freed at the line of the closure's caller.
///
/// Lints of the compiler find what they find without the attribute, except
/// `for_loops_over_fallibles`, `unused_mut` of a `self`, and parentheses around a condition. Some
/// lints of clippy find less: those about arguments by value, loops, `?`, statements that follow
/// each other and the form of an `else`. An `#[expect]` of one of these may be unfulfilled. A crate
/// that *forbids* by its name a lint about the form of code cannot use the attribute on a function
/// that the lint could be about. A crate with `#![forbid(unreachable_code)]` cannot use it at all.
///
/// Some functions may no longer compile:
///
/// - An async function that returns an `impl Fn` of references may need types in its closure.
/// - Hundreds of `else if` in a row overflow the compiler's stack.
///
/// The future of an async function contains its arguments once more. Futures of generic functions
/// that are nested deep may become too large for a stack.
///
/// `const fn`s, functions without a body and everything else that is not a function are refused. In
/// an `impl` block, `const fn`s are left alone. Methods that have the attribute themselves still
/// report each line once.
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

/// Bounds what a test may allocate. Can be put on every test function, sync or async, above and
/// below `#[test]`, `#[tokio::test]` and the like. For a part of a function there is
/// [`block::budget!`](macro@budget_block).
///
/// ```
/// # #[global_allocator]
/// # static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();
/// #[alloc_tracker::budget(allocations = 1, allocated = "1KiB", peak = "1KiB", leaked = 0)]
/// fn sums_without_a_list_for_each() {
///     let list: Vec<u64> = (0..100).collect();
///     assert_eq!(list.iter().sum::<u64>(), 4950);
/// }
/// # sums_without_a_list_for_each();
/// ```
///
/// ```should_panic
/// # #[global_allocator]
/// # static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();
/// #[alloc_tracker::budget(allocations = 1)]
/// fn makes_two() {
///     drop((vec![1], vec![2]));
/// }
/// # makes_two();
/// ```
///
/// # Bounds
/// Each one is the most that is allowed. A bound in bytes is an integer or a text such as
/// `"64KiB"`.
///
/// | key | bound of |
/// | --- | --- |
/// | `allocations` | calls of `alloc` and `alloc_zeroed`; those of `realloc` are apart |
/// | `reallocations` | calls of `realloc`, also of older blocks |
/// | `allocated` | bytes of all allocations, and the new sizes of all reallocations |
/// | `peak` | the most bytes that blocks born within the budget have at one time |
/// | `leaked` | bytes of these blocks that are live at the end, after the locals of the body |
/// | `threads = "all"` | no bound: the whole process counts, for a test that runs alone |
///
/// A realloc frees the old size and allocates the new one. A collection of size zero, such as
/// `Vec::new()`, allocates nothing.
///
/// # What counts
/// What the thread of the test allocates, within the body and all that it calls. Other threads
/// count while they are inside of the scope of the test, which they enter by a handle:
/// `ScopeHandle::current()`, and `enter()` on the other thread, as with a span of `tracing`. Tests
/// that run in parallel do not disturb each other. An older block that grows within the budget
/// counts in `reallocations` and `allocated`, and not in `peak` and `leaked`.
///
/// Each poll of an async test enters the scope. So what other tasks do on the same thread does not
/// count; a spawned task counts if it enters at each of its polls. The runtime is not part of an
/// async test, whether the attribute is above or below `#[tokio::test]`.
///
/// With `threads = "all"` every thread counts that is not inside of another scope. Budgets of this
/// kind wait for each other, so two of them must not be under way on one thread, unless one is
/// inside of the other. Other tests of the same process count: run such a test by `cargo nextest`,
/// or with `--test-threads=1`. The main thread of the test harness does not count.
///
/// # Not followed
/// Threads that did not enter, blocks of C code (`malloc`), memory that is mapped directly, what
/// `print!` and `eprint!` allocate while they print, forked children, and events of signal handlers
/// that have interrupted the allocator. What code allocates only once, as for a lazy static, counts
/// for the test that comes first.
///
/// # Panics
/// If a bound is exceeded: with what was expected and found, the lines of code with the largest
/// share, and the command that records this one test. If a function returns an `Err`, or panics,
/// its bounds are not checked: the test has failed already. Before the body runs, if `AllocTracker`
/// is not the global allocator of the program.
///
/// # Errors of the compiler
/// ```compile_fail
/// #[alloc_tracker::budget(alocations = 3)]
/// fn misspelled() {}
/// ```
/// ```compile_fail
/// #[alloc_tracker::budget(allocations = "3KiB")]
/// fn a_count_has_no_size() {}
/// ```
#[cfg(feature = "budgets")]
#[proc_macro_attribute]
pub fn budget(arguments: TokenStream, item: TokenStream) -> TokenStream {
    budget::expand(arguments.into(), item.into()).into()
}

/// Bounds what a block of code may allocate, and has its value. The name is
/// `alloc_tracker::block::budget!`.
///
/// Bounds as those of the [attribute](macro@budget), then a semicolon, then the code:
///
/// ```
/// # #[global_allocator]
/// # static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();
/// use alloc_tracker::block::budget;
///
/// let words = vec!["a", "b"];
/// let text = budget! { allocations = 1, peak = "1KiB"; words.concat() };
/// assert_eq!(text, "ab");
///
/// budget! {
///     allocations = 0;
///     {
///         let longest = words.iter().map(|word| word.len()).max();
///         assert_eq!(longest, Some(1));
///     }
/// }
/// ```
///
/// The block's value is still there when the block ends, so what it holds counts as `leaked`.
///
/// A block may be left by `?`, `return` or `break`: then it is checked, too. A block with `.await`
/// is a future whose polls enter the scope; in such a block `?` and `return` leave the block only.
///
/// ```
/// # #[global_allocator]
/// # static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();
/// # use alloc_tracker::block::budget;
/// async fn handle(request: &str) -> usize {
///     budget! { allocations = 1; answer(request).await.len() }
/// }
///
/// async fn answer(request: &str) -> String {
///     request.to_owned()
/// }
/// # let handled = std::pin::pin!(handle("x"));
/// # let mut context = std::task::Context::from_waker(std::task::Waker::noop());
/// # assert!(handled.poll(&mut context).is_ready());
/// ```
///
/// # Panics
/// As the [attribute](macro@budget) does.
#[cfg(feature = "budgets")]
#[proc_macro]
pub fn budget_block(input: TokenStream) -> TokenStream {
    budget::expand_block(input.into()).into()
}
