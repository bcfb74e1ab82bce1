//! Where probes go. In: the body of a function. Out: the same with a probe before every statement, at every depth, that
//! changes no type, no lifetime and no order of drops.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::visit_mut::{self, VisitMut};
use syn::{Arm, Block, Expr, Ident, Lifetime, Local, Pat, Stmt, Token, parse_quote, parse_quote_spanned};

use crate::function::is_lint;

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
            let code = Extent::of(&statement);
            // A `while` reaches its line by itself.
            if !matches!(statement, Stmt::Expr(Expr::While(_), _)) {
                statements.extend(self.probe_once(code).map(|probe| with_lints_of(&statement, probe)));
            }
            self.visit_stmt_mut(&mut statement);
            match (statement, ending) {
                (Stmt::Expr(value, None), Ending::Value) => {
                    self.note(end);
                    let value = code.call("closing", quote!(#end, #value));
                    statements.push(Stmt::Expr(parse_quote!(#value), None));
                }
                (mut statement, Ending::Guarded) => {
                    self.note(end);
                    // Blocks in the value may have one as well.
                    let closing = Ident::new(&format!("__closing_{}", self.inserted), site_at(code.first));
                    Exits::of(&closing).visit_stmt_mut(&mut statement);
                    let (start, call) = (Token![let](code.first), code.call("closes", quote!(#end)));
                    let stop = Token![;](code.last);
                    statements.push(parse_quote!(#start #closing = #call #stop));
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
    fn probe_once(&mut self, code: Extent) -> Option<Stmt> {
        (self.reached != Some((code.line(), self.inserted))).then(|| self.probe(code))
    }

    fn probe(&mut self, code: Extent) -> Stmt {
        let line = code.line();
        self.note(line);
        let (call, stop) = (code.call("line", quote!(#line)), Token![;](code.last));
        parse_quote!(#call #stop)
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
        let probe = if itself { None } else { self.probe_once(Extent::of(&value)) };
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
    /// With one of which nobody can say that a function leaves it as it is, or that it is ever there: the compiler finds fault with a
    /// call whose argument never is. A local is freed before all others, and is told of everything that may leave the function
    /// before the value is there.
    Guarded,
    /// Never.
    None,
}

impl Ending {
    fn of(last: &Stmt) -> Ending {
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
                let header = self.probe(Extent::of(&repeat.while_token));
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

/// What `annotate` calls the function's static.
const FUNCTION: &str = "__ALLOC_TRACKER_FUNCTION";

/// Where code begins and ends.
#[derive(Clone, Copy)]
struct Extent {
    /// Its first token.
    first: Span,
    /// Its last token.
    last: Span,
}

impl Extent {
    fn of(code: &impl ToTokens) -> Extent {
        let mut tokens = code.to_token_stream().into_iter();
        let first = tokens.next();
        let last = tokens.last().or_else(|| first.clone());
        let open = |token| match token {
            TokenTree::Group(group) => group.span_open(),
            other => other.span(),
        };
        let close = |token| match token {
            TokenTree::Group(group) => group.span_close(),
            other => other.span(),
        };
        Extent { first: first.map_or_else(site, open), last: last.map_or_else(site, close) }
    }

    /// A call of one of the function's methods.
    ///
    /// NOTE: where code cannot be reached the compiler says so of the probe that it meets first. So that has the extent of the code,
    /// and both of its ends look as if no macro had made them: else the compiler would speak of the macro.
    fn call(self, method: &str, arguments: TokenStream) -> TokenStream {
        let (function, method) = (Ident::new(FUNCTION, self.first), Ident::new(method, site_at(self.first)));
        let arguments = quote_spanned!(self.last=> (#arguments));
        quote_spanned!(site_at(self.first)=> #function.#method #arguments)
    }

    fn line(self) -> u32 {
        self.first.start().line as u32
    }
}

/// The probe of a statement, about which the compiler is to be as strict as about the statement itself.
fn with_lints_of(statement: &Stmt, mut probe: Stmt) -> Stmt {
    let attributes = match statement {
        Stmt::Local(local) => &local.attrs,
        Stmt::Macro(call) => &call.attrs,
        _ => return probe,
    };
    if let Stmt::Expr(Expr::MethodCall(call), _) = &mut probe {
        call.attrs = attributes.iter().filter(|attribute| is_lint(attribute)).cloned().collect();
    }
    probe
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
fn is_leaving_macro(call: &syn::Macro) -> bool {
    last_name(&call.path) == "bail"
}

fn last_name(path: &syn::Path) -> String {
    path.segments.last().map(|last| last.ident.to_string()).unwrap_or_default()
}

/// Tells the guard of a block's end of everything in the block's value that may leave before it is there.
struct Exits<'a> {
    closing: &'a Ident,
    /// Loops around, within the value.
    loops: usize,
    /// Labels within the value.
    labels: Vec<Ident>,
}

impl<'a> Exits<'a> {
    fn of(closing: &'a Ident) -> Exits<'a> {
        Exits { closing, loops: 0, labels: Vec::new() }
    }

    /// Whether a `break` or `continue` goes to a loop or a block around the value.
    fn leaves(&self, label: Option<&Lifetime>) -> bool {
        label.map_or(self.loops == 0, |label| !self.labels.contains(&label.ident))
    }

    fn inner(&mut self, value: &mut Expr) {
        let label = match value {
            Expr::Loop(repeat) => &repeat.label,
            Expr::While(repeat) => &repeat.label,
            Expr::ForLoop(repeat) => &repeat.label,
            Expr::Block(block) => &block.label,
            _ => &None,
        };
        let known = self.labels.len();
        self.labels.extend(label.as_ref().map(|label| label.name.ident.clone()));
        let repeats = usize::from(matches!(value, Expr::Loop(_) | Expr::While(_) | Expr::ForLoop(_)));
        self.loops += repeats;
        visit_mut::visit_expr_mut(self, value);
        self.loops -= repeats;
        self.labels.truncate(known);
    }
}

impl VisitMut for Exits<'_> {
    fn visit_expr_mut(&mut self, value: &mut Expr) {
        let closing = self.closing;
        if matches!(value, Expr::Closure(_) | Expr::Async(_) | Expr::Const(_)) {
            return;
        }
        let leaves = match value {
            Expr::Return(_) => true,
            Expr::Break(leaving) => self.leaves(leaving.label.as_ref()),
            Expr::Continue(leaving) => self.leaves(leaving.label.as_ref()),
            Expr::Macro(call) => is_leaving_macro(&call.mac),
            _ => false,
        };
        self.inner(value);
        let site = site_at(value.span());
        let waits = match value {
            Expr::Try(question) => &mut question.expr,
            Expr::Await(wait) => &mut wait.base,
            _ => {
                if leaves {
                    *value = parse_quote_spanned!(site=> { #closing.may_leave(()); #value });
                }
                return;
            }
        };
        **waits = parse_quote_spanned!(site=> #closing.may_leave(#waits));
        // NOTE: as an argument it must not be something that never is.
        *value = parse_quote_spanned! {site=>
            match #value {
                #[allow(unreachable_code)]
                value => #closing.stays(value),
            }
        };
    }

    fn visit_stmt_mut(&mut self, statement: &mut Stmt) {
        if let Stmt::Macro(call) = statement
            && is_leaving_macro(&call.mac)
        {
            let (closing, site) = (self.closing, site_at(call.span()));
            let value = Expr::Macro(syn::ExprMacro { attrs: Vec::new(), mac: call.mac.clone() });
            let stop = call.semi_token;
            *statement = Stmt::Expr(parse_quote_spanned!(site=> { #closing.may_leave(()); #value }), stop);
            return;
        }
        visit_mut::visit_stmt_mut(self, statement);
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
