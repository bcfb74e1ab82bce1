//! Async code and closures have names that a person would use, whatever the mangling and the debug
//! info are.

use std::collections::BTreeSet;
use std::fs;

use object::{Object as _, ObjectSymbol as _};
use profiler_cli::names::symbolize::CodeAddress;

use crate::fixture::{Built, symbolize};
use crate::options;

const ASYNC_PROGRAM: &str = r#"
use std::future::Future;
use std::hint::black_box;
use std::task::{Context, Poll, Waker};

async fn inner(count: usize) -> usize {
    // With line tables alone, debug info has only functions into which another one is inlined.
    black_box(std::future::ready(count).await)
}

async fn handler<T: Copy>(value: T) -> T {
    let add = |count: usize| black_box(count) + 1;
    let count = async { inner(add(3)).await + 1 }.await;
    black_box(count);
    value
}

fn routes() -> impl Fn(usize) -> std::pin::Pin<Box<dyn Future<Output = usize>>> {
    |count| Box::pin(async move { inner(count).await })
}

fn finish<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return done;
        }
    }
}

fn main() {
    black_box(finish(handler(7_u8)));
    black_box(finish(routes()(5)));
}
"#;

/// Returns the readable names of all closures and async bodies of the program, without the types of
/// instances.
fn names(arguments: &[&str]) -> BTreeSet<String> {
    let arguments = [&["--crate-name", "fixture", "-Copt-level=0"], arguments].concat();
    let built = Built::new(ASYNC_PROGRAM, "app", &arguments);
    let bytes = fs::read(&built.path).expect("it was built");
    let file = object::File::parse(&*bytes).expect("an object file");
    let is_body = |name: &str| {
        let name = format!("{:#}", rustc_demangle::demangle(name));
        name.starts_with("fixture::")
            && (name.contains("::{closure") || name.contains("::{{closure"))
            && !name.contains("::finish")
    };
    let bodies = file.symbols().filter(|symbol| symbol.name().is_ok_and(is_body));
    let addresses: Vec<CodeAddress> = bodies.map(|symbol| CodeAddress::exact(symbol.address())).collect();
    assert_eq!(addresses.len(), 6, "inner; handler, its closure and its block; the closure and its block");
    let symbols = symbolize(&built.spec(), &addresses, options());
    let name = |&address| {
        let outermost = symbols.frames(0, address).last().expect("an address has a frame");
        outermost.function.replace("::<u8>", "")
    };
    addresses.iter().map(name).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| format!("fixture::{name}")).collect()
}

#[test]
fn async_bodies_read_as_their_function_and_closures_as_closures() {
    let expected = set(&["inner", "handler", "handler::{closure}", "routes::{closure}"]);
    for debug_info in ["-Cdebuginfo=2", "-Cdebuginfo=limited"] {
        assert_eq!(names(&[debug_info]), expected, "{debug_info}");
        assert_eq!(names(&[debug_info, "-Csymbol-mangling-version=v0"]), expected, "{debug_info}, v0");
    }
}

#[test]
fn line_tables_alone_tell_async_bodies_too() {
    // But not that the block of `routes` is inside of a closure.
    let expected = set(&["inner", "handler", "handler::{closure}", "routes", "routes::{closure}"]);
    assert_eq!(names(&["-Cdebuginfo=line-tables-only"]), expected);
}

#[test]
fn without_debug_info_async_bodies_are_closures() {
    let expected = set(&["inner::{closure}", "handler::{closure}", "routes::{closure}"]);
    assert_eq!(names(&["-Cdebuginfo=0"]), expected);
}
