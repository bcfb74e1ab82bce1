//! Ways out of a block before its value is there. In: the value, and the guard of the block's end. Out: the same value, which tells
//! the guard of each.

use quote::quote_spanned;
use syn::spanned::Spanned;
use syn::visit_mut::{self, VisitMut};
use syn::{Attribute, Expr, ExprMacro, Ident, Lifetime, Stmt, StmtMacro, parse_quote_spanned};

use crate::ending::is_leaving_macro;
use crate::extent::{Extent, site_at};

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
        if leaves {
            let attributes = take_attributes(value);
            *value = parse_quote_spanned!(site=> #(#attributes)* { ::alloc_tracker::__private::Closing::may_leave(&#closing, ()); #value });
            return;
        }
        let waits = match value {
            Expr::Try(question) => &mut question.expr,
            Expr::Await(wait) => &mut wait.base,
            _ => return,
        };
        // `?` is where this is, as `#[track_caller]` has it: as if no macro had made it.
        let first = Extent::of(waits).first;
        let may_leave = quote_spanned!(first=> ::alloc_tracker::__private::Closing::may_leave);
        **waits = parse_quote_spanned!(site=> #may_leave(&#closing, #waits));
        let attributes = take_attributes(value);
        // NOTE: as an argument it must not be something that never is.
        *value = parse_quote_spanned! {site=>
            #(#attributes)* match #value {
                #[allow(unreachable_code)]
                value => ::alloc_tracker::__private::Closing::stays(&#closing, value),
            }
        };
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
}

/// What stands before an expression that is replaced by a larger one.
fn take_attributes(value: &mut Expr) -> Vec<Attribute> {
    let attributes = match value {
        Expr::Return(leaving) => &mut leaving.attrs,
        Expr::Break(leaving) => &mut leaving.attrs,
        Expr::Continue(leaving) => &mut leaving.attrs,
        Expr::Macro(call) => &mut call.attrs,
        Expr::Try(question) => &mut question.attrs,
        Expr::Await(wait) => &mut wait.attrs,
        _ => return Vec::new(),
    };
    std::mem::take(attributes)
}
