//! Where probes go. In: the body of a function. Out: the same with a probe before every statement, at every depth, that
//! changes no type, no lifetime and no order of drops.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::parse::{ParseStream, Parser};
use syn::spanned::Spanned;
use syn::visit_mut::{self, VisitMut};
use syn::{
    AngleBracketedGenericArguments, Arm, AttrStyle, Attribute, BinOp, Block, Expr, ExprBlock, ExprRepeat,
    ExprWhile, Ident, Local, Meta, Pat, PathArguments, Stmt, Token, Type, parse_quote, parse_quote_spanned,
};

use crate::ending::Ending;
use crate::exits::Exits;
use crate::extent::{Extent, bare, site, site_at};
use crate::function::{is_condition, is_lint};

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
        let brace = block.brace_token.span.close();
        let end = line_of_end(brace);
        let last = block.stmts.iter().rposition(|statement| !matches!(statement, Stmt::Item(_)));
        // Which of several that may not be there is the last one, and the value, is not known here.
        let uncertain = block.stmts.iter().rposition(is_certain).map_or(0, |certain| certain + 1);
        let mut guard = None;
        let mut statements = Vec::with_capacity(2 * block.stmts.len() + 1);
        for (index, mut statement) in std::mem::take(&mut block.stmts).into_iter().enumerate() {
            if matches!(statement, Stmt::Item(_)) {
                statements.push(statement);
                continue;
            }
            let (mut attributes, code) = parts_of(&statement);
            attributes.extend(inner_attributes_of(&statement));
            let code = Extent::of(&code);
            let conditional = attributes.iter().any(is_condition);
            // A `while` reaches its line by itself.
            if !matches!(statement, Stmt::Expr(Expr::While(_), _)) {
                statements.extend(self.probe_once(code).map(|probe| with_attributes(probe, &attributes)));
            }
            self.visit_stmt_mut(&mut statement);
            if conditional {
                self.reached = None;
            }
            // All of it is on one line.
            let there = self.reached == Some((end, self.inserted));
            let ending = match (closing && !there, conditional) {
                (true, false) if Some(index) == last => Ending::of(&statement),
                (true, true) if index >= uncertain => Ending::Guarded,
                _ => Ending::None,
            };
            match (statement, ending) {
                (Stmt::Expr(value, None), Ending::Value) => {
                    self.note(end);
                    let value = code.call("closing", quote!(#end, #value));
                    statements.push(Stmt::Expr(parse_quote!(#value), None));
                }
                (mut statement, Ending::Guarded) => {
                    let closing = guard.get_or_insert_with(|| {
                        self.note(end);
                        // Blocks in the value may have one as well.
                        let closing =
                            Ident::new(&format!("__closing_{}", self.inserted), site_at(code.first));
                        let (start, call) = (Token![let](code.first), code.call("closes", quote!(#end)));
                        let stop = Token![;](code.last);
                        statements.push(parse_quote!(#start #closing = #call #stop));
                        closing
                    });
                    Exits::of(closing).visit_stmt_mut(&mut statement);
                    statements.push(statement);
                }
                (statement, Ending::Unit) => {
                    statements.push(statement);
                    self.note(end);
                    // The statement before may never come back, which only the compiler can know.
                    statements.push(parse_quote_spanned! {site_at(brace)=>
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
            Some(probe) => {
                let mut block: ExprBlock = parse_quote_spanned!(site()=> {});
                block.block.stmts = vec![probe, Stmt::Expr(value, None)];
                Expr::Block(block)
            }
            None => value,
        }
    }

    /// The guard of an arm, which may have a `let` in it, with a probe before what comes first.
    fn guard(&mut self, guard: &mut Expr) {
        match guard {
            Expr::Binary(both) if has_let(&both.left) || has_let(&both.right) => {
                self.guard(&mut both.left);
                let start = (self.reached, self.inserted);
                self.visit_expr_mut(&mut both.right);
                self.fork(start);
            }
            Expr::Let(test) => {
                let code = Extent::of(&test.expr);
                let line = test.let_token.span.start().line as u32;
                // What has a place of its own must stay there, and does nothing before it is looked at.
                let probed = makes_a_value(&test.expr) && self.reached != Some((line, self.inserted));
                if probed {
                    self.note(line);
                }
                self.visit_expr_mut(&mut test.expr);
                if probed {
                    let at = code.call("at", quote!(#line));
                    let value = bare(&test.expr);
                    let of = quote_spanned!(site_at(code.last)=> .of(#value));
                    *test.expr = parse_quote!(#at #of);
                }
            }
            other => *other = self.led(std::mem::replace(other, Expr::PLACEHOLDER)),
        }
    }

    fn arm(&mut self, arm: &mut Arm) {
        if let Pat::Guard(pattern) = &mut arm.pat {
            self.guard(&mut pattern.guard);
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

impl VisitMut for Lines {
    fn visit_block_mut(&mut self, block: &mut Block) {
        let closing = has_locals(block);
        self.block(block, closing);
    }

    fn visit_item_mut(&mut self, _: &mut syn::Item) {}

    // Constants are no part of the function.

    fn visit_type_mut(&mut self, _: &mut Type) {}

    fn visit_path_arguments_mut(&mut self, _: &mut PathArguments) {}

    fn visit_angle_bracketed_generic_arguments_mut(&mut self, _: &mut AngleBracketedGenericArguments) {}

    fn visit_expr_repeat_mut(&mut self, value: &mut ExprRepeat) {
        self.visit_expr_mut(&mut value.expr);
    }

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
                let closing = has_locals(&branch.then_branch) || has_let(&branch.cond);
                self.block(&mut branch.then_branch, closing);
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
            Expr::Binary(both) if matches!(both.op, BinOp::And(_) | BinOp::Or(_)) => {
                self.visit_expr_mut(&mut both.left);
                let start = (self.reached, self.inserted);
                self.visit_expr_mut(&mut both.right);
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
            // A lint looks for this one.
            Expr::While(repeat) if matches!(&*repeat.cond, Expr::Lit(_)) => {
                let header = self.probe(Extent::of(&repeat.while_token));
                let closing = has_locals(&repeat.body);
                self.block(&mut repeat.body, closing);
                repeat.body.stmts.insert(0, header);
                self.reached = None;
            }
            // As the compiler itself understands it, so that every test of the condition is at its line.
            Expr::While(repeat) => {
                let header = self.probe(Extent::of(&repeat.while_token));
                self.visit_expr_mut(&mut repeat.cond);
                let closing = has_locals(&repeat.body) || has_let(&repeat.cond);
                self.block(&mut repeat.body, closing);
                self.reached = None;
                let ExprWhile { attrs, label, cond, body, .. } = &*repeat;
                let (outer, inner): (Vec<_>, Vec<_>) =
                    attrs.iter().partition(|attribute| matches!(attribute.style, AttrStyle::Outer));
                *value = parse_quote_spanned! {site()=>
                    #(#outer)* #label loop { #(#inner)* #header if #cond #body else { break; } }
                };
            }
            Expr::ForLoop(repeat) => {
                let line = repeat.for_token.span.start().line as u32;
                self.visit_expr_mut(&mut repeat.expr);
                // The statement itself has reached it for the first time, but for what its head has reached since.
                let again = self.reached != Some((line, self.inserted));
                self.note(line);
                // What no name is given to is there until the body ends as well.
                self.block(&mut repeat.body, true);
                self.reached = None;
                let of = bare(&repeat.expr);
                // It begins where the loop does, as `#[track_caller]` has it.
                let head = Extent { first: repeat.for_token.span, ..Extent::of(of) };
                let head = head.call("each", quote!(#line, #again, #of));
                *repeat.expr = parse_quote!(#head);
            }
            // Runs at another time than the code around it.
            Expr::Closure(closure) => {
                self.reached = None;
                match &mut *closure.body {
                    Expr::Block(body) => {
                        let closing = has_locals(&body.block) || closure.inputs.iter().any(binds);
                        self.block(&mut body.block, closing);
                        if closure.asyncness.is_none() {
                            // Whoever calls it goes on where it was.
                            *closure.body = parse_quote_spanned! {site()=>
                                { let __line = __ALLOC_TRACKER_FUNCTION.aside(); #body }
                            };
                        }
                    }
                    body => {
                        let before = self.inserted;
                        self.visit_expr_mut(body);
                        if self.inserted != before && closure.asyncness.is_none() {
                            *body = parse_quote_spanned! {site()=>
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

/// The line on which something ends. A brace that another macro has made again is where the whole block is.
pub(crate) fn line_of_end(code: Span) -> u32 {
    code.end().line as u32
}

/// What stands before a statement, and the statement itself.
fn parts_of(statement: &Stmt) -> (Vec<Attribute>, TokenStream) {
    let parse = |input: ParseStream<'_>| Ok((input.call(Attribute::parse_outer)?, input.parse()?));
    parse.parse2(statement.to_token_stream()).unwrap_or_else(|_| (Vec::new(), statement.to_token_stream()))
}

/// What is expected of the statement is not expected of its probe.
fn allowed(mut attribute: Attribute) -> Attribute {
    if attribute.path().is_ident("expect")
        && let Meta::List(list) = &mut attribute.meta
    {
        list.path = Ident::new("allow", list.path.span()).into();
    }
    attribute
}

/// Whether a statement will be there.
fn is_certain(statement: &Stmt) -> bool {
    !matches!(statement, Stmt::Item(_)) && !parts_of(statement).0.iter().any(is_condition)
}

/// What stands at the beginning of a block that is a statement, as if it stood before it.
fn inner_attributes_of(statement: &Stmt) -> Vec<Attribute> {
    let Stmt::Expr(Expr::Block(ExprBlock { attrs, .. }), _) = statement else { return Vec::new() };
    let inner = attrs.iter().filter(|attribute| matches!(attribute.style, AttrStyle::Inner(_)));
    inner.map(|attribute| Attribute { style: AttrStyle::Outer, ..attribute.clone() }).collect()
}

/// The probe of a statement: there where that is, and the compiler is as strict about it.
fn with_attributes(mut probe: Stmt, attributes: &[Attribute]) -> Stmt {
    if let Stmt::Expr(Expr::MethodCall(call), _) = &mut probe {
        let copied = attributes.iter().filter(|attribute| is_condition(attribute) || is_lint(attribute));
        call.attrs = copied.cloned().map(allowed).collect();
    }
    probe
}

fn has_locals(block: &Block) -> bool {
    block.stmts.iter().any(|statement| matches!(statement, Stmt::Local(_)))
}

/// Whether a pattern may bind something that is freed with its scope.
fn binds(pattern: &Pat) -> bool {
    !matches!(pattern, Pat::Wild(_) | Pat::Lit(_) | Pat::Path(_) | Pat::Range(_))
}

/// Whether an expression has a value that is nowhere else, as far as can be seen from here.
fn makes_a_value(value: &Expr) -> bool {
    match value {
        Expr::Call(_) | Expr::MethodCall(_) | Expr::Try(_) | Expr::Await(_) | Expr::Reference(_) => true,
        Expr::Paren(inner) => makes_a_value(&inner.expr),
        _ => false,
    }
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
