//! Where probes go. In: the body of a function. Out: the same with a probe before every statement,
//! at every depth. Must never change a type, a lifetime or the order of drops.

use quote::{quote, quote_spanned};
use syn::visit_mut::{self, VisitMut};
use syn::{
    AngleBracketedGenericArguments, Arm, AttrStyle, BinOp, Block, Expr, ExprBlock, ExprRepeat, ExprWhile,
    Ident, Local, Pat, PathArguments, Stmt, Token, Type, parse_quote, parse_quote_spanned,
};

use crate::attributes::{
    inner_attributes, is_condition, is_unconditional, split_attributes, with_attributes,
};
use crate::ending::ClosingProbe;
use crate::exits::report_exits;
use crate::extent::{Extent, hygienic_span, hygienic_span_at, last_line, without_parentheses};

/// Puts probes into the body of a function.
pub(crate) fn insert_probes(body: &mut Block, has_arguments: bool) {
    ProbeInserter { count: 0, reached: None }.probe_block(body, has_arguments || has_locals(body));
}

struct ProbeInserter {
    /// Probes so far.
    count: usize,
    /// The line of the latest probe, if that probe has certainly run whenever the code that is
    /// visited next begins.
    reached: Option<u32>,
}

/// The state where control flow divides.
#[derive(Clone, Copy)]
struct Fork {
    count: usize,
    reached: Option<u32>,
}

impl ProbeInserter {
    /// Puts probes before the statements of a block, and one for its closing brace if the block
    /// frees something there.
    fn probe_block(&mut self, block: &mut Block, frees_at_end: bool) {
        let brace = block.brace_token.span.close();
        let end = last_line(brace);
        let last = block.stmts.iter().rposition(|statement| !matches!(statement, Stmt::Item(_)));
        // `cfg` may remove statements. Each one behind the last unconditional statement may then be
        // the last statement of the block, and its value.
        let uncertain = block.stmts.iter().rposition(is_unconditional).map_or(0, |certain| certain + 1);
        let mut guard = None;
        let mut statements = Vec::with_capacity(2 * block.stmts.len() + 1);
        for (index, mut statement) in std::mem::take(&mut block.stmts).into_iter().enumerate() {
            if matches!(statement, Stmt::Item(_)) {
                statements.push(statement);
                continue;
            }
            let (mut attributes, code) = split_attributes(&statement);
            attributes.extend(inner_attributes(&statement));
            let code = Extent::of(&code);
            let conditional = attributes.iter().any(is_condition);
            // A `while` has the probe of its line inside.
            if !matches!(statement, Stmt::Expr(Expr::While(_), _)) {
                statements
                    .extend(self.probe_unless_reached(code).map(|probe| with_attributes(probe, &attributes)));
            }
            self.visit_stmt_mut(&mut statement);
            if conditional {
                self.reached = None;
            }
            // The statement and the brace are on one line.
            let at_end_already = self.reached == Some(end);
            let closing = match (frees_at_end && !at_end_already, conditional) {
                (true, false) if Some(index) == last => ClosingProbe::after(&statement),
                (true, true) if index >= uncertain => ClosingProbe::InGuard,
                _ => ClosingProbe::None,
            };
            match (statement, closing) {
                (Stmt::Expr(value, None), ClosingProbe::AroundValue) => {
                    self.note_probe(end);
                    let value = code.probe("closing", quote!(#end, #value));
                    statements.push(Stmt::Expr(parse_quote!(#value), None));
                }
                (mut statement, ClosingProbe::InGuard) => {
                    let guard = guard.get_or_insert_with(|| {
                        self.note_probe(end);
                        // With a number, because a block in the value may have a guard as well.
                        let guard =
                            Ident::new(&format!("__closing_{}", self.count), hygienic_span_at(code.first));
                        let (start, call) = (Token![let](code.first), code.probe("closes", quote!(#end)));
                        let stop = Token![;](code.last);
                        statements.push(parse_quote!(#start #guard = #call #stop));
                        guard
                    });
                    report_exits(&mut statement, guard);
                    statements.push(statement);
                }
                (statement, ClosingProbe::AfterLast) => {
                    statements.push(statement);
                    self.note_probe(end);
                    // Only the compiler can know whether the statement before ever ends.
                    statements.push(parse_quote_spanned! {hygienic_span_at(brace)=>
                        #[allow(unreachable_code)]
                        __ALLOC_TRACKER_FUNCTION.line(#end);
                    });
                }
                (statement, _) => statements.push(statement),
            }
        }
        block.stmts = statements;
    }

    /// Returns a probe, unless the code is at this line already: of several statements on one line,
    /// the first one reports it for all.
    fn probe_unless_reached(&mut self, code: Extent) -> Option<Stmt> {
        (self.reached != Some(code.first_line())).then(|| self.line_probe(code))
    }

    fn line_probe(&mut self, code: Extent) -> Stmt {
        let line = code.first_line();
        self.note_probe(line);
        let (call, stop) = (code.probe("line", quote!(#line)), Token![;](code.last));
        parse_quote!(#call #stop)
    }

    /// Notes that a probe of this line is put in here.
    fn note_probe(&mut self, line: u32) {
        self.count += 1;
        self.reached = Some(line);
    }

    fn fork(&self) -> Fork {
        Fork { count: self.count, reached: self.reached }
    }

    /// Goes on behind a branch, or in another branch. The probes of the branch before may not have
    /// run, so the line is known only if that branch has none.
    fn leave_branch(&mut self, fork: Fork) {
        self.reached = if self.count == fork.count { fork.reached } else { None };
    }

    /// Returns the expression with a probe of its own before it.
    fn with_leading_probe(&mut self, mut value: Expr) -> Expr {
        let has_its_own = matches!(value, Expr::While(_));
        let probe = if has_its_own { None } else { self.probe_unless_reached(Extent::of(&value)) };
        self.visit_expr_mut(&mut value);
        match probe {
            Some(probe) => {
                let mut block: ExprBlock = parse_quote_spanned!(hygienic_span()=> {});
                block.block.stmts = vec![probe, Stmt::Expr(value, None)];
                Expr::Block(block)
            }
            None => value,
        }
    }

    /// Puts a probe before the first expression of a match guard, which may contain a `let`.
    fn probe_match_guard(&mut self, guard: &mut Expr) {
        match guard {
            Expr::Binary(both) if has_let(&both.left) || has_let(&both.right) => {
                self.probe_match_guard(&mut both.left);
                let fork = self.fork();
                self.visit_expr_mut(&mut both.right);
                self.leave_branch(fork);
            }
            Expr::Let(test) => {
                let code = Extent::of(&test.expr);
                let line = test.let_token.span.start().line as u32;
                // A place expression must stay one, and does nothing before it is matched.
                let probed = makes_a_value(&test.expr) && self.reached != Some(line);
                if probed {
                    self.note_probe(line);
                }
                self.visit_expr_mut(&mut test.expr);
                if probed {
                    let at = code.probe("at", quote!(#line));
                    let value = without_parentheses(&test.expr);
                    let of = quote_spanned!(hygienic_span_at(code.last)=> .of(#value));
                    *test.expr = parse_quote!(#at #of);
                }
            }
            other => *other = self.with_leading_probe(std::mem::replace(other, Expr::PLACEHOLDER)),
        }
    }

    fn probe_arm(&mut self, arm: &mut Arm) {
        if let Pat::Guard(pattern) = &mut arm.pat {
            self.probe_match_guard(&mut pattern.guard);
        }
        match &mut *arm.body {
            Expr::Block(body) if body.label.is_none() => {
                let frees_at_end = has_locals(&body.block) || binds(&arm.pat);
                self.probe_block(&mut body.block, frees_at_end);
            }
            body => *body = self.with_leading_probe(std::mem::replace(body, Expr::PLACEHOLDER)),
        }
    }
}

impl VisitMut for ProbeInserter {
    fn visit_block_mut(&mut self, block: &mut Block) {
        let frees_at_end = has_locals(block);
        self.probe_block(block, frees_at_end);
    }

    fn visit_item_mut(&mut self, _: &mut syn::Item) {}

    // Constants are not part of the function: types, generic arguments and lengths may contain
    // some.

    fn visit_type_mut(&mut self, _: &mut Type) {}

    fn visit_path_arguments_mut(&mut self, _: &mut PathArguments) {}

    fn visit_angle_bracketed_generic_arguments_mut(&mut self, _: &mut AngleBracketedGenericArguments) {}

    fn visit_expr_repeat_mut(&mut self, value: &mut ExprRepeat) {
        self.visit_expr_mut(&mut value.expr);
    }

    fn visit_local_mut(&mut self, local: &mut Local) {
        // Skips the pattern and the type.
        if let Some(init) = &mut local.init {
            self.visit_expr_mut(&mut init.expr);
            if let Some((_, otherwise)) = &mut init.diverge {
                let fork = self.fork();
                self.visit_expr_mut(otherwise);
                self.leave_branch(fork);
            }
        }
    }

    fn visit_expr_mut(&mut self, value: &mut Expr) {
        match value {
            Expr::If(branch) => {
                self.visit_expr_mut(&mut branch.cond);
                let fork = self.fork();
                let frees_at_end = has_locals(&branch.then_branch) || has_let(&branch.cond);
                self.probe_block(&mut branch.then_branch, frees_at_end);
                self.leave_branch(fork);
                if let Some((_, otherwise)) = &mut branch.else_branch {
                    match &mut **otherwise {
                        Expr::If(_) => {
                            **otherwise =
                                self.with_leading_probe(std::mem::replace(otherwise, Expr::PLACEHOLDER))
                        }
                        other => self.visit_expr_mut(other),
                    }
                }
                self.leave_branch(fork);
            }
            Expr::Binary(both) if matches!(both.op, BinOp::And(_) | BinOp::Or(_)) => {
                self.visit_expr_mut(&mut both.left);
                let fork = self.fork();
                self.visit_expr_mut(&mut both.right);
                self.leave_branch(fork);
            }
            Expr::Match(choice) => {
                self.visit_expr_mut(&mut choice.expr);
                let fork = self.fork();
                for arm in &mut choice.arms {
                    self.probe_arm(arm);
                    self.leave_branch(fork);
                }
            }
            // Stays a `while`, because a lint looks for `while true`.
            Expr::While(repeat) if matches!(&*repeat.cond, Expr::Lit(_)) => {
                let header = self.line_probe(Extent::of(&repeat.while_token));
                let frees_at_end = has_locals(&repeat.body);
                self.probe_block(&mut repeat.body, frees_at_end);
                repeat.body.stmts.insert(0, header);
                self.reached = None;
            }
            // Becomes the `loop` that the compiler itself makes of it, so that every test of the
            // condition is at its line.
            Expr::While(repeat) => {
                let header = self.line_probe(Extent::of(&repeat.while_token));
                self.visit_expr_mut(&mut repeat.cond);
                let frees_at_end = has_locals(&repeat.body) || has_let(&repeat.cond);
                self.probe_block(&mut repeat.body, frees_at_end);
                self.reached = None;
                let ExprWhile { attrs, label, cond, body, .. } = &*repeat;
                let (outer, inner): (Vec<_>, Vec<_>) =
                    attrs.iter().partition(|attribute| matches!(attribute.style, AttrStyle::Outer));
                *value = parse_quote_spanned! {hygienic_span()=>
                    #(#outer)* #label loop { #(#inner)* #header if #cond #body else { break; } }
                };
            }
            Expr::ForLoop(repeat) => {
                let line = repeat.for_token.span.start().line as u32;
                self.visit_expr_mut(&mut repeat.expr);
                // The first round reports the line again only if the loop's head has reported
                // others since the probe of the statement.
                let again = self.reached != Some(line);
                self.note_probe(line);
                // An item that the pattern gives no name is freed at the end of the body as well.
                self.probe_block(&mut repeat.body, true);
                self.reached = None;
                let iterated = without_parentheses(&repeat.expr);
                // The call begins where the loop does: `#[track_caller]` reports that.
                let head = Extent { first: repeat.for_token.span, ..Extent::of(iterated) };
                let head = head.probe("each", quote!(#line, #again, #iterated));
                *repeat.expr = parse_quote!(#head);
            }
            // Runs at another time than the code around it. The guard `__line` takes the caller of
            // a closure back to the line where it was.
            Expr::Closure(closure) => {
                self.reached = None;
                match &mut *closure.body {
                    Expr::Block(body) => {
                        let frees_at_end = has_locals(&body.block) || closure.inputs.iter().any(binds);
                        self.probe_block(&mut body.block, frees_at_end);
                        if closure.asyncness.is_none() {
                            *closure.body = parse_quote_spanned! {hygienic_span()=>
                                { let __line = __ALLOC_TRACKER_FUNCTION.aside(); #body }
                            };
                        }
                    }
                    body => {
                        let before = self.count;
                        self.visit_expr_mut(body);
                        if self.count != before && closure.asyncness.is_none() {
                            *body = parse_quote_spanned! {hygienic_span()=>
                                { let __line = __ALLOC_TRACKER_FUNCTION.aside(); #body }
                            };
                        }
                    }
                }
                self.reached = None;
            }
            Expr::Async(later) => {
                self.reached = None;
                self.visit_block_mut(&mut later.block);
                self.reached = None;
            }
            // The second round begins where the first has ended.
            Expr::Loop(repeat) => {
                self.reached = None;
                self.visit_block_mut(&mut repeat.body);
                self.reached = None;
            }
            // A constant is not part of the function.
            Expr::Const(_) => {}
            other => visit_mut::visit_expr_mut(self, other),
        }
    }
}

fn has_locals(block: &Block) -> bool {
    block.stmts.iter().any(|statement| matches!(statement, Stmt::Local(_)))
}

/// Whether a pattern may bind something that is freed with its scope.
fn binds(pattern: &Pat) -> bool {
    !matches!(pattern, Pat::Wild(_) | Pat::Lit(_) | Pat::Path(_) | Pat::Range(_))
}

/// Whether an expression computes a new value instead of naming an existing one, as far as its form
/// tells.
fn makes_a_value(value: &Expr) -> bool {
    match value {
        Expr::Call(_) | Expr::MethodCall(_) | Expr::Try(_) | Expr::Await(_) | Expr::Reference(_) => true,
        Expr::Paren(inner) => makes_a_value(&inner.expr),
        _ => false,
    }
}

/// Whether a condition contains a `let`.
fn has_let(condition: &Expr) -> bool {
    match condition {
        Expr::Let(_) => true,
        Expr::Binary(both) => has_let(&both.left) || has_let(&both.right),
        Expr::Paren(inner) => has_let(&inner.expr),
        Expr::Group(inner) => has_let(&inner.expr),
        _ => false,
    }
}
