//! How the closing brace of a block can be reported. In: the last statement of the block. Out: what
//! the form of that statement alone tells.

use syn::visit::{self, Visit};
use syn::{Block, Expr, Stmt, UnOp};

/// How the probe of a block's closing brace is put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClosingProbe {
    /// The block has no value and its last statement leaves no temporaries: the probe follows it.
    AfterLast,
    /// The block has a value. A guard reports the brace when it is dropped: it is the last local,
    /// so it is dropped before all others. Everything that may leave the function before the value
    /// is there tells the guard so (`exits.rs`).
    InGuard,
    /// The block has a value in which a macro may leave the function, and no guard can be told of
    /// that. The value goes through a function, which changes neither the life of its temporaries
    /// nor the type that is expected of it.
    AroundValue,
    /// No probe. As a result of [`ClosingProbe::after`]: the brace is never reached.
    None,
}

impl ClosingProbe {
    /// Chooses by the last statement of a block that frees something at its closing brace.
    pub(crate) fn after(last: &Stmt) -> ClosingProbe {
        match last {
            Stmt::Expr(value, _) if diverges(value) => ClosingProbe::None,
            Stmt::Expr(Expr::While(_), _) => ClosingProbe::AfterLast,
            Stmt::Expr(value, None) => {
                let around_value =
                    has_macro_that_may_leave(value) && can_be_argument(value) && !may_diverge(value);
                if around_value { ClosingProbe::AroundValue } else { ClosingProbe::InGuard }
            }
            Stmt::Macro(call) if macro_diverges(&call.mac) => ClosingProbe::None,
            // A macro call in braces may be the value of the block.
            Stmt::Macro(call) if call.semi_token.is_none() => ClosingProbe::InGuard,
            _ => ClosingProbe::AfterLast,
        }
    }
}

/// Whether a value may be the argument of a function that returns it. Neither its type nor the life
/// of its temporaries may depend on where it stands.
fn can_be_argument(value: &Expr) -> bool {
    match value {
        Expr::Reference(reference) => is_place_expression(&reference.expr),
        Expr::Struct(made) => made.fields.iter().all(|field| can_be_argument(&field.expr)),
        Expr::Tuple(made) => made.elems.iter().all(can_be_argument),
        Expr::Array(made) => made.elems.iter().all(can_be_argument),
        Expr::Call(call) => call.args.iter().all(can_be_argument),
        Expr::Paren(inner) => can_be_argument(&inner.expr),
        Expr::Group(inner) => can_be_argument(&inner.expr),
        Expr::Block(body) => block_can_be_argument(&body.block),
        Expr::Unsafe(body) => block_can_be_argument(&body.block),
        Expr::If(branch) => {
            block_can_be_argument(&branch.then_branch)
                && branch.else_branch.as_ref().is_none_or(|(_, otherwise)| can_be_argument(otherwise))
        }
        Expr::Match(choice) => choice.arms.iter().all(|arm| can_be_argument(&arm.body)),
        Expr::MethodCall(_)
        | Expr::Path(_)
        | Expr::Lit(_)
        | Expr::Field(_)
        | Expr::Index(_)
        | Expr::Unary(_)
        | Expr::Try(_)
        | Expr::Await(_)
        | Expr::Return(_)
        | Expr::Break(_)
        | Expr::Continue(_)
        | Expr::Loop(_) => true,
        _ => false,
    }
}

fn block_can_be_argument(block: &Block) -> bool {
    match block.stmts.last() {
        Some(Stmt::Expr(value, None)) => can_be_argument(value),
        Some(Stmt::Macro(call)) => call.semi_token.is_some(),
        _ => true,
    }
}

/// Whether an expression names memory that exists without it, and makes no temporary.
fn is_place_expression(value: &Expr) -> bool {
    match value {
        Expr::Path(_) => true,
        Expr::Field(field) => is_place_expression(&field.base),
        Expr::Index(index) => is_place_expression(&index.expr),
        Expr::Unary(unary) => matches!(unary.op, UnOp::Deref(_)) && is_place_expression(&unary.expr),
        Expr::Paren(inner) => is_place_expression(&inner.expr),
        _ => false,
    }
}

/// Whether an expression certainly never has a value. Its form alone tells.
fn diverges(value: &Expr) -> bool {
    const FUNCTIONS: [&str; 5] = ["exit", "abort", "panic_any", "resume_unwind", "unreachable_unchecked"];
    match value {
        Expr::Return(_) | Expr::Break(_) | Expr::Continue(_) => true,
        Expr::Loop(repeat) => !has_break(repeat),
        Expr::Macro(call) => macro_diverges(&call.mac),
        Expr::Call(call) => {
            matches!(&*call.func, Expr::Path(path) if FUNCTIONS.contains(&last_name(&path.path).as_str()))
        }
        Expr::Block(body) => block_diverges(&body.block),
        Expr::Unsafe(body) => block_diverges(&body.block),
        Expr::If(branch) => {
            block_diverges(&branch.then_branch)
                && branch.else_branch.as_ref().is_some_and(|(_, otherwise)| diverges(otherwise))
        }
        Expr::Match(choice) => choice.arms.iter().all(|arm| diverges(&arm.body)),
        _ => false,
    }
}

/// Whether an expression may turn out never to have a value: what it calls may return `!`.
fn may_diverge(value: &Expr) -> bool {
    match value {
        // Neither the name of a struct nor that of a variant is a function that returns `!`.
        Expr::Call(call) => !matches!(&*call.func, Expr::Path(path) if
            last_name(&path.path).starts_with(char::is_uppercase)),
        Expr::Macro(call) => !macro_never_leaves(&call.mac),
        Expr::MethodCall(_) | Expr::Await(_) => true,
        Expr::Paren(inner) => may_diverge(&inner.expr),
        Expr::Group(inner) => may_diverge(&inner.expr),
        Expr::Block(body) => block_may_diverge(&body.block),
        Expr::Unsafe(body) => block_may_diverge(&body.block),
        Expr::If(branch) => {
            block_may_diverge(&branch.then_branch)
                && branch.else_branch.as_ref().is_some_and(|(_, otherwise)| may_diverge(otherwise))
        }
        Expr::Match(choice) => choice.arms.iter().all(|arm| may_diverge(&arm.body)),
        other => diverges(other),
    }
}

fn block_may_diverge(block: &Block) -> bool {
    match block.stmts.last() {
        Some(Stmt::Expr(value, _)) => may_diverge(value),
        Some(Stmt::Macro(call)) => !macro_never_leaves(&call.mac),
        _ => false,
    }
}

fn block_diverges(block: &Block) -> bool {
    match block.stmts.last() {
        Some(Stmt::Expr(value, _)) => diverges(value),
        Some(Stmt::Macro(call)) => macro_diverges(&call.mac),
        _ => false,
    }
}

fn macro_diverges(call: &syn::Macro) -> bool {
    const MACROS: [&str; 4] = ["panic", "todo", "unimplemented", "unreachable"];
    MACROS.contains(&last_name(&call.path).as_str())
}

/// Whether a macro is known to leave the function by a panic only.
fn macro_never_leaves(call: &syn::Macro) -> bool {
    const MACROS: [&str; 20] = [
        "format",
        "format_args",
        "vec",
        "matches",
        "print",
        "println",
        "eprint",
        "eprintln",
        "write",
        "writeln",
        "dbg",
        "assert",
        "assert_eq",
        "assert_ne",
        "debug_assert",
        "debug_assert_eq",
        "debug_assert_ne",
        "concat",
        "stringify",
        "line",
    ];
    MACROS.contains(&last_name(&call.path).as_str()) || macro_diverges(call)
}

/// Whether a macro leaves the function whenever it runs. Its name tells.
pub(crate) fn macro_always_leaves(call: &syn::Macro) -> bool {
    last_name(&call.path) == "bail"
}

fn last_name(path: &syn::Path) -> String {
    path.segments.last().map(|last| last.ident.to_string()).unwrap_or_default()
}

/// Whether a value contains a macro that may leave the function, other than those whose name tells.
fn has_macro_that_may_leave(value: &Expr) -> bool {
    let mut search = MacroSearch { found: false };
    search.visit_expr(value);
    search.found
}

struct MacroSearch {
    found: bool,
}

impl<'ast> Visit<'ast> for MacroSearch {
    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.found |= !macro_never_leaves(call) && !macro_always_leaves(call);
    }

    fn visit_expr_closure(&mut self, _: &'ast syn::ExprClosure) {}

    fn visit_expr_async(&mut self, _: &'ast syn::ExprAsync) {}

    fn visit_item(&mut self, _: &'ast syn::Item) {}
}

/// Whether a loop contains a `break` that leaves it.
fn has_break(repeat: &syn::ExprLoop) -> bool {
    let label = repeat.label.as_ref().map(|label| &label.name.ident);
    let mut search = BreakSearch { label, inner_loops: 0, found: false };
    search.visit_block(&repeat.body);
    search.found
}

struct BreakSearch<'a> {
    /// Label of the loop in question.
    label: Option<&'a syn::Ident>,
    /// Loops around the visited code, within the one in question.
    inner_loops: usize,
    found: bool,
}

impl<'ast> Visit<'ast> for BreakSearch<'_> {
    fn visit_expr(&mut self, value: &'ast Expr) {
        let loops = usize::from(matches!(value, Expr::Loop(_) | Expr::While(_) | Expr::ForLoop(_)));
        match value {
            Expr::Closure(_) | Expr::Async(_) => return,
            Expr::Break(jump) => {
                self.found |= match &jump.label {
                    Some(label) => Some(&label.ident) == self.label,
                    None => self.inner_loops == 0,
                };
            }
            _ => {}
        }
        self.inner_loops += loops;
        visit::visit_expr(self, value);
        self.inner_loops -= loops;
    }

    fn visit_item(&mut self, _: &'ast syn::Item) {}
}
