//! Spans of the tokens that the attribute makes. In: code of the user's. Out: where that code
//! begins and ends, and probes that the compiler reports as if they stood there.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, quote_spanned};
use syn::{Expr, Ident};

/// Name of the static that describes an annotated function to the recorder; every probe is a call
/// of one of its methods.
pub(crate) const FUNCTION: &str = "__ALLOC_TRACKER_FUNCTION";

/// Where a piece of code begins and ends.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    /// Span of the first token.
    pub(crate) first: Span,
    /// Span of the last token.
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
        Extent { first: first.map_or_else(hygienic_span, open), last: last.map_or_else(hygienic_span, close) }
    }

    /// Returns a probe: a call of one of the methods of [`FUNCTION`].
    ///
    /// NOTE: the call has the extent of the code, and its ends look as if no macro had made them.
    /// Two messages depend on this. Where code is unreachable, the compiler reports the first probe
    /// there, and would otherwise blame the macro. `#[track_caller]` would otherwise report the
    /// line of the attribute.
    pub(crate) fn probe(self, method: &str, arguments: TokenStream) -> TokenStream {
        let (function, method) = (Ident::new(FUNCTION, self.first), Ident::new(method, self.first));
        let arguments = quote_spanned!(self.last=> (#arguments));
        quote_spanned!(hygienic_span_at(self.first)=> #function.#method #arguments)
    }

    /// Returns the line on which the code begins.
    pub(crate) fn first_line(self) -> u32 {
        self.first.start().line as u32
    }
}

/// Returns the expression without the parentheses around it, which an argument does not need.
pub(crate) fn without_parentheses(value: &Expr) -> &Expr {
    match value {
        Expr::Paren(inner) if inner.attrs.is_empty() => without_parentheses(&inner.expr),
        other => other,
    }
}

/// Returns a span whose local names are hidden from the user's code.
pub(crate) fn hygienic_span() -> Span {
    Span::mixed_site()
}

/// Returns a span whose local names are hidden from the user's code, located at a token of that
/// code: the compiler reports problems with the made tokens there.
pub(crate) fn hygienic_span_at(code: Span) -> Span {
    hygienic_span().located_at(code)
}

/// Returns the line on which a token ends. For a brace that another macro has made again, this is
/// the line of the whole block.
pub(crate) fn last_line(token: Span) -> u32 {
    token.end().line as u32
}
