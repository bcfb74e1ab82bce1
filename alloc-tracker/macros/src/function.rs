//! The attribute as a whole. In: its arguments and its item. Out: the item with probes in its
//! functions, or an error at the tokens that are to blame.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::token::Brace;
use syn::visit_mut::{self, VisitMut};
use syn::{
    Attribute, Block, Error, Expr, ExprBlock, Ident, ImplItem, Item, ItemFn, ItemImpl, ReturnType, Signature,
    Stmt, TraitItemFn, Type, parse_quote, parse_quote_spanned,
};

use crate::attributes::is_profile;
use crate::canonical::{Comparison, copies_self};
use crate::extent::{Extent, FUNCTION, hygienic_span, hygienic_span_at, last_line};
use crate::{arguments, lines};

/// Expands `#[profile(arguments)] item`.
pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let expanded = if arguments.is_empty() {
        expand_item(item.clone())
    } else {
        Err(Error::new_spanned(&arguments, "`#[profile]` takes no arguments"))
    };
    // The item stays beside an error, so that the only message is the one about the attribute.
    expanded.unwrap_or_else(|error| {
        let error = error.into_compile_error();
        quote!(#error #item)
    })
}

fn expand_item(item: TokenStream) -> Result<TokenStream, Error> {
    match syn::parse2::<Item>(item.clone()) {
        Ok(Item::Fn(mut function)) => {
            check(&function.sig, &function.attrs)?;
            let ItemFn { attrs, sig, block, .. } = &mut function;
            attrs.extend(allowed_lints(block));
            annotate(sig, block, "");
            Ok(function.into_token_stream())
        }
        Ok(Item::Impl(item)) => Ok(annotate_impl(item).into_token_stream()),
        Ok(other) => Err(not_a_function(&other)),
        // A method parses as an item too, unless it is a `default fn`.
        Err(error) => match syn::parse2::<ImplItem>(item) {
            Ok(ImplItem::Fn(mut method)) => {
                check(&method.sig, &method.attrs)?;
                method.attrs.extend(allowed_lints(&method.block));
                annotate(&mut method.sig, &mut method.block, "");
                Ok(method.into_token_stream())
            }
            _ => Err(error),
        },
    }
}

fn not_a_function(item: &Item) -> Error {
    let rule = "`#[profile]` can be put on functions, methods and `impl` blocks";
    match item {
        Item::ForeignMod(block) => {
            Error::new_spanned(&block.abi, format!("{rule}: foreign functions have no body here"))
        }
        Item::Trait(item) => {
            Error::new_spanned(item.trait_token, format!("{rule}: put it on the methods that have a body"))
        }
        Item::Mod(item) => {
            Error::new_spanned(item.mod_token, format!("{rule}: put it on the functions inside"))
        }
        Item::Verbatim(tokens) => match syn::parse2::<TraitItemFn>(tokens.clone()) {
            Ok(declared) => Error::new_spanned(declared.sig, "`#[profile]` needs a function with a body"),
            Err(_) => Error::new_spanned(tokens, rule),
        },
        other => Error::new_spanned(other, rule),
    }
}

/// Rejects functions that already have the attribute and functions that may run at compile time.
fn check(signature: &Signature, attributes: &[Attribute]) -> Result<(), Error> {
    if let Some(again) = attributes.iter().find(|attribute| is_profile(attribute)) {
        return Err(Error::new_spanned(again, "`#[profile]` may be given only once"));
    }
    match &signature.constness {
        Some(constness) => Err(Error::new_spanned(
            constness,
            "`#[profile]` cannot record the lines of a `const fn`, which may run in the compiler",
        )),
        None => Ok(()),
    }
}

fn annotate_impl(mut item: ItemImpl) -> ItemImpl {
    let ty = type_name(&item.self_ty);
    for item in &mut item.items {
        if let ImplItem::Fn(method) = item
            && method.sig.constness.is_none()
        {
            // Two attributes would report every line twice.
            method.attrs.retain(|attribute| !is_profile(attribute));
            method.attrs.extend(allowed_lints(&method.block));
            annotate(&mut method.sig, &mut method.block, &format!("{ty}::"));
        }
    }
    item
}

/// Returns `allow` attributes for those lints of clippy's that would report the form of the
/// expansion. They are about a branch with one statement, which has two now, and about statements
/// before an item.
///
/// Only lints that the code can be about are named: a crate that forbids a lint cannot allow it.
fn allowed_lints(body: &Block) -> Vec<Attribute> {
    let words = identifiers(body.to_token_stream());
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
    lints
}

/// Returns all identifiers and keywords of some code, at every depth.
fn identifiers(code: TokenStream) -> Vec<String> {
    let of_token = |token| match token {
        TokenTree::Ident(word) => vec![word.to_string()],
        TokenTree::Group(group) => identifiers(group.stream()),
        _ => Vec::new(),
    };
    code.into_iter().flat_map(of_token).collect()
}

/// Returns a type's path without generic arguments, because names of functions have none either.
/// Returns a type that is not a path as it is written, without spaces.
fn type_name(ty: &Type) -> String {
    match ty {
        Type::Path(path) if path.qself.is_none() => {
            let segments: Vec<String> =
                path.path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            segments.join("::")
        }
        other => other.to_token_stream().to_string().replace(' ', ""),
    }
}

/// Puts probes into a function. `parent` is what stands between the module and the function's name
/// in its path: `Type::` or nothing.
///
/// ```text
/// fn name(text: String) -> usize {
///     static __ALLOC_TRACKER_FUNCTION: &Function = …;
///     let __activation = __ALLOC_TRACKER_FUNCTION.enter();
///     let text = text;
///     { the user's statements and their probes }
/// }
/// ```
///
/// A method that clippy wants in one certain form (`canonical.rs`) keeps it.
fn annotate(signature: &mut Signature, block: &mut Block, parent: &str) {
    if copies_self(signature, block) {
        return;
    }
    let site = hygienic_span();
    let end_brace = block.brace_token.span.close();
    let (start, end) = (signature.span().start().line as u32, last_line(end_brace));
    let file = file_of(end_brace);
    let name = format!("::{parent}{}", signature.ident);
    let function = Ident::new(FUNCTION, site);
    // The static is a reference: its inherent methods are then found before any method of a trait
    // of the user's that every type implements.
    let function_static = quote_spanned! {site=>
        static #function: &::alloc_tracker::__private::Function = {
            static MADE: ::alloc_tracker::__private::Function =
                ::alloc_tracker::__private::Function::new(::core::concat!(::core::module_path!(), #name), #file, #start, #end);
            &MADE
        };
    };
    let code = Extent::of(&block.stmts.first());
    if let Some(comparison) = Comparison::of(signature, block) {
        probe_comparison(comparison, &function_static, code.first_line(), end);
        return;
    }
    let moved = arguments::move_into_body(signature, block);
    lines::insert_probes(block, !signature.inputs.is_empty());
    // NOTE: the user's statements keep the user's braces, and the arguments are locals of new
    // braces around them. Before Rust 2024, temporaries in the value of a block outlive the block's
    // locals, but not the arguments of the function. The new braces have this crate's edition,
    // 2024, and so end the temporaries before the arguments.
    let body = block.clone();
    let whole = if signature.asyncness.is_some() {
        let hint = output_hint(&signature.output);
        let polled = quote_spanned!(site=> #function.polled(async move { #hint #(#moved)* #body }).await);
        if never_returns(&signature.output) {
            quote_spanned!(site=> { #function_static match #polled {} })
        } else {
            quote_spanned!(site=> { #function_static #polled })
        }
    } else {
        quote_spanned!(site=> { #function_static let __activation = #function.enter(); #(#moved)* #body })
    };
    // With the span of the user's brace: drops at the end of the new braces are then reported
    // there.
    let mut whole: ExprBlock = parse_quote!(#whole);
    whole.block.brace_token = Brace(hygienic_span_at(end_brace));
    block.stmts = vec![Stmt::Expr(Expr::Block(whole), None)];
}

/// Puts all probes of a `partial_cmp` into the operand of its `cmp`, since nothing else of the body
/// may change. The guards are temporaries there: they are dropped after `cmp`, when the method is
/// over, and the first one of a tuple is dropped first.
///
/// ```text
/// Some(self.cmp(({
///     static __ALLOC_TRACKER_FUNCTION: &Function = …;
///     let activation = __ALLOC_TRACKER_FUNCTION.enter();
///     __ALLOC_TRACKER_FUNCTION.line(3);
///     (__ALLOC_TRACKER_FUNCTION.closes(4), activation)
/// }, other).1))
/// ```
fn probe_comparison(comparison: Comparison<'_>, function_static: &TokenStream, line: u32, end: u32) {
    let site = hygienic_span();
    let Comparison { operand, returns } = comparison;
    let function = Ident::new(FUNCTION, site);
    let guards = if returns || line == end {
        quote_spanned!(site=> activation)
    } else {
        quote_spanned!(site=> (#function.closes(#end), activation))
    };
    *operand = parse_quote_spanned! {site=>
        ({
            #function_static
            let activation = #function.enter();
            #function.line(#line);
            #guards
        }, #operand).1
    };
}

/// Returns the path of the file that the lines belong to. If another macro has made the function,
/// this is the file of that macro.
fn file_of(code: Span) -> TokenStream {
    let file = proc_macro::is_available().then(|| code.unwrap().file()).filter(|file| !file.is_empty());
    file.map_or_else(|| quote!(::core::file!()), |file| quote!(#file))
}

fn never_returns(output: &ReturnType) -> bool {
    matches!(output, ReturnType::Type(_, ty) if matches!(**ty, Type::Never(_)))
}

/// Returns code that never runs and tells the compiler the type of an `async` block, as the
/// function's signature did.
fn output_hint(output: &ReturnType) -> TokenStream {
    let mut ty = match output {
        ReturnType::Default => parse_quote!(()),
        _ if never_returns(output) => parse_quote_spanned!(hygienic_span()=> ::core::convert::Infallible),
        ReturnType::Type(_, ty) => ty.clone(),
    };
    /// Replaces every `impl Trait`, which a local cannot have as its type, by `_`.
    struct ImplTraitToInfer;
    impl VisitMut for ImplTraitToInfer {
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
    ImplTraitToInfer.visit_type_mut(&mut ty);
    quote_spanned! {hygienic_span()=>
        #[allow(unreachable_code, clippy::all, clippy::pedantic)]
        if false {
            let output: #ty = loop {};
            return output;
        }
    }
}
