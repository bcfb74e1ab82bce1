//! What a function becomes. In: the attribute's arguments and its item. Out: the item, or an error at the place that is
//! to blame.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::token::Brace;
use syn::visit::{self, Visit};
use syn::visit_mut::{self, VisitMut};
use syn::{
    Attribute, Block, Error, Expr, ExprBlock, FnArg, GenericArgument, Ident, ImplItem, Item, ItemFn,
    ItemImpl, Pat, PatIdent, PathArguments, ReceiverKind, ReturnType, Signature, Stmt, Token, Type,
    parse_quote, parse_quote_spanned,
};

use crate::extent::FUNCTION;
use crate::{lines, receiver_name};

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
            check(&function.sig, &function.attrs)?;
            let ItemFn { attrs, sig, block, .. } = &mut function;
            attrs.extend(lints_of_form(sig, block));
            annotate(sig, block, "");
            Ok(function.into_token_stream())
        }
        Ok(Item::Impl(item)) => Ok(annotate_impl(item).into_token_stream()),
        Ok(other) => Err(not_a_function(&other)),
        Err(error) => match syn::parse2::<ImplItem>(item.clone()) {
            Ok(ImplItem::Fn(mut method)) => {
                check(&method.sig, &method.attrs)?;
                method.attrs.extend(lints_of_form(&method.sig, &method.block));
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

fn check(signature: &Signature, attributes: &[Attribute]) -> Result<(), Error> {
    if let Some(again) = attributes.iter().find(|attribute| is_profile(attribute)) {
        return Err(Error::new_spanned(again, "`#[profile]` is there twice"));
    }
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
            // Once is enough.
            method.attrs.retain(|attribute| !is_profile(attribute));
            method.attrs.extend(lints_of_form(&method.sig, &method.block));
            annotate(&mut method.sig, &mut method.block, &format!("{of}::"));
        }
    }
    item
}

/// Whether an attribute is this one, by the names that it usually has.
fn is_profile(attribute: &Attribute) -> bool {
    let mut names = attribute.path().segments.iter().rev().map(|segment| segment.ident.to_string());
    names.next().is_some_and(|last| last == "profile") && names.next().is_none_or(|of| of == "alloc_tracker")
}

/// Lints of clippy's about the form of code: of a branch with one statement, which has two now; of what stands before an item; and
/// of methods that are to be written in one certain way. Only those that the code can be about: who forbids one minds its name.
fn lints_of_form(signature: &Signature, body: &Block) -> Vec<Attribute> {
    let words = words_of(body.to_token_stream());
    let has = |any: &[&str]| words.iter().any(|word| any.contains(&word.as_str()));
    let mut lints = Vec::new();
    if has(&["else"]) {
        lints.push(parse_quote!(#[allow(clippy::if_not_else, clippy::redundant_else)]));
    }
    if has(&["match"]) {
        lints.push(parse_quote!(#[allow(clippy::single_match_else)]));
    }
    if has(&["cfg"]) && has(&["return"]) {
        lints.push(parse_quote!(#[allow(clippy::needless_return)]));
    }
    if has(&["use", "fn", "struct", "enum", "const", "static", "impl", "trait", "mod", "type"]) {
        lints.push(parse_quote!(#[allow(clippy::items_after_statements)]));
    }
    match signature.ident.to_string().as_str() {
        "clone" => lints.push(parse_quote!(#[allow(clippy::non_canonical_clone_impl)])),
        "partial_cmp" => lints.push(parse_quote!(#[allow(clippy::non_canonical_partial_ord_impl)])),
        _ => {}
    }
    lints
}

/// The words of some code.
fn words_of(code: TokenStream) -> Vec<String> {
    let words = |token| match token {
        TokenTree::Ident(word) => vec![word.to_string()],
        TokenTree::Group(group) => words_of(group.stream()),
        _ => Vec::new(),
    };
    code.into_iter().flat_map(words).collect()
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
        (signature.span().start().line as u32, lines::line_of_end(block.brace_token.span.close()));
    let file = file_of(block.brace_token.span.close());
    let name = format!("::{of}{}", signature.ident);
    let moved = rebind(signature, block);
    lines::of_body(block, !signature.inputs.is_empty());
    // NOTE: the user's statements stay in the user's braces, as long as the arguments are there: until Rust 2024 what the value of a
    // block has made by the way lives longer than the block's locals, and not as long as a function's arguments. The braces around them
    // are of this crate's edition.
    let body = block.clone();
    let function = Ident::new(FUNCTION, site);
    // A reference: methods of it come before any that the user's traits have for all values.
    let made = quote_spanned! {site=>
        static #function: &::alloc_tracker::__private::Function = {
            static MADE: ::alloc_tracker::__private::Function =
                ::alloc_tracker::__private::Function::new(::core::concat!(::core::module_path!(), #name), #file, #start, #end);
            &MADE
        };
    };
    let whole = if signature.asyncness.is_some() {
        let hint = output_hint(&signature.output);
        let polled = quote_spanned!(site=> #function.polled(async move { #hint #(#moved)* #body }).await);
        if never_returns(&signature.output) {
            quote_spanned!(site=> { #made match #polled {} })
        } else {
            quote_spanned!(site=> { #made #polled })
        }
    } else {
        quote_spanned!(site=> { #made let __activation = #function.enter(); #(#moved)* #body })
    };
    // What is freed at its end is freed at the user's brace.
    let mut whole: ExprBlock = parse_quote!(#whole);
    whole.block.brace_token = Brace(site.located_at(block.brace_token.span.close()));
    block.stmts = vec![Stmt::Expr(Expr::Block(whole), None)];
}

/// The file in which code stands: that of a macro, if one has made the function, as its lines are.
fn file_of(code: Span) -> TokenStream {
    let file = proc_macro::is_available().then(|| code.unwrap().file()).filter(|file| !file.is_empty());
    file.map_or_else(|| quote!(::core::file!()), |file| quote!(#file))
}

/// Moves the arguments into locals of the body: they are then freed before the function is over, in the same order.
///
/// What stands in the way of a name stays with the argument if it must be there (`cfg`), and goes with the local if it is about
/// the variable.
fn rebind(signature: &mut Signature, body: &mut Block) -> Vec<Stmt> {
    let site = Span::mixed_site();
    let mut moved = Vec::new();
    let (inputs, is_async) = (signature.inputs.clone(), signature.asyncness.is_some());
    for (at, argument) in signature.inputs.iter_mut().enumerate() {
        let argument = match argument {
            FnArg::Receiver(receiver) => {
                let owns = match &receiver.kind {
                    ReceiverKind::Value => true,
                    ReceiverKind::Typed(_, ty) => may_own(ty),
                    _ => false,
                };
                let it = receiver.self_token;
                if owns && receiver_name::replace(body, &inputs) {
                    let (mutability, name) = (receiver.mutability.take(), receiver_name::at(it.span));
                    moved.push(parse_quote_spanned!(site=> let #mutability #name = #it;));
                } else if owns && is_async {
                    // The future has all of it, not only the fields that it uses.
                    moved.push(parse_quote_spanned!(site=> let _ = &#it;));
                }
                continue;
            }
            FnArg::Typed(argument) => argument,
        };
        if !may_own(&argument.ty) {
            continue;
        }
        let (lints, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut argument.attrs).into_iter().partition(is_lint);
        let conditions: Vec<_> = others.iter().filter(|other| is_condition(other)).collect();
        match &mut *argument.pat {
            Pat::Ident(pattern) if pattern.by_ref.is_none() && pattern.subpat.is_none() => {
                let (mutability, ident) = (pattern.mutability.take(), pattern.ident.clone());
                if ident.to_string().starts_with('_') {
                    // Clippy minds that it is used, and that it gets what has no effect, as nobody minds of a tuple.
                    let name = Ident::new(&format!("argument_{at}"), site.located_at(ident.span()));
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
                let name = Ident::new(&format!("argument_{at}"), site.located_at(pattern.span()));
                let mutability = borrows_mutably(pattern).then(|| Token![mut](site));
                let named = Pat::Ident(PatIdent {
                    attrs: Vec::new(),
                    by_ref: None,
                    mutability: None,
                    ident: name.clone(),
                    subpat: None,
                });
                let pattern = std::mem::replace(pattern, named);
                // What the pattern leaves of the argument is freed after what it takes, as it was.
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
    struct Bindings(bool);
    impl<'ast> Visit<'ast> for Bindings {
        fn visit_pat_ident(&mut self, binding: &'ast PatIdent) {
            self.0 |= binding.by_ref.is_some() && binding.mutability.is_some();
            visit::visit_pat_ident(self, binding);
        }
    }
    let mut bindings = Bindings(false);
    bindings.visit_pat(pattern);
    bindings.0
}

/// Whether what an attribute stands before may not be there.
pub(crate) fn is_condition(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg")
}

/// Whether an attribute sets the level of lints.
pub(crate) fn is_lint(attribute: &Attribute) -> bool {
    ["allow", "expect", "warn", "deny", "forbid", "cfg_attr"]
        .iter()
        .any(|level| attribute.path().is_ident(level))
}

/// Whether a value of this type may have something to free.
fn may_own(ty: &Type) -> bool {
    const NEVER: [&str; 17] = [
        "bool", "char", "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "i128",
        "isize", "f32", "f64", "str",
    ];
    match ty {
        Type::Reference(_) => false,
        Type::Path(path) if is_pinned_reference(path) => false,
        Type::Path(path) => {
            path.path.get_ident().is_none_or(|ident| !NEVER.contains(&ident.to_string().as_str()))
        }
        _ => true,
    }
}

/// Whether this is a `Pin<&mut …>`.
fn is_pinned_reference(path: &syn::TypePath) -> bool {
    let Some(last) = path.path.segments.last().filter(|last| last.ident == "Pin") else { return false };
    let PathArguments::AngleBracketed(of) = &last.arguments else { return false };
    matches!(of.args.first(), Some(GenericArgument::Type(Type::Reference(_))))
}

fn never_returns(output: &ReturnType) -> bool {
    matches!(output, ReturnType::Type(_, ty) if matches!(**ty, Type::Never(_)))
}

/// Tells the compiler the type of an `async` block, as the function's signature did. Never runs.
fn output_hint(output: &ReturnType) -> TokenStream {
    let mut ty = match output {
        ReturnType::Default => syn::parse_quote!(()),
        _ if never_returns(output) => parse_quote_spanned!(Span::mixed_site()=> ::core::convert::Infallible),
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
