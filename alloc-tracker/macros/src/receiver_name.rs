//! Another name for `self` in the body of a method that takes it by value: only what has a name of its own can be moved into a
//! local, to be freed before the method is over. In: the body. Out: the same with the name, unless `self` is used where it cannot
//! be replaced.

use proc_macro2::{Group, Literal, Span, TokenStream, TokenTree};
use syn::visit_mut::{self, VisitMut};
use syn::{Block, Expr, ExprPath, Ident, Item, Macro, Path};

/// Replaces `self` everywhere in the body; false if that cannot be, and then it is what it was.
pub(crate) fn replace(body: &mut Block) -> bool {
    let mut replaced = body.clone();
    let mut names = Names { possible: true };
    names.visit_block_mut(&mut replaced);
    if names.possible {
        *body = replaced;
    }
    names.possible
}

/// The name, for messages about this place. As if it stood there: texts can name it, and lints see it.
pub(crate) fn at(place: Span) -> Ident {
    Ident::new(NAME, place)
}

const NAME: &str = "self_value";

struct Names {
    possible: bool,
}

impl Names {
    /// What a macro gets: there is no telling what it makes of it, but a name is a name. `text` is the argument that is a text with
    /// names in it.
    fn tokens(&mut self, tokens: TokenStream, text: Option<usize>) -> TokenStream {
        let mut tokens = tokens.into_iter().peekable();
        let mut replaced = Vec::new();
        // The argument, from its first token on.
        let (mut argument, mut begins) = (0, true);
        while let Some(token) = tokens.next() {
            let followed_by_colon =
                matches!(tokens.peek(), Some(TokenTree::Punct(next)) if next.as_char() == ':');
            let is_text = begins && text == Some(argument);
            begins = matches!(&token, TokenTree::Punct(comma) if comma.as_char() == ',');
            argument += usize::from(begins);
            replaced.push(match token {
                // `self::name` is a path.
                TokenTree::Ident(ident) if ident == "self" && !followed_by_colon => at(ident.span()).into(),
                TokenTree::Group(group) => {
                    let mut inner = Group::new(group.delimiter(), self.tokens(group.stream(), None));
                    inner.set_span(group.span());
                    inner.into()
                }
                TokenTree::Literal(literal) if literal.to_string().contains("{self") => {
                    match renamed(&literal).filter(|_| is_text) {
                        Some(renamed) => renamed.into(),
                        None => {
                            self.possible = false;
                            literal.into()
                        }
                    }
                }
                other => other,
            });
        }
        replaced.into_iter().collect()
    }
}

/// Which argument of a macro of the standard library is a text with names in it.
fn text_of(path: &Path) -> Option<usize> {
    const TEXTS: [(&str, usize); 18] = [
        ("format", 0),
        ("format_args", 0),
        ("print", 0),
        ("println", 0),
        ("eprint", 0),
        ("eprintln", 0),
        ("panic", 0),
        ("todo", 0),
        ("unimplemented", 0),
        ("unreachable", 0),
        ("write", 1),
        ("writeln", 1),
        ("assert", 1),
        ("debug_assert", 1),
        ("assert_eq", 2),
        ("assert_ne", 2),
        ("debug_assert_eq", 2),
        ("debug_assert_ne", 2),
    ];
    TEXTS.iter().find(|(name, _)| path.is_ident(name)).map(|(_, at)| *at)
}

/// The same text with the other name in it.
fn renamed(text: &Literal) -> Option<Literal> {
    let written = text.to_string();
    let mut made = String::new();
    let mut rest = &*written;
    while let Some(at) = rest.find('{') {
        let (before, from) = rest.split_at(at);
        made.push_str(before);
        let named = from.strip_prefix("{self").filter(|after| after.starts_with(['}', ':']));
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
        call.tokens = self.tokens(std::mem::take(&mut call.tokens), text_of(&call.path));
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
    use quote::ToTokens;
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
            write!(out, "{self} {{self}} {self:>8} {selfish}", selfish = self.count);
            let add = |more| self.count + more;
            Self { name: self.name, ..self }
        });
        assert!(replace(&mut body));
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
            println!("{} {}", self_value.name, self::inner::count(&[self_value.count]));
            write!(out, "{self_value} {{self}} {self_value:>8} {selfish}", selfish = self_value.count);
            let add = |more| self_value.count + more;
            Self { name: self_value.name, ..self_value }
        });
        assert_eq!(body.to_token_stream().to_string(), expected.to_token_stream().to_string());
    }

    #[test]
    fn where_a_name_cannot_be_replaced_nothing_is() {
        let bodies: [Block; 3] = [
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
            assert!(!replace(&mut body));
            assert_eq!(body.to_token_stream().to_string(), before);
        }
    }
}
