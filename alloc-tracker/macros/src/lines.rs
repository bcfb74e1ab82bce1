//! Where probes go. In: the body of a function. Out: the same with a probe before every statement, at every depth, that
//! changes no type, no lifetime and no order of drops.

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::visit_mut::{self, VisitMut};
use syn::{Arm, Block, Expr, Ident, Local, Pat, Stmt, parse_quote_spanned};

/// The body of a function, with or without arguments.
pub(crate) fn of_body(block: &mut Block, arguments: bool) {
    Lines { inserted: 0, reached: None }.block(block, arguments || has_locals(block));
}

struct Lines {
    /// Probes so far.
    inserted: usize,
    /// The line of the last of them, if that has run whenever the code that is being looked at begins, and how many there
    /// were then.
    reached: Option<(u32, usize)>,
}

impl Lines {
    /// Probes for the statements of a block, and one for its closing brace if it has something to free there.
    fn block(&mut self, block: &mut Block, closing: bool) {
        let end = block.brace_token.span.close().start().line as u32;
        let mut statements = Vec::with_capacity(2 * block.stmts.len() + 1);
        let count = block.stmts.len();
        for (index, mut statement) in std::mem::take(&mut block.stmts).into_iter().enumerate() {
            if matches!(statement, Stmt::Item(_)) {
                statements.push(statement);
                continue;
            }
            let last = closing && index + 1 == count;
            let ending = if last { Ending::of(&statement) } else { Ending::None };
            // A `while` reaches its line by itself.
            if !matches!(statement, Stmt::Expr(Expr::While(_), _)) {
                statements.extend(self.probe_once(statement.span()));
            }
            self.visit_stmt_mut(&mut statement);
            match (statement, ending) {
                (Stmt::Expr(value, None), Ending::Value) => {
                    self.note(end);
                    let site = site_at(value.span());
                    let value = parse_quote_spanned!(site=> __ALLOC_TRACKER_FUNCTION.closing(#end, #value));
                    statements.push(Stmt::Expr(value, None));
                }
                (mut statement, Ending::Guarded) => {
                    let site = site_at(statement.span());
                    self.note(end);
                    // Blocks in the value may have one as well.
                    let closing = Ident::new(&format!("__closing_{}", self.inserted), site);
                    Exits { closing: &closing }.visit_stmt_mut(&mut statement);
                    statements.push(parse_quote_spanned! {site=>
                        let #closing = __ALLOC_TRACKER_FUNCTION.closes(#end);
                    });
                    statements.push(statement);
                }
                (statement, Ending::Unit) => {
                    let site = site_at(block.brace_token.span.close());
                    statements.push(statement);
                    self.note(end);
                    // The statement before may never come back, which only the compiler can know.
                    statements.push(parse_quote_spanned! {site=>
                        #[allow(unreachable_code)]
                        __ALLOC_TRACKER_FUNCTION.line(#end);
                    });
                }
                (statement, _) => statements.push(statement),
            }
        }
        block.stmts = statements;
    }

    /// A probe, unless the code is at this line already: of several statements on a line the first speaks for all.
    fn probe_once(&mut self, code: Span) -> Option<Stmt> {
        (self.reached != Some((code.start().line as u32, self.inserted))).then(|| self.probe(code))
    }

    fn probe(&mut self, code: Span) -> Stmt {
        let line = code.start().line as u32;
        self.note(line);
        parse_quote_spanned!(site_at(code)=> __ALLOC_TRACKER_FUNCTION.line(#line);)
    }

    /// Where the code of several ways begins, or goes on behind them: that of another way has not run.
    fn fork(&mut self, start: (Option<(u32, usize)>, usize)) {
        self.reached = if self.inserted == start.1 { start.0 } else { None };
    }

    /// A probe is put in here.
    fn note(&mut self, line: u32) {
        self.inserted += 1;
        self.reached = Some((line, self.inserted));
    }

    /// An expression with a probe of its own before it.
    fn led(&mut self, mut value: Expr) -> Expr {
        let itself = matches!(value, Expr::While(_));
        let probe = if itself { None } else { self.probe_once(value.span()) };
        self.visit_expr_mut(&mut value);
        match probe {
            Some(probe) => parse_quote_spanned!(site()=> { #probe #value }),
            None => value,
        }
    }

    fn arm(&mut self, arm: &mut Arm) {
        if let Pat::Guard(pattern) = &mut arm.pat
            && !has_let(&pattern.guard)
        {
            *pattern.guard = self.led(std::mem::replace(&mut *pattern.guard, Expr::PLACEHOLDER));
        }
        match &mut *arm.body {
            Expr::Block(body) if body.label.is_none() => {
                let closing = has_locals(&body.block) || binds(&arm.pat);
                self.block(&mut body.block, closing);
            }
            body => *body = self.led(std::mem::replace(body, Expr::PLACEHOLDER)),
        }
    }
}

/// How a block comes to its closing brace.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Without a value: a probe may follow its last statement.
    Unit,
    /// With one. It goes through a function, which leaves its temporaries and its expected type alone.
    Value,
    /// With one of which nobody can say that a function leaves it as it is. A local is freed before all others, and is told
    /// of everything that may leave the function before the value is there.
    Guarded,
    /// Never.
    None,
}

impl Ending {
    fn of(last: &Stmt) -> Ending {
        match last {
            Stmt::Expr(value, _) if diverges(value) => Ending::None,
            Stmt::Expr(value, None) if !is_unit(value) => {
                if passes(value) {
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

impl VisitMut for Lines {
    fn visit_block_mut(&mut self, block: &mut Block) {
        let closing = has_locals(block);
        self.block(block, closing);
    }

    fn visit_item_mut(&mut self, _: &mut syn::Item) {}

    fn visit_local_mut(&mut self, local: &mut Local) {
        // Not into the pattern or the type.
        if let Some(init) = &mut local.init {
            self.visit_expr_mut(&mut init.expr);
            if let Some((_, otherwise)) = &mut init.diverge {
                let start = (self.reached, self.inserted);
                self.visit_expr_mut(otherwise);
                self.fork(start);
            }
        }
    }

    fn visit_expr_mut(&mut self, value: &mut Expr) {
        match value {
            Expr::If(branch) => {
                self.visit_expr_mut(&mut branch.cond);
                let start = (self.reached, self.inserted);
                self.visit_block_mut(&mut branch.then_branch);
                self.fork(start);
                if let Some((_, otherwise)) = &mut branch.else_branch {
                    match &mut **otherwise {
                        Expr::If(_) => {
                            **otherwise = self.led(std::mem::replace(otherwise, Expr::PLACEHOLDER))
                        }
                        other => self.visit_expr_mut(other),
                    }
                }
                self.fork(start);
            }
            Expr::Match(choice) => {
                self.visit_expr_mut(&mut choice.expr);
                let start = (self.reached, self.inserted);
                for arm in &mut choice.arms {
                    self.arm(arm);
                    self.fork(start);
                }
            }
            // As the compiler itself understands it, so that every test of the condition is at its line.
            Expr::While(repeat) => {
                let header = self.probe(repeat.while_token.span);
                self.visit_expr_mut(&mut repeat.cond);
                let closing = has_locals(&repeat.body) || has_let(&repeat.cond);
                self.block(&mut repeat.body, closing);
                self.reached = None;
                let syn::ExprWhile { attrs, label, cond, body, .. } = &*repeat;
                *value = parse_quote_spanned! {site()=>
                    #(#attrs)* #label loop { #header if #cond #body else { break; } }
                };
            }
            Expr::ForLoop(repeat) => {
                let line = repeat.for_token.span.start().line as u32;
                self.visit_expr_mut(&mut repeat.expr);
                // The statement itself has reached it for the first time, but for what its head has reached since.
                let again = self.reached != Some((line, self.inserted));
                self.note(line);
                let closing = has_locals(&repeat.body) || binds(&repeat.pat);
                self.block(&mut repeat.body, closing);
                self.reached = None;
                let of = &repeat.expr;
                *repeat.expr = parse_quote_spanned!(site_at(of.span())=> __ALLOC_TRACKER_FUNCTION.each(#line, #again, #of));
            }
            // Runs at another time than the code around it.
            Expr::Closure(closure) => {
                self.reached = None;
                match &mut *closure.body {
                    Expr::Block(body) => {
                        let closing = has_locals(&body.block) || closure.inputs.iter().any(binds);
                        self.block(&mut body.block, closing);
                        // Whoever calls it goes on where it was.
                        let aside =
                            parse_quote_spanned!(site()=> let __line = __ALLOC_TRACKER_FUNCTION.aside(););
                        body.block.stmts.insert(0, aside);
                    }
                    body => self.visit_expr_mut(body),
                }
                self.reached = None;
            }
            Expr::Async(later) => {
                self.reached = None;
                self.visit_block_mut(&mut later.block);
                self.reached = None;
            }
            // Its second round begins where the first has ended.
            Expr::Loop(repeat) => {
                self.reached = None;
                self.visit_block_mut(&mut repeat.body);
                self.reached = None;
            }
            // A constant is no part of the function.
            Expr::Const(_) => {}
            other => visit_mut::visit_expr_mut(self, other),
        }
    }
}

fn site() -> Span {
    Span::mixed_site()
}

/// The same for what stands beside the user's code: what the compiler says of it, it says there.
fn site_at(code: Span) -> Span {
    site().located_at(code)
}

/// Whether a value may be an argument of a function that returns it: neither its type nor the life of its temporaries may
/// depend on where it stands. Macros may leave the function.
fn passes(value: &Expr) -> bool {
    const MACROS: [&str; 3] = ["format", "vec", "matches"];
    match value {
        Expr::Closure(_) | Expr::Async(_) => false,
        Expr::Reference(reference) => is_place(&reference.expr),
        Expr::Struct(made) => made.fields.iter().all(|field| passes(&field.expr)),
        Expr::Tuple(made) => made.elems.iter().all(passes),
        Expr::Array(made) => made.elems.iter().all(passes),
        Expr::Call(call) => {
            call.args.iter().all(|argument| !matches!(argument, Expr::Reference(_)) || passes(argument))
        }
        Expr::Macro(call) => MACROS.iter().any(|name| call.mac.path.is_ident(name)),
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

fn has_locals(block: &Block) -> bool {
    block.stmts.iter().any(|statement| matches!(statement, Stmt::Local(_)))
}

/// Whether a pattern may bind something that is freed with its scope.
fn binds(pattern: &Pat) -> bool {
    !matches!(pattern, Pat::Wild(_) | Pat::Lit(_) | Pat::Path(_) | Pat::Range(_))
}

/// Whether a condition has a `let` in it.
fn has_let(condition: &Expr) -> bool {
    match condition {
        Expr::Let(_) => true,
        Expr::Binary(both) => has_let(&both.left) || has_let(&both.right),
        Expr::Paren(inner) => has_let(&inner.expr),
        Expr::Group(inner) => has_let(&inner.expr),
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

fn last_name(path: &syn::Path) -> String {
    path.segments.last().map(|last| last.ident.to_string()).unwrap_or_default()
}

/// Tells the guard of a block's end of everything in the block's value that may leave before it is there.
struct Exits<'a> {
    closing: &'a Ident,
}

impl VisitMut for Exits<'_> {
    fn visit_expr_mut(&mut self, value: &mut Expr) {
        let closing = self.closing;
        if matches!(value, Expr::Closure(_) | Expr::Async(_)) {
            return;
        }
        visit_mut::visit_expr_mut(self, value);
        let site = site_at(value.span());
        match value {
            Expr::Try(question) => {
                let inner = &question.expr;
                *question.expr = parse_quote_spanned!(site=> #closing.may_leave(#inner));
                *value = parse_quote_spanned!(site=> #closing.stays(#question));
            }
            Expr::Await(wait) => {
                let base = &wait.base;
                *wait.base = parse_quote_spanned!(site=> #closing.may_leave(#base));
                *value = parse_quote_spanned!(site=> #closing.stays(#wait));
            }
            Expr::Return(_) | Expr::Break(_) | Expr::Continue(_) => {
                *value = parse_quote_spanned!(site=> { #closing.may_leave(()); #value });
            }
            _ => {}
        }
    }

    fn visit_item_mut(&mut self, _: &mut syn::Item) {}
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
