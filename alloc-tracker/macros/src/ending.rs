//! How a block comes to its end. In: its last statement. Out: what can be said of it by its looks alone.

use syn::visit::{self, Visit};
use syn::{Block, Expr, Stmt};

/// How a block comes to its closing brace.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Without a value: a probe may follow its last statement.
    Unit,
    /// With one. It goes through a function, which leaves its temporaries and its expected type alone.
    Value,
    /// With one of which nobody can say that a function leaves it as it is, or that it is ever there: the compiler finds fault with a
    /// call whose argument never is. A local is freed before all others, and is told of everything that may leave the function
    /// before the value is there.
    Guarded,
    /// Never.
    None,
}

impl Ending {
    pub(crate) fn of(last: &Stmt) -> Ending {
        match last {
            Stmt::Expr(value, _) if diverges(value) => Ending::None,
            Stmt::Expr(value, None) if !is_unit(value) => {
                if passes(value) && !may_diverge(value) {
                    Ending::Value
                } else {
                    Ending::Guarded
                }
            }
            Stmt::Macro(call) if diverges_macro(&call.mac) => Ending::None,
            // In braces it may be the block's value.
            Stmt::Macro(call) if call.semi_token.is_none() => Ending::Guarded,
            _ => Ending::Unit,
        }
    }
}

/// Whether a value may be an argument of a function that returns it: neither its type nor the life of its temporaries may
/// depend on where it stands. Macros may leave the function.
fn passes(value: &Expr) -> bool {
    match value {
        Expr::Closure(_) | Expr::Async(_) => false,
        Expr::Reference(reference) => is_place(&reference.expr),
        Expr::Struct(made) => made.fields.iter().all(|field| passes(&field.expr)),
        Expr::Tuple(made) => made.elems.iter().all(passes),
        Expr::Array(made) => made.elems.iter().all(passes),
        Expr::Call(call) => {
            call.args.iter().all(|argument| !matches!(argument, Expr::Reference(_)) || passes(argument))
        }
        Expr::Macro(call) => is_plain_macro(&call.mac),
        _ => true,
    }
}

/// Whether an expression names something that is there anyway, and makes no temporary.
fn is_place(value: &Expr) -> bool {
    match value {
        Expr::Path(_) => true,
        Expr::Field(field) => is_place(&field.base),
        Expr::Index(index) => is_place(&index.expr),
        Expr::Unary(unary) => matches!(unary.op, syn::UnOp::Deref(_)),
        Expr::Paren(inner) => is_place(&inner.expr),
        _ => false,
    }
}

/// Whether an expression at the end of a block has no value but `()`.
fn is_unit(value: &Expr) -> bool {
    match value {
        Expr::While(_) | Expr::ForLoop(_) | Expr::Assign(_) => true,
        Expr::If(branch) => branch.else_branch.is_none(),
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
        Expr::Macro(call) => !is_plain_macro(&call.mac),
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
        Some(Stmt::Macro(call)) => !is_plain_macro(&call.mac),
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

/// Whether a macro is known to have a value and not to leave the function.
fn is_plain_macro(call: &syn::Macro) -> bool {
    const MACROS: [&str; 3] = ["format", "vec", "matches"];
    MACROS.iter().any(|name| call.path.is_ident(name))
}

/// Whether a macro is there to leave the function, by its name.
pub(crate) fn is_leaving_macro(call: &syn::Macro) -> bool {
    last_name(&call.path) == "bail"
}

fn last_name(path: &syn::Path) -> String {
    path.segments.last().map(|last| last.ident.to_string()).unwrap_or_default()
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
