//! Methods that clippy wants in one certain form: `clone` of a `Copy` type and `partial_cmp` of an
//! `Ord` type. Clippy reports every other form at the `impl`, where an `allow` on the method has no
//! effect, and the attribute on a method sees nothing but the method. So these bodies keep their
//! form. In: a signature and its body. Out: whether the body needs no probe, or where probes can
//! stand in it.

use syn::{Block, Expr, ExprReturn, FnArg, Pat, PatIdent, ReceiverKind, Signature, Stmt, Type, UnOp};

/// Whether the method is a `clone` with the body `*self` or `return *self;`. (Clippy 1.95 accepts
/// the first only.) No probe can stand in this body without giving it another form. It needs none,
/// because to copy a value behind a reference neither allocates nor frees.
pub(crate) fn copies_self(signature: &Signature, body: &Block) -> bool {
    let value = match &body.stmts[..] {
        [Stmt::Expr(Expr::Return(jump), _)] if jump.attrs.is_empty() => jump.expr.as_deref(),
        [Stmt::Expr(value, None)] => Some(value),
        _ => None,
    };
    let copies = matches!(value, Some(Expr::Unary(copy)) if
        copy.attrs.is_empty() && matches!(copy.op, UnOp::Deref(_)) && is_self(&copy.expr));
    copies && signature.ident == "clone" && borrows_self(signature) && signature.asyncness.is_none()
}

/// The operand of `cmp` in a body such as `Some(self.cmp(other))`.
pub(crate) struct Comparison<'a> {
    /// The name of the method's argument. Clippy looks at all of the body but this operand.
    pub(crate) operand: &'a mut Expr,
    /// Whether the body is a `return`, which leaves the method before its closing brace.
    pub(crate) returns: bool,
}

impl Comparison<'_> {
    /// Returns the operand if the method is a `partial_cmp` of two references that only calls
    /// `cmp`.
    pub(crate) fn of<'a>(signature: &Signature, body: &'a mut Block) -> Option<Comparison<'a>> {
        if signature.ident != "partial_cmp" || signature.asyncness.is_some() || !borrows_self(signature) {
            return None;
        }
        let Some(FnArg::Typed(argument)) = signature.inputs.get(1) else { return None };
        let (Pat::Ident(PatIdent { by_ref: None, subpat: None, ident: name, .. }), Type::Reference(_)) =
            (&*argument.pat, &*argument.ty)
        else {
            return None;
        };
        let (compared, returns) = match &mut body.stmts[..] {
            [Stmt::Expr(Expr::Return(ExprReturn { attrs, expr: Some(value), .. }), Some(_))] => {
                if !attrs.is_empty() {
                    return None;
                }
                (&mut **value, true)
            }
            [Stmt::Expr(value, None)] => (value, false),
            _ => return None,
        };
        let operand = compared_with(compared)?;
        let is_argument = matches!(operand, Expr::Path(path) if path.path.is_ident(name));
        is_argument.then_some(Comparison { operand, returns })
    }
}

/// Returns the right operand of `cmp` in `Some(cmp)` or `cmp.into()`.
fn compared_with(value: &mut Expr) -> Option<&mut Expr> {
    let cmp = match value {
        Expr::Call(some) if some.attrs.is_empty() && is_named(&some.func, "Some") => some.args.first_mut()?,
        Expr::MethodCall(into) if into.attrs.is_empty() && into.method == "into" => &mut *into.receiver,
        _ => return None,
    };
    match cmp {
        Expr::MethodCall(call) if call.method == "cmp" && call.args.len() == 1 && is_self(&call.receiver) => {
            call.args.first_mut()
        }
        Expr::Call(call)
            if is_named(&call.func, "cmp")
                && call.args.len() == 2
                && call.args.first().is_some_and(is_self) =>
        {
            call.args.last_mut()
        }
        _ => None,
    }
}

/// Whether the receiver is `&self` or `&mut self`.
fn borrows_self(signature: &Signature) -> bool {
    matches!(signature.inputs.first(), Some(FnArg::Receiver(receiver)) if
        matches!(receiver.kind, ReceiverKind::Reference(..)))
}

fn is_self(value: &Expr) -> bool {
    matches!(value, Expr::Path(path) if path.path.is_ident("self"))
}

/// Whether an expression is a path with this last name.
fn is_named(value: &Expr, name: &str) -> bool {
    matches!(value, Expr::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use quote::ToTokens;
    use syn::{ItemFn, parse_quote};

    #[test]
    fn a_clone_that_copies_needs_no_probes() {
        let copies: [ItemFn; 2] = [
            parse_quote!(
                fn clone(&self) -> Self {
                    *self
                }
            ),
            parse_quote!(
                fn clone(&self) -> Self {
                    return *self;
                }
            ),
        ];
        for method in copies {
            assert!(copies_self(&method.sig, &method.block), "{}", method.to_token_stream());
        }
    }

    #[test]
    fn everything_but_a_clone_that_copies_needs_probes() {
        let others: [ItemFn; 6] = [
            parse_quote!(
                fn copy(&self) -> Self {
                    *self
                }
            ),
            // Frees what holds the value.
            parse_quote!(
                fn clone(self: Box<Self>) -> Self {
                    *self
                }
            ),
            parse_quote!(
                fn clone(&self) -> Self {
                    **self
                }
            ),
            parse_quote!(
                fn clone(&self) -> Self {
                    Self(self.0.clone())
                }
            ),
            parse_quote!(
                fn clone(&self) -> Self {
                    count();
                    *self
                }
            ),
            parse_quote!(
                async fn clone(&self) -> Self {
                    *self
                }
            ),
        ];
        for method in others {
            assert!(!copies_self(&method.sig, &method.block), "{}", method.to_token_stream());
        }
    }

    #[test]
    fn the_operand_of_a_comparison_is_known_in_every_form_that_clippy_accepts() {
        let bodies: [(Block, bool); 6] = [
            (parse_quote!({ Some(self.cmp(other)) }), false),
            (parse_quote!({ Option::Some(Ord::cmp(self, other)) }), false),
            (parse_quote!({ Some(Self::cmp(self, other)) }), false),
            (parse_quote!({ Some(<Self as Ord>::cmp(self, other)) }), false),
            (parse_quote!({ self.cmp(other).into() }), false),
            (
                parse_quote!({
                    return Some(self.cmp(other));
                }),
                true,
            ),
        ];
        let signature: Signature = parse_quote!(fn partial_cmp(&self, other: &Self) -> Option<Ordering>);
        for (mut body, returns) in bodies {
            let before = body.to_token_stream().to_string();
            let comparison = Comparison::of(&signature, &mut body);
            let comparison = comparison.unwrap_or_else(|| panic!("no comparison: {before}"));
            assert_eq!(comparison.returns, returns, "{before}");
            *comparison.operand = parse_quote!(operand);
            assert_eq!(body.to_token_stream().to_string(), before.replace("other", "operand"));
        }
    }

    #[test]
    fn every_other_body_is_no_comparison() {
        let bodies: [Block; 6] = [
            parse_quote!({ self.0.partial_cmp(&other.0) }),
            parse_quote!({ Some(self.0.cmp(other)) }),
            parse_quote!({ Some(self.cmp(&Self::new(other))) }),
            parse_quote!({ Some(other.cmp(self)) }),
            parse_quote!({ Some(self.cmp(other)).filter(|_| false) }),
            parse_quote!({
                count();
                Some(self.cmp(other))
            }),
        ];
        let signature: Signature = parse_quote!(fn partial_cmp(&self, other: &Self) -> Option<Ordering>);
        for mut body in bodies {
            assert!(Comparison::of(&signature, &mut body).is_none(), "{}", body.to_token_stream());
        }
        let signatures: [Signature; 4] = [
            parse_quote!(fn compare(&self, other: &Self) -> Option<Ordering>),
            // These own something that is freed when the method is over.
            parse_quote!(fn partial_cmp(self, other: &Self) -> Option<Ordering>),
            parse_quote!(fn partial_cmp(&self, other: Box<Self>) -> Option<Ordering>),
            parse_quote!(async fn partial_cmp(&self, other: &Self) -> Option<Ordering>),
        ];
        for signature in signatures {
            let mut body: Block = parse_quote!({ Some(self.cmp(other)) });
            assert!(Comparison::of(&signature, &mut body).is_none(), "{}", signature.to_token_stream());
        }
    }
}
