//! How a block comes to its end. In: its last statement. Out: what can be said of it by its looks alone.

use syn::visit::{self, Visit};
use syn::{Block, Expr, Stmt, UnOp};

/// How a block comes to its closing brace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Without a value and without temporaries: a probe may follow its last statement.
    Unit,
    /// With a value. A local is freed before all others, and is told of everything that may leave the function before the value is
    /// there.
    Guarded,
    /// With a value in which a macro may leave the function, which nobody could tell a local. It goes through a function, which leaves
    /// its temporaries and its expected type alone.
    Value,
    /// Never.
    None,
}

impl Ending {
    pub(crate) fn of(last: &Stmt) -> Ending {
        match last {
            Stmt::Expr(value, _) if diverges(value) => Ending::None,
            Stmt::Expr(Expr::While(_), _) => Ending::Unit,
            Stmt::Expr(value, None) => {
                let by_function = Macros::may_leave(value) && passes(value) && !may_diverge(value);
                if by_function { Ending::Value } else { Ending::Guarded }
            }
            Stmt::Macro(call) if diverges_macro(&call.mac) => Ending::None,
            // In braces it may be the block's value.
            Stmt::Macro(call) if call.semi_token.is_none() => Ending::Guarded,
            _ => Ending::Unit,
        }
    }
}

/// Whether a value may be an argument of a function that returns it: neither its type nor the life of its temporaries may
/// depend on where it stands.
fn passes(value: &Expr) -> bool {
    match value {
        Expr::Reference(reference) => is_place(&reference.expr),
        Expr::Struct(made) => made.fields.iter().all(|field| passes(&field.expr)),
        Expr::Tuple(made) => made.elems.iter().all(passes),
        Expr::Array(made) => made.elems.iter().all(passes),
        Expr::Call(call) => call.args.iter().all(passes),
        Expr::Paren(inner) => passes(&inner.expr),
        Expr::Group(inner) => passes(&inner.expr),
        Expr::Block(body) => value_passes(&body.block),
        Expr::Unsafe(body) => value_passes(&body.block),
        Expr::If(branch) => {
            value_passes(&branch.then_branch)
                && branch.else_branch.as_ref().is_none_or(|(_, otherwise)| passes(otherwise))
        }
        Expr::Match(choice) => choice.arms.iter().all(|arm| passes(&arm.body)),
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

fn value_passes(block: &Block) -> bool {
    match block.stmts.last() {
        Some(Stmt::Expr(value, None)) => passes(value),
        Some(Stmt::Macro(call)) => call.semi_token.is_some(),
        _ => true,
    }
}

/// Whether an expression names something that is there anyway, and makes no temporary.
fn is_place(value: &Expr) -> bool {
    match value {
        Expr::Path(_) => true,
        Expr::Field(field) => is_place(&field.base),
        Expr::Index(index) => is_place(&index.expr),
        Expr::Unary(unary) => matches!(unary.op, UnOp::Deref(_)) && is_place(&unary.expr),
        Expr::Paren(inner) => is_place(&inner.expr),
        _ => false,
    }
}

/// Whether an expression never has a value, as far as can be seen from here.
fn diverges(value: &Expr) -> bool {
    const FUNCTIONS: [&str; 5] = ["exit", "abort", "panic_any", "resume_unwind", "unreachable_unchecked"];
    match value {
        Expr::Return(_) | Expr::Break(_) | Expr::Continue(_) => true,
        Expr::Loop(repeat) => !Breaks::leave(repeat),
        Expr::Macro(call) => diverges_macro(&call.mac),
        Expr::Call(call) => {
            matches!(&*call.func, Expr::Path(path) if FUNCTIONS.contains(&last_name(&path.path).as_str()))
        }
        Expr::Block(body) => ends_in_divergence(&body.block),
        Expr::Unsafe(body) => ends_in_divergence(&body.block),
        Expr::If(branch) => {
            ends_in_divergence(&branch.then_branch)
                && branch.else_branch.as_ref().is_some_and(|(_, otherwise)| diverges(otherwise))
        }
        Expr::Match(choice) => choice.arms.iter().all(|arm| diverges(&arm.body)),
        _ => false,
    }
}

/// Whether an expression may never have a value, by the type of what it calls.
fn may_diverge(value: &Expr) -> bool {
    match value {
        // A struct or a variant is made.
        Expr::Call(call) => !matches!(&*call.func, Expr::Path(path) if
            last_name(&path.path).starts_with(char::is_uppercase)),
        Expr::Macro(call) => !stays_macro(&call.mac),
        Expr::MethodCall(_) | Expr::Await(_) => true,
        Expr::Paren(inner) => may_diverge(&inner.expr),
        Expr::Group(inner) => may_diverge(&inner.expr),
        Expr::Block(body) => may_end_in_divergence(&body.block),
        Expr::Unsafe(body) => may_end_in_divergence(&body.block),
        Expr::If(branch) => {
            may_end_in_divergence(&branch.then_branch)
                && branch.else_branch.as_ref().is_some_and(|(_, otherwise)| may_diverge(otherwise))
        }
        Expr::Match(choice) => choice.arms.iter().all(|arm| may_diverge(&arm.body)),
        other => diverges(other),
    }
}

fn may_end_in_divergence(block: &Block) -> bool {
    match block.stmts.last() {
        Some(Stmt::Expr(value, _)) => may_diverge(value),
        Some(Stmt::Macro(call)) => !stays_macro(&call.mac),
        _ => false,
    }
}

fn ends_in_divergence(block: &Block) -> bool {
    match block.stmts.last() {
        Some(Stmt::Expr(value, _)) => diverges(value),
        Some(Stmt::Macro(call)) => diverges_macro(&call.mac),
        _ => false,
    }
}

fn diverges_macro(call: &syn::Macro) -> bool {
    const MACROS: [&str; 4] = ["panic", "todo", "unimplemented", "unreachable"];
    MACROS.contains(&last_name(&call.path).as_str())
}

/// Whether a macro is known not to leave the function but by a panic.
fn stays_macro(call: &syn::Macro) -> bool {
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
    MACROS.contains(&last_name(&call.path).as_str()) || diverges_macro(call)
}

/// Whether a macro is there to leave the function, by its name.
pub(crate) fn is_leaving_macro(call: &syn::Macro) -> bool {
    last_name(&call.path) == "bail"
}

fn last_name(path: &syn::Path) -> String {
    path.segments.last().map(|last| last.ident.to_string()).unwrap_or_default()
}

/// Looks for macros that may leave the function, but for those by whose names that is clear.
struct Macros {
    found: bool,
}

impl Macros {
    fn may_leave(value: &Expr) -> bool {
        let mut macros = Macros { found: false };
        macros.visit_expr(value);
        macros.found
    }
}

impl<'ast> Visit<'ast> for Macros {
    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.found |= !stays_macro(call) && !is_leaving_macro(call);
    }

    fn visit_expr_closure(&mut self, _: &'ast syn::ExprClosure) {}

    fn visit_expr_async(&mut self, _: &'ast syn::ExprAsync) {}

    fn visit_item(&mut self, _: &'ast syn::Item) {}
}

/// Looks for a `break` that leaves a loop.
struct Breaks<'a> {
    label: Option<&'a syn::Ident>,
    /// Loops around, within the one in question.
    depth: usize,
    found: bool,
}

impl Breaks<'_> {
    fn leave(repeat: &syn::ExprLoop) -> bool {
        let label = repeat.label.as_ref().map(|label| &label.name.ident);
        let mut breaks = Breaks { label, depth: 0, found: false };
        breaks.visit_block(&repeat.body);
        breaks.found
    }
}

impl<'ast> Visit<'ast> for Breaks<'_> {
    fn visit_expr(&mut self, value: &'ast Expr) {
        let inner = usize::from(matches!(value, Expr::Loop(_) | Expr::While(_) | Expr::ForLoop(_)));
        match value {
            Expr::Closure(_) | Expr::Async(_) => return,
            Expr::Break(leaving) => {
                self.found |= match &leaving.label {
                    Some(label) => Some(&label.ident) == self.label,
                    None => self.depth == 0,
                };
            }
            _ => {}
        }
        self.depth += inner;
        visit::visit_expr(self, value);
        self.depth -= inner;
    }

    fn visit_item(&mut self, _: &'ast syn::Item) {}
}
