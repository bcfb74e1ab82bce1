//! Another name for `self` in the body of a method that takes it by value: only what has a name of its own can be moved into a
//! local, to be freed before the method is over. In: the body. Out: the same with the name, unless `self` is used where it cannot
//! be replaced.

use proc_macro2::{Group, Span, TokenStream, TokenTree};
use syn::visit_mut::{self, VisitMut};
use syn::{Block, Expr, ExprPath, Ident, Item, Macro};

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

/// The name, for messages about this place.
pub(crate) fn at(place: Span) -> Ident {
    Ident::new("this", Span::mixed_site().located_at(place))
}

struct Names {
    possible: bool,
}

impl Names {
    /// What a macro gets: there is no telling what it makes of it, but a name is a name.
    fn tokens(&mut self, tokens: TokenStream) -> TokenStream {
        let mut tokens = tokens.into_iter().peekable();
        let mut replaced = Vec::new();
        while let Some(token) = tokens.next() {
            let followed_by_colon =
                matches!(tokens.peek(), Some(TokenTree::Punct(next)) if next.as_char() == ':');
            replaced.push(match token {
                // `self::name` is a path.
                TokenTree::Ident(ident) if ident == "self" && !followed_by_colon => at(ident.span()).into(),
                TokenTree::Group(group) => {
                    let mut inner = Group::new(group.delimiter(), self.tokens(group.stream()));
                    inner.set_span(group.span());
                    inner.into()
                }
                TokenTree::Literal(literal) => {
                    // Of a formatted text: there the name cannot have the place that it must have.
                    self.possible &= !literal.to_string().contains("{self");
                    literal.into()
                }
                other => other,
            });
        }
        replaced.into_iter().collect()
    }
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
        call.tokens = self.tokens(std::mem::take(&mut call.tokens));
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
            println!("{} {}", this.name, self::inner::count(&[this.count]));
            let add = |more| this.count + more;
            Self { name: this.name, ..this }
        });
        assert_eq!(body.to_token_stream().to_string(), expected.to_token_stream().to_string());
    }

    #[test]
    fn where_a_name_cannot_be_replaced_nothing_is() {
        let bodies: [Block; 2] = [
            parse_quote!({
                drop(self.a);
                format!("{self:?}")
            }),
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
