//! What attributes mean for the attribute `#[profile]`. In: attributes and statements of the
//! user's. Out: which of them are conditions or lints, and what a probe beside a statement takes
//! over.

use proc_macro2::TokenStream;
use quote::ToTokens;
use syn::parse::{ParseStream, Parser};
use syn::spanned::Spanned;
use syn::{AttrStyle, Attribute, Expr, ExprBlock, Ident, Meta, Stmt};

/// Whether an attribute is `#[profile]`, by the paths that are usual for it.
pub(crate) fn is_profile(attribute: &Attribute) -> bool {
    let mut names = attribute.path().segments.iter().rev().map(|segment| segment.ident.to_string());
    names.next().is_some_and(|last| last == "profile")
        && names.next().is_none_or(|parent| parent == "alloc_tracker")
}

/// Whether an attribute may remove what it stands before.
pub(crate) fn is_condition(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg")
}

/// Whether an attribute sets the level of lints.
pub(crate) fn is_lint_level(attribute: &Attribute) -> bool {
    ["allow", "expect", "warn", "deny", "forbid", "cfg_attr"]
        .iter()
        .any(|level| attribute.path().is_ident(level))
}

/// Whether a statement is an executable one that no `cfg` can remove.
pub(crate) fn is_unconditional(statement: &Stmt) -> bool {
    !matches!(statement, Stmt::Item(_)) && !split_attributes(statement).0.iter().any(is_condition)
}

/// Returns the attributes that a statement begins with, and the rest of its tokens.
pub(crate) fn split_attributes(statement: &Stmt) -> (Vec<Attribute>, TokenStream) {
    let parse = |input: ParseStream<'_>| Ok((input.call(Attribute::parse_outer)?, input.parse()?));
    parse.parse2(statement.to_token_stream()).unwrap_or_else(|_| (Vec::new(), statement.to_token_stream()))
}

/// Returns the inner attributes of a statement that is a block, as if they stood before the block.
pub(crate) fn inner_attributes(statement: &Stmt) -> Vec<Attribute> {
    let Stmt::Expr(Expr::Block(ExprBlock { attrs, .. }), _) = statement else { return Vec::new() };
    let inner = attrs.iter().filter(|attribute| matches!(attribute.style, AttrStyle::Inner(_)));
    inner.map(|attribute| Attribute { style: AttrStyle::Outer, ..attribute.clone() }).collect()
}

/// Copies a statement's conditions and lint levels to its probe: the probe is compiled where the
/// statement is, and the compiler is as strict about it.
pub(crate) fn with_attributes(mut probe: Stmt, attributes: &[Attribute]) -> Stmt {
    if let Stmt::Expr(Expr::MethodCall(call), _) = &mut probe {
        let copied =
            attributes.iter().filter(|attribute| is_condition(attribute) || is_lint_level(attribute));
        call.attrs = copied.cloned().map(expect_to_allow).collect();
    }
    probe
}

/// Turns `expect` into `allow`: what is expected of the statement is not expected of its probe.
fn expect_to_allow(mut attribute: Attribute) -> Attribute {
    if attribute.path().is_ident("expect")
        && let Meta::List(list) = &mut attribute.meta
    {
        list.path = Ident::new("allow", list.path.span()).into();
    }
    attribute
}
