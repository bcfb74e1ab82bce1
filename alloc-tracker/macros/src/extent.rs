//! Spans of what the attribute makes. In: code of the user's. Out: where it is, and probes that look as if they stood there.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, quote_spanned};
use syn::{Expr, Ident};

/// What `annotate` calls the function's static.
pub(crate) const FUNCTION: &str = "__ALLOC_TRACKER_FUNCTION";

/// Where code begins and ends.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    /// Its first token.
    pub(crate) first: Span,
    /// Its last token.
    pub(crate) last: Span,
}

impl Extent {
    pub(crate) fn of(code: &impl ToTokens) -> Extent {
        let mut tokens = code.to_token_stream().into_iter();
        let first = tokens.next();
        let last = tokens.last().or_else(|| first.clone());
        let open = |token| match token {
            TokenTree::Group(group) => group.span_open(),
            other => other.span(),
        };
        let close = |token| match token {
            TokenTree::Group(group) => group.span_close(),
            other => other.span(),
        };
        Extent { first: first.map_or_else(site, open), last: last.map_or_else(site, close) }
    }

    /// A call of one of the function's methods.
    ///
    /// NOTE: it has the extent of the code, and its ends look as if no macro had made them. Where code cannot be reached the compiler
    /// says so of the probe that it meets first, and would speak of the macro; `#[track_caller]` would tell where the macro is called.
    pub(crate) fn call(self, method: &str, arguments: TokenStream) -> TokenStream {
        let (function, method) = (Ident::new(FUNCTION, self.first), Ident::new(method, self.first));
        let arguments = quote_spanned!(self.last=> (#arguments));
        quote_spanned!(site_at(self.first)=> #function.#method #arguments)
    }

    pub(crate) fn line(self) -> u32 {
        self.first.start().line as u32
    }
}

/// An expression without the parentheses around it, which an argument does not need.
pub(crate) fn bare(value: &Expr) -> &Expr {
    match value {
        Expr::Paren(inner) if inner.attrs.is_empty() => bare(&inner.expr),
        other => other,
    }
}

pub(crate) fn site() -> Span {
    Span::mixed_site()
}

/// The same for what stands beside the user's code: what the compiler says of it, it says there.
pub(crate) fn site_at(code: Span) -> Span {
    site().located_at(code)
}
