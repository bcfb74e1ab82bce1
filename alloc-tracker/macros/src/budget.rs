//! Budgets around the body of a function, and around a block. In: bounds and code. Out: the same
//! code, whose thread or whose polls are inside of a scope, and a check behind it.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::parse::{ParseStream, Parser};
use syn::visit::{self, Visit};
use syn::{
    Block, Error, Expr, ExprAsync, ExprAwait, ExprClosure, Item, ItemFn, Local, Pat, ReturnType, Stmt, Token,
    Type, parse_quote_spanned,
};

use crate::bounds::Bounds;

/// Expands `#[budget(arguments)] item`.
pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand_item(arguments, item.clone()).unwrap_or_else(|error| {
        // The item stays beside an error, so that the only message is the one about the attribute.
        let error = error.into_compile_error();
        quote!(#error #item)
    })
}

fn expand_item(arguments: TokenStream, item: TokenStream) -> Result<TokenStream, Error> {
    let bounds: Bounds = syn::parse2(arguments)?;
    let mut function: ItemFn = match syn::parse2::<Item>(item.clone()) {
        Ok(Item::Fn(function)) => function,
        _ => return Err(Error::new_spanned(item, "`#[budget]` can be put on functions that have a body")),
    };
    if let Some(constness) = &function.sig.constness {
        return Err(Error::new_spanned(constness, "`#[budget]` cannot be put on a `const fn`"));
    }
    let name = function.sig.ident.to_string();
    let path = quote_spanned!(hygienic()=> ::core::concat!(::core::module_path!(), "::", #name));
    let around = Around { begin: begin(&bounds, &path), output: Output::of(&function.sig.output) };
    let is_async = function.sig.asyncness.is_some();
    if !is_async && let Some(body) = future_of_runtime(&mut function.block) {
        let block = &body.block;
        let whole = around.future(&quote!(async move #block));
        body.block = parse_quote_spanned!(hygienic()=> { #whole });
    } else {
        let block = &function.block;
        let whole = if is_async { around.future(&quote!(async move #block)) } else { around.call(block) };
        *function.block = parse_quote_spanned!(hygienic()=> { #whole });
    }
    Ok(function.into_token_stream())
}

/// Expands `budget! { bounds; code }`.
pub(crate) fn expand_block(input: TokenStream) -> TokenStream {
    let parse = |input: ParseStream<'_>| {
        let bounds: Bounds = input.parse()?;
        input.parse::<Token![;]>()?;
        Ok((bounds, Block::parse_within(input)?))
    };
    let (bounds, code) = match parse.parse2(input) {
        Ok(parsed) => parsed,
        Err(error) => return error.into_compile_error(),
    };
    let path = quote_spanned! {hygienic()=> {
        fn budget_is_here() {}
        ::core::any::type_name_of_val(&budget_is_here)
    }};
    let begin = begin(&bounds, &path);
    let mut awaits = Awaits { exist: false };
    code.iter().for_each(|statement| awaits.visit_stmt(statement));
    let value = if awaits.exist {
        quote_spanned!(hygienic()=> ::alloc_tracker::__private::within(&budget, async { #(#code)* }).await)
    } else {
        quote_spanned! {hygienic()=> {
            let _entered = budget.enter();
            #(#code)*
        }}
    };
    quote_spanned! {hygienic()=> {
        let budget = #begin;
        #[allow(clippy::let_unit_value)]
        let value = #value;
        // A block that always leaves early is none of the macro's business.
        #[allow(unreachable_code)]
        budget.end(false);
        value
    }}
}

/// Returns a span whose local names are hidden from the user's code.
pub(crate) fn hygienic() -> Span {
    Span::mixed_site()
}

/// Returns an expression that begins a budget.
fn begin(bounds: &Bounds, path: &TokenStream) -> TokenStream {
    let limits = bounds.to_expression();
    quote_spanned! {hygienic()=>
        ::alloc_tracker::__private::Budget::begin(
            #limits,
            ::alloc_tracker::__private::BudgetPlace {
                function: #path,
                file: ::core::file!(),
                line: ::core::line!(),
                package: ::core::option_env!("CARGO_PKG_NAME"),
                folder: ::core::option_env!("CARGO_MANIFEST_DIR"),
                binary: ::core::option_env!("CARGO_BIN_NAME"),
                test_folder: ::core::option_env!("CARGO_TARGET_TMPDIR"),
            },
        )
    }
}

/// What is put around the body of a function.
struct Around {
    begin: TokenStream,
    output: Output,
}

/// What a function returns.
struct Output {
    /// The type, or `_` if it has no name.
    ty: TokenStream,
    /// `-> type`, or nothing if it has no name.
    arrow: TokenStream,
    is_result: bool,
}

impl Output {
    fn of(output: &ReturnType) -> Output {
        let ReturnType::Type(_, ty) = output else {
            return Output { ty: quote!(()), arrow: TokenStream::new(), is_result: false };
        };
        if has_word(output.to_token_stream(), "impl") {
            return Output { ty: quote!(_), arrow: TokenStream::new(), is_result: false };
        }
        let last = match &**ty {
            Type::Path(path) => path.path.segments.last(),
            _ => None,
        };
        let is_result = last.is_some_and(|last| last.ident == "Result");
        Output { ty: ty.to_token_stream(), arrow: output.to_token_stream(), is_result }
    }
}

impl Around {
    /// Returns statements that run this body in a closure, so that its locals are gone when the
    /// budget ends, and a `return` does not leave the budget.
    fn call(&self, body: &Block) -> TokenStream {
        let arrow = &self.output.arrow;
        self.statements(&quote_spanned! {hygienic()=> {
            let _entered = budget.enter();
            (move || #arrow #body)()
        }})
    }

    /// Returns statements that await this future, each of whose polls counts.
    fn future(&self, future: &TokenStream) -> TokenStream {
        let ty = &self.output.ty;
        self.statements(&quote_spanned! {hygienic()=>
            ::alloc_tracker::__private::within::<#ty, _>(&budget, #future).await
        })
    }

    fn statements(&self, value: &TokenStream) -> TokenStream {
        let Around { begin, output: Output { ty, is_result, .. } } = self;
        let is_failure = match is_result {
            true => quote_spanned!(hygienic()=> value.is_err()),
            false => quote!(false),
        };
        quote_spanned! {hygienic()=>
            let budget = #begin;
            #[allow(clippy::let_unit_value, clippy::redundant_closure_call)]
            let value: #ty = #value;
            budget.end(#is_failure);
            value
        }
    }
}

/// Returns the body of an async test that a runtime's attribute has expanded already: the runtime
/// around it is not part of the budget.
///
/// ```text
/// fn test() {
///     let body = async { … };        this is what `#[tokio::test]` makes of the user's body
///     …
///     return Builder::new_current_thread().enable_all().build().expect("…").block_on(body);
/// }
/// ```
fn future_of_runtime(block: &mut Block) -> Option<&mut ExprAsync> {
    let (first, rest) = block.stmts.split_first_mut()?;
    let runs_it = rest.iter().any(|statement| has_word(statement.to_token_stream(), "block_on"));
    match first {
        Stmt::Local(Local { pat: Pat::Ident(name), init: Some(init), .. })
            if name.ident == "body" && runs_it =>
        {
            match &mut *init.expr {
                Expr::Async(body) => Some(body),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Whether code has an identifier or keyword, at any depth.
fn has_word(code: TokenStream, word: &str) -> bool {
    code.into_iter().any(|token| match token {
        TokenTree::Ident(found) => found == word,
        TokenTree::Group(group) => has_word(group.stream(), word),
        _ => false,
    })
}

/// Looks for an `.await` that belongs to the code itself.
struct Awaits {
    exist: bool,
}

impl<'ast> Visit<'ast> for Awaits {
    fn visit_expr_await(&mut self, _: &'ast ExprAwait) {
        self.exist = true;
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.exist |= has_word(call.tokens.clone(), "await");
        visit::visit_macro(self, call);
    }

    fn visit_expr_async(&mut self, _: &'ast ExprAsync) {}

    fn visit_expr_closure(&mut self, _: &'ast ExprClosure) {}

    fn visit_item(&mut self, _: &'ast Item) {}
}
