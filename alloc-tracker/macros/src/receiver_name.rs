//! Another name for `self` in the body of a method that takes `self` by value. Only a value with a
//! name of its own can be moved into a local, to be freed before the method is over. In: the body.
//! Out: the same with the other name, or unchanged if the replacement could be noticed somewhere.

use proc_macro2::{Group, Literal, Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::visit_mut::{self, VisitMut};
use syn::{Block, Expr, ExprPath, Ident, Item, Macro};

/// Replaces `self` everywhere in the body. Returns false, and changes nothing, if that cannot be
/// done. `arguments` are the arguments of the method, whose names the body may use.
pub(crate) fn replace(body: &mut Block, arguments: &impl ToTokens) -> bool {
    if mentions_name(arguments.to_token_stream()) || mentions_name(body.to_token_stream()) {
        return false;
    }
    let mut replaced = body.clone();
    let mut replacer = SelfReplacer { possible: true };
    replacer.visit_block_mut(&mut replaced);
    if replacer.possible {
        *body = replaced;
    }
    replacer.possible
}

/// Returns the other name with the span of a `self`, so that messages about it point there.
///
/// The name has the hygiene of the user's code, because format strings must be able to refer to it.
/// It begins with underscores, because lints report neither an unused `self` nor a value that is
/// assigned to `self` and never read.
pub(crate) fn name_at(span: Span) -> Ident {
    Ident::new(NAME, span)
}

const NAME: &str = "__self_value";

/// Whether the name is in some code already.
fn mentions_name(code: TokenStream) -> bool {
    code.into_iter().any(|token| match token {
        TokenTree::Group(group) => mentions_name(group.stream()),
        other => other.to_string().contains(NAME),
    })
}

/// Macros of the standard library that do not show how their arguments are written. With each, the
/// index of the argument that is a format string and may contain names.
const MACROS: [(&str, Option<usize>); 20] = [
    ("vec", None),
    ("matches", None),
    ("format", Some(0)),
    ("format_args", Some(0)),
    ("print", Some(0)),
    ("println", Some(0)),
    ("eprint", Some(0)),
    ("eprintln", Some(0)),
    ("todo", Some(0)),
    ("unimplemented", Some(0)),
    // Their format strings may not contain names before Rust 2021.
    ("panic", None),
    ("unreachable", None),
    ("write", Some(1)),
    ("writeln", Some(1)),
    // These show their condition, unless they have a format string.
    (ASSERTS[0], None),
    (ASSERTS[1], None),
    ("assert_eq", Some(2)),
    ("assert_ne", Some(2)),
    ("debug_assert_eq", Some(2)),
    ("debug_assert_ne", Some(2)),
];
const ASSERTS: [&str; 2] = ["assert", "debug_assert"];

struct SelfReplacer {
    /// Whether every `self` so far could be replaced.
    possible: bool,
}

impl SelfReplacer {
    /// Replaces `self` in the arguments of a macro where the macro cannot show the difference.
    fn replace_in_macro(&mut self, name: &str, arguments: TokenStream) -> TokenStream {
        if !mentions_self(arguments.clone()) {
            return arguments;
        }
        let known = MACROS.iter().find(|(known, _)| *known == name && !has_items(arguments.clone()));
        let has_format_string = || tokens_after_first_comma(arguments.clone()) > 0;
        match known {
            Some((_, format_string)) if !ASSERTS.contains(&name) || has_format_string() => {
                self.replace_in_tokens(arguments, *format_string)
            }
            _ => {
                self.possible = false;
                arguments
            }
        }
    }

    /// Replaces `self` in tokens. `format_string` is the index of the argument that is one.
    fn replace_in_tokens(&mut self, tokens: TokenStream, format_string: Option<usize>) -> TokenStream {
        let mut tokens = tokens.into_iter().peekable();
        let mut replaced: Vec<TokenTree> = Vec::new();
        let (mut argument, mut is_first_token) = (0, true);
        while let Some(token) = tokens.next() {
            let followed_by_colon =
                matches!(tokens.peek(), Some(TokenTree::Punct(next)) if next.as_char() == ':');
            let is_format_string = is_first_token && format_string == Some(argument);
            is_first_token = matches!(&token, TokenTree::Punct(comma) if comma.as_char() == ',');
            argument += usize::from(is_first_token);
            let token = match token {
                // `self::name` is a path.
                TokenTree::Ident(ident) if ident == "self" && !followed_by_colon => {
                    name_at(ident.span()).into()
                }
                TokenTree::Group(group) => {
                    let stream = match &replaced[..] {
                        [.., TokenTree::Ident(name), TokenTree::Punct(call)] if call.as_char() == '!' => {
                            self.replace_in_macro(&name.to_string(), group.stream())
                        }
                        _ => self.replace_in_tokens(group.stream(), None),
                    };
                    let mut inner = Group::new(group.delimiter(), stream);
                    inner.set_span(group.span());
                    inner.into()
                }
                TokenTree::Literal(literal) if captures_self(&literal) => {
                    match replace_in_format_string(&literal).filter(|_| is_format_string) {
                        Some(replaced) => replaced.into(),
                        None => {
                            self.possible = false;
                            literal.into()
                        }
                    }
                }
                other => other,
            };
            replaced.push(token);
        }
        replaced.into_iter().collect()
    }
}

/// Whether tokens contain `self` as a value.
fn mentions_self(tokens: TokenStream) -> bool {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let is_self = match &token {
            TokenTree::Ident(ident) => {
                ident == "self"
                    && !matches!(tokens.peek(), Some(TokenTree::Punct(next)) if next.as_char() == ':')
            }
            TokenTree::Group(group) => mentions_self(group.stream()),
            TokenTree::Literal(literal) => captures_self(literal),
            TokenTree::Punct(_) => false,
        };
        if is_self {
            return true;
        }
    }
    false
}

/// Whether tokens may contain functions, which have a `self` of their own.
fn has_items(tokens: TokenStream) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => ident == "fn",
        TokenTree::Group(group) => has_items(group.stream()),
        _ => false,
    })
}

/// Whether a literal, taken as a format string, may contain `self` as a name.
fn captures_self(literal: &Literal) -> bool {
    literal.to_string().contains("{self")
}

/// Counts the tokens behind the first comma.
fn tokens_after_first_comma(tokens: TokenStream) -> usize {
    let is_comma = |token: &TokenTree| matches!(token, TokenTree::Punct(comma) if comma.as_char() == ',');
    tokens.into_iter().skip_while(|token| !is_comma(token)).skip(1).count()
}

/// Returns a format string with the other name in the place of `self`.
fn replace_in_format_string(literal: &Literal) -> Option<Literal> {
    let source = literal.to_string();
    let mut replaced = String::new();
    let mut rest = &*source;
    while let Some(brace) = rest.find('{') {
        let (before, from) = rest.split_at(brace);
        replaced.push_str(before);
        let after_self =
            from.strip_prefix("{self").map(str::trim_start).filter(|after| after.starts_with(['}', ':']));
        (replaced, rest) = match (from.strip_prefix("{{"), after_self) {
            (Some(after), _) => (replaced + "{{", after),
            (None, Some(after)) => (replaced + "{" + NAME, after),
            (None, None) => (replaced + "{", &from[1..]),
        };
    }
    let mut replaced: Literal = (replaced + rest).parse().ok()?;
    replaced.set_span(literal.span());
    Some(replaced)
}

impl VisitMut for SelfReplacer {
    fn visit_expr_path_mut(&mut self, path: &mut ExprPath) {
        if path.path.is_ident("self")
            && let Some(segment) = path.path.segments.first_mut()
        {
            segment.ident = name_at(segment.ident.span());
        }
    }

    fn visit_macro_mut(&mut self, call: &mut Macro) {
        let name = call.path.get_ident().map(Ident::to_string).unwrap_or_default();
        call.tokens = self.replace_in_macro(&name, std::mem::take(&mut call.tokens));
    }

    fn visit_expr_mut(&mut self, value: &mut Expr) {
        match value {
            Expr::Verbatim(_) => self.possible = false,
            other => visit_mut::visit_expr_mut(self, other),
        }
    }

    fn visit_item_mut(&mut self, item: &mut Item) {
        // Items have a `self` of their own. A macro that is defined here has the method's.
        self.possible &= !matches!(item, Item::Macro(_) | Item::Verbatim(_));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quote::quote;
    use syn::parse_quote;

    #[test]
    fn every_use_of_the_value_is_replaced_and_nothing_else() {
        let mut body: Block = parse_quote!({
            use self::inner::Item;
            fn other(item: &Item) -> usize {
                item.len()
            }
            impl Item {
                fn twice(&self) -> usize {
                    self.len() * 2
                }
            }
            println!("{} {}", self.name, self::inner::count(&[self.count]));
            assert!(self.count > 0, "{}", vec![self.count].len());
            write!(out, "{self} {{self}} {self:>8} {selfish}", selfish = self.count);
            let add = |more| self.count + more;
            Self { name: self.name, ..self }
        });
        assert!(replace(&mut body, &quote!(self)));
        let expected: Block = parse_quote!({
            use self::inner::Item;
            fn other(item: &Item) -> usize {
                item.len()
            }
            impl Item {
                fn twice(&self) -> usize {
                    self.len() * 2
                }
            }
            println!("{} {}", __self_value.name, self::inner::count(&[__self_value.count]));
            assert!(__self_value.count > 0, "{}", vec![__self_value.count].len());
            write!(out, "{__self_value} {{self}} {__self_value:>8} {selfish}", selfish = __self_value.count);
            let add = |more| __self_value.count + more;
            Self { name: __self_value.name, ..__self_value }
        });
        assert_eq!(body.to_token_stream().to_string(), expected.to_token_stream().to_string());
    }

    #[test]
    fn a_body_in_which_one_use_cannot_be_replaced_stays_as_it_is() {
        let bodies: [Block; 9] = [
            // The macro shows its argument, or may give `self` another meaning.
            parse_quote!({ assert!(self.a) }),
            parse_quote!({ format!("{}", dbg!(self.a)) }),
            parse_quote!({ quote!(self.a) }),
            parse_quote!({ vec![stringify!(self)] }),
            // The other name is in use.
            parse_quote!({ self.a + __self_value }),
            parse_quote!({ format!("{__self_value} {}", self.a) }),
            // The literal may or may not be a format string, or the macro is not known.
            parse_quote!({
                drop(self.a);
                logs!("{self:?}")
            }),
            parse_quote!({ format!("{}", "{self}") }),
            // A macro that is defined in the method has its `self`.
            parse_quote!({
                macro_rules! own {
                    () => {
                        self.a
                    };
                }
                own!()
            }),
        ];
        for mut body in bodies {
            let before = body.to_token_stream().to_string();
            assert!(!replace(&mut body, &quote!(self)));
            assert_eq!(body.to_token_stream().to_string(), before);
        }
    }
}
