//! Ways out of a block before its value is there. In: the statement with the value, and the guard
//! of the block's closing brace. Out: the same statement, which tells the guard of each way out.
//!
//! The guard counts: `may_leave` adds one before the code may be left, `stays` takes one off where
//! it was not. A guard that is dropped with a count above zero reports no brace:
//!
//! ```text
//! read(x)?     Closing::stays(&guard, Closing::may_leave(&guard, read(x))?)
//! return x     { Closing::may_leave(&guard, ()); return x }
//! ```

use proc_macro2::Span;
use quote::{ToTokens, quote_spanned};
use syn::visit_mut::{self, VisitMut};
use syn::{
    AngleBracketedGenericArguments, Attribute, Block, Expr, ExprMacro, ExprRepeat, Ident, Lifetime,
    PathArguments, Stmt, StmtMacro, Type, parse_quote, parse_quote_spanned,
};

use crate::attributes::is_condition;
use crate::ending::macro_always_leaves;
use crate::extent::{Extent, hygienic_span_at, without_parentheses};

/// Makes a statement tell the guard of a block's end of everything in it that may leave the block.
pub(crate) fn report_exits(statement: &mut Stmt, guard: &Ident) {
    ExitReporter { guard, inner_loops: 0, inner_labels: Vec::new() }.visit_stmt_mut(statement);
}

struct ExitReporter<'a> {
    guard: &'a Ident,
    /// Loops around the visited code, within the statement.
    inner_loops: usize,
    /// Labels around the visited code, within the statement.
    inner_labels: Vec<Ident>,
}

impl ExitReporter<'_> {
    /// Whether a `break` or `continue` leaves the statement: its target is around the statement.
    fn jump_leaves(&self, label: Option<&Lifetime>) -> bool {
        label.map_or(self.inner_loops == 0, |label| !self.inner_labels.contains(&label.ident))
    }

    /// Visits the parts of an expression, within its loop and its label if it has them.
    fn visit_parts(&mut self, value: &mut Expr) {
        let label = match value {
            Expr::Loop(repeat) => &repeat.label,
            Expr::While(repeat) => &repeat.label,
            Expr::ForLoop(repeat) => &repeat.label,
            Expr::Block(block) => &block.label,
            _ => &None,
        };
        let labels_before = self.inner_labels.len();
        self.inner_labels.extend(label.as_ref().map(|label| label.name.ident.clone()));
        let loops = usize::from(matches!(value, Expr::Loop(_) | Expr::While(_) | Expr::ForLoop(_)));
        self.inner_loops += loops;
        visit_mut::visit_expr_mut(self, value);
        self.inner_loops -= loops;
        self.inner_labels.truncate(labels_before);
    }

    /// Wraps the operand of a `?` or an `await` in `may_leave`. Returns false for everything else.
    /// `first` is the first token of the expression before its parts were visited.
    fn wrap_operand(&self, value: &mut Expr, first: Span) -> bool {
        let operand = match value {
            Expr::Try(question) => &mut question.expr,
            Expr::Await(wait) => &mut wait.base,
            _ => return false,
        };
        let guard = self.guard;
        let argument = without_parentheses(operand);
        // With a span as if no macro had made it: `#[track_caller]` reports this as the line of
        // `?`.
        let may_leave = quote_spanned!(first=> ::alloc_tracker::__private::Closing::may_leave);
        **operand = parse_quote_spanned!(hygienic_span_at(first)=> #may_leave(&#guard, #argument));
        true
    }
}

impl VisitMut for ExitReporter<'_> {
    fn visit_expr_mut(&mut self, value: &mut Expr) {
        let guard = self.guard;
        if matches!(value, Expr::Closure(_) | Expr::Async(_) | Expr::Const(_)) {
            return;
        }
        let leaves = match value {
            Expr::Return(_) => true,
            Expr::Break(jump) => self.jump_leaves(jump.label.as_ref()),
            Expr::Continue(jump) => self.jump_leaves(jump.label.as_ref()),
            Expr::Macro(call) => macro_always_leaves(&call.mac),
            _ => false,
        };
        let Extent { first, last } = Extent::of(value);
        self.visit_parts(value);
        let site = hygienic_span_at(first);
        if leaves {
            let attributes = take_attributes(value);
            *value = parse_quote_spanned!(site=> #(#attributes)* { ::alloc_tracker::__private::Closing::may_leave(&#guard, ()); #value });
        } else if self.wrap_operand(value, first) {
            let attributes = take_attributes(value);
            if let Expr::Try(_) = value {
                // With the extent of the `?` expression, so that lints about it point to all of it.
                let stays = quote_spanned!(first=> ::alloc_tracker::__private::Closing::stays);
                let arguments = quote_spanned!(last=> (&#guard, #value));
                *value = parse_quote!(#(#attributes)* #stays #arguments);
                return;
            }
            // NOTE: an `await` may have a value of type `!`, which must not be an argument, so it
            // is matched. In parentheses, because a `match` that a statement begins with would be a
            // statement of its own, also behind a `&`.
            *value = parse_quote_spanned! {site=>
                #(#attributes)* (match #value {
                    #[allow(unreachable_code)]
                    value => ::alloc_tracker::__private::Closing::stays(&#guard, value),
                })
            };
        }
    }

    fn visit_block_mut(&mut self, block: &mut Block) {
        let guard = self.guard;
        for mut statement in std::mem::take(&mut block.stmts) {
            match &mut statement {
                // The value of such a statement is unused, and lints must still see that: `stays`
                // is a statement of its own instead of a call around the value.
                Stmt::Expr(value @ (Expr::Try(_) | Expr::Await(_)), Some(_)) => {
                    let first = Extent::of(value).first;
                    self.visit_parts(value);
                    self.wrap_operand(value, first);
                    let site = hygienic_span_at(first);
                    let attributes = attributes_of(value).iter().filter(|attribute| is_condition(attribute));
                    let stays = parse_quote_spanned! {site=>
                        #(#attributes)*
                        #[allow(unreachable_code)]
                        ::alloc_tracker::__private::Closing::stays(&#guard, ());
                    };
                    block.stmts.extend([statement, stays]);
                }
                _ => {
                    self.visit_stmt_mut(&mut statement);
                    block.stmts.push(statement);
                }
            }
        }
    }

    fn visit_stmt_mut(&mut self, statement: &mut Stmt) {
        if let Stmt::Macro(call) = statement
            && macro_always_leaves(&call.mac)
        {
            let StmtMacro { attrs, mac, semi_token } = call.clone();
            let mut value = Expr::Macro(ExprMacro { attrs, mac });
            self.visit_expr_mut(&mut value);
            *statement = Stmt::Expr(value, semi_token);
            return;
        }
        visit_mut::visit_stmt_mut(self, statement);
    }

    fn visit_item_mut(&mut self, _: &mut syn::Item) {}

    fn visit_type_mut(&mut self, _: &mut Type) {}

    fn visit_path_arguments_mut(&mut self, _: &mut PathArguments) {}

    fn visit_angle_bracketed_generic_arguments_mut(&mut self, _: &mut AngleBracketedGenericArguments) {}

    fn visit_expr_repeat_mut(&mut self, value: &mut ExprRepeat) {
        self.visit_expr_mut(&mut value.expr);
    }
}

/// Takes the attributes of an expression that a larger one replaces.
fn take_attributes(value: &mut Expr) -> Vec<Attribute> {
    std::mem::take(attributes_of(value))
}

/// Returns the attributes of an expression that may leave.
fn attributes_of(value: &mut Expr) -> &mut Vec<Attribute> {
    match value {
        Expr::Return(jump) => &mut jump.attrs,
        Expr::Break(jump) => &mut jump.attrs,
        Expr::Continue(jump) => &mut jump.attrs,
        Expr::Macro(call) => &mut call.attrs,
        Expr::Try(question) => &mut question.attrs,
        Expr::Await(wait) => &mut wait.attrs,
        other => unreachable!("no way out of a block: {}", other.to_token_stream()),
    }
}
