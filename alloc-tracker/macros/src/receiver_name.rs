//! Another name for `self` in the body of a method that takes it by value: only what has a name of its own can be moved into a
//! local, to be freed before the method is over. In: the body. Out: the same with the name, unless `self` is used where it cannot
//! be replaced without anybody noticing.

use proc_macro2::{Group, Literal, Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::visit_mut::{self, VisitMut};
use syn::{Block, Expr, ExprPath, Ident, Item, Macro};

/// Replaces `self` everywhere in the body; false if that cannot be, and then it is what it was. `arguments` may have names that
/// the body uses.
pub(crate) fn replace(body: &mut Block, arguments: &impl ToTokens) -> bool {
    if is_taken(arguments.to_token_stream()) || is_taken(body.to_token_stream()) {
        return false;
    }
    let mut replaced = body.clone();
    let mut names = Names { possible: true };
    names.visit_block_mut(&mut replaced);
    if names.possible {
        *body = replaced;
    }
    names.possible
}

/// The name, for messages about this place. As if it stood there: texts can name it. With underscores: nobody minds a `self` that is
/// not used, or that gets a value which nobody reads.
pub(crate) fn at(place: Span) -> Ident {
    Ident::new(NAME, place)
}

const NAME: &str = "__self_value";

/// Whether somebody uses the name for something else.
fn is_taken(code: TokenStream) -> bool {
    code.into_iter().any(|token| match token {
        TokenTree::Group(group) => is_taken(group.stream()),
        other => other.to_string().contains(NAME),
    })
}

/// Macros of the standard library that do not show how their arguments are written, and which argument is a text with names in it.
const DISCREET: [(&str, Option<usize>); 20] = [
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
    // Until Rust 2021 their text may have no names in it.
    ("panic", None),
    ("unreachable", None),
    ("write", Some(1)),
    ("writeln", Some(1)),
    // These do, if they have no text.
    (ASSERTS[0], None),
    (ASSERTS[1], None),
    ("assert_eq", Some(2)),
    ("assert_ne", Some(2)),
    ("debug_assert_eq", Some(2)),
    ("debug_assert_ne", Some(2)),
];
const ASSERTS: [&str; 2] = ["assert", "debug_assert"];

struct Names {
    possible: bool,
}

impl Names {
    /// What a macro of this name gets, with the other name where that cannot be noticed.
    fn arguments(&mut self, of: &str, arguments: TokenStream) -> TokenStream {
        if !mentions_self(arguments.clone()) {
            return arguments;
        }
        let discreet = DISCREET.iter().find(|(name, _)| *name == of && !has_items(arguments.clone()));
        let has_text = || behind_first_argument(arguments.clone()) > 0;
        match discreet {
            Some((_, text)) if !ASSERTS.contains(&of) || has_text() => self.tokens(arguments, *text),
            _ => {
                self.possible = false;
                arguments
            }
        }
    }

    fn tokens(&mut self, tokens: TokenStream, text: Option<usize>) -> TokenStream {
        let mut tokens = tokens.into_iter().peekable();
        let mut replaced: Vec<TokenTree> = Vec::new();
        // The argument, from its first token on.
        let (mut argument, mut begins) = (0, true);
        while let Some(token) = tokens.next() {
            let followed_by_colon =
                matches!(tokens.peek(), Some(TokenTree::Punct(next)) if next.as_char() == ':');
            let is_text = begins && text == Some(argument);
            begins = matches!(&token, TokenTree::Punct(comma) if comma.as_char() == ',');
            argument += usize::from(begins);
            let token = match token {
                // `self::name` is a path.
                TokenTree::Ident(ident) if ident == "self" && !followed_by_colon => at(ident.span()).into(),
                TokenTree::Group(group) => {
                    let stream = match &replaced[..] {
                        [.., TokenTree::Ident(of), TokenTree::Punct(call)] if call.as_char() == '!' => {
                            self.arguments(&of.to_string(), group.stream())
                        }
                        _ => self.tokens(group.stream(), None),
                    };
                    let mut inner = Group::new(group.delimiter(), stream);
                    inner.set_span(group.span());
                    inner.into()
                }
                TokenTree::Literal(literal) if names_self(&literal) => {
                    match renamed(&literal).filter(|_| is_text) {
                        Some(renamed) => renamed.into(),
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

/// Whether `self`, the value, is among these.
fn mentions_self(tokens: TokenStream) -> bool {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let found = match &token {
            TokenTree::Ident(ident) => {
                ident == "self"
                    && !matches!(tokens.peek(), Some(TokenTree::Punct(next)) if next.as_char() == ':')
            }
            TokenTree::Group(group) => mentions_self(group.stream()),
            TokenTree::Literal(literal) => names_self(literal),
            TokenTree::Punct(_) => false,
        };
        if found {
            return true;
        }
    }
    false
}

/// Whether there may be functions among these, with a `self` of their own.
fn has_items(tokens: TokenStream) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => ident == "fn",
        TokenTree::Group(group) => has_items(group.stream()),
        _ => false,
    })
}

fn names_self(literal: &Literal) -> bool {
    literal.to_string().contains("{self")
}

/// How many tokens stand behind the first comma.
fn behind_first_argument(tokens: TokenStream) -> usize {
    let is_comma = |token: &TokenTree| matches!(token, TokenTree::Punct(comma) if comma.as_char() == ',');
    tokens.into_iter().skip_while(|token| !is_comma(token)).skip(1).count()
}

/// The same text with the other name in it.
fn renamed(text: &Literal) -> Option<Literal> {
    let written = text.to_string();
    let mut made = String::new();
    let mut rest = &*written;
    while let Some(at) = rest.find('{') {
        let (before, from) = rest.split_at(at);
        made.push_str(before);
        let named =
            from.strip_prefix("{self").map(str::trim_start).filter(|after| after.starts_with(['}', ':']));
        (made, rest) = match (from.strip_prefix("{{"), named) {
            (Some(after), _) => (made + "{{", after),
            (None, Some(after)) => (made + "{" + NAME, after),
            (None, None) => (made + "{", &from[1..]),
        };
    }
    let mut made: Literal = (made + rest).parse().ok()?;
    made.set_span(text.span());
    Some(made)
}

impl VisitMut for Names {
    fn visit_expr_path_mut(&mut self, path: &mut ExprPath) {
        if path.path.is_ident("self")
            && let Some(segment) = path.path.segments.first_mut()
        {
            segment.ident = at(segment.ident.span());
        }
    }

    fn visit_macro_mut(&mut self, call: &mut Macro) {
        let of = call.path.get_ident().map(Ident::to_string).unwrap_or_default();
        call.tokens = self.arguments(&of, std::mem::take(&mut call.tokens));
    }

    fn visit_expr_mut(&mut self, value: &mut Expr) {
        match value {
            Expr::Verbatim(_) => self.possible = false,
            other => visit_mut::visit_expr_mut(self, other),
        }
    }

    fn visit_item_mut(&mut self, item: &mut Item) {
        // Items have a `self` of their own, but for macros, which have that of where they are called.
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
            use self::inner::Thing;
            fn other(of: &Thing) -> usize {
                of.len()
            }
            impl Thing {
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
            use self::inner::Thing;
            fn other(of: &Thing) -> usize {
                of.len()
            }
            impl Thing {
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
    fn where_a_name_cannot_be_replaced_nothing_is() {
        let bodies: [Block; 9] = [
            // They show it, or may take it for something else.
            parse_quote!({ assert!(self.a) }),
            parse_quote!({ format!("{}", dbg!(self.a)) }),
            parse_quote!({ quote!(self.a) }),
            parse_quote!({ vec![stringify!(self)] }),
            // It is something else.
            parse_quote!({ self.a + __self_value }),
            parse_quote!({ format!("{__self_value} {}", self.a) }),
            // It may or may not be a text with names in it.
            parse_quote!({
                drop(self.a);
                logs!("{self:?}")
            }),
            parse_quote!({ format!("{}", "{self}") }),
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
