//! Which functions are written in a source file, and what makes others. In: text, which is not trusted. Out: their lines; none if
//! it does not parse, or nests too deep to be parsed.

use syn::spanned::Spanned;
use syn::visit::Visit;

/// Where a function stands: the line of its signature to the line of its closing brace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name, without path.
    pub name: String,
    /// The line of its first attribute; without any, its first line.
    pub(super) begin: u32,
    /// First line, from 1.
    pub start: u32,
    /// Last line.
    pub end: u32,
}

/// What is written in a file.
#[derive(Default)]
pub(super) struct Written {
    pub(super) functions: Vec<Function>,
    /// First and last lines of what functions come from that are not written out.
    pub(super) generating: Vec<(u32, u32)>,
}

impl Written {
    /// Of a text whose length the caller has bounded. Parses on a stack of its own: chains of calls and of operators nest in what the
    /// parser makes of them, without any bracket. What is not used of it is not there.
    pub(super) fn in_text(text: &str) -> Written {
        if nesting(text) > MAX_NESTING {
            return Written::default();
        }
        let parse = || {
            let mut written = Written::default();
            if let Ok(file) = syn::parse_file(text) {
                written.visit_file(&file);
            }
            written
        };
        let links = text.bytes().filter(|byte| b"<&*!-|.+/%^=?".contains(byte)).count();
        let stack = PARSER_STACK + links * STACK_OF_A_LINK;
        std::thread::scope(|scope| {
            let parser = std::thread::Builder::new().stack_size(stack).spawn_scoped(scope, parse);
            parser.ok().and_then(|parser| parser.join().ok()).unwrap_or_default()
        })
    }
}

const PARSER_STACK: usize = 16 << 20;
/// What parsing, walking and dropping take for each link of a chain, with room to spare.
const STACK_OF_A_LINK: usize = 4 << 10;
/// A parser that calls itself must not be led to the end of its stack.
const MAX_NESTING: usize = 256;

/// The deepest nesting of brackets and of operators that nest without any (`&&&x`, `!!x`, `a<a<a<…`). What stands in
/// strings and comments counts too, which can only make it refuse.
fn nesting(text: &str) -> usize {
    let (mut depth, mut deepest, mut unclosed) = (0usize, 0, 0usize);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b'<' | b'&' | b'*' | b'!' | b'-' | b'|' => unclosed += 1,
            b';' | b',' | b'\n' => unclosed = 0,
            _ => {}
        }
        deepest = deepest.max(depth + unclosed);
    }
    deepest
}

impl Written {
    fn add(
        &mut self,
        name: &syn::Ident,
        attributes: &[syn::Attribute],
        head: proc_macro2::Span,
        block: &syn::Block,
    ) {
        let (start, end) = (head.start().line as u32, block.brace_token.span.close().end().line as u32);
        let begin = attributes.first().map_or(start, |attribute| attribute.span().start().line as u32);
        self.functions.push(Function { name: name.to_string(), begin, start, end });
    }

    fn generates(&mut self, tokens: &impl Spanned) {
        let span = tokens.span();
        self.generating.push((span.start().line as u32, span.end().line as u32));
    }
}

impl<'ast> Visit<'ast> for Written {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.add(&item.sig.ident, &item.attrs, first_span(&item.vis, &item.sig), &item.block);
        syn::visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.add(&item.sig.ident, &item.attrs, first_span(&item.vis, &item.sig), &item.block);
        syn::visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.add(&item.sig.ident, &item.attrs, item.sig.span(), block);
        }
        syn::visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.generates(item);
        syn::visit::visit_item_struct(self, item);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.generates(item);
        syn::visit::visit_item_enum(self, item);
    }

    fn visit_item_union(&mut self, item: &'ast syn::ItemUnion) {
        self.generates(item);
        syn::visit::visit_item_union(self, item);
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        self.generates(attribute);
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        self.generates(called);
    }

    fn visit_item_macro(&mut self, item: &'ast syn::ItemMacro) {
        self.generates(item);
        syn::visit::visit_item_macro(self, item);
    }
}

fn first_span(visibility: &syn::Visibility, signature: &syn::Signature) -> proc_macro2::Span {
    match visibility {
        syn::Visibility::Inherited => signature.span(),
        written => written.span(),
    }
}
