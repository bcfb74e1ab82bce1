//! Arguments that an annotated function owns. In: the signature and the body. Out: locals of the
//! body that take the arguments over, so that they are freed while the function still has a line.

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{
    Block, FnArg, GenericArgument, Ident, Pat, PatIdent, PathArguments, ReceiverKind, Signature, Stmt, Token,
    Type, parse_quote_spanned,
};

use crate::attributes::{is_condition, is_lint_level};
use crate::extent::{hygienic_span, hygienic_span_at};
use crate::receiver_name;

/// Returns the locals that take over the arguments, in the same order. They are freed before the
/// function is over, in the order in which arguments are freed.
///
/// Attributes of an argument: a condition (`cfg`) stays with the argument and is repeated at the
/// local, a lint level goes to the local, every other attribute stays.
pub(crate) fn move_into_body(signature: &mut Signature, body: &mut Block) -> Vec<Stmt> {
    let site = hygienic_span();
    let mut moved = Vec::new();
    let (inputs, is_async) = (signature.inputs.clone(), signature.asyncness.is_some());
    for (index, argument) in signature.inputs.iter_mut().enumerate() {
        let argument = match argument {
            FnArg::Receiver(receiver) => {
                let owns = match &receiver.kind {
                    ReceiverKind::Value => true,
                    ReceiverKind::Typed(_, ty) => may_own(ty),
                    _ => false,
                };
                let self_token = receiver.self_token;
                if owns && receiver_name::replace(body, &inputs) {
                    let mutability = receiver.mutability.take();
                    let name = receiver_name::name_at(self_token.span);
                    moved.push(parse_quote_spanned!(site=> let #mutability #name = #self_token;));
                } else if owns && is_async {
                    // Otherwise the future would capture only the fields that it uses.
                    moved.push(parse_quote_spanned!(site=> let _ = &#self_token;));
                }
                continue;
            }
            FnArg::Typed(argument) => argument,
        };
        if !may_own(&argument.ty) {
            continue;
        }
        let (lints, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut argument.attrs).into_iter().partition(is_lint_level);
        let conditions: Vec<_> = others.iter().filter(|other| is_condition(other)).collect();
        match &mut *argument.pat {
            Pat::Ident(pattern) if pattern.by_ref.is_none() && pattern.subpat.is_none() => {
                let (mutability, ident) = (pattern.mutability.take(), pattern.ident.clone());
                if ident.to_string().starts_with('_') {
                    // Clippy reports that a name with an underscore is used, and that it gets a
                    // value whose computation has no effect. It reports neither of a tuple pattern.
                    let name = Ident::new(&format!("argument_{index}"), hygienic_span_at(ident.span()));
                    pattern.ident = name.clone();
                    moved.push(parse_quote_spanned! {site=>
                        #(#conditions)* #(#lints)* let (#mutability #ident,) = (#name,);
                    });
                } else {
                    moved.push(parse_quote_spanned! {site=>
                        #(#conditions)* #(#lints)* let #mutability #ident = #ident;
                    });
                }
            }
            pattern => {
                let name = Ident::new(&format!("argument_{index}"), hygienic_span_at(pattern.span()));
                let mutability = borrows_mutably(pattern).then(|| Token![mut](site));
                let named = Pat::Ident(PatIdent {
                    attrs: Vec::new(),
                    by_ref: None,
                    mutability: None,
                    ident: name.clone(),
                    subpat: None,
                });
                let pattern = std::mem::replace(pattern, named);
                // Two locals: what the pattern does not bind is freed after what it binds, as
                // without the attribute.
                moved.push(parse_quote_spanned!(site=> #(#conditions)* let #mutability #name = #name;));
                moved.push(parse_quote_spanned!(site=> #(#conditions)* #(#lints)* let #pattern = #name;));
            }
        }
        argument.attrs = others;
    }
    moved
}

/// Whether a pattern has a `ref mut` in it.
fn borrows_mutably(pattern: &Pat) -> bool {
    struct MutableBorrow {
        exists: bool,
    }
    impl<'ast> Visit<'ast> for MutableBorrow {
        fn visit_pat_ident(&mut self, binding: &'ast PatIdent) {
            self.exists |= binding.by_ref.is_some() && binding.mutability.is_some();
            visit::visit_pat_ident(self, binding);
        }
    }
    let mut borrow = MutableBorrow { exists: false };
    borrow.visit_pat(pattern);
    borrow.exists
}

/// Whether a value of this type may have something to free.
fn may_own(ty: &Type) -> bool {
    const PRIMITIVES: [&str; 17] = [
        "bool", "char", "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "i128",
        "isize", "f32", "f64", "str",
    ];
    match ty {
        Type::Reference(_) => false,
        Type::Path(path) if is_pinned_reference(path) => false,
        Type::Path(path) => {
            path.path.get_ident().is_none_or(|ident| !PRIMITIVES.contains(&ident.to_string().as_str()))
        }
        _ => true,
    }
}

/// Whether a type is a `Pin<&mut …>`.
fn is_pinned_reference(path: &syn::TypePath) -> bool {
    let Some(last) = path.path.segments.last().filter(|last| last.ident == "Pin") else { return false };
    let PathArguments::AngleBracketed(generics) = &last.arguments else { return false };
    matches!(generics.args.first(), Some(GenericArgument::Type(Type::Reference(_))))
}
