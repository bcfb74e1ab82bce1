//! What a function becomes. In: the attribute's arguments and its item. Out: the item, or an error at the place that is
//! to blame.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::visit_mut::{self, VisitMut};
use syn::{
    Block, Error, FnArg, ImplItem, Item, ItemFn, ItemImpl, Pat, ReturnType, Signature, Stmt, Type,
    parse_quote_spanned,
};

use crate::lines;

/// The whole attribute.
pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let expanded = if arguments.is_empty() {
        profiled(item.clone())
    } else {
        Err(Error::new_spanned(&arguments, "`#[profile]` takes no arguments"))
    };
    // With an error the item stays, so that the only message is the one about the attribute.
    expanded.unwrap_or_else(|error| {
        let error = error.into_compile_error();
        quote!(#error #item)
    })
}

fn profiled(item: TokenStream) -> Result<TokenStream, Error> {
    // A method is not an item of its own, but parses as one if it has no receiver that only methods have.
    match syn::parse2::<Item>(item.clone()) {
        Ok(Item::Fn(mut function)) => {
            check(&function.sig)?;
            let ItemFn { sig, block, .. } = &mut function;
            annotate(sig, block, "");
            Ok(function.into_token_stream())
        }
        Ok(Item::Impl(item)) => Ok(annotate_impl(item).into_token_stream()),
        Ok(other) => Err(not_a_function(&other)),
        Err(error) => match syn::parse2::<ImplItem>(item.clone()) {
            Ok(ImplItem::Fn(mut method)) => {
                check(&method.sig)?;
                annotate(&mut method.sig, &mut method.block, "");
                Ok(method.into_token_stream())
            }
            _ => match syn::parse2::<syn::TraitItemFn>(item) {
                Ok(declared) if declared.default.is_none() => {
                    Err(Error::new_spanned(declared.sig, "`#[profile]` needs a function with a body"))
                }
                _ => Err(error),
            },
        },
    }
}

fn not_a_function(item: &Item) -> Error {
    let what = "`#[profile]` goes on functions, methods and `impl` blocks";
    match item {
        Item::ForeignMod(block) => {
            Error::new_spanned(&block.abi, format!("{what}: foreign functions have no body here"))
        }
        Item::Trait(item) => {
            Error::new_spanned(item.trait_token, format!("{what}: put it on the methods that have a body"))
        }
        Item::Mod(item) => {
            Error::new_spanned(item.mod_token, format!("{what}: put it on the functions inside"))
        }
        other => Error::new_spanned(other, what),
    }
}

fn check(signature: &Signature) -> Result<(), Error> {
    match &signature.constness {
        Some(constness) => Err(Error::new_spanned(
            constness,
            "`#[profile]` cannot announce the lines of a `const fn`, which may run in the compiler",
        )),
        None => Ok(()),
    }
}

fn annotate_impl(mut item: ItemImpl) -> ItemImpl {
    let of = name_of(&item.self_ty);
    for item in &mut item.items {
        if let ImplItem::Fn(method) = item
            && method.sig.constness.is_none()
        {
            annotate(&mut method.sig, &mut method.block, &format!("{of}::"));
        }
    }
    item
}

/// A type's name without generic arguments, as the names of functions have none; types without a path as they are written.
fn name_of(ty: &syn::Type) -> String {
    match ty {
        syn::Type::Path(path) if path.qself.is_none() => {
            let segments: Vec<String> =
                path.path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            segments.join("::")
        }
        other => other.to_token_stream().to_string().replace(' ', ""),
    }
}

/// `of` is what stands before the function's name.
fn annotate(signature: &mut Signature, block: &mut Block, of: &str) {
    let site = Span::mixed_site();
    let (start, end) =
        (signature.span().start().line as u32, block.brace_token.span.close().start().line as u32);
    let name = format!("::{of}{}", signature.ident);
    let moved = rebind(signature);
    lines::of_body(block, !signature.inputs.is_empty());
    let statements = std::mem::take(&mut block.stmts);
    let function: Stmt = parse_quote_spanned! {site=>
        static __ALLOC_TRACKER_FUNCTION: ::alloc_tracker::__private::Function =
            ::alloc_tracker::__private::Function::new(::core::concat!(::core::module_path!(), #name), ::core::file!(), #start, #end);
    };
    block.stmts.push(function);
    if signature.asyncness.is_some() {
        let hint = output_hint(&signature.output);
        let body = quote_spanned!(site=> async move { #hint #(#moved)* #(#statements)* });
        block.stmts.push(Stmt::Expr(
            parse_quote_spanned!(site=> __ALLOC_TRACKER_FUNCTION.polled(#body).await),
            None,
        ));
    } else {
        block.stmts.push(parse_quote_spanned!(site=> let __activation = __ALLOC_TRACKER_FUNCTION.enter();));
        block.stmts.extend(moved);
        block.stmts.extend(statements);
    }
}

/// Moves the arguments into locals of the body: they are then freed before the function is over, in the same order.
fn rebind(signature: &mut Signature) -> Vec<Stmt> {
    let mut moved = Vec::new();
    for argument in &mut signature.inputs {
        if let FnArg::Typed(argument) = argument
            && argument.attrs.is_empty()
            && may_own(&argument.ty)
            && let Pat::Ident(pattern) = &mut *argument.pat
            && pattern.by_ref.is_none()
            && pattern.subpat.is_none()
        {
            let (mutability, ident) = (pattern.mutability.take(), &pattern.ident);
            let site = Span::mixed_site();
            moved.push(parse_quote_spanned!(site=> let #mutability #ident = #ident;));
        }
    }
    moved
}

/// Whether a value of this type may have something to free.
fn may_own(ty: &Type) -> bool {
    const NEVER: [&str; 17] = [
        "bool", "char", "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "i128",
        "isize", "f32", "f64", "str",
    ];
    match ty {
        Type::Reference(_) => false,
        Type::Path(path) => {
            path.path.get_ident().is_none_or(|ident| !NEVER.contains(&ident.to_string().as_str()))
        }
        _ => true,
    }
}

/// Tells the compiler the type of an `async` block, as the function's signature did. Never runs.
fn output_hint(output: &ReturnType) -> TokenStream {
    let mut ty = match output {
        ReturnType::Default => syn::parse_quote!(()),
        ReturnType::Type(_, ty) => ty.clone(),
    };
    struct Unnamed;
    impl VisitMut for Unnamed {
        fn visit_type_mut(&mut self, ty: &mut Type) {
            if let Type::ImplTrait(_) = ty {
                *ty = Type::Infer(syn::TypeInfer {
                    attrs: Vec::new(),
                    underscore_token: syn::Token![_](ty.span()),
                });
            } else {
                visit_mut::visit_type_mut(self, ty);
            }
        }
    }
    Unnamed.visit_type_mut(&mut ty);
    quote_spanned! {Span::mixed_site()=>
        #[allow(unreachable_code, clippy::all, clippy::pedantic)]
        if false {
            let output: #ty = loop {};
            return output;
        }
    }
}
