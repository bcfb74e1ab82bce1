//! Ways out of a block before its value is there. In: the value, and the guard of the block's end. Out: the same value, which tells
//! the guard of each.

use proc_macro2::Span;
use quote::{ToTokens, quote_spanned};
use syn::visit_mut::{self, VisitMut};
use syn::{
    AngleBracketedGenericArguments, Attribute, Block, Expr, ExprMacro, ExprRepeat, Ident, Lifetime,
    PathArguments, Stmt, StmtMacro, Type, parse_quote, parse_quote_spanned,
};

use crate::ending::is_leaving_macro;
use crate::extent::{Extent, bare, site_at};
use crate::function::is_condition;

/// Tells the guard of a block's end of everything in the block's value that may leave before it is there.
pub(crate) struct Exits<'a> {
    closing: &'a Ident,
    /// Loops around, within the value.
    loops: usize,
    /// Labels within the value.
    labels: Vec<Ident>,
}

impl<'a> Exits<'a> {
    pub(crate) fn of(closing: &'a Ident) -> Exits<'a> {
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

impl Exits<'_> {
    /// Tells of a `?` or an `await` before it may leave; false if it is something else. `first` is its first token as it was.
    fn tell_before(&self, value: &mut Expr, first: Span) -> bool {
        let waits = match value {
            Expr::Try(question) => &mut question.expr,
            Expr::Await(wait) => &mut wait.base,
            _ => return false,
        };
        let closing = self.closing;
        let argument = bare(waits);
        // `?` is where this is, as `#[track_caller]` has it: as if no macro had made it.
        let may_leave = quote_spanned!(first=> ::alloc_tracker::__private::Closing::may_leave);
        **waits = parse_quote_spanned!(site_at(first)=> #may_leave(&#closing, #argument));
        true
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
        let Extent { first, last } = Extent::of(value);
        self.inner(value);
        let site = site_at(first);
        if leaves {
            let attributes = take_attributes(value);
            *value = parse_quote_spanned!(site=> #(#attributes)* { ::alloc_tracker::__private::Closing::may_leave(&#closing, ()); #value });
        } else if self.tell_before(value, first) {
            let attributes = take_attributes(value);
            if let Expr::Try(_) = value {
                // What lints say of it they say of the whole.
                let stays = quote_spanned!(first=> ::alloc_tracker::__private::Closing::stays);
                let arguments = quote_spanned!(last=> (&#closing, #value));
                *value = parse_quote!(#(#attributes)* #stays #arguments);
                return;
            }
            // NOTE: what an `await` waits for may never be, and must not be an argument then. In parentheses, because at the beginning
            // of a statement it would be one, also behind a `&`.
            *value = parse_quote_spanned! {site=>
                #(#attributes)* (match #value {
                    #[allow(unreachable_code)]
                    value => ::alloc_tracker::__private::Closing::stays(&#closing, value),
                })
            };
        }
    }

    fn visit_block_mut(&mut self, block: &mut Block) {
        let closing = self.closing;
        for mut statement in std::mem::take(&mut block.stmts) {
            match &mut statement {
                // Lints look at what becomes of its value: nothing.
                Stmt::Expr(value @ (Expr::Try(_) | Expr::Await(_)), Some(_)) => {
                    let first = Extent::of(value).first;
                    self.inner(value);
                    self.tell_before(value, first);
                    let site = site_at(first);
                    let attributes = attributes_of(value).iter().filter(|attribute| is_condition(attribute));
                    let stays = parse_quote_spanned! {site=>
                        #(#attributes)*
                        #[allow(unreachable_code)]
                        ::alloc_tracker::__private::Closing::stays(&#closing, ());
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
            && is_leaving_macro(&call.mac)
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

/// Takes what stands before an expression that is replaced by a larger one.
fn take_attributes(value: &mut Expr) -> Vec<Attribute> {
    std::mem::take(attributes_of(value))
}

/// What stands before an expression that may leave.
fn attributes_of(value: &mut Expr) -> &mut Vec<Attribute> {
    match value {
        Expr::Return(leaving) => &mut leaving.attrs,
        Expr::Break(leaving) => &mut leaving.attrs,
        Expr::Continue(leaving) => &mut leaving.attrs,
        Expr::Macro(call) => &mut call.attrs,
        Expr::Try(question) => &mut question.attrs,
        Expr::Await(wait) => &mut wait.attrs,
        other => unreachable!("{} leaves nothing", other.to_token_stream()),
    }
}
